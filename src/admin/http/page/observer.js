// The observer: asks its node once a second and shows the answer. No framework, nothing from elsewhere.
import { drawTree, explain } from "./tree.js";
import { drawRates, drawCluster } from "./charts.js";
import { drawRestarts, openLists } from "./lists.js";

const ASK_EVERY_MS = 1000;
const ASK_AGAIN_MS = 2000;
const SAMPLES_MAX = 300;
const KEY = "ermine-token";

const $ = (id) => document.getElementById(id);
const state = { token: null, samples: [], last: null, selected: null };

// Strangers name clients and topics: text only, never markup.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "on") for (const [event, act] of Object.entries(value)) made.addEventListener(event, act);
    else if (value !== undefined && value !== null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export const count = (n) =>
  n < 10000 ? Math.round(n).toLocaleString("en") :
  n < 1e6 ? (n / 1e3).toFixed(n < 1e5 ? 1 : 0) + "k" :
  (n / 1e6).toFixed(n < 1e7 ? 2 : 1) + "M";
export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
export function age(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 120) return s + " s";
  if (s < 7200) return Math.floor(s / 60) + " min";
  if (s < 172800) return Math.floor(s / 3600) + " h";
  return Math.floor(s / 86400) + " d";
}
const bytes = (n) => n < 1 << 20 ? (n / 1024).toFixed(0) + " KiB" : (n / 1048576).toFixed(1) + " MiB";

export async function ask(path, options = {}) {
  const headers = { Authorization: "Bearer " + state.token };
  const answer = await fetch("/api/v1/" + path, { ...options, headers, signal: AbortSignal.timeout(10000) });
  if (answer.status === 401) {
    lock("The node does not know this token.");
    throw new Error("the token was refused");
  }
  if (answer.status === 204) return null;
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}

function tell(text, good) {
  $("state").textContent = text;
  $("state").className = "state " + (good ? "good" : "bad");
}

function lock(why = "") {
  state.token = null;
  sessionStorage.removeItem(KEY);
  $("room").hidden = true;
  $("door").hidden = false;
  $("refused").textContent = why;
  $("state").textContent = "";
  $("token").focus();
}

function enter(token) {
  state.token = token;
  sessionStorage.setItem(KEY, token);
  $("door").hidden = true;
  $("room").hidden = false;
  openLists();
  watch();
}

let watching = false;
async function watch() {
  if (watching) return;
  watching = true;
  while (state.token) {
    let pause = ASK_EVERY_MS;
    if (!document.hidden) {
      try {
        const since = state.samples.at(-1)?.at_ms ?? 0;
        show(await ask("observer?since=" + since));
      } catch (error) {
        if (!state.token) break;
        tell(error.name === "TypeError" || error.name === "TimeoutError" ? "no answer from the node" : error.message, false);
        pause = ASK_AGAIN_MS;
      }
    }
    await new Promise((done) => setTimeout(done, pause));
  }
  watching = false;
}

function show(told) {
  const before = state.last;
  const figures = told.figures;
  // A node that was started again counts from zero.
  if (before && before.figures.since_ms !== figures.since_ms) state.samples = [];
  state.samples.push(...told.samples);
  state.samples.splice(0, state.samples.length - SAMPLES_MAX);
  state.last = told;
  $("node").textContent = figures.node;
  document.title = figures.node + " · Ermine observer";
  $("about").textContent = `version ${told.version} · up ${age(told.now_ms - figures.since_ms)} · incarnation ${figures.incarnation}`;
  const away = told.tree.filter((entry) => entry.state !== "running");
  if (away.length === 0) tell("all processes run", true);
  else tell(`${away.length} of the tree's processes ${away.length === 1 ? "does" : "do"} not run`, false);
  const rates = rate(state.samples);
  tiles(figures, rates, before, told.now_ms);
  drawTree($("tree"), told, state, select);
  drawRates($("rates"), state.samples);
  drawCluster($("cluster"), told);
  drawRestarts($("restarts"), told);
  $("asked").textContent = "Last told at " + clock(told.now_ms);
  if (state.selected) explain($("detail"), told, state.selected);
}

// Of the last five seconds: single seconds jump.
function rate(samples) {
  const last = samples.at(-1);
  const first = samples.at(-6) ?? samples[0];
  const span = last && first ? (last.at_ms - first.at_ms) / 1000 : 0;
  const of = (name) => (span > 0 ? Math.max(0, (last[name] - first[name]) / span) : 0);
  return { in: of("received"), out: of("delivered"), dropped: of("dropped") };
}

let cpuBefore = null;
function tiles(figures, rates, before, now) {
  const cpu = cpuBefore && now > cpuBefore.now
    ? (100 * (figures.process.cpu_s - cpuBefore.cpu)) / ((now - cpuBefore.now) / 1000) : null;
  if (!cpuBefore || now - cpuBefore.now > 3000) cpuBefore = { now, cpu: figures.process.cpu_s, shown: cpu };
  const shown = cpu !== null && now > cpuBefore.now ? cpu : cpuBefore.shown;
  const held = figures.counters;
  const all = [
    ["Clients", count(figures.connections), figures.sessions === figures.connections ? "" : `of ${count(figures.sessions)} sessions`],
    ["Messages in", count(rates.in), "/s"],
    ["Messages out", count(rates.out), "/s"],
    ["Dropped", count(rates.dropped), "/s", rates.dropped >= 1],
    ["Queued", count(held.held_messages), ""],
    ["Subscriptions", count(held.held_subscriptions), ""],
    ["Restarts", count(figures.restarts), ""],
    ["Memory", bytes(figures.process.resident_bytes).split(" ")[0], bytes(figures.process.resident_bytes).split(" ")[1]],
    ["CPU", shown === null || shown === undefined ? "–" : Math.max(0, shown).toFixed(shown < 10 ? 1 : 0), "%"],
  ];
  $("tiles").replaceChildren(...all.map(([name, value, unit, bad]) =>
    element("div", { class: bad ? "tile bad" : "tile" },
      element("span", {}, name), element("b", {}, value), unit ? element("small", {}, unit) : null)));
}

function select(path) {
  state.selected = path;
  if (path) explain($("detail"), state.last, path);
  else $("detail").replaceChildren();
}

function theme(choice) {
  const dark = choice ? choice === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.className = dark ? "dark" : "light";
  return dark;
}

theme(localStorage.getItem("ermine-theme"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme(localStorage.getItem("ermine-theme")));
$("theme").addEventListener("click", () => {
  const next = theme(localStorage.getItem("ermine-theme")) ? "light" : "dark";
  localStorage.setItem("ermine-theme", next);
  theme(next);
});
$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  enter($("token").value.trim());
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) watch(); });

// A link may bring the token behind its #, which browsers send to nobody; it leaves the address at once.
const brought = new URLSearchParams(location.hash.slice(1)).get("token");
if (location.hash) history.replaceState(null, "", location.pathname);
const token = brought ?? sessionStorage.getItem(KEY);
if (token) enter(token);
else lock();
