// Message rates over the last five minutes, and the nodes of the cluster as this one sees them.
import { clock, count, svg, element } from "./observer.js";

const SPAN_MS = 300000;
const SERIES = [["in", "received", "in"], ["out", "delivered", "out"], ["dropped", "dropped", "dropped"]];
const [WIDE, HIGH, LEFT, RIGHT, TOP, BOTTOM] = [640, 170, 46, 8, 10, 22];

let pointed = null;

function nice(max) {
  if (max <= 4) return 4;
  const power = 10 ** Math.floor(Math.log10(max));
  return [1, 2, 4, 5, 10].map((step) => step * power).find((step) => step >= max);
}

// Rates between neighbouring samples; a counter that shrank was started anew.
function points(samples, name) {
  return samples.slice(1).map((sample, index) => {
    const before = samples[index];
    const span = (sample.at_ms - before.at_ms) / 1000;
    return { at: sample.at_ms, rate: span > 0 ? Math.max(0, sample[name] - before[name]) / span : 0 };
  });
}

export function drawRates(place, samples) {
  const end = samples.at(-1)?.at_ms ?? Date.now();
  const start = end - SPAN_MS;
  const all = SERIES.map(([series, name, label]) => ({ series, label, points: points(samples, name) }));
  const top = nice(Math.max(1, ...all.flatMap(({ points }) => points.map((point) => point.rate))));
  const x = (at) => LEFT + ((at - start) / SPAN_MS) * (WIDE - LEFT - RIGHT);
  const y = (rate) => HIGH - BOTTOM - (rate / top) * (HIGH - TOP - BOTTOM);
  const grid = [0, 0.5, 1].flatMap((share) => [
    svg("line", { class: "grid", x1: LEFT, x2: WIDE - RIGHT, y1: y(top * share), y2: y(top * share) }),
    svg("text", { x: LEFT - 7, y: y(top * share) + 4, "text-anchor": "end" }, count(top * share)),
  ]);
  const times = [4, 3, 2, 1, 0].map((minutes) =>
    svg("text", { x: x(end - minutes * 60000), y: HIGH - 6, "text-anchor": minutes ? "middle" : "end" }, minutes ? `−${minutes} min` : "now"));
  const lines = all.filter(({ series, points }) => series !== "dropped" || points.some((point) => point.rate > 0))
    .map(({ series, points }) => svg("path", { class: series,
      d: points.map((point, index) => `${index ? "L" : "M"}${x(point.at).toFixed(1)} ${y(point.rate).toFixed(1)}`).join("") }));
  const at = pointed === null ? null : start + ((pointed - LEFT) / (WIDE - LEFT - RIGHT)) * SPAN_MS;
  const near = (list) => at === null ? list.at(-1) : list.reduce((best, point) => !best || Math.abs(point.at - at) < Math.abs(best.at - at) ? point : best, null);
  const cross = at === null ? [] : [svg("line", { class: "cross", x1: pointed, x2: pointed, y1: TOP, y2: HIGH - BOTTOM })];
  const chart = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img",
    "aria-label": all.map(({ label, points }) => `${label} ${count(points.at(-1)?.rate ?? 0)} per second`).join(", ") }, ...grid, ...times, ...lines, ...cross);
  chart.setAttribute("preserveAspectRatio", "xMidYMid meet");
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const scale = Math.min(box.width / WIDE, box.height / HIGH);
    const inner = (event.clientX - box.left - (box.width - WIDE * scale) / 2) / scale;
    pointed = inner >= LEFT && inner <= WIDE - RIGHT ? inner : null;
    drawRates(place, samples);
  });
  chart.addEventListener("pointerleave", () => { pointed = null; drawRates(place, samples); });
  const legend = all.map(({ series, label, points }) =>
    element("span", { class: series }, element("i"), label + " ", element("b", {}, count(near(points)?.rate ?? 0))));
  place.replaceChildren(element("div", { class: "keyline" }, ...legend,
    at === null ? null : element("span", {}, "at " + clock(at))), chart);
}

const stateOf = (member) => member.link === "local" ? "local" : member.link === "up" ? "up" : member.link === "suspect" ? "suspect" : "down";

export function drawCluster(place, told) {
  const others = told.members.filter((member) => member.link !== "local");
  const own = told.members.find((member) => member.link === "local");
  if (!own) return place.replaceChildren(element("p", { class: "empty" }, "The cluster's processes are being restarted."));
  if (others.length === 0)
    return place.replaceChildren(element("p", { class: "empty" }, "This node is alone. ",
      element("code", {}, "ermine cluster join NAME@HOST"), " joins another one."));
  if (others.length > 8) return place.replaceChildren(membersAsTable(told.members));
  // One or two others lie in one line with this node.
  const flat = others.length <= 2;
  const [width, height] = [640, flat ? 110 : 250];
  const [cx, cy, rx, ry] = [width / 2, flat ? 34 : height / 2 - 12, 220, flat ? 0 : 82];
  const start = others.length > 2 ? -Math.PI / 2 : Math.PI;
  const waiting = new Map(told.figures.waiting.map((link) => [link.peer, link]));
  const lines = [], nodes = [];
  others.forEach((member, index) => {
    const angle = start + (index * 2 * Math.PI) / others.length;
    const [x, y] = [cx + rx * Math.cos(angle), cy + ry * Math.sin(angle)];
    const state = stateOf(member);
    lines.push(svg("line", { class: state, x1: cx, y1: cy, x2: x, y2: y }));
    const trip = member.round_trip_us === null ? member.link : `${(member.round_trip_us / 1000).toFixed(1)} ms`;
    const queued = waiting.get(member.node)?.messages ?? 0;
    lines.push(svg("text", { class: "note halo", x: (cx + x) / 2, y: (cy + y) / 2 - 6 }, state === "up" ? trip : member.link));
    lines.push(svg("text", { class: "note halo", x: (cx + x) / 2, y: (cy + y) / 2 + 12 },
      `↑${count(member.sent)} ↓${count(member.received)}${queued ? " ✉" + count(queued) : ""}`));
    nodes.push(node(member, x, y, state));
  });
  nodes.push(node(own, cx, cy, "local"));
  place.replaceChildren(svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": told.members.map((member) => `${member.node} ${member.link}`).join(", ") }, ...lines, ...nodes));
}

function node(member, x, y, state) {
  const note = state === "down" ? member.reason ?? "down" : `${count(member.routes)} ${member.routes === 1 ? "route" : "routes"}`;
  return svg("g", { class: state }, svg("circle", { cx: x, cy: y, r: 13 }),
    svg("text", { class: "halo", x, y: y + 30 }, member.node),
    svg("text", { class: "note halo", x, y: y + 45 }, note.length > 30 ? note.slice(0, 29) + "…" : note),
    svg("title", {}, `${member.node}: ${member.link}${member.reason ? ", " + member.reason : ""}`));
}

function membersAsTable(members) {
  const row = (member) => element("tr", {}, element("td", { class: "mono" }, member.node), element("td", {}, member.link),
    element("td", { class: "n" }, member.round_trip_us === null ? "–" : (member.round_trip_us / 1000).toFixed(1)),
    element("td", { class: "n" }, count(member.routes)), element("td", {}, member.reason ?? ""));
  const heads = [["Node"], ["Link"], ["RTT ms", "n"], ["Routes", "n"], [""]];
  return element("table", {}, element("tr", {}, ...heads.map(([head, kind]) => element("th", { class: kind }, head))), ...members.map(row));
}
