// Sends a trace that uses everything OTLP can carry, by the official SDK for JavaScript.
//
//     NODE_PATH=…/node_modules node client.cjs json|proto ENDPOINT
//
// Prints what the SDK itself holds of each finished span, in the form of Spanloom's API, as JSON.
"use strict";

const { ROOT_CONTEXT, SpanKind, SpanStatusCode, TraceFlags, createTraceState, trace } =
  require("@opentelemetry/api");
const { resourceFromAttributes } = require("@opentelemetry/resources");
const { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } =
  require("@opentelemetry/sdk-trace-base");

const KINDS = ["internal", "server", "client", "producer", "consumer"];
const STATUSES = ["unset", "ok", "error"];

const ATTRIBUTES = {
  "string": "text",
  "string.empty": "",
  "string.non_ascii": "größe 名前 🧵",
  "string.awkward": "\"quoted\" \\back\\ 'single'\n\tline\r\u0000\u0001\u007f {}[]",
  "bool.true": true,
  "bool.false": false,
  "int": 42,
  "int.negative": -7,
  "int.max_safe": Number.MAX_SAFE_INTEGER,
  "int.min_safe": Number.MIN_SAFE_INTEGER,
  "double": 0.1,
  "double.exponent": 5e-324,
  "double.negative_exponent": -2.5e-7,
  "array.string": ["a", "", "ü"],
  "array.bool": [true, false],
  "array.int": [1, -2, Number.MAX_SAFE_INTEGER],
  "array.double": [0.5, -1e-300],
  "array.empty": [],
  "key with spaces, ünïcode and 'quotes'": "yes",
  "http.request.method": "GET",
  "http.route": "/orders/{id}",
  "http.response.status_code": 404,
  "server.address": "",
};

function exporter(protocol, endpoint) {
  const { OTLPTraceExporter } = protocol === "json"
    ? require("@opentelemetry/exporter-trace-otlp-http")
    : require("@opentelemetry/exporter-trace-otlp-proto");
  return new OTLPTraceExporter({ url: `${endpoint}/v1/traces`, compression: "gzip" });
}

// Ends the program when an export fails: the SDK itself would only log it.
function strict(inner) {
  return {
    export(spans, done) {
      inner.export(spans, (result) => {
        if (result.code !== 0) {
          console.error("the SDK could not export:", result.error);
          process.exit(1);
        }
        done(result);
      });
    },
    forceFlush: () => inner.forceFlush(),
    shutdown: () => inner.shutdown(),
  };
}

function value(given) {
  if (typeof given === "string") return { type: "string", value: given };
  if (typeof given === "boolean") return { type: "bool", value: given };
  if (Number.isInteger(given)) return { type: "int", value: String(given) };
  if (typeof given === "number") return { type: "double", value: given };
  return { type: "array", value: given.map(value) };
}

function attributes(given) {
  return Object.entries(given ?? {}).map(([key, item]) => ({ key, ...value(item) }));
}

const nanoseconds = ([seconds, rest]) => BigInt(seconds) * 1_000_000_000n + BigInt(rest);

const flags = (traceFlags, isRemote) => traceFlags | 0x100 | (isRemote ? 0x200 : 0);

function view(span) {
  const context = span.spanContext();
  const seen = {
    spanId: context.spanId,
    name: span.name,
    kind: KINDS[span.kind],
    status: STATUSES[span.status.code],
    statusMessage: span.status.message ?? "",
    startUnixNano: String(nanoseconds(span.startTime)),
    durationNs: String(nanoseconds(span.endTime) - nanoseconds(span.startTime)),
    traceState: context.traceState?.serialize() ?? "",
    flags: flags(context.traceFlags, span.parentSpanContext?.isRemote),
    attributes: attributes(span.attributes),
    droppedAttributesCount: span.droppedAttributesCount,
    events: span.events.map((event) => ({
      name: event.name,
      timeUnixNano: String(nanoseconds(event.time)),
      attributes: attributes(event.attributes),
      droppedAttributesCount: event.droppedAttributesCount ?? 0,
    })),
    droppedEventsCount: span.droppedEventsCount,
    links: span.links.map((link) => ({
      traceId: link.context.traceId,
      spanId: link.context.spanId,
      traceState: link.context.traceState?.serialize() ?? "",
      flags: flags(link.context.traceFlags, link.context.isRemote),
      attributes: attributes(link.attributes),
      droppedAttributesCount: link.droppedAttributesCount ?? 0,
    })),
    droppedLinksCount: span.droppedLinksCount,
    resource: {
      attributes: attributes(span.resource.attributes),
      droppedAttributesCount: 0,
      schemaUrl: span.resource.schemaUrl ?? "",
    },
    scope: {
      name: span.instrumentationScope.name,
      version: span.instrumentationScope.version ?? "",
      attributes: attributes(span.instrumentationScope.attributes),
      droppedAttributesCount: 0,
      schemaUrl: span.instrumentationScope.schemaUrl ?? "",
    },
  };
  if (span.parentSpanContext) seen.parentSpanId = span.parentSpanContext.spanId;
  return seen;
}

