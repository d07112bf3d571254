//! What runs, from where, in which format.

use super::support::{ask, database, engine, escape, sql};

async fn check(parameters: &str, body: &str, expect: &str) {
    let reply = ask(parameters, body.to_owned()).await.send().await;
    assert_eq!(reply.status, 200, "{parameters} {body}: {}", reply.text());
    assert_eq!(reply.text(), expect, "{parameters} {body}");
}

#[tokio::test]
async fn queries() {
    check("", "SELECT 1", "1\n").await;
    check("", "SELECT 1;", "1\n").await;
    check("", "SELECT 1 -- the end", "1\n").await;
    check("query=SELECT+1", "", "1\n").await;
    check("query=SELECT", "number FROM numbers(2)", "0\n1\n").await;
    check(
        "default_format=JSONCompactEachRow",
        "SELECT 1, 'a'",
        "[1, \"a\"]\n",
    )
    .await;
    check("default_format=CSV", "SELECT 1, 'a' FORMAT TSV", "1\ta\n").await;
    check(
        "",
        "SELECT 1 SETTINGS max_threads=1 FORMAT CSV SETTINGS max_threads=2",
        "1\n",
    )
    .await;
    check("database=system", "SELECT count() FROM one", "1\n").await;
    check("max_threads=3", "SELECT getSetting('max_threads')", "3\n").await;
    check("param_x=a%5Ctb", "SELECT {x:String} = 'a\\tb'", "1\n").await;
    check(
        "param_n=5&param_t=one",
        "SELECT {n:UInt8} FROM system.{t:Identifier}",
        "5\n",
    )
    .await;
    check("", "SHOW DATABASES LIKE 'system'", "system\n").await;
    check("", "EXISTS TABLE system.one", "1\n").await;
    check(
        "",
        "DESCRIBE TABLE system.one FORMAT TSVRaw",
        "dummy\tUInt8\t\t\t\t\t\n",
    )
    .await;
    check("", "WITH 2 AS x SELECT x", "2\n").await;
    check("", "(SELECT 1) UNION ALL (SELECT 1)", "1\n1\n").await;
    check("", "SELECT timezone()", "UTC\n").await;
    check("", "SELECT 1 WHERE 0", "").await;
}

#[tokio::test]
async fn over_get() {
    let reply = ask("query=SELECT+1", "").await.get().send().await;
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "1\n"));
    for write in [
        "CREATE TABLE t (a Int8) ENGINE=Memory",
        "INSERT INTO t VALUES (1)",
    ] {
        let reply = ask(&format!("query={}", escape(write)), "")
            .await
            .get()
            .send()
            .await;
        assert_eq!((reply.status.as_u16(), reply.code()), (500, 164), "{write}");
    }
}

#[tokio::test]
async fn without_a_query() {
    for path in ["/ping", "/replicas_status"] {
        let reply = ask("", "").await.get().path(path).anonymous().send().await;
        assert_eq!(
            (reply.status.as_u16(), reply.text().as_str()),
            (200, "Ok.\n"),
            "{path}"
        );
    }
    let reply = ask("", "").await.get().path("/nowhere").send().await;
    assert_eq!(reply.status, 404);
    let url = engine().await.url();
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
}

#[tokio::test]
async fn headers() {
    let reply = ask("query_id=mine", "SELECT 1 FORMAT JSON")
        .await
        .send()
        .await;
    assert_eq!(reply.header("x-clickhouse-query-id"), "mine");
    assert_eq!(reply.header("x-clickhouse-format"), "JSON");
    assert_eq!(reply.header("x-clickhouse-timezone"), "UTC");
    assert_eq!(
        reply.header("content-type"),
        "application/json; charset=UTF-8"
    );
    let reply = ask("", "SELECT 1")
        .await
        .header("x-clickhouse-format", "CSV")
        .send()
        .await;
    assert_eq!(reply.header("x-clickhouse-format"), "CSV");
    assert!(!reply.header("x-clickhouse-query-id").is_empty());
    let reply = ask("", "SELECT * FROM numbers(5)").await.send().await;
    let summary = reply.header("x-clickhouse-summary").to_owned();
    assert!(summary.contains("\"read_rows\":\"5\""), "{summary}");
    let reply = ask("", "SELECT count() FROM one").await;
    let reply = reply.header("x-clickhouse-database", "system").send().await;
    assert_eq!(reply.text(), "1\n");
}

