//! An API server in memory that keeps objects as Kubernetes does, as far as the operator can tell, and
//! that fails, delays, hangs or refuses where a test says so.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

type Answered = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What a test has the server do instead of its work, or besides.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// It answers with this status and message, and does nothing.
    Status(u16, &'static str),
    /// It takes the request and never answers; nothing is done.
    Hang,
    /// It does the work and never answers.
    HangAfter,
    /// It does the work after this time.
    Late(Duration),
}

/// When there is trouble.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The client that it meets; every one when empty.
    pub client: &'static str,
    /// The request's method.
    pub method: Method,
    /// A part of its path.
    pub path: &'static str,
    /// How often; for ever without a number.
    pub times: Option<usize>,
    /// What happens.
    pub trouble: Trouble,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: String,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    rules: Vec<Rule>,
    seen: Vec<Seen>,
    watches: Vec<(String, UnboundedSender<Bytes>)>,
}

/// The server, as one of its clients has it. Clones share it.
#[derive(Clone)]
pub struct Api {
    client: &'static str,
    state: Arc<Mutex<State>>,
}

impl Api {
    pub fn new() -> Self {
        Self {
            client: "",
            state: Arc::default(),
        }
    }

    /// A client of this name.
    pub fn client(&self, name: &'static str) -> Client {
        let service = Self {
            client: name,
            state: Arc::clone(&self.state),
        };
        Client::new(service, "default")
    }

    pub fn rule(&self, rule: Rule) {
        self.state().rules.push(rule);
    }

    pub fn end_rules(&self) {
        self.state().rules.clear();
    }

    /// The object at a path.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    /// Paths that contain this text.
    pub fn paths(&self, part: &str) -> Vec<String> {
        let state = self.state();
        let paths = state.objects.keys().filter(|path| path.contains(part));
        paths.cloned().collect()
    }

    /// Somebody else writes an object.
    pub fn put(&self, path: &str, object: Value) {
        self.state().put(path, object);
    }

    /// Somebody else changes an object.
    pub fn change(&self, path: &str, patch: &Value) {
        let mut state = self.state();
        let mut object = state.objects.get(path).cloned().unwrap_or(json!({}));
        merge(&mut object, patch);
        state.put(path, object);
    }

    /// Somebody else deletes an object.
    pub fn delete(&self, path: &str) {
        self.state().delete(path);
    }

    /// Requests since the last time that was asked.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state().seen)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn trouble(&self, method: &Method, path: &str) -> Option<Trouble> {
        let mut state = self.state();
        let rule = state.rules.iter_mut().find(|rule| {
            (rule.client.is_empty() || rule.client == self.client)
                && rule.method == method
                && path.contains(rule.path)
                && rule.times != Some(0)
        })?;
        rule.times = rule.times.map(|times| times - 1);
        Some(rule.trouble.clone())
    }

    async fn answer(self, request: Request<Body>) -> Result<Answered, Infallible> {
        let (head, body) = request.into_parts();
        let (method, path) = (head.method, head.uri.path().to_owned());
        let query = head.uri.query().unwrap_or_default().to_owned();
        self.state().seen.push(Seen {
            method: method.clone(),
            path: path.clone(),
        });
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let trouble = self.trouble(&method, &path);
        match trouble {
            Some(Trouble::Status(code, message)) => return Ok(failure(code, message)),
            Some(Trouble::Hang) => std::future::pending().await,
            Some(Trouble::Late(time)) => tokio::time::sleep(time).await,
            Some(Trouble::HangAfter) | None => {}
        }
        let answer = self.state().serve(&method, &path, &query, body);
        if matches!(trouble, Some(Trouble::HangAfter)) {
            std::future::pending().await
        }
        Ok(answer)
    }
}

impl tower_service::Service<Request<Body>> for Api {
    type Response = Answered;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answered, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().answer(request))
    }
}

