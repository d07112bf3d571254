//! What a request asks for: the parameters of its URL and its headers, put into one place.

use http::HeaderMap;

use super::encoding::Coding;
use super::error::{ChError, code};

/// A request without its body.
#[derive(Debug, Default)]
pub(crate) struct Ask {
    /// `query`.
    pub(crate) query: String,
    /// `database`, or its header.
    pub(crate) database: Option<String>,
    /// `default_format`, or the header `X-ClickHouse-Format`.
    pub(crate) default_format: Option<String>,
    /// Every parameter that is not the front's own.
    pub(crate) settings: Vec<(String, String)>,
    /// `param_name`, without the prefix.
    pub(crate) parameters: Vec<(String, String)>,
    /// The answer goes in ClickHouse's compressed blocks.
    pub(crate) compress: bool,
    /// The body came in them.
    pub(crate) decompress: bool,
    /// The coding of the answer, if it may have one.
    pub(crate) accept: Option<Coding>,
    /// Set by `enable_http_compression=0`.
    pub(crate) no_coding: bool,
    /// The whole answer is made before its first byte is sent.
    pub(crate) wait_end: bool,
    /// Given back, and shown nowhere else.
    pub(crate) query_id: Option<String>,
    /// A session to run in.
    pub(crate) session: Option<SessionAsk>,
    /// The version of the Native format that the client reads; 0 is without any framing.
    pub(crate) protocol: u64,
    /// `user` and `password`.
    pub(crate) user: Option<String>,
    /// See `user`.
    pub(crate) password: Option<String>,
}

/// `session_id`, `session_timeout`, `session_check`, `close_session`.
#[derive(Debug, Default, Clone)]
pub(crate) struct SessionAsk {
    /// Its name.
    pub(crate) id: String,
    /// Seconds it lives without a request.
    pub(crate) timeout: Option<u64>,
    /// It must exist.
    pub(crate) check: bool,
    /// It ends with this request.
    pub(crate) close: bool,
}

impl Ask {
    /// Reads the URL's query and the headers.
    pub(crate) fn read(query: Option<&str>, headers: &HeaderMap) -> Result<Ask, ChError> {
        let mut ask = Ask::default();
        let mut session = SessionAsk::default();
        for pair in query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            ask.take(&mut session, unescape(name)?, unescape(value)?)?;
        }
        if !session.id.is_empty() {
            ask.session = Some(session);
        }
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(database) = header("x-clickhouse-database") {
            ask.database = Some(database.to_owned());
        }
        if let Some(format) = header("x-clickhouse-format") {
            ask.default_format = Some(format.to_owned());
        }
        if !ask.no_coding {
            ask.accept = header("accept-encoding").and_then(Coding::accepted);
        }
        Ok(ask)
    }

    /// Takes one parameter, of the URL or of a form.
    pub(crate) fn take_form(&mut self, name: String, value: String) -> Result<(), ChError> {
        self.take(&mut SessionAsk::default(), name, value)
    }

    fn take(
        &mut self,
        session: &mut SessionAsk,
        name: String,
        value: String,
    ) -> Result<(), ChError> {
        let nonempty = |value: String| Some(value).filter(|v| !v.is_empty());
        match name.as_str() {
            "query" => self.query.push_str(&value),
            "database" => self.database = nonempty(value),
            "default_format" => self.default_format = nonempty(value),
            "compress" => self.compress = flag(&name, &value)?,
            "decompress" => self.decompress = flag(&name, &value)?,
            "enable_http_compression" => self.no_coding = !flag(&name, &value)?,
            "wait_end_of_query" | "http_wait_end_of_query" => {
                self.wait_end = flag(&name, &value)?;
            }
            "query_id" => self.query_id = nonempty(value),
            "session_id" => session.id = value,
            "session_timeout" => session.timeout = Some(number(&name, &value)?),
            "session_check" => session.check = flag(&name, &value)?,
            "close_session" => session.close = flag(&name, &value)?,
            "client_protocol_version" => self.protocol = number(&name, &value)?,
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "role" => {
                return Err(ChError::new(
                    code::UNKNOWN_ROLE,
                    format!("There is no role `{value}`: the embedded engine has no roles"),
                ));
            }
            // Of no meaning here: how much is buffered, whose quota, how text is worded.
            "buffer_size"
            | "http_response_buffer_size"
            | "quota_key"
            | "stacktrace"
            | "http_zlib_compression_level"
            | "add_http_cors_header" => {}
            _ => match name.strip_prefix("param_") {
                Some(parameter) => self.parameters.push((parameter.to_owned(), value)),
                None if is_setting(&name) => self.settings.push((name, value)),
                None => {
                    return Err(ChError::new(
                        code::BAD_ARGUMENTS,
                        format!("`{name}` is not a valid name of a setting"),
                    ));
                }
            },
        }
        Ok(())
    }
}

/// Whether a name may stand in `SET name = …` as it is.
fn is_setting(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.')
}

fn flag(name: &str, value: &str) -> Result<bool, ChError> {
    match value {
        "1" | "true" => Ok(true),
        "" | "0" | "false" => Ok(false),
        _ => Err(ChError::new(
            code::BAD_ARGUMENTS,
            format!("{name}={value}: 0 or 1 expected"),
        )),
    }
}

fn number(name: &str, value: &str) -> Result<u64, ChError> {
    value
        .parse()
        .map_err(|_| ChError::new(code::BAD_ARGUMENTS, format!("{name}={value}: not a number")))
}

/// Undoes the percent signs and plus signs of a URL's query.
pub(crate) fn unescape(text: &str) -> Result<String, ChError> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |b: Option<u8>| (b? as char).to_digit(16);
                match (digit(bytes.next()), digit(bytes.next())) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => {
                        return Err(ChError::new(
                            code::BAD_ARGUMENTS,
                            "a percent sign in the URL is not followed by two hex digits",
                        ));
                    }
                }
            }
            other => other,
        });
    }
    String::from_utf8(out)
        .map_err(|_| ChError::new(code::BAD_ARGUMENTS, "a parameter of the URL is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        for (input, expect) in [
            ("a+b", Some("a b")),
            ("a%20b%2B", Some("a b+")),
            ("%C3%A4", Some("ä")),
            ("%", None),
            ("%2", None),
            ("%zz", None),
            ("%ff", None),
        ] {
            assert_eq!(unescape(input).ok().as_deref(), expect, "{input}");
        }
    }

    #[test]
    fn parameters() {
        let ask = Ask::read(
            Some("query=select+1&database=d&max_threads=2&param_x=1&decompress=1&session_id=s"),
            &HeaderMap::new(),
        )
        .unwrap();
        assert_eq!(ask.query, "select 1");
        assert_eq!(ask.database.as_deref(), Some("d"));
        assert_eq!(ask.settings, [("max_threads".to_owned(), "2".to_owned())]);
        assert_eq!(ask.parameters, [("x".to_owned(), "1".to_owned())]);
        assert!(ask.decompress && !ask.compress);
        assert_eq!(ask.session.unwrap().id, "s");
        for bad in [
            "compress=maybe",
            "a%20b=1",
            "client_protocol_version=x",
            "role=r",
        ] {
            assert!(Ask::read(Some(bad), &HeaderMap::new()).is_err(), "{bad}");
        }
    }
}
