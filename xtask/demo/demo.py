"""One trace of a small shop, sent by the real OpenTelemetry SDK for Python.

A mobile app orders; the API checks the stock and puts a message on a queue; a worker takes it, asks a
model for a fraud score, pays, and calls the customer's webhook, which fails once and is tried again.
Each service has a tracer provider of its own, as if it were a program of its own; times are given,
so that the trace looks the same every time.

Prints one JSON object: the trace's id and the name of every span in it.
"""

import json
import sys
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, set_span_in_context

ENDPOINT = sys.argv[1]
MILLISECOND = 1_000_000


class StrictExporter(SpanExporter):
    """The SDK's exporter, but a failed export is not only logged."""

    def __init__(self):
        self.exporter = OTLPSpanExporter(endpoint=f"{ENDPOINT}/v1/traces")
        self.failed = False

    def export(self, spans):
        result = self.exporter.export(spans)
        self.failed |= result is not SpanExportResult.SUCCESS
        return result

    def shutdown(self):
        self.exporter.shutdown()

    def force_flush(self, timeout_millis=30_000):
        return self.exporter.force_flush(timeout_millis)


class Service:
    """A service of the shop: its resource, and spans at given times."""

    def __init__(self, name, version, **resource):
        attributes = {
            "service.name": name,
            "service.namespace": "shop",
            "service.version": version,
            "deployment.environment.name": "demo",
        }
        attributes.update({key.replace("_", "."): value for key, value in resource.items()})
        self.exporter = StrictExporter()
        self.provider = TracerProvider(resource=Resource.create(attributes))
        self.provider.add_span_processor(BatchSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("shop.instrumentation", version)

    def span(self, name, kind, start, end, parent=None, attributes=None, links=()):
        """Starts a span `start` ms into the trace; `finish` ends it at `end`."""
        context = set_span_in_context(parent) if parent is not None else None
        span = self.tracer.start_span(
            name,
            context=context,
            kind=kind,
            attributes=attributes or {},
            links=links,
            start_time=at(start),
        )
        SPANS.append((span, name, end))
        return span


SPANS = []
BEGIN = time.time_ns() - 3_000 * MILLISECOND


def at(milliseconds):
    return BEGIN + int(milliseconds * MILLISECOND)


def fail(span, milliseconds, error):
    span.record_exception(error, timestamp=at(milliseconds))
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(Status(StatusCode.ERROR, str(error)))


def build():
    app = Service("mobile-app", "5.2.0", os_name="iOS", device_model_identifier="iPhone17,1")
    api = Service("shop-api", "1.14.3", k8s_namespace_name="shop", k8s_pod_name="shop-api-6d5f-x2x")
    worker = Service("order-worker", "1.14.3", k8s_namespace_name="shop")
    model = Service("fraud-model", "0.9.1", telemetry_sdk_language="python")

    order = app.span(
        "tap order", SpanKind.INTERNAL, 0, 348, attributes={"app.screen.name": "Cart", "cart.items": 3}
    )
    post = app.span(
        "POST", SpanKind.CLIENT, 4, 344, order,
        {
            "http.request.method": "POST",
            "url.full": "https://shop.example/api/orders",
            "server.address": "shop.example",
            "http.response.status_code": 202,
        },
    )
    post.add_event("connection.opened", {"network.protocol.version": "2"}, timestamp=at(31))
    serve = api.span(
        "POST /api/orders", SpanKind.SERVER, 38, 332, post,
        {
            "http.request.method": "POST",
            "http.route": "/api/orders",
            "url.path": "/api/orders",
            "http.response.status_code": 202,
            "user.tier": "gold",
        },
    )
    api.span(
        "SELECT stock", SpanKind.CLIENT, 52, 117, serve,
        {
            "db.system.name": "postgresql",
            "db.namespace": "shop",
            "db.query.text": "SELECT count FROM stock WHERE sku = ANY($1)",
            "server.address": "pg.shop.svc",
        },
    )
    publish = api.span(
        "send orders", SpanKind.PRODUCER, 131, 158, serve,
        {
            "messaging.system": "rabbitmq",
            "messaging.destination.name": "orders",
            "messaging.message.body.size": 4096,
        },
    )
    take = worker.span(
        "process orders", SpanKind.CONSUMER, 412, 2380, publish,
        {"messaging.system": "rabbitmq", "messaging.destination.name": "orders"},
        links=[Link(publish.get_span_context(), {"messaging.message.id": "0197-order"})],
    )
    take.add_event("order.accepted", {"order.total": 129.9, "order.skus": ["kettle", "tea", "cup"]},
                   timestamp=at(420))
    score = worker.span(
        "POST /score", SpanKind.CLIENT, 431, 1298, take,
        {"http.request.method": "POST", "server.address": "fraud-model",
         "http.response.status_code": 200},
    )
    serve_score = model.span(
        "POST /score", SpanKind.SERVER, 440, 1291, score,
        {"http.request.method": "POST", "http.route": "/score", "http.response.status_code": 200},
    )
    infer = model.span(
        "inference", SpanKind.INTERNAL, 449, 1284, serve_score,
        {"gen_ai.request.model": "fraud-small", "fraud.score": 0.0372, "fraud.cached": False},
    )
    infer.add_event("weights.loaded", {"bytes": 734_003_200}, timestamp=at(1105))
    first = worker.span(
        "POST", SpanKind.CLIENT, 1310, 1815, take,
        {"http.request.method": "POST", "server.address": "hooks.customer.example",
         "peer.service": "customer-webhook"},
    )
    fail(first, 1815, TimeoutError("the webhook did not answer within 500 ms"))
    second = worker.span(
        "POST", SpanKind.CLIENT, 2016, 2371, take,
        {"http.request.method": "POST", "server.address": "hooks.customer.example",
         "peer.service": "customer-webhook", "http.response.status_code": 200,
         "http.request.resend_count": 1},
        links=[Link(first.get_span_context(), {"retry.of": "the call that timed out"})],
    )
    second.set_status(Status(StatusCode.OK))
    return [app, api, worker, model]


def main():
    services = build()
    # Children end before their parents.
    for span, _, end in reversed(SPANS):
        span.end(end_time=at(end))
    for service in services:
        service.provider.shutdown()
    if any(service.exporter.failed for service in services):
        sys.exit("the SDK could not export the demo trace")
    trace_id = format(SPANS[0][0].get_span_context().trace_id, "032x")
    print(json.dumps({"traceId": trace_id, "spans": [name for _, name, _ in SPANS]}))


if __name__ == "__main__":
    main()
