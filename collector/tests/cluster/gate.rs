//! A door before ClickHouse with a password of its own, that can be changed and closed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

const KEY: &str = "x-clickhouse-key";

struct State {
    password: String,
    /// Requests that came with another one.
    refused: usize,
}

/// The door; it closes when it is dropped.
pub struct Gate {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

/// What the door needs to pass a request on.
struct Behind {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    password: String,
    state: Arc<Mutex<State>>,
}

impl Gate {
    /// Before the server at `url` that has the second password; who comes must know the first.
    pub async fn open(url: &str, password: &str, inner: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            password: password.to_owned(),
            refused: 0,
        }));
        let behind = Arc::new(Behind {
            client: Client::builder(TokioExecutor::new()).build_http(),
            url: url.to_owned(),
            password: inner.to_owned(),
            state: Arc::clone(&state),
        });
        let serve = async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let behind = Arc::clone(&behind);
                connections.spawn(async move {
                    let service = service_fn(|request| {
                        let behind = Arc::clone(&behind);
                        async move { Ok::<_, Infallible>(behind.answer(request).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        };
        let task = tokio::spawn(serve).abort_handle();
        Self {
            address,
            state,
            task,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Only who knows this one is let in from now on.
    pub fn change(&self, password: &str) {
        self.state.lock().unwrap().password = password.to_owned();
    }

    pub fn refused(&self) -> usize {
        self.state.lock().unwrap().refused
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Behind {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (mut head, body) = request.into_parts();
        let given = head.headers.get(KEY).map(|key| key.as_bytes().to_vec());
        let body = body.collect().await.unwrap().to_bytes();
        {
            let mut state = self.state.lock().unwrap();
            if given.as_deref() != Some(state.password.as_bytes()) {
                state.refused += 1;
                let text =
                    "Code: 516. DB::Exception: Authentication failed. (AUTHENTICATION_FAILED)";
                let mut response = Response::new(Full::from(text));
                *response.status_mut() = StatusCode::FORBIDDEN;
                return response;
            }
        }
        head.headers.insert(KEY, self.password.parse().unwrap());
        let query = head.uri.path_and_query().unwrap();
        head.uri = format!("{}{query}", self.url).parse().unwrap();
        let request = Request::from_parts(head, Full::new(body));
        let (head, body) = self.client.request(request).await.unwrap().into_parts();
        Response::from_parts(head, Full::new(body.collect().await.unwrap().to_bytes()))
    }
}
