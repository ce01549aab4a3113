// The status page: hears of the cluster by server-sent events, and draws what it heard.
//
// Honest about what it does not know: a connection that is gone, a snapshot that grows old, a
// placement driver without a leader are said at the top, and what stands below them is dimmed.

import { bytes, count, make, name, number, say, set, short, sync } from "./dom.js";
import { drawStores } from "./stores.js";
import { drawKeyspace, drawTable } from "./keyspace.js";
import { focusRange, showRange } from "./range.js";
import { drawAttention, drawWork, examine } from "./work.js";

/** Longer than the store's longest turn. */
const STALE_MS = 12_000;
const HISTORY = 60;

const at = (id) => document.getElementById(id);
const history = { reads: [], writes: [] };
let cluster = null;
let heard = 0;
let taken = null;
let trouble = null;
let broken = false;
let chosen = null;

function hear(page) {
  const setting = (name) => page.settings.find((setting) => setting.name === name)?.value;
  const present = page.stores.filter((store) => store.state !== "removed").length;
  const odd = Math.max(1, Math.min(present, 5));
  const factor = Number(setting("replication-factor")) || (odd % 2 ? odd : odd - 1);
  cluster = {
    ...page,
    leader: page.source.placement_leader,
    known: page.source.seen_by === "placement-driver",
    wanted: setting("replication-factor") ? factor : 0,
    splitBytes: Number(setting("range-split-size")) || null,
  };
  cluster.health = examine(cluster);
  const sum = (figure) => cluster.ranges.reduce((all, range) => all + range[figure], 0);
  for (const figure of ["reads", "writes"]) {
    history[figure].push(sum(figure));
    if (history[figure].length > HISTORY) history[figure].shift();
  }
  draw();
}

function draw() {
  set(at("main"), "hidden", false);
  drawVerdict();
  drawFacts();
  drawStores(cluster);
  drawKeyspace(cluster, chosen, open);
  showRange(cluster, chosen, close);
  drawTable(cluster, open);
  drawAttention(cluster, open);
  drawWork(cluster, open);
  const { answered_by: me } = cluster.source;
  say(at("who"), `cluster ${cluster.cluster.slice(-8)} · seen through ${me.name}`);
  say(at("version"), `RangeKV ${me.version}`);
}

function drawVerdict() {
  const down = cluster.stores.filter((store) => store.state === "down").map((store) => store.name);
  const tones = [...cluster.health.values()];
  const bad = tones.filter((range) => range.tone === "bad").length;
  const warn = tones.filter((range) => range.tone === "warn").length;
  const all = cluster.ranges.length;
  const present = cluster.stores.filter((store) => store.state !== "removed").length;
  let tone = "good";
  let text = present === 1 ? `One store serves ${count(all, "range")}.` : `${count(present, "store")} serve ${count(all, "range")}.`;
  const more = [];
  if (bad > 0) {
    tone = "bad";
    text = bad === all ? "No range can be served." : `${bad} of ${count(all, "range")} can't be served.`;
    more.push("A range is served while a majority of its replicas is up and has elected a leader; until then requests for its keys fail.");
  } else if (down.length > 0) {
    tone = "warn";
    text = `${down.join(", ")} ${down.length === 1 ? "is" : "are"} down; every range is served.`;
  } else if (!cluster.known) {
    tone = "warn";
    text = "The placement driver has no leader.";
  } else if (warn > 0) {
    tone = "warn";
    text = `Every range is served; ${warn} of ${all} ${warn === 1 ? "is" : "are"} not as ${warn === 1 ? "it" : "they"} should be.`;
  }
  if (bad > 0 && down.length > 0) more.push(`Down: ${down.join(", ")}.`);
  if (cluster.ranges_under_replicated > 0) {
    more.push(`${count(cluster.ranges_under_replicated, "range")} ${cluster.ranges_under_replicated === 1 ? "has" : "have"} fewer live replicas than wanted.`);
  }
  const running = cluster.operators.filter((operator) => operator.state === "running").length;
  if (running > 0) more.push(`${count(running, "operator")} under way.`);
  say(at("verdict"), text);
  set(at("verdict"), "data-tone", tone);
  say(at("verdict-more"), more.join(" "));
  document.title = `${tone === "good" ? "" : "▲ "}RangeKV`;
}