/// Data that looks like SQL, in the places it can come in.
#[tokio::test]
async fn inserts() {
    let d = database().await;
    sql(&format!(
        "CREATE TABLE {d}.t (a String, b UInt8) ENGINE = MergeTree ORDER BY a"
    ))
    .await;
    let insert = |head: &str, body: &str| {
        let (parameters, body) = match head {
            "" => (format!("database={d}"), body.to_owned()),
            head => (
                format!("database={d}&query={}", escape(head)),
                body.to_owned(),
            ),
        };
        let d = d.clone();
        async move {
            let reply = ask(&parameters, body.clone()).await.send().await;
            assert_eq!(reply.status, 200, "{parameters} {body}: {}", reply.text());
            let summary = reply.header("x-clickhouse-summary").to_owned();
            assert!(
                summary.contains("\"written_rows\":\"2\""),
                "{body}: {summary}"
            );
            let rows = sql(&format!("SELECT a, b FROM {d}.t ORDER BY b FORMAT CSV")).await;
            assert_eq!(rows, "\"x\n\n;SELECT 1\",1\n\"y\",2\n", "{body}");
            sql(&format!("TRUNCATE TABLE {d}.t")).await;
        }
    };
    const CSV: &str = "\"x\n\n;SELECT 1\",1\n\"y\",2\n";
    insert("INSERT INTO t FORMAT CSV", CSV).await;
    insert("INSERT INTO t (a, b) FORMAT CSV", CSV).await;
    insert("", &format!("INSERT INTO t FORMAT CSV\n{CSV}")).await;
    insert(
        "",
        &format!("INSERT INTO t SETTINGS max_threads=1 FORMAT CSV {CSV}"),
    )
    .await;
    insert("INSERT INTO t", "VALUES ('x\n\n;SELECT 1', 1), ('y', 2)").await;
    insert("", "INSERT INTO t VALUES ('x\n\n;SELECT 1', 1), ('y', 2);").await;
    insert("INSERT INTO t VALUES ('x\n\n;SELECT 1', 1),", " ('y', 2)").await;
    insert(
        "INSERT INTO t FORMAT JSONEachRow",
        "{\"a\":\"x\\n\\n;SELECT 1\",\"b\":1}\n\n{\"a\":\"y\",\"b\":2}",
    )
    .await;
    insert(
        "INSERT INTO t SELECT * FROM VALUES(('x\n\n;SELECT 1', 1), ('y', 2))",
        "",
    )
    .await;
    insert(
        "INSERT INTO t SELECT * FROM",
        "VALUES(('x\n\n;SELECT 1', 1), ('y', 2))",
    )
    .await;
}

/// A body that does not parse to its end leaves nothing behind.
#[tokio::test]
async fn all_or_nothing() {
    let d = database().await;
    sql(&format!(
        "CREATE TABLE {d}.t (n UInt32) ENGINE = MergeTree ORDER BY n"
    ))
    .await;
    let mut body: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    body.pop();
    let query = escape(&format!("INSERT INTO {d}.t FORMAT RowBinary"));
    let reply = ask(&format!("query={query}"), body.clone())
        .await
        .send()
        .await;
    assert_eq!(
        (reply.status.as_u16(), reply.code()),
        (500, 33),
        "{}",
        reply.text()
    );
    assert_eq!(sql(&format!("SELECT count() FROM {d}.t")).await, "0\n");
    body.push(0);
    let reply = ask(&format!("query={query}"), body).await.send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let parts = sql(&format!(
        "SELECT count(), sum(rows) FROM system.parts WHERE active AND database = '{d}'"
    ))
    .await;
    assert_eq!(parts, "1\t3000000\n");
}

/// The same token twice is one insert.
#[tokio::test]
async fn deduplication() {
    let d = database().await;
    sql(&format!(
        "CREATE TABLE {d}.t (n UInt8) ENGINE = MergeTree ORDER BY n \
         SETTINGS non_replicated_deduplication_window = 100"
    ))
    .await;
    for token in ["a", "a", "b"] {
        let query = escape(&format!("INSERT INTO {d}.t VALUES (1)"));
        let parameters = format!("query={query}&insert_deduplication_token={token}");
        assert_eq!(ask(&parameters, "").await.send().await.status, 200);
    }
    assert_eq!(sql(&format!("SELECT count() FROM {d}.t")).await, "2\n");
}

/// Forms carry statements and parameters.
#[tokio::test]
async fn forms() {
    let part = |name: &str, value: &str| {
        format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let body = format!(
        "{}{}{}--XX--\r\n",
        part("query", "SELECT {x:String}, getSetting('max_threads')"),
        part("param_x", "a\\nb"),
        part("max_threads", "3")
    );
    let reply = ask("", body).await;
    let reply = reply
        .header("content-type", "multipart/form-data; boundary=XX")
        .send()
        .await;
    assert_eq!(reply.text(), "a\\nb\t3\n");
}

/// A long result comes whole, in each format with one head, and with little memory: see
/// `cancel` for one that is never read to its end.
#[tokio::test]
async fn long_results() {
    for (format, bytes) in [("RowBinary", 8_000_000), ("Native", 0), ("CSVWithNames", 0)] {
        let query = format!("SELECT number AS n FROM numbers(1000000) FORMAT {format}");
        let reply = ask("", query).await.send().await;
        assert_eq!(reply.status, 200);
        assert!(!reply.header("x-clickhouse-exception-tag").is_empty());
        if bytes > 0 {
            assert_eq!(reply.body.len(), bytes);
        }
        if format == "CSVWithNames" {
            assert_eq!(reply.text().lines().count(), 1_000_001);
            assert_eq!(reply.text().matches("\"n\"").count(), 1);
        }
    }
    let query = "SELECT number FROM numbers(100000)";
    let reply = ask("wait_end_of_query=1", query).await.send().await;
    assert!(reply.header("x-clickhouse-exception-tag").is_empty());
    assert!(
        reply
            .header("x-clickhouse-summary")
            .contains("\"read_rows\":\"100000\"")
    );
}
