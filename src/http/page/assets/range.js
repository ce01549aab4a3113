// One range: its bounds, and what each of its replicas says of itself, asked anew while it shows.

import { bytes, colour, make, name, number, say, set, short, slots, swatch } from "./dom.js";

const AGAIN_MS = 1500;
const article = document.getElementById("range");
let shown = null;
let timer = null;
let asked = 0;

/** Shows range `id`, or nothing for null. `close` is called when the reader has seen enough. */
export function showRange(cluster, id, close) {
  if (id === null) {
    shown = null;
    clearTimeout(timer);
    set(article, "hidden", true);
    return;
  }
  const range = cluster.ranges.find((r) => r.id === id);
  if (shown !== id) {
    shown = id;
    build(id, close);
    set(article, "hidden", false);
    ask(cluster);
  }
  article.className = `range ${colour(cluster, range?.leader ?? null)}`;
  article.cluster = cluster;
  if (range) drawKnown(cluster, range);
  else say(part("bounds"), "The placement driver no longer knows this range: it may have been merged into its neighbour.");
}

/** Moves the reader to the heading. */
export function focusRange() {
  article.querySelector("h3")?.focus({ preventScroll: true });
  article.scrollIntoView({ block: "nearest" });
}

const part = (which) => article.querySelector(`[data-part=${which}]`);

function build(id, close) {
  const head = ["replica", "role", "term", "commit", "applied", "behind", "log", "lease"];
  article.replaceChildren(
    make("header", {}, make("h3", { id: "range-title", tabindex: "-1" }, `Range ${id}`),
      make("span", { class: "quiet", "data-part": "figures" }),
      make("button", { type: "button", onclick: close }, "Close")),
    make("p", { class: "quiet bounds", "data-part": "bounds" }),
    make("div", { class: "scroll" }, make("table", {},
      make("thead", {}, make("tr", {}, head.map((text, at) => make("th", at >= 2 ? { class: "n", scope: "col" } : { scope: "col" }, text)))),
      make("tbody", { "data-part": "replicas" }))),
    make("p", { class: "quiet", role: "status", "data-part": "trouble" }));
}

function drawKnown(cluster, range) {
  const known = cluster.known ? ` · ${bytes(range.size_bytes)} · ${short(range.reads)} reads/s · ${short(range.writes)} writes/s` : "";
  say(part("figures"), `${slots(range)}${known}`);
  const bound = (key, open) => make("code", {}, key === "" ? open : shorten(key));
  part("bounds").replaceChildren("from ", bound(range.start, "the beginning"), " up to ", bound(range.end, "the end"),
    ` · epoch ${range.conf_version}.${range.version}`);
}

const shorten = (hex) => (hex.length > 48 ? `${hex.slice(0, 40)}… (${hex.length / 2} bytes)` : hex);

async function ask() {
  clearTimeout(timer);
  const [id, turn] = [shown, ++asked];
  let trouble = "";
  try {
    const response = await fetch(`/pd/api/v1/ranges/${id}`, { cache: "no-store" });
    const body = await response.json();
    if (shown !== id || asked !== turn) return;
    if (response.ok) drawReplicas(article.cluster, body);
    else trouble = body.message;
  } catch (error) {
    trouble = `This store did not answer (${error.message}); what stands above is from before.`;
  }
  if (shown !== id || asked !== turn) return;
  say(part("trouble"), trouble);
  timer = setTimeout(ask, AGAIN_MS);
}

function drawReplicas(cluster, { range, replicas }) {
  const committed = Math.max(0, ...replicas.map((replica) => replica.raft?.committed ?? 0));
  const rows = replicas.map((replica) => {
    const member = range.replicas.find((r) => r.id === replica.id);
    const who = make("td", {}, swatch(cluster, replica.store), name(cluster, replica.store), make("span", { class: "quiet" }, ` ${replica.id}`));
    const vote = member && member.role !== "voter" ? ` (${member.role})` : "";
    if (!replica.raft) {
      return make("tr", {}, who, make("td", { colspan: "7", "data-tone": "bad" }, `no answer${vote}: ${replica.error}`));
    }
    const raft = replica.raft;
    const behind = committed - raft.applied;
    const n = (text, tone) => make("td", { class: "n", "data-tone": tone }, text);
    return make("tr", {}, who,
      make("td", {}, raft.role + vote + (raft.pending_conf_change ? ", changing members" : "")),
      n(number(raft.term)), n(number(raft.committed)), n(number(raft.applied)),
      n(behind > 0 ? number(behind) : "0", member?.lagging ? "warn" : null),
      n(number(raft.last_index - raft.truncated)),
      n(raft.lease_remaining_ms > 0 ? `${number(raft.lease_remaining_ms)} ms` : "–"));
  });
  part("replicas").replaceChildren(...rows);
}
