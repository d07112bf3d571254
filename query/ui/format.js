// Text for people, and elements. Nothing from the API is ever parsed as HTML: `el` sets text only.

/** Makes an element: `el("a", {href, class}, child, "text", …)`. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== undefined && child !== null));
  return node;
}

/** Nanoseconds, given as a string or a BigInt, as `1.2 ms`. */
export function duration(ns) {
  const number = Number(ns);
  for (const [unit, scale] of [["h", 3.6e12], ["min", 6e10], ["s", 1e9], ["ms", 1e6], ["µs", 1e3]]) {
    if (number >= scale) return `${trim(number / scale)} ${unit}`;
  }
  return `${number} ns`;
}

function trim(number) {
  return number >= 100 ? number.toFixed(0) : number >= 10 ? number.toFixed(1) : number.toFixed(2);
}

/** An RFC 3339 time in the reader's zone, to the millisecond. */
export function time(text) {
  const date = new Date(text);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return `${day} ${clock}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/** A count with its thousands apart. */
export function count(number) {
  return Number(number).toLocaleString("en");
}

/** A typed attribute value as text. */
export function value(typed) {
  if (typed.type === "array") return `[${typed.value.map(value).join(", ")}]`;
  if (typed.type === "kvlist") {
    return `{${typed.value.map((member) => `${member.key}: ${value(member)}`).join(", ")}}`;
  }
  if (typed.type === "empty") return "(empty)";
  return String(typed.value);
}

/** The name of the reader's time zone, for times that are shown in it. */
export function zone() {
  const parts = new Intl.DateTimeFormat("en", { timeZoneName: "short" }).formatToParts(new Date());
  return parts.find((part) => part.type === "timeZoneName").value;
}

/** How many colours there are: `c0` and so on in app.css. */
const COLOURS = 8;

/**
 * A colour class for each of a trace's services, by name. A service has the same in every trace unless
 * another of this one has it already: no two share one as long as there are enough.
 */
export function colours(services) {
  const taken = new Array(COLOURS).fill(0);
  const classes = new Map();
  for (const service of [...services].sort()) {
    let hash = 0;
    for (const char of service) hash = (hash * 31 + char.codePointAt(0)) >>> 0;
    let place = hash % COLOURS;
    const least = Math.min(...taken);
    while (taken[place] > least) place = (place + 1) % COLOURS;
    taken[place] += 1;
    classes.set(service, `c${place}`);
  }
  return classes;
}

/** A table from headings (`"#…"` for numbers) and rows of cells. */
export function table(headings, rows) {
  const isNumber = headings.map((heading) => heading.startsWith("#"));
  const cell = (tag, place, content, extra = {}) =>
    el(tag, { ...extra, class: isNumber[place] ? "number" : extra.class }, content);
  const head = headings.map((text, place) =>
    cell("th", place, text.replace("#", ""), { scope: "col" }));
  const body = rows.map((cells) =>
    el("tr", {}, ...cells.map((content, place) => cell("td", place, content, { class: "wide" }))));
  return el("div", { class: "scroll" },
    el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body)));
}
