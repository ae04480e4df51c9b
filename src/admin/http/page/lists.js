// The restarts, and the long lists: clients, subscriptions, routes, a part at a time.
import { age, ask, clock, count, element } from "./observer.js";

const PART = 50;
const FRESH_MS = 10000;

const cell = (text, kind) => element("td", { class: kind }, text);
const heads = (names) => element("tr", {}, ...names.map(([name, kind]) => element("th", { class: kind, scope: "col" }, name)));
const short = (text, max) => (text.length > max ? text.slice(0, max - 1) + "…" : text);

export function drawRestarts(place, told) {
  if (told.restarts.length === 0)
    return place.replaceChildren(element("p", { class: "empty" }, "Nothing was restarted yet. ",
      element("code", {}, "ermine crash PATH"), " makes a process panic, on a node started with --allow-crash."));
  const row = (restart) => element("tr", { class: told.now_ms - restart.at_ms < FRESH_MS ? "fresh" : null },
    cell(clock(restart.at_ms)),
    element("td", {}, element("div", { class: "mono" }, restart.path),
      element("div", { class: "dim" }, short(restart.reason, 160)),
      restart.children_restarted.length ? element("div", { class: "dim" }, "with it: " + restart.children_restarted.join(", ")) : null),
    cell(restart.outcome === "restarted" ? String(restart.n) : restart.outcome, restart.outcome === "restarted" ? "n" : "n bad"),
    cell(restart.outcome === "restarted" ? (restart.downtime_us / 1000).toFixed(1) + " ms" : "–", "n"));
  place.replaceChildren(element("table", {}, heads([["At"], ["Process and reason"], ["In period", "n"], ["Down for", "n"]]), ...told.restarts.map(row)));
}

const LISTS = {
  clients: {
    heads: [["Client"], ["Address"], ["MQTT"], ["User"], ["Since"], ["Subscriptions", "n"], ["Queue", "n"], ["In flight", "n"], [""]],
    row: (client, again) => [
      cell(client.client_id, "mono"), cell(client.connected ? client.address ?? "" : "away"), cell(client.protocol ?? "–"),
      cell(client.username ?? ""), cell(age(Date.now() - client.since_ms)), cell(count(client.subscriptions), "n"),
      cell(count(client.queue_len) + (client.slow ? " slow" : ""), "n"), cell(count(client.inflight_len), "n"),
      element("td", { class: "n" }, client.connected ? element("button", { type: "button", on: { click: () => kick(client.client_id, again) } }, "Disconnect") : null)],
    none: "No client has a session here.",
  },
  subscriptions: {
    heads: [["Client"], ["Filter"], ["QoS", "n"], ["Options"]],
    row: (held) => [cell(held.client_id, "mono"), cell(held.filter, "mono"), cell(String(held.qos), "n"),
      cell([held.no_local && "no local", held.retain_as_published && "retain as published",
        held.retain_handling && "retain handling " + held.retain_handling, held.identifier && "identifier " + held.identifier].filter(Boolean).join(", "))],
    none: "Nobody has subscribed here.",
  },
  routes: {
    heads: [["Filter"], ["Nodes"]],
    row: (route) => [cell(route.filter, "mono"), cell(route.nodes.join(" "), "mono")],
    none: "No routes: nobody has subscribed.",
  },
};

let opened = false;
let shown = "clients";

async function kick(client, again) {
  if (!confirm(`Disconnect ${client}?`)) return;
  try { await ask("clients/" + encodeURIComponent(client), { method: "DELETE" }); } catch (error) { alert(error.message); }
  again();
}

async function load(name, after, table) {
  const place = document.getElementById("list");
  const list = LISTS[name];
  const again = () => load(name);
  let told;
  try {
    told = await ask(`${name}?limit=${PART}` + (after ? "&after=" + encodeURIComponent(after) : ""));
  } catch (error) {
    if (shown === name) place.replaceChildren(element("p", { class: "empty bad" }, error.message));
    return;
  }
  if (shown !== name) return;
  const rows = told.data.map((entry) => element("tr", {}, ...list.row(entry, again)));
  if (!table && rows.length === 0) return place.replaceChildren(element("p", { class: "empty" }, list.none));
  const into = table ?? element("table", {}, heads(list.heads));
  into.append(...rows);
  const next = told.meta.next;
  const more = next === null ? null : element("button", { type: "button", class: "more", on: { click: () => load(name, next, into) } }, "More");
  const refresh = element("button", { type: "button", class: "more", on: { click: again } }, "Look again");
  place.replaceChildren(element("div", { class: "wide" }, into), ...[more, " ", refresh].filter(Boolean));
}

function open(name) {
  shown = name;
  for (const tab of document.querySelectorAll("#tabs [role=tab]")) {
    const chosen = tab.id === "tab-" + name;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
  }
  document.getElementById("list").setAttribute("aria-labelledby", "tab-" + name);
  load(name);
}

export function openLists() {
  open(shown);
  if (opened) return;
  opened = true;
  const tabs = [...document.querySelectorAll("#tabs [role=tab]")];
  const names = tabs.map((tab) => tab.id.slice(4));
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => open(names[index]));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = (index + step + tabs.length) % tabs.length;
      open(names[next]);
      tabs[next].focus();
    });
  });
}
