// The dashboard: asks /v1/state every two seconds and at every new generation, follows /v1/events for the log.
// Everything is put in as text, never as markup: names and reasons come from outside.
"use strict";

const EVERY_MS = 2000;
const LOG = 40;
const KIND = {
  serving: "good", healthy: "good", followed: "good",
  held: "bad", failing: "bad",
  returning: "watch", suspect: "watch", half_open: "watch", slow_start: "watch",
  failed: "bad", down: "bad", ejected: "bad",
  drained: "aside", admin_down: "aside",
};
const at = (id) => document.getElementById(id);
let token = sessionStorage.getItem("token");
let moments = [];
let asking = false;
let askAgain = false;

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function word(state) {
  return make("span", "state " + (KIND[state] || "none"), state.replace("_", "-"));
}

function length(s) {
  if (s < 10) return s.toFixed(1) + "s";
  if (s < 120) return Math.floor(s) + "s";
  if (s < 7200) return Math.floor(s / 60) + "m";
  if (s < 172800) return Math.floor(s / 3600) + "h";
  return Math.floor(s / 86400) + "d";
}

function percent(share) {
  return (share * 100).toFixed(share > 0 && share < 0.0995 ? 1 : 0) + "%";
}

function number(n) {
  return Number.isInteger(n) ? String(n) : n.toFixed(1);
}

function bar(share, kind) {
  const fill = make("b");
  fill.style.width = share * 100 + "%";
  return make("div", "bar " + kind, make("i", "", fill), make("span", "", percent(share)));
}

function head(table, titles) {
  at(table).tHead.replaceChildren(make("tr", "", ...titles.map((t) => (t instanceof Node ? t : make("th", "", t)))));
}

function rows(table, all, columns, none) {
  const body = at(table).tBodies[0];
  if (all.length > 0) {
    body.replaceChildren(...all);
    return;
  }
  const cell = make("td", "empty", none);
  cell.colSpan = columns;
  body.replaceChildren(make("tr", "", cell));
}

// Fixed columns line up from table to table; they need a width below which the table scrolls.
function widen(table, datacenters) {
  at(table).style.minWidth = 15 + 12 * datacenters + "rem";
}

function tight(...children) {
  return make("td", "tight", ...children);
}

function facts(state) {
  const node = state.node;
  at("node").textContent = node.name + (node.datacenter ? " in " + node.datacenter : "") + ", version " + node.version;
  const fact = (name, value) => make("div", "", make("dt", "", name), make("dd", "", value));
  const edges = state.edges.map((e) => {
    const used = e.generation === null ? "not asked yet" : "used " + e.generation;
    return fact(e.name, e.serving ? used : "not serving");
  });
  at("facts").replaceChildren(fact("generation", String(state.generation)), ...edges, fact("up", length(node.uptime_s)));
  const troubles = [];
  if (state.isolated_s !== null) {
    troubles.push(make("p", "", "This node seems to be the one that is cut off: everything looks dead at once. " +
      "It has held its last verdicts for " + length(state.isolated_s) + "."));
  }
  if (state.refused) {
    troubles.push(make("p", "", "The last reload was refused " + length(state.refused.for_s) + " ago; " +
      "what was in force before it still is."), make("pre", "", state.refused.findings.trimEnd()));
  }
  at("banner").hidden = troubles.length === 0;
  at("banner").replaceChildren(...troubles);
  document.title = node.name + " · Springtide";
}

function matrix(state) {
  widen("matrix", state.datacenters.length);
  head("matrix", ["Service", ...state.datacenters.map((dc) =>
    make("th", "", make("strong", "", dc.name), make("span", "small", "weight " + dc.weight + " · " + dc.addresses.join(" "))))]);
  rows("matrix", state.services.map((service) => make("tr", "",
    make("td", "", make("strong", "", service.name), make("span", "small", service.class + " · " + service.balance)),
    ...service.datacenters.map((cell) => cell.state === "absent" ? make("td", "empty", "–") : make("td", "",
      word(cell.state), cell.panic ? make("span", "watch", " panic") : null,
      make("span", "small", cell.usable + " of " + cell.backends + " backends · weight " + number(cell.effective)),
      bar(cell.share, KIND[cell.state] || "none"))))), 1, "no services");
}

function steers(state) {
  at("names").hidden = state.steers.length === 0;
  widen("steers", state.datacenters.length);
  head("steers", ["Name", ...state.datacenters.map((dc) => dc.name)]);
  rows("steers", state.steers.map((steer) => make("tr", "",
    make("td", "", make("strong", "", steer.name), make("span", "small", "TTL " + steer.ttl_s + "s"),
      steer.all_down ? make("span", "small bad", "every datacenter has failed") : null),
    ...state.datacenters.map((dc) => {
      const candidate = steer.candidates.find((c) => c.datacenter === dc.name);
      if (!candidate) return make("td", "empty", "–");
      return make("td", "", word(candidate.state),
        candidate.held_by ? make("span", "small", "held down by " + candidate.held_by) : null,
        bar(candidate.share, KIND[candidate.state] || "none"));
    }))), 1, "");
}

