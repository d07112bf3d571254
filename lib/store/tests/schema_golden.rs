//! Migrations 1 and 2 as they were rendered when they landed, for options of many kinds: the files in
//! `golden/`, which do not change any more, since databases were made with these statements.

#![allow(clippy::expect_used)] // a test stops on the first surprise

use spanloom_store::migrate::{migrations, statements};
use spanloom_store::schema::SchemaOptions;
use std::time::Duration;

fn check(file: &str, options: &SchemaOptions) {
    let later = migrations(options).into_iter().filter(|m| m.version > 2);
    let later = later.flat_map(|migration| migration.statements).count();
    let mut rendered = statements(options);
    rendered.truncate(rendered.len() - later);
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    let golden = std::fs::read_to_string(&path).expect(&path);
    let same = rendered.join(";\n\n") + ";\n" == golden;
    assert!(same, "{path} differs from what is rendered now");
}

#[test]
fn single_node() {
    check("single_node.sql", &SchemaOptions::default());
}

#[test]
fn cluster() {
    let cluster = Some("prod".to_owned());
    check(
        "cluster.sql",
        &SchemaOptions {
            cluster,
            ..SchemaOptions::default()
        },
    );
}

/// Names that must be quoted, and times and a window of another length.
fn unusual(cluster: Option<&str>, half_edges_ttl: u64) -> SchemaOptions {
    SchemaOptions {
        database: r"it's `${cluster}` \ 7200".to_owned(),
        cluster: cluster.map(str::to_owned),
        retention: Duration::from_millis(86_400_500),
        half_edges_ttl: Duration::from_secs(half_edges_ttl),
        deduplication_window: 7,
    }
}

#[test]
fn unusual_single_node() {
    check("unusual_single_node.sql", &unusual(None, 900));
}

#[test]
fn unusual_cluster() {
    let cluster = r"`${database}`, 'x' \ ${retention_seconds}";
    check("unusual_cluster.sql", &unusual(Some(cluster), 86_400));
}
