//! `multipart/form-data`: how clients send long statements and parameters.

use super::error::{ChError, code};

/// Whether a content type is a form, and its boundary.
pub(crate) fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("boundary")
            .then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// The fields of a form, in their order. Files (external tables) are refused.
pub(crate) fn fields(body: &[u8], boundary: &str) -> Result<Vec<(String, String)>, ChError> {
    let bad = |what: &str| {
        ChError::new(
            code::BAD_ARGUMENTS,
            format!("the form in the body is broken: {what}"),
        )
    };
    let opening = format!("--{boundary}");
    let between = format!("\r\n--{boundary}");
    let mut rest = match find(body, opening.as_bytes()) {
        Some(at) => body.get(at + opening.len()..).unwrap_or_default(),
        None => return Err(bad("its boundary does not occur")),
    };
    let mut fields = Vec::new();
    while !rest.starts_with(b"--") {
        let start = find(rest, b"\r\n").ok_or_else(|| bad("a part does not begin"))?;
        let part = rest.get(start + 2..).unwrap_or_default();
        let end = find(part, between.as_bytes()).ok_or_else(|| bad("a part does not end"))?;
        let (part, after) = part.split_at(end);
        rest = after.get(between.len()..).unwrap_or_default();
        let (head, value) = match find(part, b"\r\n\r\n") {
            Some(at) => (part.get(..at), part.get(at + 4..)),
            None => return Err(bad("a part has no headers")),
        };
        let head = String::from_utf8_lossy(head.unwrap_or_default()).into_owned();
        let name = attribute(&head, "name").ok_or_else(|| bad("a part has no name"))?;
        if attribute(&head, "filename").is_some() && !name.starts_with("param_") && name != "query"
        {
            return Err(ChError::new(
                code::NOT_IMPLEMENTED,
                format!("external data (`{name}`) is not supported by the embedded engine"),
            ));
        }
        let value = String::from_utf8(value.unwrap_or_default().to_vec())
            .map_err(|_| bad("a part is not UTF-8"))?;
        fields.push((name, value));
    }
    Ok(fields)
}

/// An attribute of `Content-Disposition: form-data; name="…"`.
fn attribute(head: &str, name: &str) -> Option<String> {
    let line = head.lines().find(|line| {
        line.split_once(':')
            .is_some_and(|(n, _)| n.eq_ignore_ascii_case("content-disposition"))
    })?;
    line.split(';').skip(1).find_map(|attribute| {
        let (key, value) = attribute.trim().split_once('=')?;
        key.eq_ignore_ascii_case(name)
            .then(|| value.trim_matches('"').to_owned())
    })
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expect: Option<&[(&str, &str)]>) {
        let got = fields(body.as_bytes(), "XX").ok();
        let expect = expect.map(|pairs| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect::<Vec<_>>()
        });
        assert_eq!(got, expect, "{body:?}");
    }

    #[test]
    fn forms() {
        const A: &str = "--XX\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nselect 1";
        const B: &str = "\r\n--XX\r\ncontent-disposition: form-data; name=param_x\r\n\r\na\r\nb";
        check(
            &format!("{A}\r\n--XX--\r\n"),
            Some(&[("query", "select 1")]),
        );
        check(
            &format!("{A}{B}\r\n--XX--"),
            Some(&[("query", "select 1"), ("param_x", "a\r\nb")]),
        );
        check("--XX--", Some(&[]));
        check("", None);
        check(A, None);
        check("--XX\r\n\r\n--XX--", None);
        check(
            "--XX\r\nContent-Disposition: form-data\r\n\r\nx\r\n--XX--",
            None,
        );
        let file = A.replace("name=\"query\"", "name=\"t\"; filename=\"f\"");
        check(&format!("{file}\r\n--XX--"), None);
    }

    #[test]
    fn boundaries() {
        for (input, expect) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            (
                "multipart/form-data; charset=x; boundary=\"a b\"",
                Some("a b"),
            ),
            ("text/plain; boundary=abc", None),
            ("multipart/form-data", None),
        ] {
            assert_eq!(boundary(input).as_deref(), expect, "{input}");
        }
    }
}