function unwell(state) {
  const all = state.unhealthy;
  at("unwell-count").textContent = all.length || "";
  head("unwell", all.length ? ["Service", "Datacenter", "Backend", "State", "For", "Why"] : []);
  rows("unwell", all.map((b) => make("tr", "", tight(b.service), tight(b.datacenter), tight(make("code", "", b.address)),
    tight(word(b.state)), tight(length(b.since_s)), make("td", "", b.why))), 6, "All backends are healthy.");
}

function sources(state) {
  const all = state.sources;
  at("found").hidden = all.length === 0;
  head("sources", ["Service", "Datacenter", "Source", "State", "Backends", "Last answer", "Why"]);
  rows("sources", all.map((s) => make("tr", "", tight(s.service), tight(s.datacenter), tight(make("code", "", s.source)),
    tight(word(s.state)), tight(String(s.backends)), tight(s.age_s === null ? "never" : length(s.age_s) + " ago"),
    make("td", "", s.why))), 7, "");
}

function intents(state) {
  const all = state.intents;
  at("intents-count").textContent = all.length || "";
  head("intents", all.length ? ["Subject", "Wish", "Ends in", "Backends", "Under way", "By", "Reason"] : []);
  rows("intents", all.map((i) => make("tr", "", tight(i.subject), tight(make("span", "state aside", i.wish)),
    tight(i.left_s === null ? "when taken back" : length(i.left_s)), tight(String(i.backends)),
    tight(i.wish.startsWith("weight") ? "" : String(i.under_way)), tight(i.by), make("td", "", i.reason))), 7,
    "No operator wants anything special.");
}

function changes() {
  const all = moments.flatMap((m) => m.changes.map((c) => [m, c])).slice(0, LOG);
  head("changes", all.length ? ["Time", "Generation", "What", "Change", "Why"] : []);
  const states = (text) => make("span", KIND[text.split(",")[0].replace("-", "_")] || "", text);
  rows("changes", all.map(([m, c]) => make("tr", "",
    tight(new Date(m.at_ms).toLocaleTimeString([], { hourCycle: "h23" })), tight(String(m.generation)), tight(c.subject),
    tight(...(c.from ? [states(c.from), make("span", "arrow", " → ")] : []), states(c.to)), make("td", "", c.why))), 5,
    "Nothing has changed since this node was started.");
}

class Refused extends Error {}

async function ask(path, options = {}) {
  const headers = token ? { authorization: "Bearer " + token } : {};
  const response = await fetch(path, { headers, cache: "no-store", ...options });
  if (response.status === 401) throw new Refused();
  if (!response.ok) throw new Error("status " + response.status);
  return response;
}

function link(on, text) {
  at("link").className = "link " + (on ? "on" : "off");
  at("link").textContent = text;
}

function lost(error) {
  const refused = error instanceof Refused;
  at("gate").hidden = !refused;
  if (refused) at("main").hidden = true;
  link(false, refused ? "not let in" : "no answer; what is shown may be old");
}

// One question at a time; what comes while it is asked is asked once more after it.
async function refresh() {
  if (asking) {
    askAgain = true;
    return;
  }
  asking = true;
  try {
    const state = await (await ask("/v1/state", { signal: AbortSignal.timeout(5000) })).json();
    facts(state);
    matrix(state);
    steers(state);
    unwell(state);
    sources(state);
    intents(state);
    at("gate").hidden = true;
    at("main").hidden = false;
    link(true, "live");
  } catch (error) {
    lost(error);
  }
  asking = false;
  if (askAgain) {
    askAgain = false;
    refresh();
  }
}

// Server-sent events by fetch, for EventSource cannot carry a token.
async function follow() {
  moments = await (await ask("/v1/changes")).json();
  changes();
  const reader = (await ask("/v1/events")).body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (!data) continue;
      const moment = JSON.parse(data.slice(6));
      if (moment.changes.length > 0) moments = [moment, ...moments].slice(0, LOG);
      changes();
      refresh();
    }
  }
}

async function followForever() {
  for (;;) {
    try {
      await follow();
    } catch (error) {
      if (error instanceof Refused) lost(error);
    }
    await new Promise((wake) => setTimeout(wake, EVERY_MS));
  }
}

at("enter").addEventListener("click", () => {
  token = at("token").value;
  sessionStorage.setItem("token", token);
  refresh();
});
at("token").addEventListener("keydown", (event) => {
  if (event.key === "Enter") at("enter").click();
});
setInterval(() => { if (!document.hidden) refresh(); }, EVERY_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
refresh();
followForever();
