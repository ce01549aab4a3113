// The keyspace as a strip: one cell per range, in key order, wrapped like a line of text.
//
// The ground is filled by size, its colour is the leader's; what stands on it is load. The cells
// are one stop for the Tab key: arrows go from range to range, Enter opens one.

import { bytes, colour, count, make, name, say, set, short, slots, swatch, sync } from "./dom.js";

const strip = document.getElementById("strip");
const readout = document.getElementById("readout");
let current = null;
let cluster = null;
let focused = null;
let described = null;

/** Draws the ranges of `next`; `open(id)` is called for the one that is chosen. */
export function drawKeyspace(next, chosen, open) {
  cluster = next;
  current = chosen;
  const cells = withHoles(cluster.ranges);
  set(strip, "data-many", cells.length > 24);
  set(strip, "data-crowd", cells.length > 700);
  const most = Math.max(1, ...cluster.ranges.map((range) => range.reads + range.writes));
  const full = cluster.splitBytes ?? Math.max(1, ...cluster.ranges.map((range) => range.size_bytes));
  if (!cells.some((cell) => cell.id === focused)) focused = cells.find((cell) => cell.id)?.id ?? null;
  sync(strip, cells, (cell) => cell.id ?? `hole-${cell.start}`, (cell) => create(cell, open), (element, cell) => {
    if (cell.id) update(element, cell, most, full);
  });
  legend();
  const scale = cluster.splitBytes ? `full = ${bytes(full)}, where it is split` : `full = the largest, ${bytes(full)}`;
  // The eye compares areas: the square root keeps a tenth of the load visible beside the whole.
  const tallest = most > 1 ? ` (the tallest: ${short(most)} per second; a tower half as high: a quarter)` : "";
  const ill = [...cluster.health.values()].some((range) => range.tone === "warn");
  const folded = ill ? " A folded corner: a replica is missing or lags." : "";
  say(document.getElementById("key"), cluster.known
    ? `${count(cluster.ranges.length, "range")} in key order. Colour: the leader. Fill: size, ${scale}. Towers: requests${tallest}.${folded}`
    : `${count(cluster.ranges.length, "range")} in key order. Colour: the leader, as far as this store knows. Sizes and loads are not known.`);
  describe(described);
}

/** Where no range is known between two, a hole. */
function withHoles(ranges) {
  const cells = [];
  let end = "";
  ranges.forEach((range, at) => {
    if (at === 0 ? range.start !== "" : range.start !== end) cells.push({ id: null, start: end });
    cells.push(range);
    end = range.end;
  });
  if (ranges.length > 0 && end !== "") cells.push({ id: null, start: end });
  return cells;
}

function create(cell, open) {
  if (!cell.id) {
    return make("div", { class: "cell", "data-hole": true, role: "presentation", title: "no range is known here" },
      make("span", { class: "load" }), make("span", { class: "ground" }));
  }
  const id = cell.id;
  return make("div", {
    class: "cell", role: "option", tabindex: "-1", id: `range-${id}`,
    onclick: () => open(id),
    onpointerenter: () => describe(id),
    onpointerleave: () => describe(null),
    onfocus: () => { focused = id; rove(); describe(id); },
    onblur: () => describe(null),
    onkeydown: (event) => press(event, id, open),
  },
    make("span", { class: "load" }), make("span", { class: "ground" }, make("i"), make("span", { class: "name" })),
    make("span", { class: "mark", "aria-hidden": "true" }));
}

function update(element, range, most, full) {
  const health = cluster.health.get(range.id);
  element.className = `cell ${colour(cluster, range.leader)}`;
  set(element, "data-tone", health.tone === "good" ? null : health.tone);
  set(element, "--load", Math.sqrt((range.reads + range.writes) / most).toFixed(3));
  set(element, "--fill", Math.min(1, range.size_bytes / full).toFixed(3));
  say(element.querySelector(".name"), health.tone === "bad" ? String(range.id) : `${range.id} ${name(cluster, range.leader)}`);
  say(element.querySelector(".mark"), health.tone === "bad" ? "■" : "");
  set(element, "aria-selected", String(range.id === current));
  set(element, "tabindex", range.id === focused ? "0" : "-1");
  set(element, "aria-label", sentence(range).join(", "));
}

