"""Sends spans at a steady rate by the official SDK for Python, as it comes: a batch processor with defaults.

    rate.py grpc|http ENDPOINT SERVICE SPANS_PER_SECOND SECONDS

Prints how many spans were finished. What the processor has no room for it drops without a word.
"""

import sys
import time

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from client import exporter


def main():
    protocol, endpoint, service, rate, seconds = sys.argv[1:]
    rate, seconds = int(rate), int(seconds)
    provider = TracerProvider(resource=Resource({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(exporter(protocol, endpoint)))
    tracer = provider.get_tracer("e2e.rate")
    begun = time.monotonic()
    finished = 0
    while (passed := time.monotonic() - begun) < seconds:
        due = int(passed * rate)
        for number in range(finished, due):
            with tracer.start_as_current_span("GET /orders") as span:
                span.set_attribute("order", number)
        finished = max(finished, due)
        time.sleep(0.002)
    provider.shutdown()
    print(finished)


if __name__ == "__main__":
    main()
