//! What the migrations make is what the definitions say: columns, types, codecs, keys, indices, lifetimes,
//! settings and views.
#![allow(clippy::expect_used)] // a test stops on the first surprise

mod common;

use common::*;
use spanloom_store::SchemaOptions;
use spanloom_store::migrate::statements;
use spanloom_store::schema::objects;
use spanloom_store::schema::tables::schema_migrations;
use std::collections::BTreeSet;

/// What is compared, each row as one text.
const COMPARED: [(&str, &str); 4] = [
    (
        "columns",
        "SELECT concat(table, '.', name, ' ', type, ' ', default_kind, ' ', default_expression, ' ', \
         compression_codec) FROM system.columns",
    ),
    (
        "tables",
        "SELECT concat(name, ' ', engine_full, ' PRIMARY KEY ', primary_key, ' SAMPLE BY ', sampling_key) \
         FROM system.tables",
    ),
    (
        "indices",
        "SELECT concat(table, '.', name, ' ', expr, ' ', type_full, ' ', toString(granularity)) \
         FROM system.data_skipping_indices",
    ),
    (
        // Of a table it would be the order of its columns, too, which does not matter.
        "views",
        "SELECT create_table_query FROM system.tables WHERE engine LIKE '%View'",
    ),
];

async fn created(statements: &[String], database: &str) -> Vec<BTreeSet<String>> {
    let client = connection().await.client();
    for statement in statements {
        let done = client.query_raw(statement).execute().await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    let mut all = Vec::new();
    for (_, sql) in COMPARED {
        let and = if sql.contains(" WHERE ") {
            "AND"
        } else {
            "WHERE"
        };
        let sql = format!("{sql} {and} database = '{database}'");
        let rows = client.query_raw(&sql).fetch_all::<String>().await;
        let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let rows = rows
            .into_iter()
            .map(|row| row.replace(database, "DATABASE"));
        all.push(rows.collect());
    }
    all
}

#[tokio::test]
async fn migrations_make_what_is_defined() {
    let migrated = SchemaOptions {
        database: unique("migrated"),
        ..SchemaOptions::default()
    };
    let made = created(&statements(&migrated), &migrated.database).await;
    let defined = SchemaOptions {
        database: unique("defined"),
        ..SchemaOptions::default()
    };
    let mut definitions = vec![defined.create_database()];
    definitions.extend(defined.create_table(&schema_migrations()));
    let objects = objects(&defined);
    definitions.extend(objects.iter().flat_map(|object| defined.create(object)));
    let wanted = created(&definitions, &defined.database).await;
    let mut differences = String::new();
    for (((what, _), made), wanted) in COMPARED.iter().zip(&made).zip(&wanted) {
        assert!(!wanted.is_empty(), "there are {what}");
        let missing: Vec<_> = wanted.difference(made).collect();
        let other: Vec<_> = made.difference(wanted).collect();
        if !missing.is_empty() || !other.is_empty() {
            differences += &format!("\n{what}: {missing:#?} instead of {other:#?}");
        }
    }
    assert!(
        differences.is_empty(),
        "migrations do not make what lib/store/src/schema defines; one must make{differences}"
    );
}