// Makes the spans; every feature of the API is used once.
function tell(provider, limited) {
  const tracer =
    provider.getTracer("e2e.javascript", "2.3.4", { schemaUrl: "https://example.com/scope/2" });
  const bare = provider.getTracer("bare");
  const hex = (bytes) =>
    Array.from({ length: bytes }, () => (1 + Math.floor(Math.random() * 255)).toString(16).padStart(2, "0")).join("");
  const traceState = createTraceState("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
  const remote = {
    traceId: hex(16), spanId: hex(8), isRemote: true, traceFlags: TraceFlags.SAMPLED, traceState,
  };
  const root = tracer.startSpan("GET /orders/{id}", {
    kind: SpanKind.SERVER,
    attributes: ATTRIBUTES,
    links: [
      { context: { ...remote, traceId: "f".repeat(32) }, attributes: { "link.int": 5, "link.ü": "ö" } },
      { context: { traceId: "0".repeat(31) + "1", spanId: "0".repeat(15) + "1", traceFlags: 0 } },
    ],
  }, trace.setSpanContext(ROOT_CONTEXT, remote));
  const here = trace.setSpan(ROOT_CONTEXT, root);
  root.addEvent("bare event");
  root.addEvent("full event 事", ATTRIBUTES);
  root.recordException(new TypeError("wrong valüe"));
  root.setStatus({ code: SpanStatusCode.ERROR, message: "it broke: größer" });
  for (const kind of [SpanKind.INTERNAL, SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CONSUMER]) {
    const span = bare.startSpan(`a ${KINDS[kind]} span`, { kind }, here);
    span.setStatus({ code: SpanStatusCode.OK });
    span.end();
  }
  bare.startSpan("名前 mit Ümläuten 🧵", {}, here).end();
  const few = limited.getTracer("limited").startSpan("over the SDK's limits", {}, here);
  for (let number = 0; number < 6; number += 1) {
    few.setAttribute(`attribute.${number}`, number);
    few.addEvent(`event ${number}`, { a: 1, b: 2, c: 3 });
    few.addLink({ context: root.spanContext(), attributes: { a: 1, b: 2, c: 3 } });
  }
  few.end();
  root.end();
  return remote.traceId;
}

async function main() {
  const [protocol, endpoint] = process.argv.slice(2);
  const memory = new InMemorySpanExporter();
  const sender = strict(exporter(protocol, endpoint));
  const options = {
    resource: resourceFromAttributes({
      "service.name": "e2e-javascript-größe",
      "service.version": "7.0.0",
      "resource.int": Number.MAX_SAFE_INTEGER,
      "resource.bool": true,
      "resource.list": ["x", "y"],
      "resource.empty": "",
    }),
    spanProcessors: [new SimpleSpanProcessor(sender), new SimpleSpanProcessor(memory)],
  };
  const spanLimits = {
    attributeCountLimit: 2, eventCountLimit: 2, linkCountLimit: 2,
    attributePerEventCountLimit: 1, attributePerLinkCountLimit: 1,
  };
  const provider = new BasicTracerProvider(options);
  const limited = new BasicTracerProvider({ ...options, spanLimits });
  const traceId = tell(provider, limited);
  await provider.forceFlush();
  await limited.forceFlush();
  const spans = memory.getFinishedSpans().map(view);
  console.log(JSON.stringify({ traceId, spans }));
}

main();
