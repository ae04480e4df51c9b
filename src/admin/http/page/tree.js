// The supervision tree, drawn from left to right as Erlang's observer draws it.
import { age, ask, clock, count, element, svg } from "./observer.js";

const COLUMN = [0, 206, 438];
const WIDTH = [172, 198, 256];
const ROW = 27;
const TALL = 46;
const GAP = 10;
const STRUCK_MS = 2600;
const CHILDREN_SHOWN = 30;

let shape = "";
let drawn = new Map();
let seen = new Map();
let focused = null;

const isSupervisor = (entry) => entry.kind !== "worker";
const parentOf = (path) => path.slice(0, Math.max(0, path.lastIndexOf("/")));
const depthOf = (path) => path.split("/").length - 1;

function budget(entry) {
  const [limit, period] = (entry.intensity ?? "0/0s").split("/");
  return { used: entry.intensity_used, limit: Number(limit), period };
}

// Leaves from top to bottom; a supervisor stands in the middle of its children.
function layout(tree) {
  const below = new Map(tree.map((entry) => [entry.path, []]));
  for (const entry of tree) below.get(parentOf(entry.path))?.push(entry);
  const places = new Map();
  let y = 2;
  const place = (entry) => {
    const children = below.get(entry.path);
    const depth = Math.min(depthOf(entry.path), COLUMN.length - 1);
    const height = isSupervisor(entry) ? TALL : ROW - 4;
    let middle;
    if (children.length === 0) {
      middle = y + height / 2;
      y += height + 5;
    } else {
      const first = y;
      const middles = children.map(place);
      middle = (middles[0] + middles.at(-1)) / 2;
      // Never over its upper neighbour.
      if (middle - height / 2 < first) { y += first - (middle - height / 2); middle = first + height / 2; }
      y = Math.max(y, middle + height / 2) + GAP;
    }
    places.set(entry.path, { x: COLUMN[depth] + 2, y: middle - height / 2, w: WIDTH[depth], h: height, middle });
    return middle;
  };
  for (const entry of tree.filter((entry) => !below.has(parentOf(entry.path)))) place(entry);
  return { places, height: y };
}

export function drawTree(root, told, state, select) {
  const tree = told.tree;
  const wanted = tree.map((entry) => entry.path + entry.kind).join("|");
  if (wanted !== shape) build(root, tree, state, select);
  shape = wanted;
  for (const entry of tree) update(entry, state);
  document.getElementById("legend").textContent =
    `${count(told.figures.processes)} processes. Supervisors tell strategy and restarts used of their intensity; a dashed frame has children that come and go.`;
}

function build(root, tree, state, select) {
  const { places, height } = layout(tree);
  const width = COLUMN.at(-1) + WIDTH.at(-1) + 6;
  root.setAttribute("viewBox", `0 0 ${width} ${height}`);
  root.setAttribute("width", width);
  root.setAttribute("height", height);
  const edges = [], boxes = [];
  drawn = new Map();
  for (const entry of tree) {
    const at = places.get(entry.path);
    const above = places.get(parentOf(entry.path));
    if (above) {
      const [x1, y1, x2, y2] = [above.x + above.w, above.middle, at.x, at.middle];
      const bend = (x1 + x2) / 2;
      edges.push(svg("path", { class: "edge", d: `M${x1} ${y1}C${bend} ${y1} ${bend} ${y2} ${x2} ${y2}` }));
    }
    const process = box(entry, at);
    process.group.addEventListener("click", () => choose(entry.path, state, select));
    drawn.set(entry.path, process);
    boxes.push(process.group);
  }
  root.replaceChildren(...edges, ...boxes);
  root.onkeydown = (event) => walk(event, tree, state, select);
  const first = drawn.has(focused) ? focused : tree[0]?.path;
  if (first) drawn.get(first).group.setAttribute("tabindex", "0");
}

