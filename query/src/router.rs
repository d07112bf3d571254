//! The routes of the one port, and what is done around each request.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use http::{HeaderValue, Uri, header};

use crate::app::App;
use crate::metrics::RequestLabels;
use crate::params::Allowed;
use crate::problem::{Problem, ProblemKind};
use crate::rollup::{accounts, dependencies, latency, services};
use crate::{compress, health, openapi, search, tempo, trace, ui};

/// A route of the API: its path, what it takes in its query string, and its handler.
type Route = (&'static str, Allowed, MethodRouter<Arc<App>>);

/// The API's routes; the OpenAPI document is tested against them.
fn api() -> [Route; 8] {
    [
        (
            "/api/v1/openapi.json",
            Allowed::NONE,
            get(openapi::document),
        ),
        ("/api/v1/traces", search::ALLOWED, get(search::search)),
        ("/api/v1/traces/{id}", trace::ALLOWED, get(trace::trace)),
        (
            "/api/v1/services",
            services::ALLOWED,
            get(services::services),
        ),
        (
            "/api/v1/services/{service}/operations",
            services::ALLOWED,
            get(services::operations),
        ),
        (
            "/api/v1/dependencies",
            dependencies::ALLOWED,
            get(dependencies::dependencies),
        ),
        ("/api/v1/latency", latency::ALLOWED, get(latency::latency)),
        (
            "/api/v1/accounts",
            accounts::ALLOWED,
            get(accounts::accounts),
        ),
    ]
}

/// All that the port serves.
pub fn router(app: Arc<App>) -> Router {
    // Around the routes: layers on them run when the route is known.
    Router::new()
        .fallback_service(routes(app))
        .layer(axum::middleware::map_request(without_empty_segments))
}

fn routes(app: Arc<App>) -> Router {
    api()
        .into_iter()
        .fold(Router::new(), |router, (path, _, handler)| {
            router.route(path, handler)
        })
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .merge(ui::routes())
        // Who moves from Tempo changes the host alone.
        .merge(tempo::routes())
        .merge(tempo::grpc::routes())
        .nest("/tempo", tempo::prefixed())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(axum::middleware::from_fn(compress::layer))
        .layer(axum::middleware::from_fn_with_state(app.clone(), around))
        .with_state(app)
}

/// Grafana's plugin appends paths to the data source's URL as it is: one that ends with a slash makes `//api/…`.
/// Tempo redirects such requests; answering them amounts to the same and also works through Grafana's proxy. Two
/// slashes in the name of a tag have to be encoded.
async fn without_empty_segments(mut request: Request) -> Request {
    if let Some(uri) = with_single_slashes(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

/// The URI whose path has no empty segments; none where it has none already.
fn with_single_slashes(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !path.contains("//") {
        return None;
    }
    let mut plain = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !plain.ends_with('/') {
            plain.push(c);
        }
    }
    if let Some(query) = uri.query() {
        plain.push('?');
        plain.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(plain.parse().ok()?);
    Uri::from_parts(parts).ok()
}

async fn not_found(request: Request) -> Problem {
    let path: String = request.uri().path().chars().take(200).collect();
    Problem::new(
        ProblemKind::NotFound,
        format!("{path} not found; /api/v1/openapi.json lists the API, /ui/ is the web UI"),
    )
}

async fn method_not_allowed() -> Problem {
    Problem::new(ProblemKind::MethodNotAllowed, "only GET is supported")
}

/// Counts each request and marks its answer as what it says it is. A call of gRPC is counted when its answer
/// begins: its status is in the trailers, and this one is that of HTTP.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map(MatchedPath::as_str);
    let route = route.unwrap_or("other").to_owned();
    let mut response = next.run(request).await.into_response();
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let took = begun.elapsed();
    let status = response.status().as_u16();
    tracing::debug!(route, status, seconds = took.as_secs_f64(), "answered");
    app.metrics.answered(&RequestLabels { route, status }, took);
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Path → names of query parameters, sorted.
    type Routes = BTreeMap<String, Vec<String>>;

    fn documented() -> Routes {
        let document: serde_json::Value = serde_json::from_str(openapi::text()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let routes = paths.iter().map(|(path, methods)| {
            let methods = methods.as_object().unwrap();
            assert_eq!(methods.keys().collect::<Vec<_>>(), ["get"], "{path}");
            let parameters = methods["get"]["parameters"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let in_place = |place: &str| {
                let chosen = parameters
                    .iter()
                    .filter(|parameter| parameter["in"] == place);
                let names = chosen.map(|parameter| parameter["name"].as_str().unwrap().to_owned());
                let mut names: Vec<_> = names.collect();
                names.sort();
                names
            };
            for name in in_place("path") {
                assert!(
                    path.contains(&format!("{{{name}}}")),
                    "{path} has no {name}"
                );
            }
            assert_eq!(path.matches('{').count(), in_place("path").len(), "{path}");
            (path.clone(), in_place("query"))
        });
        routes.collect()
    }

    #[test]
    fn empty_segments() {
        let check = |uri: &str, expect: Option<&str>| {
            let plain = with_single_slashes(&uri.parse().unwrap());
            assert_eq!(plain.map(|uri| uri.to_string()).as_deref(), expect, "{uri}");
        };
        check("/api/search?q=a//b", None);
        check("/", None);
        check("//api/echo", Some("/api/echo"));
        check("/tempo///api//search?q=//", Some("/tempo/api/search?q=//"));
        check("http://host:1//x/", Some("http://host:1/x/"));
    }

    #[test]
    fn the_document_has_each_route_and_parameter_and_no_other() {
        let served = api().into_iter().map(|(path, allowed, _)| {
            let mut names: Vec<_> = allowed.names().map(str::to_owned).collect();
            names.sort();
            (path.to_owned(), names)
        });
        assert_eq!(documented(), served.collect::<Routes>());
    }
}
