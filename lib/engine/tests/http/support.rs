//! A small HTTP client, and one engine for all tests of this binary.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use spanloom_engine::testing::TestEngine;
use tokio::sync::OnceCell;

static ENGINE: OnceCell<TestEngine> = OnceCell::const_new();

/// The shared engine.
pub async fn engine() -> &'static TestEngine {
    ENGINE.get_or_init(TestEngine::start).await
}

/// A request under construction.
pub struct Ask {
    method: Method,
    url: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The number in `X-ClickHouse-Exception-Code`; 0 without.
    pub fn code(&self) -> u32 {
        self.header("x-clickhouse-exception-code")
            .parse()
            .unwrap_or(0)
    }
}

/// A POST of this body to `/?parameters`, as the right user.
pub async fn ask(parameters: &str, body: impl Into<Bytes>) -> Ask {
    let engine = engine().await;
    Ask {
        method: Method::POST,
        url: format!("{}/?{parameters}", engine.url()),
        headers: vec![
            ("x-clickhouse-user".to_owned(), engine.user().to_owned()),
            ("x-clickhouse-key".to_owned(), engine.password().to_owned()),
        ],
        body: body.into(),
    }
}

/// The answer to a statement that must succeed.
pub async fn sql(statement: &str) -> String {
    let reply = ask("", statement.to_owned()).await.send().await;
    assert_eq!(reply.status, 200, "{statement}: {}", reply.text());
    reply.text()
}

/// A new database; tests do not see each other's tables.
pub async fn database() -> String {
    let name = format!("test_{:016x}", rand::random::<u64>());
    sql(&format!("CREATE DATABASE {name}")).await;
    name
}

/// Text for a URL's query.
pub fn escape(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

impl Ask {
    pub fn get(mut self) -> Ask {
        self.method = Method::GET;
        self
    }

    pub fn method(mut self, method: Method) -> Ask {
        self.method = method;
        self
    }

    pub fn path(mut self, path: &str) -> Ask {
        let (head, query) = self.url.split_once("/?").unwrap();
        self.url = format!("{head}{path}?{query}");
        self
    }

    pub fn anonymous(mut self) -> Ask {
        self.headers.clear();
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Ask {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends it and gives the answer as far as its headers.
    pub async fn start(self) -> hyper::Response<Incoming> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut request = Request::builder().method(self.method).uri(self.url);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        client
            .request(request.body(Full::new(self.body)).unwrap())
            .await
            .unwrap()
    }

    /// Sends it and reads the whole answer.
    pub async fn send(self) -> Reply {
        let response = self.start().await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }
}