function box(entry, at) {
  const middle = at.y + at.h / 2;
  const part = {
    name: svg("text", { class: "name", x: at.x + 10, y: isSupervisor(entry) ? at.y + 14 : middle }),
    pid: svg("text", { class: "pid", x: at.x + at.w - 9, y: isSupervisor(entry) ? at.y + 14 : middle }),
    badge: svg("text", { class: "again", x: 0, y: isSupervisor(entry) ? at.y + 14 : middle }),
    title: svg("title"),
  };
  const group = svg("g", { role: "treeitem", "aria-level": depthOf(entry.path) + 1, tabindex: "-1" });
  if (entry.kind === "dynamic" || entry.path === "root/sessions")
    group.append(svg("rect", { class: "under", x: at.x + 4, y: at.y + 4, width: at.w, height: at.h, rx: 7 }));
  group.append(part.title, svg("rect", { class: "box", x: at.x, y: at.y, width: at.w, height: at.h, rx: isSupervisor(entry) ? 7 : 4 }));
  if (isSupervisor(entry)) {
    part.note = svg("text", { class: "note", x: at.x + 10, y: at.y + 29 });
    const track = { x: at.x + 10, y: at.y + at.h - 8, width: at.w - 20, height: 3, rx: 1.5 };
    part.used = svg("rect", { ...track, width: 0 });
    part.room = at.w - 20;
    group.append(part.note, svg("rect", { class: "budget", ...track }), part.used);
  }
  group.append(part.name, part.pid, part.badge);
  return { group, ...part };
}

function update(entry, state) {
  const part = drawn.get(entry.path);
  const before = seen.get(entry.path);
  const many = entry.kind === "dynamic" || entry.path === "root/sessions";
  part.name.textContent = entry.id.length > 24 ? entry.id.slice(0, 23) + "…" : entry.id;
  part.pid.textContent = entry.state === "running" ? entry.pid : entry.state;
  const badges = [];
  if (entry.restarts > 0) badges.push("↻" + count(entry.restarts));
  if (entry.mailbox_len > 0) badges.push("✉" + count(entry.mailbox_len));
  part.badge.textContent = badges.join(" ");
  part.badge.setAttribute("class", entry.restarts > 0 ? "again" : "mail");
  // Behind the name, whose width only the browser knows.
  const width = part.name.getComputedTextLength?.() ?? 60;
  part.badge.setAttribute("x", Number(part.name.getAttribute("x")) + width + 7);
  if (part.note) {
    const { used, limit, period } = budget(entry);
    const what = many ? `${count(entry.children)} ${entry.children === 1 ? "child" : "children"}` : entry.strategy ?? "";
    part.note.textContent = `${what} · ${used} of ${limit} in ${period.replace("s", " s")}`;
    const share = limit > 0 ? Math.min(1, used / limit) : used > 0 ? 1 : 0;
    part.used.setAttribute("width", (part.room * share).toFixed(1));
    part.used.setAttribute("class", "used" + (share >= 1 ? " full" : share > 0 ? " some" : ""));
  }
  const kind = isSupervisor(entry) ? (many ? "supervisor dynamic" : "supervisor") : "worker";
  const again = before && (before.pid !== entry.pid || before.restarts !== entry.restarts);
  if (again) part.until = performance.now() + STRUCK_MS;
  const struck = part.until > performance.now();
  if (again) { part.group.setAttribute("class", "process " + kind); void part.group.getBoundingClientRect?.(); }
  part.group.setAttribute("class", ["process", kind, struck ? "struck" : "", entry.state === "running" ? "" : "away"].join(" ").trim());
  part.group.setAttribute("aria-selected", String(state.selected === entry.path));
  const spoken = isSupervisor(entry) ? part.note.textContent : `${entry.mailbox_len} messages waiting`;
  part.group.setAttribute("aria-label", `${entry.id}, ${entry.state}, ${spoken}, restarted ${entry.restarts} times`);
  part.title.textContent = `${entry.path} ${entry.pid}`;
  seen.set(entry.path, { pid: entry.pid, restarts: entry.restarts });
}

