// What needs attention, and what is done about it: operators, schedulers, settings.

import { age, count, make, name, say, set, sync } from "./dom.js";

const LISTED_MAX = 12;
const NAMED_MAX = 12;

/** What is wrong with each range: `Map(id → {tone, notes})`. */
export function examine(cluster) {
  const down = new Set(cluster.stores.filter((store) => store.state === "down" || store.state === "removed").map((store) => store.id));
  const health = new Map();
  for (const range of cluster.ranges) {
    const notes = [];
    let tone = "good";
    const names = (replicas) => replicas.map((replica) => name(cluster, replica.store)).sort().join(", ");
    const on = (replicas, one, many) => (replicas.length === 1 ? `replica on ${names(replicas)} ${one}` : `replicas on ${names(replicas)} ${many}`);
    const dead = range.replicas.filter((replica) => down.has(replica.store));
    const lagging = range.replicas.filter((replica) => replica.lagging && !down.has(replica.store));
    const other = range.replicas.filter((replica) => replica.role !== "voter");
    const voters = range.replicas.length - other.length;
    const silent = dead.filter((replica) => replica.role === "voter").length;
    if (silent * 2 >= voters && silent > 0) notes.push("no majority is up");
    else if (!range.leader || down.has(range.leader)) notes.push("no leader");
    if (notes.length > 0) tone = "bad";
    if (dead.length > 0) notes.push(on(dead, "is down", "are down"));
    if (lagging.length > 0) notes.push(on(lagging, "lags", "lag"));
    if (other.length > 0) notes.push(`${names(other)}: ${other[0].role}`);
    if (range.id !== 1 && voters < cluster.wanted) notes.push(`${count(voters, "voter")} instead of ${cluster.wanted}`);
    if (notes.length > 0 && tone === "good") tone = "warn";
    health.set(range.id, { tone, notes });
  }
  return health;
}

export function drawAttention(cluster, open) {
  const order = { bad: 0, warn: 1 };
  const ill = cluster.ranges
    .map((range) => ({ key: range.id, range, ...cluster.health.get(range.id) }))
    .filter((range) => range.tone !== "good")
    .sort((a, b) => order[a.tone] - order[b.tone]);
  // What has one cause is one line, however many ranges it concerns.
  const causes = new Map();
  for (const range of ill) {
    const cause = range.notes.join("; ");
    const same = causes.get(cause) ?? { key: cause, tone: range.tone, text: cause, ranges: [] };
    same.ranges.push(range.range);
    causes.set(cause, same);
  }
  const items = [...causes.values()].slice(0, LISTED_MAX);
  if (causes.size > LISTED_MAX) items.push({ key: "more", tone: "warn", text: `and ${count(causes.size - LISTED_MAX, "more kind", "more kinds")} of trouble`, ranges: [] });
  if (items.length === 0) items.push({ key: "none", tone: "good", text: "Every range has a leader, and every replica keeps up.", ranges: [] });
  sync(document.getElementById("attention"), items, (item) => item.key,
    () => make("li", {}, make("div", {}, make("span"), make("span", { class: "quiet" }))),
    (element, item) => {
      set(element, "data-tone", item.tone);
      const [text, where] = element.firstChild.children;
      say(text, item.text);
      sync(where, named(item.ranges), (part) => part.key, (part) => part.id ? link(part.id, open) : make("span"), (child, part) => {
        if (!part.id) say(child, part.text);
      });
    });
}

/** " · range 3, 7, … and 20 more", the numbers as links. */
function named(ranges) {
  if (ranges.length === 0) return [];
  const parts = [{ key: "head", text: ranges.length === 1 ? ` · range ` : ` · ${ranges.length} ranges: ` }];
  ranges.slice(0, NAMED_MAX).forEach((range, at) => {
    if (at > 0) parts.push({ key: `, ${range.id}`, text: ", " });
    parts.push({ key: range.id, id: range.id });
  });
  if (ranges.length > NAMED_MAX) parts.push({ key: "tail", text: " …" });
  return parts;
}

const link = (id, open, text = String(id)) =>
  make("a", { href: `#range=${id}`, onclick: (event) => { event.preventDefault(); open(id); } }, text);

export function drawWork(cluster, open) {
  const running = cluster.operators.filter((operator) => operator.state === "running");
  const done = cluster.operators.filter((operator) => operator.state !== "running").reverse();
  const first = running.slice(0, LISTED_MAX);
  if (running.length > LISTED_MAX) first.push({ id: "more", none: `and ${count(running.length - LISTED_MAX, "more", "more")}` });
  list("running", first, cluster.known ? "Nothing is under way." : "Not known without a leader.", open);
  list("done", done.slice(0, 8), cluster.known ? "Nothing since this leader took over." : "Not known without a leader.", open);

  const schedulers = cluster.schedulers.flatMap((scheduler) => [
    { key: `${scheduler.name}-t`, tag: "dt", text: scheduler.name + (scheduler.enabled ? "" : " (off)") },
    { key: `${scheduler.name}-d`, tag: "dd", text: scheduler.reasons.join("; ") || "nothing to say" },
  ]);
  const lines = schedulers.length > 0 ? schedulers : [{ key: "none", tag: "dd", text: cluster.known ? "No scheduler has run yet." : "Not known without a leader." }];
  sync(document.getElementById("schedulers"), lines, (line) => line.key, (line) => make(line.tag), (element, line) => say(element, line.text));

  const settings = cluster.settings.flatMap((setting) => [
    { key: `${setting.name}-n`, tag: "dt", text: setting.name },
    { key: `${setting.name}-v`, tag: "dd", text: setting.value, changed: setting.value !== setting.default },
    { key: `${setting.name}-h`, tag: "dd", class: "help", text: setting.help + (setting.value === setting.default ? "" : ` (default: ${setting.default})`) },
  ]);
  set(document.getElementById("settings"), "hidden", settings.length === 0);
  sync(document.querySelector(".settings"), settings, (line) => line.key, (line) => make(line.tag), (element, line) => {
    set(element, "class", line.class ?? (line.changed ? "changed" : null));
    say(element, line.text);
  });
}

const OUTCOMES = { done: null, failed: "bad", "timed-out": "bad", cancelled: "warn" };

function list(id, operators, none, open) {
  const items = operators.length > 0 ? operators : [{ id: "none", none }];
  sync(document.getElementById(id), items, (operator) => operator.id,
    (operator) => operator.none ? make("li", { class: "none" }) : make("li", {},
      make("div", { class: "what" }, make("span"), make("span", { class: "outcome" }), make("time")),
      make("div", { class: "why" })),
    (item, operator) => {
      if (operator.none) return say(item, operator.none);
      const [what, outcome, when] = item.firstChild.children;
      if (!what.firstChild) {
        what.append(link(operator.range, open, `range ${operator.range}`), make("span"));
      }
      say(what.lastChild, `: ${operator.goal}`);
      const steps = operator.steps.filter((step) => step.done).length;
      say(outcome, operator.state === "running" ? (steps > 0 ? count(steps, "step done", "steps done") : "") : operator.state);
      set(outcome, "data-tone", OUTCOMES[operator.state] ?? null);
      say(when, operator.ended_ms_ago === null ? `for ${age(operator.age_ms)}` : `${age(operator.ended_ms_ago)} ago`);
      const last = operator.steps.at(-1);
      const now = operator.state === "running" && last && !last.done ? `now: ${last.step}${last.error ? ` (${last.error})` : ""}` : "";
      say(item.lastChild, [`${operator.scheduler}: ${operator.reason}`, now, operator.detail].filter(Boolean).join(" · "));
    });
}