function sentence(range) {
  const health = cluster.health.get(range.id);
  const words = [`range ${range.id}`, slots(range), range.leader ? `led by ${name(cluster, range.leader)}` : "no leader"];
  if (cluster.known) words.push(bytes(range.size_bytes), `${short(range.reads)} reads/s`, `${short(range.writes)} writes/s`);
  words.push(...health.notes);
  return words;
}

/** Says more of range `id`, or for null of the one that is chosen. */
function describe(id) {
  described = id;
  const range = cluster?.ranges.find((r) => r.id === (id ?? current));
  if (!range) return say(readout, "Point at a range, or choose one, to see more of it.");
  const [first, ...rest] = sentence(range);
  readout.replaceChildren(make("b", {}, first), ` · ${rest.join(" · ")}`);
}

function rove() {
  for (const cell of strip.children) {
    if (cell.dataset.hole === undefined) set(cell, "tabindex", cell.dataset.key === String(focused) ? "0" : "-1");
  }
}

function press(event, id, open) {
  const cells = [...strip.children].filter((cell) => cell.dataset.hole === undefined);
  const at = cells.findIndex((cell) => cell.dataset.key === String(id));
  const perRow = () => {
    const top = cells[0].offsetTop;
    const next = cells.findIndex((cell) => cell.offsetTop > top);
    return next < 0 ? cells.length : next;
  };
  const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -cells.length, End: cells.length };
  let step = steps[event.key];
  if (event.key === "ArrowDown") step = perRow();
  if (event.key === "ArrowUp") step = -perRow();
  if (step !== undefined) {
    cells[Math.max(0, Math.min(cells.length - 1, at + step))].focus();
  } else if (event.key === "Enter" || event.key === " ") {
    open(id);
  } else {
    return;
  }
  event.preventDefault();
}

function legend() {
  const leading = cluster.stores.filter((store) => store.leaders > 0 || store.state !== "removed");
  sync(document.getElementById("legend"), leading, (store) => store.id,
    (store) => make("li", {}, swatch(cluster, store.id), make("span")),
    (item, store) => {
      item.firstChild.className = `swatch ${colour(cluster, store.id)}`;
      say(item.lastChild, `${store.name} ${store.leaders}`);
    });
}

/** The same as a table, for whoever wants to read or search it. */
export function drawTable(next, open) {
  const details = document.getElementById("table");
  if (!details.open) return;
  const head = ["range", "slots", "leader", "replicas", "size", "reads/s", "writes/s"];
  const numeric = (at) => (at >= 4 ? { class: "n", scope: "col" } : { scope: "col" });
  const box = details.querySelector(".scroll");
  if (!box.firstChild) {
    box.append(make("table", {}, make("thead", {}, make("tr", {}, head.map((text, at) => make("th", numeric(at), text)))), make("tbody")));
  }
  sync(box.querySelector("tbody"), next.ranges, (range) => range.id,
    (range) => make("tr", {}, make("td", {}, make("a", { href: `#range=${range.id}`, onclick: (event) => { event.preventDefault(); open(range.id); } }, String(range.id))),
      make("td"), make("td", {}, make("span", { class: "swatch" }), make("span")), make("td"), make("td", { class: "n" }), make("td", { class: "n" }), make("td", { class: "n" })),
    (row, range) => {
      const cells = row.children;
      say(cells[1], slots(range));
      cells[2].firstChild.className = `swatch ${colour(next, range.leader)}`;
      say(cells[2].lastChild, range.leader ? name(next, range.leader) : "none");
      say(cells[3], range.replicas.map((replica) => name(next, replica.store) + (replica.lagging ? " (lags)" : "")).join(", "));
      const figures = [bytes(range.size_bytes), short(range.reads), short(range.writes)];
      figures.forEach((text, at) => say(cells[4 + at], next.known ? text : "–"));
    });
}
