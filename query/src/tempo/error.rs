//! Errors as Grafana shows them: the body is one line of plain text.

use axum::response::{IntoResponse, Response};
use http::header;

use crate::db::DbError;
use crate::problem::Problem;

/// A problem that is answered in plain text.
#[derive(Debug)]
pub struct Plain(pub Problem);

impl From<Problem> for Plain {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<DbError> for Plain {
    fn from(error: DbError) -> Self {
        Self(error.into())
    }
}

impl Plain {
    /// The line.
    pub fn text(&self) -> String {
        let document = self.0.document();
        match document.parameter.as_deref() {
            Some(name) if !name.is_empty() => format!("{name}: {}", document.detail),
            _ => document.detail,
        }
    }
}

impl IntoResponse for Plain {
    fn into_response(self) -> Response {
        let text = self.text();
        let mut response = self.0.into_response();
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(
            header::CONTENT_TYPE,
            http::HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        *response.body_mut() = text.into();
        response
    }
}