function choose(path, state, select) {
  const next = state.selected === path ? null : path;
  const before = drawn.get(state.selected);
  before?.group.setAttribute("aria-selected", "false");
  select(next);
  if (next) drawn.get(next).group.setAttribute("aria-selected", "true");
  focusOn(path);
}

function focusOn(path) {
  drawn.get(focused)?.group.setAttribute("tabindex", "-1");
  for (const part of drawn.values()) part.group.setAttribute("tabindex", "-1");
  focused = path;
  const group = drawn.get(path).group;
  group.setAttribute("tabindex", "0");
  group.focus();
}

function walk(event, tree, state, select) {
  const here = [...drawn].find(([, part]) => part.group === document.activeElement)?.[0];
  if (!here) return;
  const index = tree.findIndex((entry) => entry.path === here);
  const keys = {
    ArrowDown: () => tree[index + 1]?.path,
    ArrowUp: () => tree[index - 1]?.path,
    ArrowLeft: () => parentOf(here),
    ArrowRight: () => tree.find((entry) => parentOf(entry.path) === here)?.path,
    Home: () => tree[0].path,
    End: () => tree.at(-1).path,
  };
  if (event.key in keys) {
    const next = keys[event.key]();
    if (next && drawn.has(next)) focusOn(next);
  } else if (event.key === "Enter" || event.key === " ") choose(here, state, select);
  else if (event.key === "Escape" && state.selected) choose(state.selected, state, select);
  else return;
  event.preventDefault();
}

// What is known of one process, and who comes and goes below it.
let children = { path: null, at: 0, told: null };
export function explain(place, told, path) {
  const entry = told.tree.find((entry) => entry.path === path);
  if (!entry) return place.replaceChildren();
  const facts = [
    ["State", entry.state], ["Pid", entry.pid || "–"], ["Running for", age(told.now_ms - entry.since_ms)],
    ["Restarts", count(entry.restarts)], ["Mailbox", count(entry.mailbox_len)], ["Restart", entry.restart],
    ["Shutdown", entry.shutdown],
  ];
  if (isSupervisor(entry)) {
    const { used, limit, period } = budget(entry);
    facts.push(["Strategy", entry.strategy ?? "one_for_one, dynamic"], ["Intensity", `${used} used of ${limit} in ${period.replace("s", " s")}`],
      ["Children", count(entry.children)], ["Children restarted", count(entry.child_restarts)], ["Children crashed", count(entry.child_crashes)]);
  }
  const list = element("dl", {}, ...facts.map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))),
    element("div", { class: "actor" }, element("dt", {}, "Actor"), element("dd", { class: "mono" }, entry.actor)));
  place.replaceChildren(element("h2", { class: "mono" }, entry.path), list, ...whoIsBelow(place, told, entry));
}

function whoIsBelow(place, told, entry) {
  if (entry.kind !== "dynamic" || entry.children === 0) return [];
  const now = performance.now();
  if (children.path !== entry.path || now - children.at > 3000) {
    if (children.path !== entry.path) children.told = null;
    children = { ...children, path: entry.path, at: now };
    ask(`tree/children?path=${encodeURIComponent(entry.path)}&limit=${CHILDREN_SHOWN}`)
      .then((answer) => { if (children.path === entry.path) { children.told = answer; explain(place, told, entry.path); } })
      .catch(() => {});
  }
  if (!children.told) return [];
  const more = entry.children - children.told.data.length;
  const chips = children.told.data.map((child) =>
    element("span", { title: `${child.path} since ${clock(child.since_ms)}` }, child.id + " ", element("span", { class: "dim mono" }, child.pid)));
  for (const chip of chips) chip.querySelector("span").removeAttribute("title");
  return [element("div", { class: "chips" }, ...chips, more > 0 ? element("em", { class: "dim" }, `and ${count(more)} more`) : null)];
}
