// Follows a worker's teams over HTTP and never believes more than it knows.
//
//   GET /api/teams   all teams, and the place in /events from which on they change
//   GET /events      every event after that place, as server-sent events
//
// The rules, which hold for any subscriber (AMQP, Web STOMP) as well:
//   1. read the state first, then the events from the place that it names;
//   2. an event whose `sequence` is not above the team's is old: drop it; of a team that
//      was destroyed, the number of its end stays known, and a new one has higher ones;
//   3. an event whose `prevsequence` is not the team's sequence shows that one was
//      missed: the team is unknown until it has been read again;
//   4. `gap`, or another `boot` in `hello`, shows that nobody knows what was missed:
//      read everything again;
//   5. while nothing is heard, what is shown is old, and says so.
//
// fetch() instead of EventSource, which cannot send a token.

const SILENCE_MAX = 40_000; // the worker says something every 15 s
const WAIT_MIN = 500;
const WAIT_MAX = 10_000;
const READ_AGAIN = 300;
const ENDED_MAX = 1000; // teams whose end is remembered

export class Subscriber {
  /** `changed` is called after anything that is shown may differ. */
  constructor({ url, token, changed, fetch: ask = globalThis.fetch.bind(globalThis) }) {
    Object.assign(this, { url, token, changed, ask });
    this.teams = new Map();
    this.connected = false;
    this.heard = 0;
    this.place = null;
    this.boot = null;
    this.problem = null;
    this.rereading = new Set();
    this.ended = new Map(); // team to the sequence of its end
  }

  /** Follows until `stop()`. */
  async run() {
    this.aborter = new AbortController();
    let wait = WAIT_MIN;
    while (!this.aborter.signal.aborted) {
      try {
        if (this.place === null) await this.readAll();
        await this.follow(() => { wait = WAIT_MIN; });
        this.problem = "the worker ended the stream";
      } catch (error) {
        this.problem = String(error.message || error);
      }
      this.connected = false;
      this.changed();
      // Not all dashboards at once when a worker comes back.
      await pause(wait * (0.5 + Math.random()), this.aborter.signal);
      wait = Math.min(WAIT_MAX, wait * 2);
    }
  }

  stop() {
    this.aborter.abort();
  }

  /** Whether what is shown is what is. */
  get current() {
    return this.connected && this.place !== null;
  }

  async json(path) {
    const answer = await this.ask(this.url + path, {
      headers: { authorization: `Bearer ${this.token}` },
      signal: AbortSignal.any([this.aborter.signal, AbortSignal.timeout(10_000)]),
    });
    if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
    return answer.json();
  }

  async readAll() {
    const { teams, events } = await this.json("/api/teams");
    const live = teams.filter((team) => team.state !== "destroyed");
    this.teams = new Map(live.map((team) => [team.team, known(team)]));
    for (const { team } of live) this.ended.delete(team);
    this.place = events;
    this.changed();
  }

