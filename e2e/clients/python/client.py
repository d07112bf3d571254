"""Sends a trace that uses everything OTLP can carry, by the official SDK for Python.

    client.py grpc|http ENDPOINT

Prints what the SDK itself holds of each finished span, in the form of Spanloom's API, as JSON.
"""

import base64
import json
import math
import random
import sys

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

INT_MAX = 2**63 - 1
ATTRIBUTES = {
    "string": "text",
    "string.empty": "",
    "string.non_ascii": "größe 名前 🧵 \u200f",
    "string.awkward": "\"quoted\" \\back\\ 'single'\n\tline\r\u0000\u0001\u007f {}[]",
    "string.long": "long " * 1_000,
    "bool.true": True,
    "bool.false": False,
    "int": 42,
    "int.zero": 0,
    "int.negative": -7,
    "int.beyond_double": 2**53 + 1,
    "int.max": INT_MAX,
    "int.min": -INT_MAX - 1,
    "double": 0.1,
    "double.whole": 3.0,
    "double.negative_zero": -0.0,
    "double.exponent": 1.5e300,
    "double.tiny": 5e-324,
    "double.nan": math.nan,
    "double.infinity": math.inf,
    "double.minus_infinity": -math.inf,
    "bytes": b"\x00\x01\xfe\xff",
    "bytes.empty": b"",
    "array.string": ["a", "", "ü"],
    "array.bool": [True, False],
    "array.int": [1, -2, 2**53 + 1],
    "array.double": [1.0, 2.5, -1e-300],
    "array.empty": [],
    "array.mixed": ["a", 1, 1.5, True, None, b"\x07", ["nested", [2]]],
    "map": {"a": 1, "b": {"c": [True, {"d": "deep"}]}, "bytesValue": "looks like ours"},
    "map.empty": {},
    "empty": None,
    "key with spaces, ünïcode and 'quotes'": "yes",
    # Attributes that have columns of their own, and the same with values that those do not take.
    "http.request.method": "GET",
    "http.route": "/orders/{id}",
    "http.response.status_code": 503,
    "url.path": "/orders/7",
    "db.system.name": "",
    "rpc.service": 12,
    "peer.service": "elsewhere",
    "error.type": "TimeoutError",
}


def exporter(protocol, endpoint):
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint=endpoint, insecure=True)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")


class Strict(SpanExporter):
    """Ends the program when an export fails: the SDK itself would only log it."""

    def __init__(self, inner):
        self.inner = inner

    def export(self, spans):
        if self.inner.export(spans) is not SpanExportResult.SUCCESS:
            print("the SDK could not export", file=sys.stderr)
            # Not sys.exit: the SDK swallows exceptions of exporters.
            import os

            os._exit(1)
        return SpanExportResult.SUCCESS

    def shutdown(self):
        self.inner.shutdown()


def value(given):
    if given is None:
        return {"type": "empty", "value": None}
    if isinstance(given, bool):
        return {"type": "bool", "value": given}
    if isinstance(given, str):
        return {"type": "string", "value": given}
    if isinstance(given, int):
        return {"type": "int", "value": str(given)}
    if isinstance(given, float):
        if math.isnan(given):
            return {"type": "double", "value": "NaN"}
        if math.isinf(given):
            return {"type": "double", "value": "Infinity" if given > 0 else "-Infinity"}
        return {"type": "double", "value": given}
    if isinstance(given, bytes):
        return {"type": "bytes", "value": base64.b64encode(given).decode()}
    if hasattr(given, "items"):
        return {"type": "kvlist", "value": attributes(given)}
    return {"type": "array", "value": [value(item) for item in given]}


def attributes(given):
    return [{"key": key, **value(item)} for key, item in (given or {}).items()]


def flags(context):
    # The SDK for Python sends the two bits about the parent, not the W3C flags.
    return 0x300 if context is not None and context.is_remote else 0x100


