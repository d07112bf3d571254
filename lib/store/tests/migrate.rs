//! Migrations on a real engine.
#![allow(clippy::expect_used)] // a test stops on the first surprise

mod common;

use common::*;
use spanloom_store::migrate::{self, MigrateError, MigrateOptions, Report};
use spanloom_store::{Connection, SchemaOptions};
use std::time::Duration;

fn options() -> SchemaOptions {
    SchemaOptions {
        database: unique("m"),
        ..SchemaOptions::default()
    }
}

/// All versions in their order.
fn versions(options: &SchemaOptions) -> Vec<u32> {
    let migrations = migrate::migrations(options).into_iter();
    migrations.map(|migration| migration.version).collect()
}

#[tokio::test]
async fn two_at_once_and_again_and_again() {
    let connection = connection().await;
    let (options, migrate) = (options(), migrate_options());
    let runs = (0..4).map(|_| migrate::run(&connection, &options, &migrate));
    for report in futures_util::future::join_all(runs).await {
        let report = report.expect("both succeed");
        assert!(report.ttl_changed.is_empty(), "{report:?}");
    }
    let again = migrate::run(&connection, &options, &migrate).await;
    assert_eq!(again.expect("it runs again"), Report::default());
    let client = connection.client().with_database(&options.database);
    let rows = "SELECT version, name, pipeline FROM schema_migrations FINAL ORDER BY version";
    let mut expect = "0\tclaim\tdefault".to_owned();
    for migration in migrate::migrations(&options) {
        expect += &format!("\n{}\t{}\tdefault", migration.version, migration.name);
    }
    assert_eq!(text(&client, rows).await, expect);
}

#[tokio::test]
async fn two_pipelines_at_once_and_one_wins() {
    let connection = connection().await;
    let options = options();
    let pipelines = ["red", "green", "blue"].map(|pipeline| MigrateOptions {
        pipeline: pipeline.to_owned(),
        ..migrate_options()
    });
    let runs = pipelines
        .iter()
        .map(|migrate| migrate::run(&connection, &options, migrate));
    let results = futures_util::future::join_all(runs).await;
    let won = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(won, 1, "{results:?}");
    for error in results.into_iter().filter_map(Result::err) {
        assert!(
            matches!(error, MigrateError::OtherPipeline { .. }),
            "{error}"
        );
    }
}

/// Between creating the version table and its first row, a migrator may be slow, or die.
#[tokio::test]
async fn a_version_table_without_rows_is_its_creators() {
    let db = database().await;
    db.execute("TRUNCATE TABLE schema_migrations").await;
    let other = MigrateOptions {
        pipeline: "other".to_owned(),
        ..migrate_options()
    };
    let error = migrate::run(&db.connection, &db.options, &other).await;
    let error = error.expect_err("it is not the creator");
    assert!(
        matches!(&error, MigrateError::OtherPipeline { owner, .. } if owner == "default"),
        "{error}"
    );
    let report = migrate::run(&db.connection, &db.options, &migrate_options()).await;
    assert_eq!(report.expect("it goes on").applied, versions(&db.options));
}

#[tokio::test]
async fn a_new_retention_changes_the_tables() {
    let db = database().await;
    let days = Duration::from_secs(3 * 86_400);
    let options = SchemaOptions {
        retention: days,
        ..db.options.clone()
    };
    let report = migrate::run(&db.connection, &options, &migrate_options()).await;
    let report = report.expect("it runs");
    assert_eq!(
        report.ttl_changed,
        [
            "spans",
            "trace_index",
            "tags",
            "red",
            "red_hours",
            "edges",
            "accounts"
        ]
    );
    let engine = "SELECT engine_full FROM system.tables WHERE database = currentDatabase() \
                  AND name = 'spans'";
    let engine = db.text(engine).await;
    assert!(
        engine.contains("TTL toDateTime(time) + toIntervalSecond(259200) "),
        "{engine}"
    );
    let again = migrate::run(&db.connection, &options, &migrate_options()).await;
    assert_eq!(again.expect("it runs"), Report::default());
}

async fn error_after(sql: &str) -> (Database, MigrateError) {
    let db = database().await;
    db.execute(sql).await;
    let result = migrate::run(&db.connection, &db.options, &migrate_options()).await;
    let error = result.expect_err(sql);
    (db, error)
}

#[tokio::test]
async fn what_does_not_match_is_named() {
    let (_, error) = error_after("ALTER TABLE spans DROP COLUMN flags").await;
    assert!(
        error.to_string().ends_with("column flags is missing"),
        "{error}"
    );
    let (_, error) = error_after("ALTER TABLE spans MODIFY COLUMN flags UInt64").await;
    assert!(
        error
            .to_string()
            .ends_with("column flags is UInt64 instead of UInt32"),
        "{error}"
    );
    assert!(matches!(error, MigrateError::Columns { .. }));
}

