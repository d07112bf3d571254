//! Who may ask: with tokens, without them, and on the admin port; and how the service itself logs in.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use spanloom_query::{Access, ClickHouseConfig, Limits, Server};

use crate::harness::{Answer, Service, ask, ask_as, serve_to, span};

const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

/// A ClickHouse that is not there: none of these answers needs one.
fn nowhere() -> ClickHouseConfig {
    ClickHouseConfig {
        url: "http://127.0.0.1:1".to_owned(),
        user: "nobody".to_owned(),
        password: String::new(),
        credentials_dir: None,
        database: "spanloom".to_owned(),
        ca_file: None,
    }
}

async fn with_tokens(directory: &std::path::Path) -> Server {
    let access = Access {
        tokens_dir: Some(directory.to_owned()),
        admin: Some(ANY.into()),
        ..Access::default()
    };
    serve_to(nowhere(), Limits::default(), access).await
}

fn check_refused(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 401, "{what}: {}", answer.text);
    assert_eq!(answer.headers["www-authenticate"], "Bearer", "{what}");
    assert_eq!(answer.text, "", "{what}");
    // Not even which methods a path has.
    let told = answer.headers.keys().map(|name| name.as_str());
    let told: Vec<_> = told
        .filter(|name| !["content-length", "date", "www-authenticate"].contains(name))
        .collect();
    assert!(told.is_empty(), "{what}: {told:?}");
}

const PATHS: [&str; 12] = [
    "/",
    "/ui/",
    "/ui/app.js",
    "/metrics",
    "/api/v1/openapi.json",
    "/api/v1/services",
    "/api/v1/traces",
    "/api/v1/traces/1",
    "/probe/1",
    "/healthz/",
    "//healthz",
    "/nothing/here",
];

#[tokio::test]
async fn without_a_token_every_path_is_refused() {
    let tokens = tempfile::tempdir().unwrap();
    std::fs::write(tokens.path().join("people"), "first\nsecond\n").unwrap();
    let server = with_tokens(tokens.path()).await;
    let address = server.address();
    for path in PATHS {
        for method in ["GET", "HEAD", "POST", "OPTIONS"] {
            let answer = ask(address, method, path).await;
            check_refused(&answer, &format!("{method} {path}"));
        }
        for wrong in [
            "Bearer third",
            "Bearer",
            "Basic first",
            "first",
            "Bearer firs",
        ] {
            let answer = ask_as(address, "GET", path, Some(wrong)).await;
            check_refused(&answer, &format!("{path} as {wrong}"));
        }
    }
    let metrics = ask(server.admin_address().unwrap(), "GET", "/metrics")
        .await
        .text;
    let refused = PATHS.len() * 9;
    assert!(
        metrics.contains(&format!("spanloom_query_unauthorized_total {refused}\n")),
        "{metrics}"
    );
    assert!(metrics.contains("spanloom_query_tokens 2\n"), "{metrics}");
}

#[tokio::test]
async fn each_token_opens() {
    let tokens = tempfile::tempdir().unwrap();
    std::fs::write(tokens.path().join("people"), "first\nsecond\n").unwrap();
    std::fs::write(tokens.path().join("grafana"), "third").unwrap();
    let server = with_tokens(tokens.path()).await;
    for token in ["first", "second", "third"] {
        let authorization = format!("Bearer {token}");
        for (path, expect) in [
            ("/ui/", 200),
            ("/api/v1/openapi.json", 200),
            ("/metrics", 200),
            ("/nothing/here", 404),
            // There is no ClickHouse to ask.
            ("/api/v1/services?start=1&end=2", 503),
        ] {
            let answer = ask_as(server.address(), "GET", path, Some(&authorization)).await;
            assert_eq!(answer.status, expect, "{path}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn health_needs_no_token_and_tells_nothing() {
    let tokens = tempfile::tempdir().unwrap();
    std::fs::write(tokens.path().join("people"), "first").unwrap();
    let server = with_tokens(tokens.path()).await;
    let answer = ask(server.address(), "GET", "/healthz").await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "ok\n"));
    let answer = ask(server.address(), "GET", "/readyz").await;
    assert_eq!((answer.status, answer.text.as_str()), (503, "not ready\n"));
    let answer = ask(server.admin_address().unwrap(), "GET", "/readyz").await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.text.contains("ClickHouse is unavailable"),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn a_directory_without_a_token_refuses_everything_until_it_has_one() {
    let tokens = tempfile::tempdir().unwrap();
    let directory = tokens.path().join("later");
    let server = with_tokens(&directory).await;
    let page =
        async |authorization| ask_as(server.address(), "GET", "/ui/", Some(authorization)).await;
    for wrong in ["Bearer ", "Bearer =", "Bearer first"] {
        check_refused(&page(wrong).await, wrong);
    }
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("people"), "first").unwrap();
    awaits(async || page("Bearer first").await.status == 200).await;
    // And out again.
    std::fs::write(directory.join("people"), "other").unwrap();
    awaits(async || page("Bearer first").await.status == 401).await;
    assert_eq!(page("Bearer other").await.status, 200);
}

/// Asks again until it is so.
async fn awaits(mut so: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked)
        .await
        .expect("it does not come true");
}