def view(span):
    context = span.get_span_context()
    seen = {
        "spanId": format(context.span_id, "016x"),
        "name": span.name,
        "kind": span.kind.name.lower(),
        "status": span.status.status_code.name.lower(),
        "statusMessage": span.status.description or "",
        "startUnixNano": str(span.start_time),
        "durationNs": str(span.end_time - span.start_time),
        "traceState": context.trace_state.to_header(),
        "flags": flags(span.parent),
        "attributes": attributes(span.attributes),
        "droppedAttributesCount": span.dropped_attributes,
        "events": [
            {
                "name": event.name,
                "timeUnixNano": str(event.timestamp),
                "attributes": attributes(event.attributes),
                "droppedAttributesCount": event.dropped_attributes,
            }
            for event in span.events
        ],
        "droppedEventsCount": span.dropped_events,
        "links": [
            {
                "traceId": format(link.context.trace_id, "032x"),
                "spanId": format(link.context.span_id, "016x"),
                # The SDK for Python does not send a link's trace state.
                "traceState": "",
                "flags": flags(link.context),
                "attributes": attributes(link.attributes),
                "droppedAttributesCount": link.dropped_attributes,
            }
            for link in span.links
        ],
        "droppedLinksCount": span.dropped_links,
        "resource": {
            "attributes": attributes(span.resource.attributes),
            "droppedAttributesCount": 0,
            "schemaUrl": span.resource.schema_url,
        },
        "scope": {
            "name": span.instrumentation_scope.name,
            "version": span.instrumentation_scope.version,
            "attributes": attributes(span.instrumentation_scope.attributes),
            "droppedAttributesCount": 0,
            "schemaUrl": span.instrumentation_scope.schema_url,
        },
    }
    if span.parent is not None:
        seen["parentSpanId"] = format(span.parent.span_id, "016x")
    return seen


def tell(provider, limited):
    """Makes the spans; every feature of the API is used once."""
    tracer = provider.get_tracer(
        "e2e.python", "1.2.3", schema_url="https://example.com/scope/1",
        attributes={"scope.string": "ü", "scope.int": 2**53 + 1, "scope.list": ["a", "b"]},
    )
    bare = provider.get_tracer("bare")
    remote = SpanContext(
        random.getrandbits(128) | 1, random.getrandbits(64) | 1, is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
        trace_state=TraceState([("rojo", "00f067aa0ba902b7"), ("congo", "t61rcWkgMzE")]),
    )
    root = tracer.start_span(
        "GET /orders/{id}", set_span_in_context(NonRecordingSpan(remote)), SpanKind.SERVER,
        attributes=ATTRIBUTES,
        links=[
            Link(SpanContext(2**128 - 1, 2**64 - 1, is_remote=True), {"link.int": 5, "link.ü": "ö"}),
            Link(SpanContext(1, 1, is_remote=False)),
        ],
    )
    here = set_span_in_context(root)
    root.add_event("bare event")
    root.add_event("full event 事", dict(list(ATTRIBUTES.items())[:40]))
    try:
        raise ValueError("wrong valüe")
    except ValueError as error:
        root.record_exception(error, {"extra": 1})
    root.set_status(Status(StatusCode.ERROR, "it broke: größer"))
    for kind in (SpanKind.INTERNAL, SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CONSUMER):
        with bare.start_as_current_span(f"a {kind.name} span", here, kind) as span:
            span.set_status(Status(StatusCode.OK))
    with bare.start_as_current_span("名前 mit Ümläuten 🧵", here):
        pass
    exact = bare.start_span("exact times", here, start_time=root.start_time + 1)
    exact.end(end_time=root.start_time + 123_456_789_012)
    few = limited.get_tracer("limited").start_span("over the SDK's limits", here)
    for number in range(6):
        few.set_attribute(f"attribute.{number}", number)
        few.add_event(f"event {number}", {"a": 1, "b": 2, "c": 3})
        few.add_link(SpanContext(7, number + 1, is_remote=False), {"a": 1, "b": 2, "c": 3})
    few.end()
    root.end()
    return format(root.get_span_context().trace_id, "032x")


def main():
    protocol, endpoint = sys.argv[1:]
    resource = Resource(
        {
            "service.name": "e2e-python-größe",
            "service.version": "7.0.0",
            "k8s.pod.name": "pod-1",
            "resource.int": INT_MAX,
            "resource.double": 2.0,
            "resource.bool": True,
            "resource.list": ["x", "y"],
            "resource.empty": "",
        },
        schema_url="https://example.com/resource/1",
    )
    memory = InMemorySpanExporter()
    limits = SpanLimits(
        max_span_attributes=2, max_events=2, max_links=2,
        max_event_attributes=1, max_link_attributes=1,
    )
    provider = TracerProvider(resource=resource)
    limited = TracerProvider(resource=resource, span_limits=limits)
    sender = Strict(exporter(protocol, endpoint))
    for one in (provider, limited):
        one.add_span_processor(SimpleSpanProcessor(sender))
        one.add_span_processor(SimpleSpanProcessor(memory))
    trace_id = tell(provider, limited)
    provider.shutdown()
    spans = [view(span) for span in memory.get_finished_spans()]
    print(json.dumps({"traceId": trace_id, "spans": spans}))


if __name__ == "__main__":
    main()
