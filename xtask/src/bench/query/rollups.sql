-- What the collector writes beside the spans.
INSERT INTO trace_index (day, trace_id, start, end, root_service, root_name, span_count, error_count)
SELECT
    toDate(min(time)), trace_id, min(time),
    max(fromUnixTimestamp64Nano(toUnixTimestamp64Nano(time) + toInt64(duration_ns))),
    maxIf(toString(service), parent_span_id = toFixedString('', 8)),
    maxIf(toString(name), parent_span_id = toFixedString('', 8)),
    count(), countIf(status = 'ERROR')
FROM source GROUP BY trace_id;

INSERT INTO red (minute, service, name, kind, status, count, duration_sum_ns, buckets)
SELECT
    toStartOfMinute(time) AS m, service, name, kind, status, count(), sum(duration_ns),
    sumMap(map(toInt16(greatest(-168, least(240, ceil(8 * log2(greatest(duration_ns, 1) / 2e6))))), toUInt64(1)))
FROM source GROUP BY m, service, name, kind, status;

INSERT INTO tags (day, scope, key, type, value)
SELECT DISTINCT toDate(time), 'span', arrayJoin(mapKeys(attributes)) AS key, 'string', '' FROM source
UNION ALL SELECT DISTINCT toDate(time), 'resource', 'service.name', 'string', toString(service) FROM source;

-- The large trace: the first spans again, an hour before, below one root.
INSERT INTO spans ({{columns}}) SELECT {{sources}} FROM (
    WITH reinterpretAsFixedString(cityHash64(toUInt64(0), 11)) AS root, toFixedString('', 8) AS none
    SELECT * REPLACE (
        time - INTERVAL 1 HOUR AS time,
        toFixedString(unhex('{{large}}'), 16) AS trace_id,
        if(parent_span_id = none AND span_id != root, root, parent_span_id) AS parent_span_id)
    -- In a query of its own: next to REPLACE, `time` would be the new one.
    FROM (SELECT * FROM source WHERE time < fromUnixTimestamp64Nano(toInt64({{large_until_ns}}))));

INSERT INTO trace_index (day, trace_id, start, end, root_service, root_name, span_count, error_count)
SELECT
    toDate(min(time)), trace_id, min(time),
    max(fromUnixTimestamp64Nano(toUnixTimestamp64Nano(time) + toInt64(duration_ns))),
    maxIf(toString(service), parent_span_id = toFixedString('', 8)),
    maxIf(toString(name), parent_span_id = toFixedString('', 8)),
    count(), countIf(status = 'ERROR')
FROM spans WHERE trace_id = toFixedString(unhex('{{large}}'), 16) GROUP BY trace_id
