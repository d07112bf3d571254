"""What the cluster's scenarios run in pods, on the official OpenTelemetry SDK for Python.

    demo.py service              serves GET /work on port 8080, each a span below the caller's
    demo.py sender               sends spans at a stated rate; GET /report tells which, POST /stop ends it
    demo.py idle                 waits, for those who want to run the following in the pod
    demo.py fetch URL [OPTIONS]  prints the answer as JSON: {"status": …, "headers": …, "body": …}
    demo.py asker                serves the same at GET /fetch?HEX, the arguments as a JSON list in hexadecimal

The SDK's own environment (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, …) says where spans go.
The sender's: RATE (spans a second), EXPORT_SECONDS (between two exports), WORKERS (exports at once),
QUEUE (spans that may wait for an answer; what is due beyond is not made; without it all of it is).
"""

import argparse
import concurrent.futures
import http.server
import json
import os
import signal
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request

PORT = 8080


def exporter():
    if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf") == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    return OTLPSpanExporter()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with what `self.server.answer(method, path, headers)` gives."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer("GET")

    def do_POST(self):
        self.answer("POST")

    def answer(self, method):
        if self.path == "/healthz":
            status, document = 200, {"ok": True}
        else:
            status, document = self.server.answer(method, self.path, self.headers)
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve(answer):
    server = Server(("", PORT), Handler)
    server.answer = answer
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("ready", flush=True)
    server.serve_forever()


def service():
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter()))
    tracer = provider.get_tracer("demo")
    propagator = TraceContextTextMapPropagator()

    def answer(method, path, headers):
        carrier = {name.lower(): value for name, value in headers.items()}
        parent = propagator.extract(carrier)
        attributes = {"http.request.method": method, "url.path": path, "secret.card": "4111111111111111"}
        # What a client says of its pod must not be believed.
        with tracer.start_as_current_span(
            f"{method} {path}", context=parent, kind=SpanKind.SERVER, attributes=attributes
        ) as span:
            context = span.get_span_context()
            return 200, {
                "traceId": f"{context.trace_id:032x}",
                "spanId": f"{context.span_id:016x}",
            }

    serve(answer)


class Sender:
    def __init__(self):
        from opentelemetry.sdk.trace import TracerProvider

        self.rate = float(os.environ.get("RATE", "20"))
        self.every = float(os.environ.get("EXPORT_SECONDS", "0.5"))
        workers = int(os.environ.get("WORKERS", "32"))
        self.queue = float(os.environ.get("QUEUE", "inf"))
        self.tracer = TracerProvider().get_tracer("sender")
        self.pool = concurrent.futures.ThreadPoolExecutor(workers)
        self.local = threading.local()
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        # No batch comes after this one.
        self.ended = threading.Event()
        self.sent, self.acknowledged, self.refused, self.pending = 0, [], [], 0
        self.skipped = 0

    def run(self):
        begun, batch_number = time.monotonic(), 0
        while not self.stopped.is_set():
            batch_number += 1
            # By the clock, not by what came before: a slow answer does not slow the rate down.
            self.stopped.wait(max(0.0, begun + batch_number * self.every - time.monotonic()))
            due = int((time.monotonic() - begun) * self.rate) - self.sent - self.skipped
            if due <= 0:
                continue
            if self.pending + due > self.queue:
                self.skipped += due
                continue
            spans = []
            for _ in range(due):
                span = self.tracer.start_span("sent", attributes={"sender.number": self.sent})
                span.end()
                spans.append(span)
                self.sent += 1
            with self.lock:
                self.pending += len(spans)
            self.pool.submit(self.export, spans)
        self.ended.set()

    def export(self, spans):
        from opentelemetry.sdk.trace.export import SpanExportResult

        if not hasattr(self.local, "exporter"):
            self.local.exporter = exporter()
        try:
            stored = self.local.exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception as error:
            print(f"export raised {error!r}", flush=True)
            stored = False
        ids = []
        for span in spans:
            context = span.get_span_context()
            ids.append(f"{context.trace_id:032x}:{context.span_id:016x}")
        with self.lock:
            self.pending -= len(ids)
            (self.acknowledged if stored else self.refused).extend(ids)

    def answer(self, method, path, _headers):
        if (method, path) == ("POST", "/stop") or (method, path) == ("GET", "/stop"):
            self.stopped.set()
        with self.lock:
            document = {
                "sent": self.sent,
                "skipped": self.skipped,
                "pending": self.pending,
                "acknowledgedCount": len(self.acknowledged),
                "refusedCount": len(self.refused),
                "ended": self.ended.is_set(),
            }
            if path == "/report":
                document["acknowledged"] = list(self.acknowledged)
                document["refused"] = list(self.refused)
        return 200, document


def sender():
    sender = Sender()
    threading.Thread(target=sender.run, daemon=True).start()
    serve(sender.answer)


def idle():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("ready", flush=True)
    while True:
        signal.pause()


def asker():
    def answer(_method, path, _headers):
        _, _, request = path.partition("?")
        try:
            return 200, fetched(json.loads(bytes.fromhex(request)))
        except Exception as error:
            return 502, {"error": repr(error)}

    serve(answer)


def fetched(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--data")
    parser.add_argument("--ca", help="a file of certificates to trust, beside none")
    parser.add_argument("--timeout", type=float, default=30)
    options = parser.parse_args(arguments)
    context = None
    if options.url.startswith("https:"):
        context = ssl.create_default_context(cafile=options.ca)
        if options.ca is None:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    data = options.data.encode() if options.data is not None else None
    request = urllib.request.Request(options.url, data=data)
    for header in options.header:
        name, value = header.split(":", 1)
        request.add_header(name.strip(), value.strip())
    # No proxy: only the cluster is asked.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        response = opener.open(request, timeout=options.timeout)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        return {
            "status": response.status,
            "headers": {name.lower(): value for name, value in response.headers.items()},
            "body": response.read().decode("utf-8", "replace"),
        }


def main():
    match sys.argv[1:]:
        case ["service"]:
            service()
        case ["sender"]:
            sender()
        case ["idle"]:
            idle()
        case ["asker"]:
            asker()
        case ["fetch", *arguments]:
            print(json.dumps(fetched(arguments)))
        case _:
            sys.exit(__doc__)


main()
