// Keeps the page that is open true: asks for it again when an event comes, and
// puts what differs in place. Nothing here draws; the worker does.
"use strict";
(() => {
  const origin = location.origin;
  const live = document.getElementById("live");
  const main = document.getElementById("main");

  // ---- Times, as long ago. ----

  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const ago = (at) => {
    const passed = Math.round((Date.now() - at) / 1000);
    // Two clocks are never quite the same.
    const seconds = passed < -5 ? -passed : Math.max(0, passed);
    const [size, unit] = units.find(([size]) => seconds >= size) || units[3];
    const words = `${Math.floor(seconds / size)} ${unit}`;
    return passed < -5 ? `in ${words}` : `${words} ago`;
  };
  const times = () => {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const at = Date.parse(time.dateTime);
      if (Number.isNaN(at)) continue;
      const words = ago(at);
      if (time.textContent !== words) time.textContent = words;
      if (!time.title) time.title = `${new Date(at).toLocaleString()} · ${time.dateTime}`;
    }
  };

  // ---- Putting a new page in place of the old one. ----

  // What the worker last sent for a node with a key: equal text is left alone.
  const sent = new WeakMap();
  // What it sends now for the rows of tables, by key; nothing for a key that stands twice.
  let rows = new Map();
  // The rows that are shown, by key, alike.
  let here = new Map();
  // By attribute: the property `id` of a form is its field of that name, if it has one.
  const attributeOf = (node, name) => (node.nodeType === 1 ? node.getAttribute(name) : null);
  const keyOf = (node) => attributeOf(node, "data-key") || attributeOf(node, "id") || "";

  const same = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

  function morph(old, fresh) {
    if (old.nodeType !== 1) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    const key = keyOf(fresh);
    if (key) {
      if (fresh.hasAttribute("data-same")) return;
      const text = (fresh.nodeName === "TR" && rows.get(key)) || fresh.outerHTML;
      if (sent.get(old) === text) return;
      sent.set(old, text);
    }
    if (old.nodeName === "TIME" && old.dateTime === fresh.dateTime) return;
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) {
      // A time's title is this script's own.
      if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    // What somebody is typing or has ticked is theirs.
    if (old.nodeName === "FORM" && old.getAttribute("role") === "search") return;
    const kept = new Map();
    for (const child of old.children) {
      if (keyOf(child) && !kept.has(keyOf(child))) kept.set(keyOf(child), child);
    }
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      const known = keyOf(next) ? kept.get(keyOf(next)) : at;
      // Two of the same key are two all the same.
      kept.delete(keyOf(next));
      if (known && same(known, next)) {
        if (known === at) at = at.nextSibling;
        else old.insertBefore(known, at);
        morph(known, next);
      } else if (at && !keyOf(at) && !keyOf(next)) {
        const gone = at;
        at = at.nextSibling;
        gone.replaceWith(next);
      } else {
        // A row that is as it was may stand in another table now.
        const isSame = next.nodeType === 1 && next.hasAttribute("data-same");
        old.insertBefore(isSame ? here.get(keyOf(next)) : next, at);
      }
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
  }

  // ---- A stream that comes back by itself. ----

  const SILENCE_MAX = 40000; // the worker says something every 15 s
  const WAIT_MIN = 500;
  const WAIT_MAX = 10000;

  const pause = (millis, signal) => new Promise((done) => {
    const timer = setTimeout(done, millis);
    signal.addEventListener("abort", () => { clearTimeout(timer); done(); }, { once: true });
  });

  // fetch and not EventSource, which gives up for good after one refusal, and hides
  // the worker's signs of life: a dead connection would look like a quiet one.
  class Stream {
    constructor(path, { opened, told, lost }) {
      Object.assign(this, { path, opened, told, lost, ending: null });
    }

    start() {
      if (this.ending) return;
      this.ending = new AbortController();
      this.run(this.ending.signal);
    }

    stop() {
      if (this.ending) this.ending.abort();
      this.ending = null;
    }

    async run(signal) {
      let wait = WAIT_MIN;
      while (!signal.aborted) {
        const began = Date.now();
        try {
          await this.read(signal);
        } catch { /* It is tried again, whatever it was. */ }
        if (signal.aborted) return;
        this.lost();
        // One that ends as soon as it began is not asked for again and again.
        if (Date.now() - began > WAIT_MAX) wait = WAIT_MIN;
        await pause(wait * (0.5 + Math.random()), signal);
        wait = Math.min(WAIT_MAX, wait * 2);
      }
    }

    async read(signal) {
      const silence = new AbortController();
      let heard = Date.now();
      // By the clock on the wall: while a machine sleeps, timers stand still.
      const watch = setInterval(() => {
        if (Math.abs(Date.now() - heard) > SILENCE_MAX) silence.abort();
      }, 1000);
      try {
        const answer = await fetch(origin + this.path, {
          // Asked for as a page is, or a browser whose person came by a link below would not
          // be asked for the token here, and never send the one that it has.
          headers: { accept: "text/event-stream, text/html;q=0.1" }, cache: "no-store", redirect: "error",
          signal: AbortSignal.any([signal, silence.signal]),
        });
        if (!answer.ok) throw new Error(String(answer.status));
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        this.opened();
        let text = "";
        for (;;) {
          const { done, value } = await reader.read();
          if (done || signal.aborted) return;
          heard = Date.now();
          const blocks = (text + value).split("\n\n");
          text = blocks.pop();
          for (const block of blocks) {
            const lines = block.split("\n");
            const data = lines.find((line) => line.startsWith("data: "));
            if (data && !lines.includes("event: hello")) this.told(data.slice(6));
          }
        }
      } finally {
        clearInterval(watch);
      }
    }
  }

  // ---- Asking again. ----

  const AT_MOST_EVERY = 400;
  const ALL_THE_SAME = Number(document.body.dataset.every) || 10000;
  const isLive = () => document.body.hasAttribute("data-live");

  let loaded = performance.timeOrigin;
  let connected = false;
  let lost = false; // nothing comes, or what was asked for did not
  let refused = false;
  let asking = false;
  let again = false;
  let waiting = 0;
  let wait = WAIT_MIN;
  let last = "";

  async function refresh() {
    if (asking) { again = true; return; }
    asking = true;
    again = false;
    try {
      const answer = await fetch(origin + location.pathname + location.search, {
        headers: { accept: "text/html" }, cache: "no-store", redirect: "error",
        signal: AbortSignal.timeout(8000),
      });
      refused = answer.status === 401;
      if (answer.status >= 500 || refused) throw new Error(String(answer.status));
      const text = await answer.text();
      if (text !== last) put(text);
      last = text;
      loaded = Date.now();
      lost = lost && !connected;
      wait = WAIT_MIN;
    } catch {
      lost = true;
      if (refused) {
        // Each further try would ask the person for the token.
        for (const stream of streams) stream.stop();
      } else {
        // At once would be in vain, and by the next event too late.
        soon(wait);
        wait = Math.min(WAIT_MAX, wait * 2);
      }
    } finally {
      asking = false;
      show();
      if (again) soon();
    }
  }

  const once = (map, key, value) => map.set(key, map.has(key) ? null : value);

  // Of hundreds of rows few are not what they were. Only those are parsed: of each other one,
  // nothing but its key. No row holds another, and nothing that a person wrote is a tag.
  function withoutSameRows(text) {
    here = new Map();
    for (const row of main.querySelectorAll("tr[data-key]")) once(here, row.dataset.key, row);
    const pattern = /<tr data-key="([^"]*)">.*?<\/tr>/gs;
    rows = new Map();
    for (const [whole, key] of text.matchAll(pattern)) once(rows, key, whole);
    return text.replace(pattern, (whole, key) => {
      const row = here.get(key);
      const isSame = row && rows.get(key) && sent.get(row) === whole;
      return isSame ? `<tr data-key="${key}" data-same></tr>` : whole;
    });
  }

  function put(text) {
    const began = performance.now();
    const fresh = new DOMParser().parseFromString(withoutSameRows(text), "text/html");
    // Another version of the worker draws for another script.
    if (fresh.documentElement.dataset.version !== document.documentElement.dataset.version) {
      location.reload();
      return;
    }
    const content = fresh.getElementById("main");
    if (content) morph(main, content);
    document.title = fresh.title;
    document.body.toggleAttribute("data-live", fresh.body.hasAttribute("data-live"));
    times();
    // For the benchmark: how long the page stood still.
    performance.measure("covibes-update", { start: began, end: performance.now() });
  }

  function soon(least = 50) {
    if (waiting || refused || document.hidden) return;
    const rest = Math.max(least, loaded + AT_MOST_EVERY - Date.now());
    waiting = setTimeout(() => { waiting = 0; if (!document.hidden) refresh(); }, rest);
  }

  const log = document.getElementById("log");

  function show() {
    const [words, state] =
      !isLive() && !log ? ["as loaded", "off"]
      : document.hidden ? ["paused", "off"]
      : refused ? ["the token is not taken any more; reload", "bad"]
      : !isLive() ? (connected ? ["following", "ok"] : ["not following just now", "off"])
      : lost ? [`stale since ${new Date(loaded).toLocaleTimeString()}`, "bad"]
      : connected ? ["live", "ok"]
      : ["connecting", "off"];
    if (live.textContent !== words) live.textContent = words;
    live.dataset.state = state;
  }

  const events = new Stream("/events", {
    opened: () => { connected = true; refresh(); },
    told: () => soon(),
    lost: () => { connected = false; lost = true; show(); },
  });
  const streams = [];
  if (isLive()) streams.push(events);

  const sleep = () => {
    for (const stream of streams) stream.stop();
    connected = false;
    show();
  };
  const wake = () => {
    if (document.hidden) return;
    [lost, refused] = [false, false];
    for (const stream of streams) stream.start();
    times();
    show();
  };
  // What was missed is asked for at once, whatever becomes of the stream.
  const catchUp = () => {
    wake();
    if (isLive() && !document.hidden) refresh();
  };
  document.addEventListener("visibilitychange", () => { document.hidden ? sleep() : catchUp(); });
  addEventListener("online", () => { sleep(); catchUp(); });
  // A page that a browser keeps for "back" holds no connection.
  addEventListener("pagehide", sleep);
  addEventListener("pageshow", (event) => { if (event.persisted) catchUp(); });

  setInterval(() => {
    if (document.hidden) return;
    times();
    // Figures that no event tells of; and what a lost event would have told.
    if (isLive() && Date.now() - loaded > ALL_THE_SAME) soon();
  }, 1000);

  // ---- A log that goes on. ----

  if (log) {
    const LINES_MAX = 5000;
    const wanted = log.dataset.q.toLowerCase();
    let fresh = []; // what came since the last frame
    let anew = false; // the last lines come again with each connection
    let drawing = 0;
    const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    const toEnd = () => { log.scrollTop = log.scrollHeight; };
    const draw = () => {
      drawing = 0;
      document.querySelector("main > .empty")?.remove();
      const follows = atEnd();
      const lines = document.createDocumentFragment();
      for (const line of fresh.slice(-LINES_MAX)) lines.append(line + "\n");
      fresh = [];
      if (anew) log.replaceChildren(lines); else log.append(lines);
      anew = false;
      while (log.childNodes.length > LINES_MAX) log.firstChild.remove();
      if (follows) toEnd();
    };
    streams.push(new Stream(log.dataset.follow, {
      opened: () => { fresh = []; anew = true; connected = true; show(); },
      told: (text) => {
        const line = JSON.parse(text);
        if (wanted && !line.toLowerCase().includes(wanted)) return;
        fresh.push(line);
        // However fast lines come, the page is laid out once a frame.
        drawing ||= requestAnimationFrame(draw);
      },
      lost: () => { connected = false; show(); },
    }));
    document.getElementById("following")?.remove();
    toEnd();
  }

  // ---- Keys: / looks for something, 1 to 5 go to the sections, a ticks all. ----

  addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, select, textarea, button");
    if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
    if (event.key === "/") {
      const search = document.querySelector("input[type=search]");
      if (search) { event.preventDefault(); search.focus(); }
    } else if (event.key === "a") {
      const boxes = [...document.querySelectorAll("input[type=checkbox]")];
      const all = boxes.every((box) => box.checked);
      for (const box of boxes) box.checked = !all;
    } else {
      const section = document.querySelectorAll(".top nav a")[Number(event.key) - 1];
      if (section) section.click();
    }
  });

  const keys = document.querySelector(".keys");
  if (keys) keys.hidden = false;

  wake();
})();