impl State {
    fn serve(&mut self, method: &Method, path: &str, query: &str, body: Value) -> Answered {
        if query.contains("watch=true") {
            let (sender, mut receiver) = unbounded_channel();
            self.watches.push((path.to_owned(), sender));
            let frames = futures_util::stream::poll_fn(move |task| {
                let bytes = receiver.poll_recv(task);
                bytes.map(|bytes| bytes.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))))
            });
            return Response::new(StreamBody::new(frames).boxed_unsync());
        }
        let plain = path.trim_end_matches("/status");
        match *method {
            Method::GET if self.objects.contains_key(path) => ok(&self.objects[path]),
            Method::GET if is_object(path) => failure(404, "not found"),
            Method::GET if path.starts_with("/apis/") && path.matches('/').count() == 3 => {
                ok(&json!({"kind": "APIResourceList",
                "apiVersion": "v1", "groupVersion": "x/v1", "resources": []}))
            }
            Method::GET => {
                let prefix = format!("{path}/");
                let items = self.objects.iter();
                let items: Vec<_> = items
                    .filter(|(path, _)| is_in(path, &prefix) || is_in_all(path, &prefix))
                    .map(|(_, object)| object)
                    .collect();
                let version = self.version.to_string();
                ok(&json!({"kind": "List", "apiVersion": "v1", "items": items,
                    "metadata": {"resourceVersion": version}}))
            }
            Method::PATCH => {
                let mut object = self.objects.get(plain).cloned().unwrap_or(json!({}));
                merge(&mut object, &body);
                ok(&self.put(plain, object))
            }
            Method::POST => {
                let name = body["metadata"]["name"].as_str().unwrap_or("generated");
                let path = format!("{path}/{name}");
                if self.objects.contains_key(&path) {
                    return failure(409, "exists");
                }
                ok(&self.put(&path, body))
            }
            Method::PUT => {
                let has = self
                    .objects
                    .get(path)
                    .map(|o| &o["metadata"]["resourceVersion"]);
                if has != Some(&body["metadata"]["resourceVersion"]) {
                    return failure(409, "changed meanwhile");
                }
                ok(&self.put(path, body))
            }
            Method::DELETE if self.delete(path) => {
                ok(&json!({"kind": "Status", "status": "Success"}))
            }
            _ => failure(404, "not found"),
        }
    }

    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let before = self.objects.get(path).cloned();
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
        }
        let is_same_spec = before.as_ref().is_some_and(|b| b["spec"] == object["spec"]);
        if !is_same_spec {
            let generation = object["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            object["metadata"]["generation"] = json!(generation);
        }
        self.objects.insert(path.to_owned(), object.clone());
        let type_ = if before.is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        self.tell(path, type_, &object);
        object
    }

    fn delete(&mut self, path: &str) -> bool {
        let Some(object) = self.objects.remove(path) else {
            return false;
        };
        self.version += 1;
        self.tell(path, "DELETED", &object);
        true
    }

    fn tell(&mut self, path: &str, type_: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": type_, "object": object}));
        self.watches.retain(|(watched, sender)| {
            let prefix = format!("{watched}/");
            let concerns = is_in(path, &prefix) || is_in_all(path, &prefix);
            !concerns || sender.send(Bytes::from(line.clone())).is_ok()
        });
    }
}

/// Whether a path is of an object of a list, and not of something below that.
fn is_in(path: &str, prefix: &str) -> bool {
    let name = path.strip_prefix(prefix);
    name.is_some_and(|name| !name.contains('/'))
}

/// Whether a path of a namespaced object lies in the list of all namespaces.
fn is_in_all(path: &str, prefix: &str) -> bool {
    let Some((group, rest)) = path.split_once("/namespaces/") else {
        return false;
    };
    let Some((_, rest)) = rest.split_once('/') else {
        return false;
    };
    format!("{group}/{rest}").starts_with(prefix)
}

/// Whether a path names one object.
fn is_object(path: &str) -> bool {
    let rest = match path.split_once("/namespaces/") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, rest)| rest),
        None => path
            .trim_start_matches('/')
            .splitn(4, '/')
            .last()
            .unwrap_or_default(),
    };
    rest.contains('/')
}

fn ok(object: &Value) -> Answered {
    Response::new(Full::new(Bytes::from(object.to_string())).boxed_unsync())
}

fn failure(code: u16, message: &str) -> Answered {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        _ => "InternalError",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "message": message, "reason": reason, "metadata": {}});
    let mut answer = ok(&status);
    *answer.status_mut() = http::StatusCode::from_u16(code).unwrap();
    answer
}

fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(object.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (object, patch) => *object = patch.clone(),
    }
}