#[tokio::test]
async fn other_versions_are_refused() {
    let insert =
        "INSERT INTO schema_migrations (version, name, checksum, pipeline, applied_at) VALUES ";
    let (_, error) = error_after(&format!("{insert} (99, 'later', '', 'default', now64(3))")).await;
    assert!(
        matches!(error, MigrateError::TooNew { found: 99, .. }),
        "{error}"
    );
    let (_, error) = error_after(&format!("{insert} (1, 'x', 'abc', 'default', 1)")).await;
    assert!(
        matches!(error, MigrateError::Changed { version: 1, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn going_back_works_where_the_later_version_allows_it() {
    let db = database().await;
    db.execute(
        "INSERT INTO schema_migrations (version, needs, name, checksum, pipeline) VALUES \
         (99, 1, 'later', '', 'default')",
    )
    .await;
    let report = migrate::run(&db.connection, &db.options, &migrate_options()).await;
    assert_eq!(report.expect("it needs no more than 1"), Report::default());
}

/// What the first version left: migration 1, and a version table without `needs`.
#[tokio::test]
async fn a_database_of_the_first_version_is_brought_up_to_date() {
    let connection = connection().await;
    let options = options();
    let server = connection.client();
    let run = async |sql: String| {
        let done = server.query_raw(&sql).execute().await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    };
    run(options.create_database()).await;
    let version_table = options.qualified("schema_migrations");
    run(format!(
        "CREATE TABLE {version_table} (version UInt32, name String, checksum String, pipeline String, \
         applied_at DateTime64(3) DEFAULT now64(3)) ENGINE = ReplacingMergeTree \
         ORDER BY (version, pipeline)"
    ))
    .await;
    let first = &migrate::migrations(&options)[0];
    for statement in &first.statements {
        run(statement.clone()).await;
    }
    run(format!(
        "INSERT INTO {version_table} (version, name, checksum, pipeline) VALUES \
         (0, 'claim', '', 'default'), (1, 'first schema', '{}', 'default')",
        migrate::checksum(&options, 1)
    ))
    .await;
    let client = server.with_database(&options.database);
    let codec = "SELECT compression_codec FROM system.columns \
                 WHERE database = currentDatabase() AND table = 'red_hours' AND name = 'buckets'";
    assert_eq!(text(&client, codec).await, "CODEC(ZSTD(1))");

    let report = migrate::run(&connection, &options, &migrate_options()).await;
    let versions = versions(&options);
    assert_eq!(report.expect("it migrates").applied, versions[1..]);
    assert_eq!(text(&client, codec).await, "CODEC(LZ4)");
    let needs =
        "SELECT version, needs FROM schema_migrations FINAL WHERE version < 3 ORDER BY version";
    assert_eq!(text(&client, needs).await, "0\t0\n1\t1\n2\t1");
}

#[tokio::test]
async fn nobody_there_and_nobody_let_in() {
    let away = Connection {
        url: "http://127.0.0.1:1".to_owned(),
        user: String::new(),
        password: String::new(),
        tls: None,
    };
    let migrate = MigrateOptions {
        patience: Duration::from_millis(200),
        ..migrate_options()
    };
    let error = migrate::run(&away, &options(), &migrate)
        .await
        .expect_err("nobody is there");
    assert!(matches!(error, MigrateError::Away { .. }), "{error}");
    let wrong = Connection {
        password: "wrong".to_owned(),
        tls: None,
        ..connection().await
    };
    let error = migrate::run(&wrong, &options(), &migrate_options()).await;
    let error = error.expect_err("the password is wrong");
    assert!(matches!(error, MigrateError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn what_earlier_configurations_logged_is_dropped() {
    let connection = connection().await;
    let client = connection.client();
    let table = |name: &str| {
        format!("CREATE TABLE system.{name} (at DateTime) ENGINE = MergeTree ORDER BY at")
    };
    for name in [
        "metric_log",
        "trace_log_3",
        "query_log_0",
        "part_log",
        "catalogue",
    ] {
        client
            .query_raw(&table(name))
            .execute()
            .await
            .expect("made");
    }
    let dropped = migrate::system_logs::drop_left(&connection).await;
    let dropped = dropped.expect("they are dropped");
    assert_eq!(dropped, ["metric_log", "query_log_0", "trace_log_3"]);
    let again = migrate::system_logs::drop_left(&connection).await;
    assert_eq!(again.expect("there is nothing to do"), [""; 0]);
    for name in ["part_log", "catalogue"] {
        let drop = format!("DROP TABLE system.{name}");
        client.query_raw(&drop).execute().await.expect("dropped");
    }
}

#[tokio::test]
async fn a_volume_says_how_full_it_is() {
    let client = connection().await.client();
    let volume = spanloom_store::volume::fullest(&client).await;
    let volume = volume.expect("the server says it").expect("it has a disk");
    assert!((1..=100).contains(&volume.used_percent), "{volume:?}");
    assert!(volume.free_bytes > 0, "{volume:?}");
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_not_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = vec!["localhost".to_owned()];
    for (name, authority) in [("server", "ca.crt"), ("stranger", "stranger.crt")] {
        let made = rcgen::generate_simple_self_signed(names.clone()).expect("a certificate");
        std::fs::write(folder.path().join(authority), made.cert.pem()).expect("it is written");
        if name == "server" {
            let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text);
            write("tls.crt", made.cert.pem()).expect("it is written");
            write("tls.key", made.signing_key.serialize_pem()).expect("it is written");
        }
    }
    let tls = spanloom_tls::ServerTls::open(folder.path(), &[]).expect("it can be used");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The client ends it.
            let _ = tls.accept(stream).await;
        }
    });
    let url = format!("https://localhost:{port}");
    let stranger = folder.path().join("stranger.crt");
    let connection = Connection {
        tls: spanloom_store::connection::tls(&url, Some(&stranger)).expect("it can be used"),
        url,
        user: String::new(),
        password: String::new(),
    };
    let migrate = MigrateOptions {
        // Longer than a test may take.
        patience: Duration::from_secs(3600),
        ..migrate_options()
    };
    let error = migrate::run(&connection, &options(), &migrate)
        .await
        .expect_err("it is a stranger");
    assert!(matches!(error, MigrateError::Untrusted { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("invalid peer certificate"), "{text}");
    assert!(text.contains("storage.external.tls.caSecret"), "{text}");
    server.abort();
}
