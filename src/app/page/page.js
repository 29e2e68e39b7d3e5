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
  const keyOf = (node) => (node.nodeType === 1 ? node.dataset.key || node.id : "") || "";

  const same = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

  function morph(old, fresh) {
    if (old.nodeType !== 1) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    const key = keyOf(fresh);
    if (key) {
      const text = fresh.outerHTML;
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
    for (const child of old.children) if (keyOf(child)) kept.set(keyOf(child), child);
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      const known = keyOf(next) ? kept.get(keyOf(next)) : at;
      if (known && same(known, next)) {
        if (known === at) at = at.nextSibling;
        else old.insertBefore(known, at);
        morph(known, next);
      } else if (at && !keyOf(at) && !keyOf(next)) {
        const gone = at;
        at = at.nextSibling;
        gone.replaceWith(next);
      } else {
        old.insertBefore(next, at);
      }
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
  }

  let asking = false;
  let again = false;
  let loaded = Date.now();

  async function refresh() {
    if (asking) { again = true; return; }
    asking = true;
    try {
      const answer = await fetch(origin + location.pathname + location.search, {
        headers: { accept: "text/html" }, cache: "no-store", redirect: "error",
        signal: AbortSignal.timeout(8000),
      });
      if (answer.status >= 500 || answer.status === 401) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const began = performance.now();
      const content = fresh.getElementById("main");
      if (content) morph(main, content);
      document.body.toggleAttribute("data-live", fresh.body.hasAttribute("data-live"));
      times();
      loaded = Date.now();
      // For the benchmark: how long the page stood still.
      performance.measure("covibes-update", { start: began, end: performance.now() });
      show();
    } catch {
      show(true);
    } finally {
      asking = false;
      if (again) { again = false; soon(); }
    }
  }

  // ---- What comes. ----

  const AT_MOST_EVERY = 400;
  const ALL_THE_SAME = 10000;
  let waiting = 0;
  let source = null;
  let connected = false;

  const soon = () => {
    if (waiting) return;
    const rest = Math.max(50, loaded + AT_MOST_EVERY - Date.now());
    waiting = setTimeout(() => { waiting = 0; if (!document.hidden) refresh(); }, rest);
  };

  function show(failed) {
    if (!document.body.hasAttribute("data-live")) {
      live.textContent = "as loaded";
      live.dataset.state = "off";
    } else if (document.hidden) {
      live.textContent = "paused";
      live.dataset.state = "off";
    } else if (connected && !failed) {
      live.textContent = "live";
      live.dataset.state = "ok";
    } else {
      live.textContent = `stale since ${new Date(loaded).toLocaleTimeString()}`;
      live.dataset.state = "bad";
    }
  }

  function listen() {
    if (source || !document.body.hasAttribute("data-live")) return;
    source = new EventSource(origin + "/events");
    source.onopen = () => { connected = true; refresh(); };
    source.onmessage = soon;
    source.addEventListener("gap", soon);
    source.onerror = () => {
      connected = false;
      show(true);
      // A refused stream is not tried again by the browser.
      if (source.readyState === EventSource.CLOSED) {
        stop();
        setTimeout(() => { if (!document.hidden) listen(); }, 3000);
      }
    };
  }

  function stop() {
    if (source) source.close();
    source = null;
    connected = false;
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { stop(); show(); } else { listen(); times(); refresh(); }
  });
  // A page that a browser keeps for "back" holds no connection.
  addEventListener("pagehide", stop);
  addEventListener("pageshow", (event) => { if (event.persisted) { listen(); refresh(); } });

  setInterval(() => {
    if (document.hidden) return;
    times();
    // Figures that no event tells of; and what a lost event would have told.
    if (document.body.hasAttribute("data-live") && Date.now() - loaded > ALL_THE_SAME) refresh();
  }, 1000);

  // ---- A log that goes on. ----

  const log = document.getElementById("log");
  if (log && log.dataset.follow) {
    const LINES_MAX = 5000;
    const wanted = log.dataset.q.toLowerCase();
    const following = document.getElementById("following");
    const lines = new EventSource(origin + log.dataset.follow);
    lines.onopen = () => { following.textContent = "following"; };
    lines.onerror = () => { following.textContent = "no longer following"; lines.close(); };
    lines.onmessage = (event) => {
      const line = JSON.parse(event.data);
      if (wanted && !line.toLowerCase().includes(wanted)) return;
      const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      log.append(line + "\n");
      while (log.childNodes.length > LINES_MAX) log.firstChild.remove();
      if (atEnd) log.scrollTop = log.scrollHeight;
    };
    addEventListener("pagehide", () => lines.close());
    log.scrollTop = log.scrollHeight;
  }

  // ---- Keys: / looks for something, 1 to 5 go to the sections, a ticks all. ----

  addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea, button");
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

  times();
  show();
  if (!document.hidden) listen();
})();
