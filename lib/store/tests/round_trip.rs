//! Everything that OTLP carries goes into the embedded engine and comes back.
#![allow(clippy::expect_used)] // a test stops on the first surprise

mod common;

use common::*;
use spanloom_otlp::nested::Nested;
use spanloom_otlp::record::{
    Attr, EventRecord, LinkRecord, ResourceRecord, ScopeRecord, SpanKind, SpanRecord, SpanSink,
    StatusCode, Value,
};
use spanloom_store::block::{AccountRow, ConnectionType, HalfEdgeRow, RedRow, SpanBlock, TableId};
use spanloom_store::{WriteOutcome, schema};

/// An `ArrayValue` of the string "a" and the integer 7, and a `KeyValueList` {"k": true}.
const ARRAY: &[u8] = &[0x0a, 3, 0x0a, 1, b'a', 0x0a, 2, 0x18, 7];
const KVLIST: &[u8] = &[0x0a, 7, 0x0a, 1, b'k', 0x12, 2, 0x10, 1];

fn full(block: &mut SpanBlock) {
    let resource = [
        str_attr("service.name", "shop"),
        str_attr("k8s.pod.name", "shop-1"),
        str_attr("service.version", "1.2.3"),
        Attr {
            key: "process.pid",
            value: Value::Int(i64::MAX),
        },
    ];
    block.resource(&ResourceRecord {
        service: "shop",
        attributes: &resource,
        dropped_attributes_count: 2,
        schema_url: "https://example.com/resource",
    });
    block.scope(&ScopeRecord {
        name: "lib",
        version: "0.1",
        attributes: &[str_attr("scope.key", "ü\"\\\n")],
        dropped_attributes_count: 3,
        schema_url: "https://example.com/scope",
    });
    let long = "x".repeat(300);
    let attributes = [
        str_attr("http.route", "/a/{b}"),
        str_attr("url.path", "/a/1"),
        str_attr("error.type", ""),
        Attr {
            key: "http.response.status_code",
            value: Value::Int(503),
        },
        Attr {
            key: "peer.service",
            value: Value::Int(5),
        },
        str_attr("text", "größe\t\n'\\"),
        str_attr("long", &long),
        str_attr("", "empty key"),
        Attr {
            key: "int",
            value: Value::Int(i64::MIN),
        },
        Attr {
            key: "double",
            value: Value::Double(0.1),
        },
        Attr {
            key: "nan",
            value: Value::Double(f64::NAN),
        },
        Attr {
            key: "bool",
            value: Value::Bool(true),
        },
        Attr {
            key: "bytes",
            value: Value::Bytes(&[0, 255]),
        },
        Attr {
            key: "array",
            value: Value::Array(Nested(ARRAY)),
        },
        Attr {
            key: "kvlist",
            value: Value::KvList(Nested(KVLIST)),
        },
        Attr {
            key: "empty",
            value: Value::Empty,
        },
    ];
    let event_attributes = [
        str_attr("exception.type", "Boom"),
        Attr {
            key: "n",
            value: Value::Int(1),
        },
    ];
    let events = [
        EventRecord {
            time_ns: T0 + 5,
            name: "exception",
            attributes: &event_attributes,
            dropped_attributes_count: 4,
        },
        EventRecord {
            time_ns: T0 + 6,
            name: "",
            attributes: &[],
            dropped_attributes_count: 0,
        },
    ];
    let links = [LinkRecord {
        trace_id: [3; 16],
        span_id: [4; 8],
        trace_state: "l=1",
        flags: 0x301,
        attributes: &[str_attr("link.key", "v")],
        dropped_attributes_count: 9,
    }];
    block.span(&SpanRecord {
        trace_id: [1; 16],
        span_id: [2; 8],
        parent_span_id: [0; 8],
        trace_state: "ot=th:8,a=b",
        flags: 0x101,
        name: "GET /a/{b}",
        kind: SpanKind::Server,
        start_ns: T0 + 1,
        duration_ns: 12_345,
        status: StatusCode::Error,
        status_message: "it broke",
        attributes: &attributes,
        dropped_attributes_count: 5,
        events: &events,
        dropped_events_count: 6,
        links: &links,
        dropped_links_count: 7,
    });
}

