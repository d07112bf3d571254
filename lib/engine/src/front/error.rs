//! Errors as ClickHouse's HTTP interface reports them: a number, a text, and the HTTP status that
//! belongs to the number.

use http::StatusCode;

/// The numbers that the front gives itself; the engine's own come in its texts.
pub(crate) mod code {
    /// A word that is not a number, a setting without a name, a broken body.
    pub(crate) const BAD_ARGUMENTS: u32 = 36;
    /// Something that ClickHouse has and this front does not.
    pub(crate) const NOT_IMPLEMENTED: u32 = 48;
    /// SQL that is not SQL.
    pub(crate) const SYNTAX_ERROR: u32 = 62;
    /// The engine's state does not allow it.
    pub(crate) const LOGICAL_ERROR: u32 = 49;
    /// It took too long.
    pub(crate) const TIMEOUT_EXCEEDED: u32 = 159;
    /// Writing while only reading is allowed.
    pub(crate) const READONLY: u32 = 164;
    /// More text than a statement may have.
    pub(crate) const QUERY_IS_TOO_LARGE: u32 = 229;
    /// No room to run it.
    pub(crate) const TOO_MANY_SIMULTANEOUS_QUERIES: u32 = 202;
    /// No memory for it.
    pub(crate) const MEMORY_LIMIT_EXCEEDED: u32 = 241;
    /// Bytes that do not decompress.
    pub(crate) const CANNOT_DECOMPRESS: u32 = 271;
    /// `session_check` of a session that is not there.
    pub(crate) const SESSION_NOT_FOUND: u32 = 372;
    /// Another request runs in the session.
    pub(crate) const SESSION_IS_LOCKED: u32 = 373;
    /// The query was killed.
    pub(crate) const QUERY_WAS_CANCELLED: u32 = 394;
    /// Refused by the front.
    pub(crate) const ACCESS_DENIED: u32 = 497;
    /// A role that does not exist: none do.
    pub(crate) const UNKNOWN_ROLE: u32 = 511;
    /// Wrong user or password.
    pub(crate) const AUTHENTICATION_FAILED: u32 = 516;
    /// Neither the engine nor the front gave a number.
    pub(crate) const UNKNOWN_EXCEPTION: u32 = 1002;
}

/// An error on its way to the client.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub(crate) struct ChError {
    /// ClickHouse's number of it.
    pub(crate) code: u32,
    /// The whole text, `Code: N. DB::Exception: …`.
    pub(crate) text: String,
    /// A status other than the number's.
    status: Option<StatusCode>,
}

impl ChError {
    /// An error of the front's own.
    pub(crate) fn new(code: u32, message: impl AsRef<str>) -> ChError {
        let text = format!(
            "Code: {code}. DB::Exception: {}. ({})",
            message.as_ref(),
            name(code)
        );
        ChError {
            code,
            text,
            status: None,
        }
    }

    /// An error as the engine worded it.
    pub(crate) fn from_engine(text: String) -> ChError {
        let digits = text
            .strip_prefix("Code: ")
            .and_then(|rest| rest.split('.').next());
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(code) => ChError {
                code,
                text,
                status: None,
            },
            None => ChError::new(code::UNKNOWN_EXCEPTION, text.trim_end()),
        }
    }

    /// The same with another HTTP status.
    pub(crate) fn with_status(mut self, status: StatusCode) -> ChError {
        self.status = Some(status);
        self
    }

    /// The HTTP status ClickHouse would answer with.
    pub(crate) fn status(&self) -> StatusCode {
        if let Some(status) = self.status {
            return status;
        }
        match self.code {
            // UNKNOWN_USER, WRONG_PASSWORD, ACCESS_DENIED, SET_NON_GRANTED_ROLE,
            // AUTHENTICATION_FAILED
            192 | 193 | 497 | 512 | 516 => StatusCode::FORBIDDEN,
            194 => StatusCode::UNAUTHORIZED,
            // what does not parse, has the wrong type or the wrong columns
            6 | 8 | 15 | 25 | 26 | 27 | 36 | 37 | 38 | 41 | 44 | 53 | 62 | 72 | 117 | 123 | 167
            | 168 | 223 | 321 | 376 | 427 | 441 | 675 | 676 => StatusCode::BAD_REQUEST,
            // what is not known: function, identifier, type, storage, table, aggregate function,
            // format, query type, database, setting, direction of sorting, database engine, role
            46 | 47 | 50 | 56 | 60 | 63 | 73 | 78 | 81 | 115 | 152 | 336 | 511 => {
                StatusCode::NOT_FOUND
            }
            229 => StatusCode::PAYLOAD_TOO_LARGE,
            48 => StatusCode::NOT_IMPLEMENTED,
            159 => StatusCode::REQUEST_TIMEOUT,
            // no slot to run in, SOCKET_TIMEOUT, CANNOT_OPEN_FILE, CANNOT_SCHEDULE_TASK
            76 | 202 | 209 | 439 => StatusCode::SERVICE_UNAVAILABLE,
            381 => StatusCode::LENGTH_REQUIRED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// The name of a number of [`code`].
fn name(number: u32) -> &'static str {
    match number {
        code::BAD_ARGUMENTS => "BAD_ARGUMENTS",
        code::NOT_IMPLEMENTED => "NOT_IMPLEMENTED",
        code::LOGICAL_ERROR => "LOGICAL_ERROR",
        code::SYNTAX_ERROR => "SYNTAX_ERROR",
        code::TIMEOUT_EXCEEDED => "TIMEOUT_EXCEEDED",
        code::READONLY => "READONLY",
        code::QUERY_IS_TOO_LARGE => "QUERY_IS_TOO_LARGE",
        code::TOO_MANY_SIMULTANEOUS_QUERIES => "TOO_MANY_SIMULTANEOUS_QUERIES",
        code::MEMORY_LIMIT_EXCEEDED => "MEMORY_LIMIT_EXCEEDED",
        code::CANNOT_DECOMPRESS => "CANNOT_DECOMPRESS",
        code::SESSION_NOT_FOUND => "SESSION_NOT_FOUND",
        code::SESSION_IS_LOCKED => "SESSION_IS_LOCKED",
        code::QUERY_WAS_CANCELLED => "QUERY_WAS_CANCELLED",
        code::ACCESS_DENIED => "ACCESS_DENIED",
        code::UNKNOWN_ROLE => "UNKNOWN_ROLE",
        code::AUTHENTICATION_FAILED => "AUTHENTICATION_FAILED",
        _ => "UNKNOWN_EXCEPTION",
    }
}
