// The stores: liveness, what they lead and hold, load, disk.

import { age, bytes, colour, make, number, say, set, short, sync } from "./dom.js";

const STATES = {
  up: ["good", "up"],
  draining: ["warn", "draining"],
  down: ["bad", "down"],
  removed: ["gone", "removed"],
};

export function drawStores(cluster) {
  const total = Math.max(1, ...cluster.stores.map((store) => load(cluster, store).total));
  sync(document.getElementById("stores"), cluster.stores, (store) => store.id, create, (card, store) =>
    update(card, cluster, store, total));
}

/** Requests per second of the ranges that a store leads. */
function load(cluster, store) {
  const led = cluster.ranges.filter((range) => range.leader === store.id);
  const reads = led.reduce((sum, range) => sum + range.reads, 0);
  const writes = led.reduce((sum, range) => sum + range.writes, 0);
  return { reads, writes, total: reads + writes };
}

function create() {
  const meter = (which) => make("div", { class: "meter", "data-meter": which }, make("i"), make("i"));
  const row = (label, which) => [make("dt", {}, label), make("dd", { "data-figure": which })];
  return make("li", { class: "store" },
    make("header", {}, make("h3"), make("span", { class: "chip" })),
    make("p", { class: "id" }),
    make("dl", { class: "figures" },
      row("ranges led", "leads"), row("replicas", "holds"),
      row("load per s", "load"), make("dd", { class: "wide" }, meter("load")),
      row("disk used", "used"), row("disk free", "free"), make("dd", { class: "wide" }, meter("disk"))),
    make("footer", {}, make("span", { "data-figure": "heard" }), make("a", { "data-figure": "page" })));
}

function update(card, cluster, store, most) {
  const figure = (which) => card.querySelector(`[data-figure=${which}]`);
  const meter = (which) => card.querySelector(`[data-meter=${which}]`);
  const [tone, word] = STATES[store.state] ?? ["warn", store.state];
  card.className = `store ${colour(cluster, store.id)}`;
  set(card, "data-state", store.state);
  say(card.querySelector("h3"), store.name);
  say(card.querySelector(".id"), `store ${store.id}${store.id === cluster.leader?.store ? " · leads placement" : ""}`);
  const chip = card.querySelector(".chip");
  set(chip, "data-tone", tone);
  say(chip, word);

  say(figure("leads"), number(store.leaders));
  say(figure("holds"), number(store.replicas));
  const known = cluster.known && store.heartbeat_age_ms !== null;
  const { reads, writes } = load(cluster, store);
  say(figure("load"), known ? `${short(reads)} r · ${short(writes)} w` : "not known");
  bars(meter("load"), known ? [reads / most, writes / most] : [0, 0], null);
  set(meter("load"), "hidden", !known);
  const disk = store.disk_used_bytes + store.disk_free_bytes;
  say(figure("used"), known && disk > 0 ? bytes(store.disk_used_bytes) : "not known");
  say(figure("free"), known && disk > 0 ? bytes(store.disk_free_bytes) : "not known");
  const filled = disk > 0 ? store.disk_used_bytes / disk : 0;
  bars(meter("disk"), [filled, 0], filled > .9 ? "bad" : filled > .75 ? "warn" : null);
  set(meter("disk"), "hidden", !known || disk === 0);

  let heard = "not heard by this leader yet";
  if (!cluster.known) heard = store.state === "up" ? "connected to this store" : "no connection to this store";
  else if (store.state === "removed") heard = "removed for good";
  else if (known && store.state === "down") heard = `silent for ${age(store.heartbeat_age_ms)}`;
  else if (known) heard = `up for ${age(store.uptime_ms)}`;
  say(figure("heard"), heard);
  const page = figure("page");
  set(page, "href", store.http_address && store.state !== "removed" ? `//${store.http_address}/` : null);
  say(page, store.redis_address);
  set(page, "title", `Redis at ${store.redis_address}, gRPC at ${store.grpc_address}`);
  set(card, "aria-label", `${store.name}, ${word}, leads ${number(store.leaders)}`);
}

function bars(meter, shares, tone) {
  set(meter, "data-tone", tone);
  shares.forEach((share, at) => {
    meter.children[at].style.width = `${Math.min(100, share * 100).toFixed(2)}%`;
  });
}