function drawFacts() {
  const sum = (figure) => cluster.ranges.reduce((all, range) => all + range[figure], 0);
  const known = (text) => (cluster.known ? text : "–");
  const facts = [
    { key: "ranges", label: "Ranges", text: number(cluster.ranges.length) },
    { key: "size", label: "Data, one copy", text: known(bytes(sum("size_bytes"))) },
    { key: "reads", label: "Reads per second", text: known(short(sum("reads"))), line: history.reads },
    { key: "writes", label: "Writes per second", text: known(short(sum("writes"))), line: history.writes },
    { key: "leader", label: "Placement leader", text: cluster.leader ? name(cluster, cluster.leader.store) : "none" },
    { key: "version", label: "Catalog version", text: number(cluster.catalog_version) },
  ];
  sync(at("facts"), facts, (fact) => fact.key,
    (fact) => make("div", {}, make("dt", {}, fact.label), make("dd"),
      fact.line ? make("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" }, make("path")) : null),
    (element, fact) => {
      say(element.querySelector("dd"), fact.text);
      if (fact.line) set(element.querySelector("path"), "d", spark(fact.line));
    });
}

function spark(line) {
  if (line.length < 2) return "M0 100H100";
  const most = Math.max(1, ...line);
  const x = (i) => (100 - ((line.length - 1 - i) * 100) / (HISTORY - 1)).toFixed(1);
  return line.map((value, i) => `${i ? "L" : "M"}${x(i)} ${(100 - (value / most) * 96).toFixed(1)}`).join("");
}

// ---- The range that is chosen; part of the address, so that it can be passed on. ----

function open(id) {
  const toggled = chosen === id ? null : id;
  window.history.replaceState(null, "", toggled === null ? "#" : `#range=${toggled}`);
  choose(toggled);
  if (toggled !== null) focusRange();
}

function close() {
  const was = chosen;
  window.history.replaceState(null, "", "#");
  choose(null);
  at(`range-${was}`)?.focus();
}

function choose(id) {
  chosen = id;
  if (cluster) draw();
}

function chooseByAddress() {
  const found = /^#range=(\d+)$/.exec(location.hash);
  choose(found ? Number(found[1]) : null);
}

window.addEventListener("hashchange", chooseByAddress);
at("table").addEventListener("toggle", () => cluster && drawTable(cluster, open));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && chosen !== null) close();
});

// ---- Hearing, and how old what was heard is. ----

function follow() {
  const events = new EventSource("/events");
  events.addEventListener("snapshot", (event) => {
    const page = JSON.parse(event.data);
    [heard, taken, trouble, broken] = [performance.now(), page.source.taken_ms, null, false];
    hear(page);
    drawLive();
  });
  events.addEventListener("tick", () => {
    [heard, trouble, broken] = [performance.now(), null, false];
    drawLive();
  });
  events.addEventListener("trouble", (event) => {
    [heard, trouble, broken] = [performance.now(), JSON.parse(event.data).why, false];
    drawLive();
  });
  events.onerror = () => {
    // The browser tries again by itself, save after an answer that was no stream.
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, 3000);
    broken = true;
    drawLive();
  };
}

function drawLive() {
  const quiet = performance.now() - heard;
  const lost = broken || (heard > 0 && quiet > STALE_MS);
  const tone = lost || trouble ? "bad" : heard ? "good" : "wait";
  set(at("live"), "data-tone", tone);
  const clock = taken ? new Date(taken).toLocaleTimeString() : null;
  say(at("live-text"), lost ? "connection lost; trying again" : trouble ? "no news" : heard ? `live · ${clock}` : "connecting …");
  set(at("main"), "data-stale", lost || Boolean(trouble));
  let banner = null;
  if (lost && clock) banner = ["bad", `This store does not answer. What stands below is from ${clock}.`];
  else if (lost) banner = ["bad", "This store does not answer."];
  else if (trouble) banner = ["bad", trouble + (clock ? ` What stands below is from ${clock}.` : "")];
  else if (cluster && !cluster.known) {
    banner = ["warn", `The placement driver has no leader that ${cluster.source.answered_by.name} can reach: nothing is repaired or balanced, while ranges with a majority go on serving. Below is what ${cluster.source.answered_by.name} last heard and can reach itself; sizes and loads are not known.`];
  }
  set(at("banner"), "hidden", banner === null);
  if (banner) {
    set(at("banner"), "data-tone", banner[0]);
    say(at("banner"), banner[1]);
  }
}

setInterval(drawLive, 1000);
chooseByAddress();
follow();
