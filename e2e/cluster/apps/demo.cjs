// A service on the official OpenTelemetry SDK for JavaScript, for the cluster's scenarios.
//
// GET /call on port 8080 asks TARGET (another service), with a span for each side of it, and answers
// with the trace's id. The SDK's own environment (OTEL_EXPORTER_OTLP_ENDPOINT, …) says where spans go.
"use strict";

const http = require("node:http");
const { ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } = require("@opentelemetry/api");
const { W3CTraceContextPropagator } = require("@opentelemetry/core");
const { defaultTextMapGetter, defaultTextMapSetter } = require("@opentelemetry/api");
const { OTLPTraceExporter } = require("@opentelemetry/exporter-trace-otlp-proto");
const { detectResources, envDetector, resourceFromAttributes } = require("@opentelemetry/resources");
const { BasicTracerProvider, BatchSpanProcessor } = require("@opentelemetry/sdk-trace-base");

const provider = new BasicTracerProvider({
  // As the SDK for Node does by itself: what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say.
  resource: resourceFromAttributes({ "service.name": "demo-node" }).merge(detectResources({ detectors: [envDetector] })),
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())],
});
const tracer = provider.getTracer("demo");
const propagator = new W3CTraceContextPropagator();

async function call(request) {
  const parent = propagator.extract(ROOT_CONTEXT, request.headers, defaultTextMapGetter);
  const server = tracer.startSpan("GET /call", { kind: SpanKind.SERVER }, parent);
  const inServer = trace.setSpan(parent, server);
  const client = tracer.startSpan("GET /work", { kind: SpanKind.CLIENT }, inServer);
  const headers = {};
  propagator.inject(trace.setSpan(inServer, client), headers, defaultTextMapSetter);
  try {
    const response = await fetch(`${process.env.TARGET}/work`, { headers });
    const below = await response.json();
    return { traceId: server.spanContext().traceId, below };
  } catch (error) {
    client.setStatus({ code: SpanStatusCode.ERROR, message: String(error) });
    throw error;
  } finally {
    client.end();
    server.end();
  }
}

const service = http.createServer((request, response) => {
  const answer = (status, document) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(document));
  };
  if (request.url === "/healthz") {
    answer(200, { ok: true });
  } else if (request.url === "/call") {
    call(request).then((document) => answer(200, document), (error) =>
      answer(502, { error: `${error} ${error.cause ?? ""}` }));
  } else {
    answer(404, { error: "there is only /call" });
  }
});

process.on("SIGTERM", () => {
  service.close(() => provider.shutdown().finally(() => process.exit(0)));
  service.closeIdleConnections();
});
service.listen(8080, () => console.log("ready"));
