// The web UI: recent traces with filters, a trace's waterfall, services and dependencies.

import { colours, count, duration, el, table, time, zone } from "./format.js";
import { waterfall } from "./waterfall.js";

const WINDOWS = [["15m", 900], ["1h", 3600], ["6h", 21600], ["24h", 86400], ["7d", 604800]];

const main = document.getElementById("main");
const status = document.getElementById("status");

/** The page that is being shown; an answer for an earlier one is thrown away. */
let turn = 0;

async function ask(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, given] of Object.entries(parameters)) {
    for (const one of [given].flat()) if (one !== "" && one !== undefined) query.append(name, one);
  }
  const text = query.toString();
  const response = await fetch(`/api/v1/${path}${text ? `?${text}` : ""}`);
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.detail || `HTTP ${response.status}`);
  return body;
}

/** The window of a page: `from` and `to` of its URL (in the reader's time zone), or the last hours. */
function windowOf(query, fallback) {
  const at = (name) => Date.parse(query.get(name) || "") / 1000;
  const now = Math.ceil(Date.now() / 1000);
  if (query.get("from")) {
    const [start, end] = [at("from"), query.get("to") ? at("to") : now];
    if (!Number.isFinite(start) || !Number.isFinite(end)) throw new Error("From and To must be dates with a time");
    if (start > end) throw new Error("From is later than To");
    return { start, end };
  }
  return { start: now - secondsOf(query, fallback), end: now };
}

/** The fields of an absolute time range; they win over "Last" when From is given. */
function rangeFields(query) {
  const moment = (name) => el("input", { type: "datetime-local", step: "1", value: query.get(name) || "" });
  return [field(`From (${zone()})`, "from", moment("from")), field("To", "to", moment("to"))];
}

function secondsOf(query, fallback) {
  const chosen = WINDOWS.find(([name]) => name === query.get("last"));
  return (chosen || WINDOWS.find(([name]) => name === fallback))[1];
}

function link(page, parameters) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, given]) => given));
  return `#/${page}?${query}`;
}

// === traces

function field(label, name, control) {
  control.setAttribute("name", name);
  return el("label", {}, label, control);
}

function choice(options, chosen) {
  return el("select", {}, ...options.map(([text, given]) =>
    el("option", { value: given, selected: given === chosen }, text)));
}

function filters(query, services) {
  const text = (name, placeholder) =>
    el("input", { value: query.get(name) || "", placeholder, autocomplete: "off" });
  const names = services.map((service) => [service.name, service.name]);
  const submit = (event) => {
    event.preventDefault();
    location.hash = link("traces", Object.fromEntries(new FormData(event.target)));
  };
  return el("form", { class: "filters", onsubmit: submit },
    field("Service", "service", choice([["any", ""], ...names], query.get("service") || "")),
    field("Operation", "operation", text("operation", "any")),
    field("Status", "status", choice([["any", ""], ["error", "error"], ["ok", "ok"], ["unset", "unset"]],
      query.get("status") || "")),
    field("Tag", "tag", text("tag", "key=value")),
    field("Longer than", "minDuration", text("minDuration", "100ms")),
    field("Shorter than", "maxDuration", text("maxDuration", "2s")),
    field("Last", "last", choice(WINDOWS.map(([name]) => [name, name]), query.get("last") || "1h")),
    ...rangeFields(query),
    el("button", {}, "Search"));
}

function traceRow(trace) {
  const name = [el("b", {}, trace.rootService), ` ${trace.rootOperation}`];
  if (trace.rootMissing) name.push(el("span", { class: "dim" }, " (root span not received)"));
  const errors = trace.errorCount > 0
    ? el("span", { class: "bad" }, count(trace.errorCount)) : el("span", { class: "dim" }, "0");
  return [
    time(trace.start), el("a", { href: `#/trace/${trace.traceId}` }, ...name),
    duration(trace.durationNs), count(trace.spanCount), errors,
    el("code", { class: "dim" }, trace.traceId),
  ];
}

async function tracesPage(query) {
  const names = ["service", "operation", "status", "tag", "minDuration", "maxDuration"];
  const search = Object.fromEntries(names.map((name) => [name, query.get(name) || ""]));
  const window = windowOf(query, "1h");
  const listed = await ask("services");
  const rows = [];
  const holder = el("div", {});
  const load = async (cursor) => {
    const page = await ask("traces", { ...search, ...window, limit: 50, cursor });
    rows.push(...page.traces.map(traceRow));
    const headings = [`Start (${zone()})`, "Trace", "#Duration", "#Spans", "#Errors", "ID"];
    const next = el("button", { class: "more", type: "button" }, "Older traces");
    next.addEventListener("click", () => guard(() => load(page.nextCursor)));
    holder.replaceChildren(
      rows.length > 0 ? table(headings, rows)
        : el("p", { class: "note" }, page.hint || "No more traces match."),
      page.nextCursor ? next : "");
  };
  const form = filters(query, listed.services);
  // What is wrong with a filter stands below the filters, which stay for it to be put right.
  await load().catch((error) => holder.replaceChildren(el("p", { class: "note bad" }, error.message)));
  return [el("h1", {}, "Traces"), form, holder];
}

