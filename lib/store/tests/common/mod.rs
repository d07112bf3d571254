//! What the tests share: one engine for each test binary, a database for each test.
#![allow(dead_code, clippy::expect_used)] // each binary uses some; a test stops on surprises

pub mod proxy;

use spanloom_engine::testing::TestEngine;
use spanloom_otlp::record::{
    Attr, ResourceRecord, ScopeRecord, SpanKind, SpanRecord, SpanSink, StatusCode, Value,
};
use spanloom_store::block::{BlockPool, BlockPoolOptions, Frozen, SpanBlock};
use spanloom_store::migrate::{self, MigrateOptions};
use spanloom_store::{Connection, SchemaOptions, Writer, WriterConfig};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

static ENGINE: OnceCell<TestEngine> = OnceCell::const_new();

/// 2026-11-21 00:00:00, in the future or past of the tests' clock by little enough.
pub const T0: u64 = 1_795_219_200_000_000_000;
pub const SECOND: u64 = 1_000_000_000;
pub const MINUTE: u64 = 60 * SECOND;

pub async fn connection() -> Connection {
    let engine = ENGINE.get_or_init(TestEngine::start).await;
    Connection {
        url: engine.url(),
        user: engine.user().to_owned(),
        password: engine.password().to_owned(),
        tls: None,
    }
}

pub fn unique(prefix: &str) -> String {
    format!("{prefix}_{:016x}", rand::random::<u64>())
}

pub fn migrate_options() -> MigrateOptions {
    MigrateOptions {
        pipeline: "default".to_owned(),
        patience: Duration::from_secs(30),
    }
}

/// A migrated database of its own.
pub struct Database {
    pub connection: Connection,
    pub options: SchemaOptions,
    pub client: clickhouse::Client,
}

pub async fn database() -> Database {
    let connection = connection().await;
    let options = SchemaOptions {
        database: unique("t"),
        retention: Duration::from_secs(3650 * 86_400),
        ..SchemaOptions::default()
    };
    migrate::run(&connection, &options, &migrate_options())
        .await
        .expect("the database is made");
    let client = connection.client().with_database(&options.database);
    Database {
        connection,
        options,
        client,
    }
}

impl Database {
    pub fn writer_config(&self) -> WriterConfig {
        WriterConfig::new(self.connection.clone(), &self.options.database)
    }

    pub fn writer(&self) -> Writer {
        Writer::new(self.writer_config())
    }

    /// A query's answer as tab-separated text.
    pub async fn text(&self, sql: &str) -> String {
        text(&self.client, sql).await
    }

    pub async fn execute(&self, sql: &str) {
        let done = self.client.query_raw(sql).execute().await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

pub async fn text(client: &clickhouse::Client, sql: &str) -> String {
    let mut cursor = client
        .query_raw(sql)
        .fetch_bytes("TabSeparated")
        .expect("a query");
    let bytes = cursor.collect().await;
    let bytes = bytes.unwrap_or_else(|error| panic!("{sql}: {error}"));
    String::from_utf8_lossy(&bytes)
        .trim_end_matches('\n')
        .to_owned()
}

pub fn pool() -> Arc<BlockPool> {
    BlockPool::new(BlockPoolOptions::default())
}

pub fn str_attr<'a>(key: &'a str, value: &'a str) -> Attr<'a> {
    Attr {
        key,
        value: Value::Str(value),
    }
}

pub fn span<'a>(n: u64) -> SpanRecord<'a> {
    let mut trace_id = [0xAB; 16];
    trace_id[8..].copy_from_slice(&(n / 4).to_be_bytes());
    SpanRecord {
        trace_id,
        span_id: (n + 1).to_be_bytes(),
        parent_span_id: if n.is_multiple_of(4) {
            [0; 8]
        } else {
            n.to_be_bytes()
        },
        trace_state: "",
        flags: 1,
        name: "GET /things",
        kind: SpanKind::Server,
        start_ns: T0 + n * 1_000_000,
        duration_ns: (n + 1) * 1_000,
        status: if n.is_multiple_of(10) {
            StatusCode::Error
        } else {
            StatusCode::Unset
        },
        status_message: "",
        attributes: &[],
        dropped_attributes_count: 0,
        events: &[],
        dropped_events_count: 0,
        links: &[],
        dropped_links_count: 0,
    }
}

pub fn resource(block: &mut SpanBlock, service: &str) {
    let attributes = [str_attr("service.name", service)];
    block.resource(&ResourceRecord {
        service,
        attributes: &attributes,
        dropped_attributes_count: 0,
        schema_url: "",
    });
    block.scope(&ScopeRecord {
        name: "",
        version: "",
        attributes: &[],
        dropped_attributes_count: 0,
        schema_url: "",
    });
}

/// A batch of `n` spans of one service with an attribute or two each.
pub fn batch(pool: &Arc<BlockPool>, n: u64) -> Frozen {
    let mut block = SpanBlock::new(pool);
    fill(&mut block, n);
    block.freeze()
}

pub fn fill(block: &mut SpanBlock, n: u64) {
    resource(block, "shop");
    for i in 0..n {
        let number = i.to_string();
        let attributes = [
            str_attr("http.route", "/things/{id}"),
            str_attr("thing.id", &number),
            Attr {
                key: "thing.size",
                value: Value::Int(i as i64),
            },
        ];
        block.span(&SpanRecord {
            attributes: &attributes,
            ..span(i)
        });
    }
}
