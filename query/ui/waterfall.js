// A trace's waterfall: one row a span, a bar on a common time axis, details below a row on demand.

import { count, duration, el, time, value } from "./format.js";

/** Rows that are made at a time; a trace of 100,000 spans must not freeze the page. */
const ROWS_AT_ONCE = 1000;

/** Indentation stops growing here, so that deep spans can still be read. */
const INDENT_MAX = 24;

/** `colours` has a class for each service. */
export function waterfall(trace, colours) {
  const begin = BigInt(trace.startUnixNano);
  const total = Math.max(Number(trace.durationNs), 1);
  const rows = el("div", { role: "list" });
  rows.addEventListener("keydown", (event) => moveFocus(rows, event));
  const more = el("button", { class: "more", type: "button" });
  let shown = 0;
  const show = () => {
    const next = trace.spans.slice(shown, shown + ROWS_AT_ONCE);
    rows.append(...next.map((span) => item(span, begin, total, colours.get(span.service))));
    shown += next.length;
    more.hidden = shown >= trace.spans.length;
    more.textContent = `Show more (${count(trace.spans.length - shown)} left)`;
  };
  more.addEventListener("click", show);
  show();
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => el("span", {}, duration(Math.round(total * part))));
  const axis = el("div", { class: "axis", "aria-hidden": "true" },
    el("span", {}, "Span"), el("span", { class: "ticks" }, ...ticks));
  return el("div", {}, el("div", { class: "waterfall" }, axis, rows), more);
}

function moveFocus(rows, event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || !event.target.classList.contains("row")) return;
  const all = [...rows.querySelectorAll(".row")];
  const next = all[all.indexOf(event.target) + step];
  if (next) {
    event.preventDefault();
    next.focus();
  }
}

function item(span, begin, total, colour) {
  const failed = span.status === "error";
  const left = Math.min(Math.max(Number(BigInt(span.startUnixNano) - begin) / total, 0), 1);
  const width = Math.min(Number(span.durationNs) / total, 1 - left);
  const bar = el("span", { class: `bar ${colour}` });
  bar.style.left = `${left * 100}%`;
  bar.style.width = `${width * 100}%`;
  const label = el("span", { class: "time" }, duration(span.durationNs));
  if (left + width < 0.85) label.style.left = `${(left + width) * 100}%`;
  else if (left > 0.15) label.style.right = `${(1 - left) * 100}%`;
  else {
    // Neither side has room.
    label.style.right = `${(1 - left - width) * 100}%`;
    label.classList.add("inside");
  }
  const name = el("span", { class: "label" },
    el("span", { class: `dot ${colour}` }),
    el("span", { class: "name" }, span.name || "(no name)"),
    ...marks(span).map((text) => el("span", { class: "mark" }, text)),
    el("span", { class: "dim" }, span.service));
  name.style.paddingLeft = `${10 + Math.min(span.depth, INDENT_MAX) * 14}px`;
  const row = el("button", {
    class: `row${failed ? " failed" : ""}`, type: "button", "aria-expanded": "false",
    title: `${span.service}: ${span.name}`,
  }, name, el("span", { class: "track" }, bar, label));
  const holder = el("div", { role: "listitem" }, row);
  row.addEventListener("click", () => {
    const open = row.getAttribute("aria-expanded") === "true";
    row.setAttribute("aria-expanded", String(!open));
    if (open) holder.lastChild.remove();
    else holder.append(details(span, begin));
  });
  return holder;
}

function marks(span) {
  const found = [];
  if (span.status === "error") found.push("error");
  if (span.orphan) found.push("orphan");
  if (span.clockSkewNs) found.push(`clock skew ${duration(span.clockSkewNs)}`);
  if (span.duplicates) found.push(`stored ${span.duplicates + 1} times`);
  if (span.depth > INDENT_MAX) found.push(`depth ${span.depth}`);
  return found;
}

function details(span, begin) {
  const attributes = (list) => list.map((attribute) => [attribute.key, value(attribute)]);
  const parts = [
    facts("Span", [
      ["span id", span.spanId], ["parent", span.parentSpanId], ["kind", span.kind],
      ["status", span.statusMessage ? `${span.status}: ${span.statusMessage}` : span.status],
      ["start", `${time(span.start)} (+${duration(BigInt(span.startUnixNano) - begin)})`],
      ["duration", duration(span.durationNs)], ["trace state", span.traceState],
      ["dropped attributes", span.droppedAttributesCount || ""],
    ]),
    facts("Attributes", attributes(span.attributes)),
  ];
  for (const event of span.events) {
    const offset = duration(BigInt(event.timeUnixNano) - BigInt(span.startUnixNano));
    parts.push(facts(`Event: ${event.name} at +${offset}`, attributes(event.attributes), true));
  }
  for (const link of span.links) {
    const target = el("a", { href: `#/trace/${link.traceId}` }, link.traceId);
    parts.push(facts("Link", [["trace", target], ["span", link.spanId], ...attributes(link.attributes)]));
  }
  parts.push(facts("Resource", attributes(span.resource.attributes)));
  parts.push(facts("Scope", [
    ["name", span.scope.name], ["version", span.scope.version], ...attributes(span.scope.attributes),
  ]));
  return el("div", { class: "details" }, ...parts);
}

/** A heading and its pairs; without pairs nothing, unless the heading says something itself. */
function facts(heading, pairs, always = false) {
  const given = pairs.filter(([, content]) => content !== "" && content !== undefined);
  if (given.length === 0 && !always) return undefined;
  const list = given.flatMap(([key, content]) =>
    [el("dt", { class: "mono" }, key), el("dd", { class: "mono" }, content)]);
  return el("section", {}, el("h2", {}, heading), el("dl", {}, ...list));
}