  async follow(opened) {
    const silence = new AbortController();
    this.heard = Date.now();
    // By the clock on the wall, which goes on while a machine sleeps, as timers do not. One
    // that was set costs a new connection.
    const timer = setInterval(() => {
      const quiet = Math.abs(Date.now() - this.heard) > SILENCE_MAX;
      if (quiet) silence.abort(new Error("nothing was heard"));
    }, 1000);
    try {
      const headers = { authorization: `Bearer ${this.token}` };
      if (this.place) headers["last-event-id"] = this.place;
      const answer = await this.ask(`${this.url}/events`, {
        headers, cache: "no-store", signal: AbortSignal.any([this.aborter.signal, silence.signal]),
      });
      if (!answer.ok) throw new Error(`/events: ${answer.status}`);
      opened();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        this.heard = Date.now();
        text += value;
        for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
          await this.message(text.slice(0, end));
        }
      }
    } finally {
      clearInterval(timer);
    }
  }

  async message(block) {
    const field = { event: "message", data: "", id: null };
    for (const line of block.split("\n")) {
      // Not by a pattern: for "." in one, U+2028 ends a line, and JSON may hold it.
      const colon = line.indexOf(": ");
      const name = line.slice(0, colon);
      if (colon > 0 && name in field) field[name] = line.slice(colon + 2);
    }
    if (field.event === "hello") {
      const { boot } = JSON.parse(field.data);
      // Another process of the worker: its places are not ours.
      if (this.boot !== null && this.boot !== boot) await this.begin();
      this.boot = boot;
      this.connected = true;
      this.problem = null;
    } else if (field.event === "gap") {
      await this.begin();
    } else if (field.data) {
      this.take(JSON.parse(field.data));
    }
    if (field.id) this.place = field.id;
    this.changed();
  }

  /** Whatever was known may be wrong by now. */
  async begin() {
    for (const team of this.teams.values()) team.unsure = true;
    this.changed();
    await this.readAll();
  }

  take(event) {
    const { sequence, prevsequence, subject } = event;
    if (!sequence || !subject || !event.type || event.type.startsWith("covibes.host.")) return;
    const end = this.ended.get(subject);
    if (end !== undefined && !this.teams.has(subject)) {
      // A last word about a team that is gone; a new one of its name begins with a job.
      if (sequence <= end) return;
      if (LAST_WORDS.test(event.type)) return this.forget(subject, sequence);
    }
    // Of a team that is new here, or was destroyed just now, an event alone says too little.
    const team = this.teams.get(subject) ?? { team: subject, sequence: ZERO, parts: [], unsure: true };
    this.teams.set(subject, team);
    // Numbers are padded: text sorts as they do.
    if (sequence <= team.sequence) return;
    if (team.sequence !== ZERO && prevsequence && prevsequence !== team.sequence) {
      team.unsure = true;
    }
    team.sequence = sequence;
    apply(team, event);
    if (team.state === "destroyed") {
      this.forget(subject, sequence);
      return;
    }
    // What events do not carry (new containers, their ports) is read with it.
    const whole = /^covibes\.(team\.|container\.|preview\.|job\.succeeded)/.test(event.type);
    if (team.unsure || whole) this.readAgain(subject);
  }

  /** The team is gone; what was told before its end is nothing new. */
  forget(name, sequence) {
    this.teams.delete(name);
    this.ended.delete(name);
    this.ended.set(name, sequence);
    if (this.ended.size > ENDED_MAX) this.ended.delete(this.ended.keys().next().value);
  }

  /** Reads one team until the answer is as new as what events have said. */
  async readAgain(name) {
    if (this.rereading.has(name)) return;
    this.rereading.add(name);
    const { signal } = this.aborter;
    let wait = READ_AGAIN;
    try {
      for (;;) {
        await pause(wait, signal);
        const asked = this.teams.get(name);
        if (signal.aborted || !asked) return;
        const { sequence } = asked;
        const answer = await this.json(`/api/teams/${encodeURIComponent(name)}`).catch((error) =>
          /: 404$/.test(error.message) ? null : undefined);
        const now = this.teams.get(name);
        if (!now) return;
        if (answer === undefined) {
          // Until it has been read, nothing is claimed of it.
          now.unsure = true;
          this.changed();
        } else if (answer === null) {
          // Of the team that was asked for; another of its name may have begun since.
          if (now.sequence === sequence) return this.forget(name, sequence);
        } else if (answer.sequence >= now.sequence) {
          // The worker remembers for a while what it destroyed.
          if (answer.state === "destroyed") return this.forget(name, answer.sequence);
          this.teams.set(name, known(answer));
          return;
        }
        wait = answer === undefined ? Math.min(WAIT_MAX, wait * 2) : READ_AGAIN;
      }
    } finally {
      this.rereading.delete(name);
      this.changed();
    }
  }
}

const ZERO = "0".repeat(20);
const LAST_WORDS = /^covibes\.(step\.|job\.(succeeded|failed|cancelled|superseded|rejected)$)/;

const known = (team) => ({ ...team, unsure: false });

/** What an event changes by itself. */
function apply(team, { type, data, correlationid }) {
  const kind = type.replace(/^covibes\./, "");
  // Not every word about a team is its state: team.expiring has none.
  if (kind.startsWith("team.") && kind !== "team.snapshot" && data.state) {
    team.state = data.state;
    team.cause = data.cause;
    if (data.state === "stopped" || data.state === "destroyed") team.parts = [];
  } else if (kind === "team.snapshot") {
    team.state = data.state;
  } else if (kind.startsWith("preview.")) {
    const part = team.parts.find((part) => part.role === "preview" && part.part === data.preview);
    if (part) Object.assign(part, { preview: data.fact, error: data.error });
  } else if (kind.startsWith("container.")) {
    const part = team.parts.find((part) => part.role === data.role && part.part === data.part);
    const states = { exited: "exited", oom: "exited", started: "running", restarted: "running" };
    if (part) Object.assign(part, { state: states[data.fact] ?? part.state, health: data.fact });
  } else if (kind.startsWith("step.")) {
    team.job = { ...team.job, id: correlationid, state: "running", step: data.step };
  } else if (kind.startsWith("job.")) {
    const action = data.action ?? team.job?.action;
    team.job = { id: correlationid, action, state: kind.slice(4), code: data.failure?.code };
  }
}

const pause = (millis, signal) =>
  new Promise((done) => {
    if (signal.aborted) return done();
    const timer = setTimeout(done, millis);
    signal.addEventListener("abort", () => { clearTimeout(timer); done(); }, { once: true });
  });