/// Columns and what `SELECT` shows of them.
const FULL: &[(&str, &str)] = &[
    ("tenant", ""),
    ("toUnixTimestamp64Nano(time)", "1795219200000000001"),
    ("duration_ns", "12345"),
    ("service", "shop"),
    ("name", "GET /a/{b}"),
    ("kind", "SERVER"),
    ("status", "ERROR"),
    ("status_message", "it broke"),
    ("hex(trace_id)", "01010101010101010101010101010101"),
    ("hex(span_id)", "0202020202020202"),
    ("hex(parent_span_id)", "0000000000000000"),
    ("trace_state", "ot=th:8,a=b"),
    ("flags", "257"),
    ("http_route", "/a/{b}"),
    ("url_path", "/a/1"),
    ("error_type", ""),
    ("peer_service", ""),
    ("http_request_method", ""),
    ("http_response_status_code", "503"),
    ("service_version", "1.2.3"),
    ("k8s_pod_name", "shop-1"),
    ("k8s_node_name", ""),
    (
        "resource",
        r#"{"service.name":"shop","k8s.pod.name":"shop-1","service.version":"1.2.3","process.pid":9223372036854775807}"#,
    ),
    ("scope_name", "lib"),
    ("scope_version", "0.1"),
    (
        "JSONExtractString(scope_attributes, 'scope.key') = 'ü\"\\\\\\n'",
        "1",
    ),
    (
        "envelope",
        r#"{"resourceSchemaUrl":"https://example.com/resource","scopeSchemaUrl":"https://example.com/scope","resourceDroppedAttributesCount":2,"scopeDroppedAttributesCount":3}"#,
    ),
    ("length(attr_str)", "4"),
    ("attr_str['error.type']", ""),
    ("has(mapKeys(attr_str), 'error.type')", "1"),
    ("attr_str['text'] = 'größe\\t\\n\\'\\\\'", "1"),
    ("length(attr_str['long'])", "300"),
    ("attr_str['']", "empty key"),
    ("attr_int", "{'peer.service':5,'int':-9223372036854775808}"),
    ("attr_double", "{'double':0.1,'nan':nan}"),
    ("attr_other['bool']", "true"),
    ("attr_other['bytes']", r#"{"bytesValue":"AP8="}"#),
    ("attr_other['array']", r#"["a",7]"#),
    ("attr_other['kvlist']", r#"{"kvlistValue":{"k":true}}"#),
    ("attr_other['empty']", "null"),
    ("dropped_attributes_count", "5"),
    ("dropped_events_count", "6"),
    ("dropped_links_count", "7"),
    (
        "arrayMap(e -> toUnixTimestamp64Nano(e), events.time)",
        "[1795219200000000005,1795219200000000006]",
    ),
    ("events.name", "['exception','']"),
    ("events.attributes[1]", r#"{"exception.type":"Boom","n":1}"#),
    ("events.attributes[2]", "{}"),
    ("events.dropped", "[4,0]"),
    ("hex(links.trace_id[1])", "03030303030303030303030303030303"),
    ("hex(links.span_id[1])", "0404040404040404"),
    ("links.trace_state", "['l=1']"),
    ("links.flags", "[769]"),
    ("links.attributes[1]", r#"{"link.key":"v"}"#),
    ("links.dropped", "[9]"),
];

/// The same span through the exporter's view.
const EXPORTER: &[(&str, &str)] = &[
    ("toUnixTimestamp64Nano(Timestamp)", "1795219200000000001"),
    ("TraceId", "01010101010101010101010101010101"),
    ("SpanId", "0202020202020202"),
    ("ParentSpanId", ""),
    ("TraceState", "ot=th:8,a=b"),
    ("SpanName", "GET /a/{b}"),
    ("SpanKind", "Server"),
    ("ServiceName", "shop"),
    ("ResourceAttributes['k8s.pod.name']", "shop-1"),
    ("ResourceAttributes['process.pid']", "9223372036854775807"),
    ("ScopeName", "lib"),
    ("ScopeVersion", "0.1"),
    ("SpanAttributes['http.route']", "/a/{b}"),
    ("SpanAttributes['url.path']", "/a/1"),
    ("SpanAttributes['http.response.status_code']", "503"),
    ("SpanAttributes['peer.service']", "5"),
    ("mapContains(SpanAttributes, 'http.request.method')", "0"),
    ("mapContains(SpanAttributes, 'error.type')", "1"),
    ("SpanAttributes['int']", "-9223372036854775808"),
    ("SpanAttributes['double']", "0.1"),
    ("SpanAttributes['bool']", "true"),
    ("SpanAttributes['bytes']", "AP8="),
    ("SpanAttributes['array']", r#"["a",7]"#),
    ("SpanAttributes['kvlist']", r#"{"k":true}"#),
    ("SpanAttributes['empty']", ""),
    ("length(SpanAttributes)", "16"),
    ("Duration", "12345"),
    ("StatusCode", "Error"),
    ("StatusMessage", "it broke"),
    ("Events.Name", "['exception','']"),
    (
        "Events.Attributes",
        "[{'exception.type':'Boom','n':'1'},{}]",
    ),
    ("Links.TraceId", "['03030303030303030303030303030303']"),
    ("Links.SpanId", "['0404040404040404']"),
    ("Links.TraceState", "['l=1']"),
    ("Links.Attributes", "[{'link.key':'v'}]"),
];

async fn check(db: &Database, from: &str, cases: &[(&str, &str)]) {
    for (expression, expect) in cases {
        let sql = format!("SELECT {expression} FROM {from} FORMAT TSVRaw");
        assert_eq!(db.text(&sql).await, *expect, "{expression}");
    }
}

#[tokio::test]
async fn every_field_comes_back() {
    let db = database().await;
    let mut block = SpanBlock::new(&pool());
    full(&mut block);
    let outcome = db.writer().write(block.freeze()).await;
    assert_eq!(outcome, WriteOutcome::Stored);
    check(&db, "spans", FULL).await;
    check(&db, "otel_traces", EXPORTER).await;
    let index = "hex(trace_id), toUnixTimestamp64Nano(start), toUnixTimestamp64Nano(end), \
                 root_service, root_name, span_count, error_count, day";
    assert_eq!(
        db.text(&format!("SELECT {index} FROM trace_index")).await,
        "01010101010101010101010101010101\t1795219200000000001\t1795219200000012346\tshop\t\
         GET /a/{b}\t1\t1\t2026-11-21"
    );
    let window = "SELECT TraceId, Start, End FROM otel_traces_trace_id_ts";
    assert_eq!(
        db.text(window).await,
        "01010101010101010101010101010101\t2026-11-21 00:00:00\t2026-11-21 00:00:01"
    );
    let tags = "SELECT scope, key, type, value FROM tags WHERE scope != 'span' ORDER BY ALL";
    assert_eq!(
        db.text(tags).await,
        "resource\tk8s.pod.name\tstring\tshop-1\n\
         resource\tprocess.pid\tint\t9223372036854775807\n\
         resource\tservice.name\tstring\tshop\n\
         resource\tservice.version\tstring\t1.2.3\n\
         event\texception.type\tstring\tBoom\n\
         event\tn\tint\t1\n\
         link\tlink.key\tstring\tv\n\
         instrumentation\tscope.key\tstring\tü\"\\\\\\n"
    );
    let long = "SELECT type, value FROM tags WHERE key = 'long'";
    assert_eq!(db.text(long).await, "string\t");
}

#[tokio::test]
async fn measures_come_back() {
    let db = database().await;
    let mut block = SpanBlock::new(&pool());
    for name in ["GET /a", "GET /b"] {
        block.measures().push_red(&RedRow {
            minute: 1_795_219_200,
            service: "shop",
            name,
            kind: SpanKind::Client,
            status: StatusCode::Error,
            count: 3,
            duration_sum_ns: 77,
            duration_min_ns: 7,
            duration_max_ns: 40,
            buckets: &[(-168, 1), (240, 2)],
        });
    }
    block.measures().push_half(&HalfEdgeRow {
        time_ns: T0,
        trace_id: [1; 16],
        span_id: [2; 8],
        parent_span_id: [3; 8],
        kind: SpanKind::Client,
        service: "shop",
        duration_ns: 5,
        error: true,
        peer: "mysql",
        connection_type: ConnectionType::Database,
    });
    let frozen = block.freeze();
    assert_eq!(frozen.token(TableId::Spans), None, "no spans, no insert");
    assert_eq!(db.writer().write(frozen).await, WriteOutcome::Stored);
    let red = "SELECT minute, service, name, kind, status, count, duration_sum_ns, buckets, \
               duration_total_ns, duration_min_ns, duration_max_ns FROM red ORDER BY name";
    assert_eq!(
        db.text(red).await,
        "2026-11-21 00:00:00\tshop\tGET /a\tCLIENT\tERROR\t3\t77\t{-168:1,240:2}\t77\t7\t40\n\
         2026-11-21 00:00:00\tshop\tGET /b\tCLIENT\tERROR\t3\t77\t{-168:1,240:2}\t77\t7\t40"
    );
    let halves = "SELECT time, hex(trace_id), hex(span_id), hex(parent_span_id), side, kind, service, duration_ns, error, peer, \
                  connection_type, inserted_at > now() - 60 FROM half_edges";
    assert_eq!(
        db.text(halves).await,
        "2026-11-21 00:00:00.000000000\t01010101010101010101010101010101\t0202020202020202\t\
         0303030303030303\tspan\tCLIENT\tshop\t5\ttrue\tmysql\tdatabase\t1"
    );
}

/// What became of spans is told when there are none to store, too, and rows of one minute and reason
/// become one.
#[tokio::test]
async fn accounts_come_back() {
    let db = database().await;
    let pool = pool();
    let row = AccountRow {
        minute: 1_795_219_200,
        node: "node-1",
        agent: "collector",
        stage: "process",
        reason: "größe",
        spans: 3,
        bytes: 1_000,
    };
    for spans in [3, 4] {
        let mut block = SpanBlock::new(&pool);
        block.measures().account(AccountRow { spans, ..row });
        block.measures().account(AccountRow {
            stage: "receive",
            reason: "",
            spans: 0,
            bytes: u64::MAX / 4,
            ..row
        });
        assert_eq!(block.measures().account_rows(), 2);
        let frozen = block.freeze();
        assert_eq!(frozen.token(TableId::Red), None, "no other rows, no insert");
        assert!(frozen.token(TableId::Accounts).is_some());
        assert_eq!(db.writer().write(frozen).await, WriteOutcome::Stored);
    }
    db.execute("OPTIMIZE TABLE accounts FINAL").await;
    assert_eq!(
        db.text("SELECT * EXCEPT tenant FROM accounts ORDER BY ALL")
            .await,
        "2026-11-21 00:00:00\tnode-1\tcollector\tprocess\tgröße\t7\t2000\n\
         2026-11-21 00:00:00\tnode-1\tcollector\treceive\t\t0\t9223372036854775806"
    );
}

/// Spans of many shapes in blocks of many sizes: some with everything, some with nothing.
#[tokio::test]
async fn ranges_of_rows_are_blocks_too() {
    let db = database().await;
    let mut block = SpanBlock::new(&pool());
    let text: Vec<String> = (0..700).map(|n| format!("value {n}")).collect();
    for (n, text) in (0u64..).zip(&text) {
        if n % 97 == 0 {
            resource(&mut block, ["shop", "cart", "mail"][n as usize % 3]);
        }
        let attributes = [
            str_attr(text, text),
            str_attr("http.route", text),
            Attr {
                key: "n",
                value: Value::Int(n as i64),
            },
            Attr {
                key: "d",
                value: Value::Double(n as f64),
            },
            Attr {
                key: "b",
                value: Value::Bool(true),
            },
        ];
        let events = [EventRecord {
            time_ns: n,
            name: text,
            attributes: &attributes[..1],
            dropped_attributes_count: 0,
        }; 3];
        let links = [LinkRecord {
            trace_id: [1; 16],
            span_id: n.to_be_bytes(),
            trace_state: text,
            flags: 0,
            attributes: &attributes[..1],
            dropped_attributes_count: 0,
        }; 2];
        block.span(&SpanRecord {
            attributes: &attributes[..n as usize % 6],
            events: &events[..n as usize % 4],
            links: &links[..n as usize % 3],
            status_message: text,
            ..span(n)
        });
    }
    let mut whole = Vec::new();
    block.write_native(0..700, &mut whole);
    let mut pieces = Vec::new();
    for rows in [0..1, 1..2, 2..3, 3..300, 300..300, 300..699, 699..700] {
        block.write_native(rows, &mut pieces);
    }
    let columns = SpanBlock::column_names().join(", ");
    db.execute("CREATE TABLE pieces AS spans").await;
    for (table, body) in [("spans", whole), ("pieces", pieces)] {
        let sql = format!("INSERT INTO {table} ({columns}) FORMAT Native");
        let mut insert = db.client.insert_formatted_with(sql);
        insert.send(body.into()).await.expect("the block is sent");
        insert.end().await.expect("the block is stored");
    }
    let sum = |table: &str| {
        format!(
            "SELECT count(), sum(cityHash64(*)), uniqExact(attr_str), sum(length(links)) FROM {table}"
        )
    };
    let (spans, pieces) = (db.text(&sum("spans")).await, db.text(&sum("pieces")).await);
    assert_eq!(spans, pieces);
    assert!(spans.starts_with("700\t"), "{spans}");
    let sane = "SELECT countIf(status_message != concat('value ', toString(number_of))), \
                countIf(arrayExists(l -> reinterpretAsUInt64(reverse(l)) != number_of, links.span_id)), \
                countIf(length(events) != number_of % 4), \
                countIf(length(attr_str) + length(attr_int) + length(attr_double) \
                  + length(attr_other) + (http_route != '') != number_of % 6) \
                FROM (SELECT *, reinterpretAsUInt64(reverse(span_id)) - 1 AS number_of FROM spans)";
    assert_eq!(db.text(sane).await, "0\t0\t0\t0");
}

/// The types in our blocks are those of the tables, so that the server converts nothing.
#[tokio::test]
async fn blocks_have_the_columns_of_the_tables() {
    for id in TableId::ALL {
        let tables = schema::tables();
        let table = tables.iter().find(|table| table.name == id.name());
        let table = table.expect("the table is in the schema");
        let defaults: &[&str] = match id {
            TableId::Red => &["tenant", "duration_total_ns"],
            _ => &["tenant", "inserted_at"],
        };
        let written: Vec<&str> = table
            .columns
            .iter()
            .map(|column| column.name.as_ref())
            .filter(|name| !defaults.contains(name))
            .collect();
        assert_eq!(id.columns(), written, "{}", id.name());
    }
}

#[tokio::test]
async fn the_catalogue_is_written_once_and_bounded() {
    let db = database().await;
    let pool = pool();
    let writer = db.writer();
    assert_eq!(writer.write(batch(&pool, 50)).await, WriteOutcome::Stored);
    let again = batch(&pool, 50);
    assert_eq!(again.token(TableId::Tags), None, "all of it is known");
    drop(again);
    for _ in 0..30 {
        assert_eq!(
            writer.write(batch(&pool, 5_000)).await,
            WriteOutcome::Stored
        );
    }
    let values = "SELECT uniqExactIf(value, value != ''), countIf(value = '') > 0 FROM tags \
                  WHERE key = 'thing.id'";
    let found = db.text(values).await;
    let (values, key) = found.split_once('\t').expect("two columns");
    let values: u32 = values.parse().expect("a number");
    assert!((50..=1_100).contains(&values), "{values} values are listed");
    assert_eq!(key, "1", "the key itself is listed without a value");
}
