#!/usr/bin/env python3
"""The requests of Grafana's own Tempo data source (grafana-requests.json), sent again.

  replay.py OTLP_HTTP_URL API_URL    sends traces.json, repeats each request with its times moved, and compares status,
                                     kind of content, shape and values; exit 1 when any differs

Only the standard library is used.
"""
import base64
import json
import os
import re
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
REQUESTS = json.load(open(os.path.join(HERE, "grafana-requests.json"), encoding="utf8"))
TRACES = json.load(open(os.path.join(HERE, "traces.json"), encoding="utf8"))
# When the recorded traces were: the requests ask from a minute before to two minutes after it.
RECORDED = 1795240825
SECOND = 10**9

# What is not compared, and why.
NOT_COMPARED = {
    "spanSet": "deprecated, and the first of spanSets; Grafana would show it alone",
    "metrics": "what it took to answer; each server counts in its own way",
    "exemplars": "any span of a sample may be its example",
    "traceID": "Tempo leaves out leading zeros; compared without them",
}
# The recorded store had other traces as well: here all of ours must be there.
MORE_WAS_STORED = ("/api/v2/search/tags?", "/tag/resource.service.name/values", "/tag/name/values")


def moved(value, by):
    """The same with each time of the recording moved by so many nanoseconds."""
    if isinstance(value, dict):
        return {k: moved(v, by) for k, v in value.items() if k not in NOT_COMPARED or k == "traceID"}
    if isinstance(value, list):
        return [moved(v, by) for v in value]
    if isinstance(value, str) and re.fullmatch(r"\d{13}|\d{19}", value):
        ns = int(value) * (SECOND // 1000 if len(value) == 13 else 1)
        if abs(ns - RECORDED * SECOND) < 86_400 * SECOND:
            return str(int(value) + (by * 1000 // SECOND if len(value) == 13 else by))
    return value


def normal(value):
    """The same in an order of its own: series, labels, attributes and spans come in any."""
    if isinstance(value, dict):
        return {k: v.lstrip("0") if k == "traceID" else normal(v) for k, v in sorted(value.items())}
    if isinstance(value, list):
        return sorted((normal(v) for v in value), key=lambda v: json.dumps(v, sort_keys=True))
    return round(value, 9) if isinstance(value, float) else value


def fields(data):
    """The fields of a protobuf message as (number, value); none where it is no message."""
    out, at = [], 0

    def varint():
        nonlocal at
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    try:
        while at < len(data):
            key = varint()
            number, kind = key >> 3, key & 7
            if number == 0:
                return None
            if kind == 0:
                out.append((number, varint()))
            elif kind in (1, 5):
                size = 8 if kind == 1 else 4
                if at + size > len(data):
                    return None
                out.append((number, struct.unpack("<Q" if kind == 1 else "<I", data[at:at + size])[0]))
                at += size
            elif kind == 2:
                size = varint()
                if at + size > len(data):
                    return None
                out.append((number, data[at:at + size]))
                at += size
            else:
                return None
    except IndexError:
        return None
    return out


def message(data, by):
    """A protobuf message in an order of its own, its times moved."""
    found = fields(data)
    if found is None or not data:
        return data.hex()
    out = []
    for number, value in found:
        if isinstance(value, bytes):
            value = message(value, by)
        elif abs(value - RECORDED * SECOND) < 86_400 * SECOND:
            value += by
        out.append([number, value])
    return sorted(out, key=lambda pair: json.dumps(pair))


def get(url, headers):
    keep = {k: v for k, v in headers.items() if k == "Accept"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=keep), timeout=60) as r:
            return r.status, r.headers.get("Content-Type", ""), r.read()
    except urllib.error.HTTPError as e:
        return e.code, e.headers.get("Content-Type", ""), e.read()


def is_part_of(part, whole):
    """Whether whatever is in the one is in the other."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(k in whole and is_part_of(v, whole[k]) for k, v in part.items())
    if isinstance(part, list):
        return isinstance(whole, list) and all(any(is_part_of(v, w) for w in whole) for v in part)
    return part == whole


def difference(request, status, kind, body, by):
    if status != request["status"]:
        return f"status {status}, not {request['status']}: {body[:300]!r}"
    want_kind = request["content_type"].split(";")[0]
    if kind.split(";")[0] != want_kind:
        return f"content type {kind!r}, not {want_kind!r}"
    want = request["body"]
    if status != 200 or want_kind == "text/plain":
        return None if body else "no text"
    if want_kind == "application/protobuf":
        # The second field counts what it took.
        top = [pair for pair in fields(body) if pair[0] != 2]
        expect = [pair for pair in fields(base64.b64decode(want)) if pair[0] != 2]
        ours = [[n, message(v, 0)] for n, v in top]
        theirs = [[n, message(v, by)] for n, v in expect]
        return None if ours == theirs else f"got {ours}\n  want {theirs}"
    document = json.loads(body)
    if isinstance(want, str):
        # Cut: its shape begins like ours.
        key = re.match(r"\(cut\) \{\"(\w+)\"", want).group(1)
        return None if document.get(key) else f"no {key}"
    got, expect = normal(moved(document, 0)), normal(moved(want, by))
    if any(part in request["request"] for part in MORE_WAS_STORED):
        return None if is_part_of(got, expect) else f"got {got}\n  want a part of {expect}"
    return None if got == expect else f"got {json.dumps(got)}\n  want {json.dumps(expect)}"


def main():
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    otlp, api = (url.rstrip("/") for url in sys.argv[1:])
    # 25 s past a minute, as then, so that steps fall alike; all of it is over.
    base = int(time.time() - 60) // 60 * 60 - 60 + RECORDED % 60
    by = (base - RECORDED) * SECOND

    def shifted(x):
        if isinstance(x, dict):
            return {k: str(int(v) + base * SECOND) if k.endswith("UnixNano") else shifted(v) for k, v in x.items()}
        return [shifted(v) for v in x] if isinstance(x, list) else x

    data = json.dumps(shifted(TRACES)).encode()
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"{otlp}/v1/traces", data, headers)).close()

    def ask(request):
        path = re.sub(r"\b(start|end)=(\d+)", lambda m: f"{m[1]}={int(m[2]) + by // SECOND}", request["request"])
        status, kind, body = get(api + path, request["headers"])
        return difference(request, status, kind, body, by)

    # What was sent is searchable a moment later.
    until = time.time() + 30
    differ = {r["request"]: ask(r) for r in REQUESTS}
    while any(differ.values()) and time.time() < until:
        time.sleep(1)
        differ = {r["request"]: ask(r) for r in REQUESTS}
    for request, why in differ.items():
        if why:
            print(f"{urllib.parse.unquote_plus(request)}\n  {why}")
    print(f"{sum(not why for why in differ.values())} of {len(differ)} requests are answered alike")
    return 1 if any(differ.values()) else 0


sys.exit(main())
