-- The rows that every candidate layout is filled from: {{rows}} spans, ten to a trace, spread evenly over
-- {{hours}} hours from {{start}}, in the order in which they would arrive. Everything follows from the row's
-- number, so two runs hold the same spans.
INSERT INTO source
WITH
    ['frontend', 'gateway', 'cart', 'checkout', 'payment', 'shipping',
     'catalog', 'recommendation', 'currency', 'email', 'inventory', 'auth'] AS services,
    ['GET', 'POST', 'PUT', 'DELETE'] AS methods,
    ['list', 'get', 'add', 'remove', 'quote', 'search', 'confirm', 'refund'] AS verbs,
    ['postgresql', 'redis', 'mysql', 'mongodb'] AS databases,
    ['SERVER', 'CLIENT', 'SERVER', 'CLIENT', 'SERVER', 'CLIENT', 'SERVER', 'INTERNAL', 'CLIENT', 'INTERNAL'] AS kinds,
    intDiv(number, 10) AS trace,
    toUInt8(number % 10) AS place,
    cityHash64(trace, 7) AS trace_hash,
    cityHash64(number, 11) AS span_hash,
    -- A client span belongs to the service of the server span before it; the last four stay in one service.
    1 + (trace_hash + 5 * least(intDiv(place, 2), 3)) % 12 AS service_index,
    services[service_index] AS service_name,
    kinds[place + 1] AS kind_name,
    -- Skewed as real operations are: the first verbs take most of the calls.
    1 + least(toUInt8(bitCount(span_hash % 128)), 7) AS verb_index,
    verbs[verb_index] AS verb,
    methods[1 + verb_index % 4] AS method,
    databases[1 + service_index % 4] AS database,
    place = 8 AS is_db,
    concat('/api/v1/', service_name, '/{id}/', verb) AS route,
    concat('/api/v1/', service_name, '/', toString(span_hash % 100000), '/', verb) AS path,
    (span_hash % 97) = 0 AS failed,
    -- Log-normal durations: medians of milliseconds, a tail of seconds; parents last longer.
    toUInt64(exp(1.1 * sqrt(-2 * log((1 + span_hash % 1000003) / 1000004)) * cos(2 * pi() * (trace_hash % 1000) / 1000))
        * 3e6 * (11 - place) * (1 + verb_index % 3)) AS duration,
    concat(service_name, '-', leftPad(lower(hex(service_index * 2654435761)), 10, '0'), '-', toString(trace_hash % 5)) AS pod,
    concat('{"service.name":"', service_name, '","service.version":"1.', toString(service_index), '.', toString(trace_hash % 2),
        '","service.namespace":"shop","service.instance.id":"', lower(hex(cityHash64(pod))),
        '","deployment.environment.name":"production","k8s.namespace.name":"shop","k8s.pod.name":"', pod,
        '","k8s.node.name":"node-', toString(trace_hash % 3), '","k8s.deployment.name":"', service_name,
        '","telemetry.sdk.name":"opentelemetry","telemetry.sdk.language":"', if(service_index % 2 = 0, 'java', 'python'),
        '","telemetry.sdk.version":"1.38.0"}') AS resource_json
SELECT
    fromUnixTimestamp64Nano(toInt64(toUnixTimestamp64Nano(toDateTime64('{{start}}', 9, 'UTC'))
        + toInt64(trace * ({{hours}} * 3600e9 * 10 / {{rows}})) + place * 700000 + span_hash % 500000)) AS time,
    duration AS duration_ns,
    service_name AS service,
    multiIf(is_db, concat(if(verb_index % 2 = 0, 'SELECT', 'UPDATE'), ' shop.', service_name),
        kind_name = 'INTERNAL', concat(service_name, '.', verb), concat(method, ' ', route)) AS name,
    kind_name AS kind,
    if(failed, 'ERROR', 'UNSET') AS status,
    if(failed, 'upstream timed out after 2000 ms', '') AS status_message,
    reinterpretAsFixedString(bitOr(bitShiftLeft(toUInt128(trace_hash), 64), toUInt128(cityHash64(trace, 13)))) AS trace_id,
    reinterpretAsFixedString(span_hash) AS span_id,
    if(place = 0, toFixedString('', 8), reinterpretAsFixedString(cityHash64(number - place + intDiv(place - 1, 2), 11))) AS parent_span_id,
    resource_json AS resource,
    'io.opentelemetry.auto' AS scope_name,
    '2.10.0' AS scope_version,
    CAST(mapConcat(
        map('thread.name', concat('worker-', toString(span_hash % 16)),
            'code.function.name', concat('com.shop.', service_name, '.Handler.', verb),
            'user.id', concat('u-', toString(trace_hash % 50000)),
            'request.id', lower(hex(cityHash64(trace, 17))),
            'feature.flag', if(trace_hash % 10 = 0, 'new-checkout', 'off')),
        if(is_db,
            map('db.system.name', database, 'db.namespace', 'shop', 'db.collection.name', service_name,
                'db.query.text', concat('SELECT id, name, price FROM ', service_name, ' WHERE id = ? AND tenant = ? LIMIT 50'),
                'server.address', concat(database, '.shop.svc')),
        if(kind_name = 'INTERNAL', map('code.namespace', concat('com.shop.', service_name)),
            map('http.request.method', method, 'http.route', route, 'url.path', path, 'url.scheme', 'http',
                'server.address', concat(service_name, '.shop.svc'), 'network.protocol.version', '1.1',
                'network.peer.address', concat('10.1.', toString(trace_hash % 32), '.', toString(span_hash % 250)),
                'user_agent.original', 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36')))
    ), 'Map(LowCardinality(String), String)') AS attributes,
    CAST(if(is_db OR kind_name = 'INTERNAL', map('thread.id', toInt64(span_hash % 16)),
        map('thread.id', toInt64(span_hash % 16), 'http.response.status_code', toInt64(if(failed, 503, 200)),
            'http.response.body.size', toInt64(span_hash % 30000), 'network.peer.port', toInt64(32768 + span_hash % 20000))),
        'Map(LowCardinality(String), Int64)') AS integers,
    CAST(map('cache.hit.ratio', (span_hash % 1000) / 1000), 'Map(LowCardinality(String), Float64)') AS doubles,
    CAST(if(trace_hash % 10 = 0,
        map('error.retryable', if(failed, 'true', 'false'),
            'cart.items', concat('["item-', toString(trace_hash % 1000), '","gift"]')),
        map('error.retryable', if(failed, 'true', 'false'))), 'Map(LowCardinality(String), String)') AS others,
    if(failed, [(time + INTERVAL 1 MILLISECOND, 'exception',
        '{"exception.type":"TimeoutError","exception.message":"upstream timed out after 2000 ms","exception.stacktrace":"TimeoutError: upstream timed out\\n  at call (client.py:118)\\n  at handle (server.py:42)"}', 0)], []) AS events
FROM numbers({{first}}, {{count}})