// === one trace

async function tracePage(id) {
  const trace = await ask(`traces/${encodeURIComponent(id)}`);
  const fact = (name, content) => el("span", {}, `${name} `, el("b", {}, content));
  const errors = trace.errorCount > 0
    ? el("span", { class: "bad" }, trace.errorCount === 1 ? "1 error" : `${count(trace.errorCount)} errors`) : undefined;
  const parts = [
    el("h1", {}, `${trace.rootService}: ${trace.rootOperation}`,
      trace.rootMissing ? el("span", { class: "dim" }, " (root span not received)") : undefined),
    el("p", { class: "facts" },
      fact("Start", `${time(trace.start)} ${zone()}`), fact("Duration", duration(trace.durationNs)),
      fact("Spans", count(trace.spanCount)), fact("Services", count(trace.services.length)), errors,
      el("code", {}, trace.traceId)),
    waterfall(trace, colours(trace.services)),
  ];
  if (trace.truncated) {
    parts.splice(2, 0, el("p", { class: "note bad" }, "This trace is too large: only its earliest spans are here."));
  }
  return parts;
}

// === services and dependencies

function windowPicker(page, query, fallback, extra = {}) {
  const select = choice(WINDOWS.map(([name]) => [name, name]), query.get("last") || fallback);
  select.addEventListener("change", () => { location.hash = link(page, { ...extra, last: select.value }); });
  const submit = (event) => {
    event.preventDefault();
    location.hash = link(page, { ...extra, ...Object.fromEntries(new FormData(event.target)) });
  };
  return el("form", { class: "filters", onsubmit: submit },
    field("Last", "last", select), ...rangeFields(query), el("button", {}, "Show"));
}

function rate(errors, all) {
  return errors > 0 ? el("span", { class: "bad" }, `${((100 * errors) / all).toFixed(1)} %`)
    : el("span", { class: "dim" }, "0 %");
}

async function servicesPage(query) {
  const last = query.get("last") || "1h";
  const range = { last, from: query.get("from"), to: query.get("to") };
  const { operations } = await ask("latency", windowOf(query, "1h"));
  const rows = operations.map((row) => [
    el("a", { href: link("traces", { service: row.service, ...range }) }, row.service),
    el("a", { href: link("traces", { service: row.service, operation: row.operation, ...range }) }, row.operation),
    el("span", { class: "dim" }, row.kind),
    count(row.count), rate(row.errorCount, row.count),
    duration(row.p50Ns), duration(row.p95Ns), duration(row.p99Ns),
  ]);
  const headings = ["Service", "Operation", "Kind", "#Spans", "#Errors", "#p50", "#p95", "#p99"];
  return [el("h1", {}, "Services"), windowPicker("services", query, "1h"),
    rows.length > 0 ? table(headings, rows) : el("p", { class: "note" }, "No spans in this time range.")];
}

async function dependenciesPage(query) {
  const { dependencies } = await ask("dependencies", windowOf(query, "1h"));
  const rows = dependencies.map((row) => [
    row.caller, row.callee, el("span", { class: "dim" }, row.connectionType.replace("_", " ") || "service"),
    count(row.count), rate(row.errorCount, row.count), duration(row.averageNs), duration(row.p95Ns),
  ]);
  const headings = ["Caller", "Callee", "Kind", "#Calls", "#Errors", "#Average", "#p95"];
  return [el("h1", {}, "Dependencies"), windowPicker("dependencies", query, "1h"),
    rows.length > 0 ? table(headings, rows)
      : el("p", { class: "note" }, "No calls between services in this time range.")];
}

// === routing

/** Runs `work` and shows what it fails with. */
async function guard(work) {
  const mine = ++turn;
  status.textContent = "Loading…";
  try {
    const parts = await work();
    if (mine === turn && parts) main.replaceChildren(...parts);
  } catch (error) {
    if (mine === turn) main.replaceChildren(el("p", { class: "note bad", role: "alert" }, error.message));
  } finally {
    if (mine === turn) status.textContent = "";
  }
}

function route() {
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const query = new URLSearchParams(search);
  const [page, id] = path.split("/");
  for (const anchor of document.querySelectorAll("nav a")) {
    if (anchor.hash === `#/${page || "traces"}`) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  const pages = { services: servicesPage, dependencies: dependenciesPage, traces: tracesPage };
  if (page === "trace" && id) guard(() => tracePage(decodeURIComponent(id)));
  else guard(() => (pages[page] || tracesPage)(query));
}

document.getElementById("open").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = new FormData(event.target).get("id").trim();
  location.hash = `#/trace/${id}`;
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener("hashchange", route);
route();
