//! What is not HTTP, or not quite, does no harm.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{ask, engine};

/// Sends these bytes; the answer begins so.
async fn check(bytes: &[u8], expect: &str) {
    let url = engine().await.url();
    let mut stream = TcpStream::connect(url.trim_start_matches("http://"))
        .await
        .unwrap();
    // The front may have hung up before the last byte.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with(expect), "{expect}: {answer}");
    let reply = ask("", "SELECT 1").await.send().await;
    assert_eq!(reply.text(), "1\n");
}

#[tokio::test]
async fn bytes() {
    let auth = {
        let engine = engine().await;
        format!(
            "Host: x\r\nX-ClickHouse-User: {}\r\nX-ClickHouse-Key: {}\r\n",
            engine.user(),
            engine.password()
        )
    };
    check(b"", "").await;
    check(b"\0\0\0\0", "HTTP/1.1 400").await;
    check(b"GET /ping", "").await;
    check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "").await;
    let many = "x: y\r\n".repeat(500);
    check(
        format!("GET /ping HTTP/1.1\r\n{many}\r\n").as_bytes(),
        "HTTP/1.1 431",
    )
    .await;
    let long = "x".repeat(1 << 20);
    check(
        format!("GET /?query={long} HTTP/1.1\r\n\r\n").as_bytes(),
        "HTTP/1.1 4",
    )
    .await;
    check(
        format!("GET /ping HTTP/1.1\r\nx: {long}\r\n\r\n").as_bytes(),
        "HTTP/1.1 431",
    )
    .await;
    let huge = format!("POST / HTTP/1.1\r\n{auth}Content-Length: 99999999999\r\n\r\n");
    check(huge.as_bytes(), "HTTP/1.1 413").await;
    let cut = format!("POST / HTTP/1.1\r\n{auth}Content-Length: 100\r\n\r\nSELECT 1");
    check(cut.as_bytes(), "").await;
    let chunks = format!("POST / HTTP/1.1\r\n{auth}Transfer-Encoding: chunked\r\n\r\nzz\r\n");
    check(chunks.as_bytes(), "").await;
}

#[tokio::test]
async fn text() {
    for body in [
        &b"\xff\xfe"[..],
        b"SELECT '\xff' FORMAT JSON",
        b"SELECT '",
        b"SELECT /*",
        b"INSERT INTO",
        b"INSERT INTO t FORMAT",
        b"((((((((((",
        b"))))))))))",
        b"SELECT \0",
        b";",
        b"$$",
    ] {
        let reply = ask("", body.to_vec()).await.send().await;
        let status = reply.status.as_u16();
        assert!(
            [200, 400, 404, 500].contains(&status),
            "{body:?}: {status} {}",
            reply.text()
        );
    }
    let deep = format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000));
    let reply = ask("", deep).await.send().await;
    assert_ne!(reply.status, 200);
    assert_eq!(ask("", "SELECT 1").await.send().await.text(), "1\n");
}
