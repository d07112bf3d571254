//! The web UI: three files, built in, that use the API under `/api/v1`.

use axum::Router;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::{HeaderValue, header};

/// Only this origin's own files and API; no inline script or style, no frames, no forms elsewhere.
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
);

/// The routes of the page.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let file = |media_type: &'static str, text: &'static str| {
        get(move || async move { answer(media_type, text) })
    };
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/ui/") }))
        .route("/ui", get(|| async { Redirect::temporary("/ui/") }))
        .route(
            "/ui/",
            file("text/html; charset=utf-8", include_str!("../ui/index.html")),
        )
        .route(
            "/ui/app.css",
            file("text/css; charset=utf-8", include_str!("../ui/app.css")),
        )
        .route("/ui/app.js", script(include_str!("../ui/app.js")))
        .route("/ui/format.js", script(include_str!("../ui/format.js")))
        .route(
            "/ui/waterfall.js",
            script(include_str!("../ui/waterfall.js")),
        )
}

fn script<S: Clone + Send + Sync + 'static>(text: &'static str) -> axum::routing::MethodRouter<S> {
    get(move || async move { answer("text/javascript; charset=utf-8", text) })
}

fn answer(media_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
        // The files change with the program and are small: ask each time.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text).into_response()
}