#[tokio::test]
async fn an_ending_server_answers_and_says_that_it_ends() {
    let service = Service::start().await;
    let access = Access {
        admin: Some(ANY.into()),
        ..Access::default()
    };
    let server = service.beside(access).await;
    let admin = server.admin_address().unwrap();
    let ready = async |address: SocketAddr| ask(address, "GET", "/readyz").await;
    assert_eq!(ready(admin).await.status, 200);
    server.drain();
    for address in [admin, server.address()] {
        let answer = ready(address).await;
        assert_eq!(answer.status, 503);
        assert!(answer.text.contains("shutting down"), "{}", answer.text);
    }
    let answer = ask(server.address(), "GET", "/api/v1/openapi.json").await;
    assert_eq!(answer.status, 200);
    server.shutdown(Duration::from_secs(20)).await;
    for address in [admin, service.address()] {
        let open = tokio::net::TcpStream::connect(address).await.is_ok();
        assert_eq!(open, address == service.address());
    }
}

/// The admin port tells of probes, and of nobody else.
#[tokio::test]
async fn probes_are_counted_and_nothing_else() {
    let service = Service::start().await;
    let access = Access {
        admin: Some(ANY.into()),
        ..Access::default()
    };
    let server = service.beside(access).await;
    let admin = server.admin_address().unwrap();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let now = i64::try_from(now.as_nanos()).unwrap();
    let resource = "'{\"service.name\":\"spanloom-probe\",\"spanloom.probe\":\"uid\"}'";
    let probe = |trace, id| {
        let mut probe = span(trace, id, 0, 0).service("spanloom-probe");
        probe.start_ns = now;
        probe.with("resource", resource)
    };
    let mut old = probe(3, 1);
    old.start_ns -= 2 * 3_600 * 1_000_000_000;
    let mut named_alike = probe(4, 1);
    named_alike.more.clear();
    let mut service_of_people = probe(5, 1).service("cart");
    service_of_people.name = "GET /cart".to_owned();
    let spans = [
        probe(1, 1),
        probe(1, 2),
        probe(1, 2),
        probe(2, 1),
        old,
        named_alike,
        service_of_people,
    ];
    for span in spans {
        service.insert(&[span]).await;
    }
    for (trace, expect) in [(1, 2), (2, 1), (3, 0), (4, 0), (5, 0), (6, 0)] {
        let answer = ask(admin, "GET", &format!("/probe/{trace:032x}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(
            answer.body,
            serde_json::json!({ "spans": expect }),
            "trace {trace}"
        );
    }
    assert_eq!(ask(admin, "GET", "/probe/x").await.status, 400);
    for path in ["/", "/ui/", "/api/v1/services", "/api/v1/traces/1"] {
        assert_eq!(ask(admin, "GET", path).await.status, 404, "{path}");
    }
}

/// The service itself logs in to ClickHouse with what its files say at the moment.
#[tokio::test]
async fn another_password_of_clickhouse_needs_no_restart() {
    let service = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    let right = service.clickhouse();
    let write = |name: &str, text: &str| {
        let temporary = folder.path().join(".new");
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(temporary, folder.path().join(name)).unwrap();
    };
    write("username", &right.user);
    write("password", "an old one");
    let clickhouse = ClickHouseConfig {
        user: String::new(),
        password: String::new(),
        credentials_dir: Some(folder.path().to_owned()),
        ..right.clone()
    };
    let server = serve_to(clickhouse, Limits::default(), Access::default()).await;
    let answer = ask(server.address(), "GET", "/readyz").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text.contains("Code: 516"), "{}", answer.text);
    write("password", &right.password);
    let begun = std::time::Instant::now();
    loop {
        let answer = ask(server.address(), "GET", "/readyz").await;
        if answer.status == 200 {
            break;
        }
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(60), "{}", answer.text);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
