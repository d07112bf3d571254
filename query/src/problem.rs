//! What a client reads when it gets no answer: one closed list of problems, as RFC 9457 documents.
//!
//! This is the only place that turns an error into a status and a body.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

/// How long a client should wait before it asks again when ClickHouse is away or too busy.
const RETRY_AFTER_SECONDS: u64 = 5;

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// A parameter is missing, malformed or unknown.
    BadParameter,
    /// No such trace, or no such path.
    NotFound,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// The query would need more memory than one query may take.
    TooMuchMemory,
    /// ClickHouse cannot be reached, or its schema is not there yet.
    Unavailable,
    /// As many queries run as may run at once.
    Overloaded,
    /// The query was cut at its time limit.
    Timeout,
    /// A fault of ours; the log has the details.
    Internal,
}

impl ProblemKind {
    /// The HTTP status of this kind.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadParameter => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooMuchMemory => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unavailable | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The last part of the problem's type, for programs.
    fn slug(self) -> &'static str {
        match self {
            Self::BadParameter => "bad-parameter",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::TooMuchMemory => "too-much-memory",
            Self::Unavailable => "store-unavailable",
            Self::Overloaded => "overloaded",
            Self::Timeout => "query-timeout",
            Self::Internal => "internal",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::BadParameter => "Bad parameter",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::TooMuchMemory => "The query needs too much memory",
            Self::Unavailable => "The store is unavailable",
            Self::Overloaded => "Too many queries at once",
            Self::Timeout => "The query timed out",
            Self::Internal => "Internal error",
        }
    }
}

/// An error as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    kind: ProblemKind,
    detail: String,
    parameter: Option<String>,
    place: Option<(u32, u32)>,
}

impl Problem {
    /// A problem of `kind`; `detail` says what happened and what to do.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            parameter: None,
            place: None,
        }
    }

    /// A parameter that cannot be used, by name.
    pub fn parameter(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            kind: ProblemKind::BadParameter,
            detail: detail.into(),
            parameter: Some(name.into()),
            place: None,
        }
    }

    /// The same, at a line and a column of the parameter's text.
    #[must_use]
    pub fn at_place(self, line: u32, column: u32) -> Self {
        Self {
            place: Some((line, column)),
            ..self
        }
    }

    /// What kind of problem it is.
    pub fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// The parameter at fault, if one is.
    #[cfg(test)]
    pub fn at_parameter(&self) -> Option<&str> {
        self.parameter.as_deref()
    }

    /// The document that goes over the wire.
    pub fn document(&self) -> ProblemDocument {
        ProblemDocument {
            r#type: format!("urn:spanloom:problem:{}", self.kind.slug()),
            title: self.kind.title().to_owned(),
            status: self.kind.status().as_u16(),
            detail: self.detail.clone(),
            parameter: self.parameter.clone(),
            line: self.place.map(|(line, _)| line),
            column: self.place.map(|(_, column)| column),
        }
    }
}

/// An error as RFC 9457 writes it (`application/problem+json`).
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument {
    /// Names the kind of problem, for programs.
    pub r#type: String,
    /// The kind of problem, for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, and what to do.
    pub detail: String,
    /// The parameter at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// The line of a query at fault, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column in that line, in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        let body = serde_json::to_vec(&self.document()).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        response
    }
}
