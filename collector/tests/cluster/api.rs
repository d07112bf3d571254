//! An API server that knows two kinds, lists and watches: enough for what a collector asks.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What is in the store, and all that has happened to it.
#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<(&'static str, String), Value>,
    events: Vec<(u64, &'static str, Value)>,
    /// Requests are refused with this.
    broken: Option<StatusCode>,
    denied: Option<&'static str>,
    /// Answers to other paths.
    texts: BTreeMap<&'static str, String>,
    /// Watches that began before this one end.
    era: u64,
}

/// The server; it ends with the test's runtime.
#[derive(Clone)]
pub struct Api {
    state: Arc<Mutex<State>>,
    changes: watch::Sender<()>,
    port: u16,
}

impl Api {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Self {
            state: Arc::default(),
            changes: watch::Sender::new(()),
            port: listener.local_addr().unwrap().port(),
        };
        let served = api.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let api = served.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request: Request<Incoming>| {
                        let response = api.answer(&request);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        api
    }

    pub fn client(&self) -> kube::Client {
        let url = format!("http://127.0.0.1:{}", self.port).parse().unwrap();
        kube::Client::try_from(kube::Config::new(url)).unwrap()
    }

    /// Creates or replaces.
    pub fn put(&self, kind: &'static str, mut object: Value) {
        self.change(|state| {
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            let known = state.objects.contains_key(&(kind, name.clone()));
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            state.objects.insert((kind, name), object.clone());
            let what = if known { "MODIFIED" } else { "ADDED" };
            (kind, json!({"type": what, "object": object}))
        });
    }

    pub fn delete(&self, kind: &'static str, name: &str) {
        self.change(|state| {
            let object = state.objects.remove(&(kind, name.to_owned())).unwrap();
            (kind, json!({"type": "DELETED", "object": object}))
        });
    }

    /// Answers all requests with this, and ends all watches; `None` ends that.
    pub fn break_with(&self, status: Option<StatusCode>) {
        let mut state = self.state.lock().unwrap();
        state.broken = status;
        state.era += 1;
        drop(state);
        self.changes.send_replace(());
    }

    /// Refuses to show objects of this kind, and ends their watches; `None` ends that.
    pub fn deny(&self, kind: Option<&'static str>) {
        let mut state = self.state.lock().unwrap();
        state.denied = kind;
        state.era += 1;
        drop(state);
        self.changes.send_replace(());
    }

    /// Answers requests for this path, such as that of the keys of tokens.
    #[allow(dead_code)] // The sidecar's tests use this API server, too.
    pub fn serve(&self, path: &'static str, text: String) {
        self.state.lock().unwrap().texts.insert(path, text);
    }

    /// Forgets what has happened, as a real one does after some minutes: watches must list again.
    pub fn compact(&self) {
        self.state.lock().unwrap().events.clear();
    }

    fn change(&self, what: impl FnOnce(&mut State) -> (&'static str, Value)) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let (kind, event) = what(&mut state);
        let version = state.version;
        state.events.push((version, kind, event));
        drop(state);
        self.changes.send_replace(());
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        let state = self.state.lock().unwrap();
        let path = request.uri().path();
        if let Some(text) = state.texts.get(path) {
            return Response::new(Full::from(text.clone()).boxed());
        }
        let kind = match path {
            "/api/v1/pods" => "pods",
            "/api/v1/namespaces/tracing/configmaps" => "configmaps",
            _ => return failure(StatusCode::NOT_FOUND, path),
        };
        if let Some(status) = state.broken {
            return failure(status, "broken");
        }
        if state.denied == Some(kind) {
            return failure(StatusCode::FORBIDDEN, "cannot list resource");
        }
        let parameters: BTreeMap<String, String> = request
            .uri()
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.replace("%3D", "=")))
            .collect();
        let selector = parameters.get("fieldSelector").cloned().unwrap_or_default();
        if parameters.get("watch").is_none_or(|watch| watch != "true") {
            let items: Vec<_> = state
                .objects
                .iter()
                .filter(|((of, _), object)| *of == kind && selected(&selector, object))
                .map(|(_, object)| object)
                .collect();
            let version = state.version.to_string();
            let list = json!({"kind": "List", "apiVersion": "v1",
                "metadata": {"resourceVersion": version}, "items": items});
            return Response::new(Full::from(list.to_string()).boxed());
        }
        let since: u64 = parameters["resourceVersion"].parse().unwrap();
        let (era, api) = (state.era, self.clone());
        let expected = state.version - since;
        let later = state.events.iter().filter(|event| event.0 > since).count() as u64;
        if later != expected {
            // As the real one says it: the watch begins, and its first event is the error.
            let event = json!({"type": "ERROR", "object": status(StatusCode::GONE, "Expired")});
            return Response::new(Full::from(format!("{event}\n")).boxed());
        }
        let changes = self.changes.subscribe();
        let events = stream::unfold((since, changes), move |(mut seen, mut changes)| {
            let (api, selector) = (api.clone(), selector.clone());
            async move {
                loop {
                    let next = api.next(kind, &selector, &mut seen, era)?;
                    if let Some(line) = next {
                        let frame = Frame::data(Bytes::from(format!("{line}\n")));
                        return Some((Ok(frame), (seen, changes)));
                    }
                    changes.changed().await.ok()?;
                }
            }
        });
        Response::new(BodyExt::boxed(StreamBody::new(events)))
    }

    /// The next event after `seen`: `None` ends the watch, `Some(None)` waits.
    fn next(&self, kind: &str, selector: &str, seen: &mut u64, era: u64) -> Option<Option<Value>> {
        let state = self.state.lock().unwrap();
        if state.era != era {
            return None;
        }
        let found = state.events.iter().find(|(version, of, event)| {
            version > seen && *of == kind && selected(selector, &event["object"])
        });
        if let Some((version, _, _)) = found {
            *seen = *version;
        }
        Some(found.map(|(_, _, event)| event.clone()))
    }
}

fn selected(selector: &str, object: &Value) -> bool {
    match selector.split_once('=') {
        Some(("metadata.name", name)) => object["metadata"]["name"] == name,
        Some(("spec.nodeName", name)) => object["spec"]["nodeName"] == name,
        _ => panic!("a collector must not ask for {selector:?}"),
    }
}

fn failure(code: StatusCode, why: &str) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Full::from(status(code, why).to_string()).boxed());
    *response.status_mut() = code;
    response
}

fn status(code: StatusCode, why: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": why, "reason": why, "code": code.as_u16()})
}
