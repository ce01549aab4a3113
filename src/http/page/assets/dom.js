// Making and updating elements, and how numbers, ages and stores are written.
//
// Text is only ever set as text: what a store says can't become markup.

/** An element: `make("td", { class: "n", onclick: f }, "text", child)`. */
export function make(tag, attributes = {}, ...children) {
  const svg = tag === "svg" || tag === "path";
  const element = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) set(element, name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets an attribute, a listener (`onclick`) or a CSS variable (`--x`); null removes it. */
export function set(element, name, value) {
  if (name.startsWith("--")) {
    if (element.style.getPropertyValue(name) !== String(value)) element.style.setProperty(name, value);
  } else if (name.startsWith("on")) {
    element.addEventListener(name.slice(2), value);
  } else if (value === null || value === undefined || value === false) {
    element.removeAttribute(name);
  } else {
    const text = value === true ? "" : String(value);
    if (element.getAttribute(name) !== text) element.setAttribute(name, text);
  }
}

/** Sets text where it differs, so that a reader's selection and a screen reader are left alone. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Makes `parent` hold one element per item, in order; elements are kept by key. */
export function sync(parent, items, key, create, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let element = known.get(name);
    known.delete(name);
    if (!element) {
      element = create(item);
      element.dataset.key = name;
    }
    if (element === at) at = at.nextElementSibling;
    else parent.insertBefore(element, at);
    if (update) update(element, item);
  }
  for (const gone of known.values()) gone.remove();
}

const whole = new Intl.NumberFormat("en");

/** 12,345 */
export const number = (n) => whole.format(n);

/** 1.2 k, 34 M: three digits at most. */
export function short(n) {
  for (const [size, unit] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
    if (n >= size) return `${trim(n / size)}${unit}`;
  }
  return String(Math.round(n));
}

/** 4.5 MiB */
export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? n : trim(n)} ${units[unit]}`;
}

const trim = (n) => (n >= 100 ? Math.round(n) : n >= 10 ? n.toFixed(1) : n.toFixed(2)).toString().replace(/\.0+$/, "");

/** 3 s, 5 min, 2 h, 4 d */
export function age(ms) {
  const s = ms / 1000;
  if (s < 100) return `${Math.round(s)} s`;
  if (s < 6000) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

/** "1 range", "3 ranges" */
export const count = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

/** The classes of a store's colour: eight colours, then the same ones hatched. */
export function colour(cluster, store) {
  const at = cluster.stores.findIndex((s) => s.id === store);
  if (at < 0) return "";
  return `s${at % 8}${at >= 8 ? " hatch" : ""}`;
}

/** What people call a store. */
export function name(cluster, store) {
  if (store === null || store === undefined) return "nobody";
  return cluster.stores.find((s) => s.id === store)?.name ?? `store ${store}`;
}

/** A square in a store's colour. */
export const swatch = (cluster, store) => make("span", { class: `swatch ${colour(cluster, store)}`, "aria-hidden": "true" });

/** Slots of a range, for people. */
export function slots(range) {
  if (range.id === 1) return "placement driver";
  if (!range.slots) return "no Redis slots";
  const [first, last] = range.slots;
  return first === last ? `slot ${first}` : `slots ${first}–${last}`;
}
