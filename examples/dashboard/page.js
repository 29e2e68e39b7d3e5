// Draws what the subscriber knows. Everything is set as text: what a team says is
// not trusted.
import { Subscriber } from "./subscriber.js";

const list = document.getElementById("teams");
const link = document.getElementById("link");
const form = document.getElementById("ask");
let subscriber = null;
let drawing = 0;

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function draw() {
  drawing = 0;
  const { current, heard, problem, teams } = subscriber;
  document.body.toggleAttribute("data-old", !current);
  link.textContent = current
    ? "live"
    : `old since ${heard ? new Date(heard).toLocaleTimeString() : "the beginning"}: ${problem ?? "connecting"}`;
  const rows = [...teams.values()].sort((a, b) => a.team.localeCompare(b.team)).map((team) => {
    const state = team.unsure ? "checking" : team.state;
    const parts = team.parts.map((part) => {
      const name = part.part ?? part.role;
      const words = [name, part.state, part.preview ?? part.health].join(" ");
      return element("li", { "data-state": part.state, "data-part": name }, words);
    });
    const job = team.job ? `${team.job.action ?? "job"} ${team.job.state} ${team.job.step ?? ""} ${team.job.code ?? ""}` : "";
    return element("li", { "data-team": team.team, "data-state": state },
      element("strong", {}, team.team), " ", element("span", { class: "state" }, state), " ",
      element("span", { class: "job" }, job), element("ul", {}, ...parts));
  });
  if (rows.length === 0 && current) rows.push(element("li", {}, "No team yet."));
  list.replaceChildren(...rows);
}

// At most once a frame, however fast events come.
const changed = () => { drawing ||= requestAnimationFrame(draw); };

function connect(url, token) {
  subscriber?.stop();
  subscriber = new Subscriber({ url, token, changed });
  // For whoever looks with the browser's own tools.
  window.subscriber = subscriber;
  subscriber.run();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const { url, token } = Object.fromEntries(new FormData(form));
  connect(url.replace(/\/$/, ""), token);
});

// `#url=…&token=…`: what follows # never leaves the browser.
const given = new URLSearchParams(location.hash.slice(1));
if (given.get("token")) {
  history.replaceState(null, "", location.pathname);
  connect(given.get("url") ?? "http://127.0.0.1:9464", given.get("token"));
}
