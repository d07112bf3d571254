//! Which web pages may send spans, and how browsers are told.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue};

use crate::config::Cors;

/// [`Cors`], ready to be applied.
#[derive(Debug)]
pub(super) struct CorsRules {
    any: bool,
    /// What an origin begins and ends with.
    origins: Vec<(String, Option<String>)>,
    headers: Option<HeaderValue>,
    max_age: HeaderValue,
}

impl CorsRules {
    pub(super) fn new(cors: &Cors) -> Self {
        let origins = cors.allowed_origins.iter().filter(|origin| *origin != "*");
        let mut headers = String::from("content-type, content-encoding");
        for header in &cors.allowed_headers {
            headers.push_str(", ");
            headers.push_str(&header.to_ascii_lowercase());
        }
        Self {
            any: cors.allowed_origins.iter().any(|origin| origin == "*"),
            origins: origins
                .map(|origin| match origin.split_once('*') {
                    Some((start, end)) => (start.to_owned(), Some(end.to_owned())),
                    None => (origin.clone(), None),
                })
                .collect(),
            headers: HeaderValue::from_str(&headers).ok(),
            max_age: HeaderValue::from(cors.max_age.as_secs()),
        }
    }

    /// Adds what lets a page of an allowed origin read the answer.
    pub(super) fn answer(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        if !self.any && self.origins.is_empty() {
            return;
        }
        // Caches must not give one origin's answer to another.
        answer.append(VARY, HeaderValue::from_static("origin"));
        let Some(origin) = request.get(ORIGIN) else {
            return;
        };
        if self.names(origin) {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            answer.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        } else if self.any {
            // Never with credentials: any page could then act for its visitor.
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
    }

    /// Adds what a browser asks before it sends.
    pub(super) fn preflight(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        self.answer(request, answer);
        if !answer.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            return;
        }
        answer.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("POST"),
        );
        answer.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        if let Some(headers) = &self.headers {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
        }
    }

    /// Whether the origin is allowed by name, not only because all are.
    fn names(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        self.origins.iter().any(|(start, end)| match end {
            None => origin == start,
            Some(end) => {
                origin.len() >= start.len() + end.len()
                    && origin.starts_with(start.as_str())
                    && origin.ends_with(end.as_str())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(allowed: &[&str], origin: &str) -> (Option<String>, bool) {
        let rules = CorsRules::new(&Cors {
            allowed_origins: allowed.iter().map(|&origin| origin.to_owned()).collect(),
            ..Cors::default()
        });
        let mut request = HeaderMap::new();
        request.insert(ORIGIN, origin.parse().unwrap());
        let mut answer = HeaderMap::new();
        rules.answer(&request, &mut answer);
        let allow = answer.get(ACCESS_CONTROL_ALLOW_ORIGIN);
        let allow = allow.map(|value| value.to_str().unwrap().to_owned());
        (allow, answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS))
    }

    #[test]
    fn origins() {
        let check = |allowed: &[&str], origin: &str, expect: Option<&str>, credentials| {
            assert_eq!(
                answer(allowed, origin),
                (expect.map(str::to_owned), credentials)
            );
        };
        let page = "https://shop.example.com";
        check(&[], page, None, false);
        check(&[page], page, Some(page), true);
        check(&["https://other.example.com"], page, None, false);
        check(&["*"], page, Some("*"), false);
        check(&["*", page], page, Some(page), true);
        check(&["https://*.example.com"], page, Some(page), true);
        check(
            &["https://*.example.com"],
            "https://example.com",
            None,
            false,
        );
        check(&["https://*.example.com"], "https://evil.com", None, false);
        check(&["https://*"], page, Some(page), true);
    }
}
