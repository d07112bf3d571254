//! Compressed answers, for clients that take them: a long trace is mostly repeated keys.

use std::io::Write;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, header};
use http_body::Body as _;

/// Shorter answers fit into a packet anyway.
const LEAST_BYTES: u64 = 1024;
/// Longer ones are sent as they are: the answer and its compressed form are in memory at once.
const MOST_BYTES: u64 = 64 << 20;
/// Longer ones are compressed on a thread that may block.
const INLINE_BYTES: usize = 64 << 10;

/// A coding that we write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Zstd,
    Gzip,
}

impl Coding {
    /// The one that a client likes best of those that we write; of equals the cheaper one.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let (mut zstd, mut gzip, mut other) = (None, None, None);
        let values = headers.get_all(header::ACCEPT_ENCODING).iter();
        for item in values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| text.split(','))
        {
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            let weight = match parameters.trim().strip_prefix("q=") {
                Some(text) => text.trim().parse().unwrap_or(0.0),
                None => 1.0_f32,
            };
            match name.trim().to_ascii_lowercase().as_str() {
                "zstd" => zstd = Some(weight),
                "gzip" | "x-gzip" => gzip = Some(weight),
                "*" => other = Some(weight),
                _ => {}
            }
        }
        let zstd = zstd.or(other).unwrap_or(0.0);
        let gzip = gzip.or(other).unwrap_or(0.0);
        match zstd.max(gzip) > 0.0 {
            true if zstd >= gzip => Some(Self::Zstd),
            true => Some(Self::Gzip),
            false => None,
        }
    }

    fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        })
    }

    /// Fast levels: an answer is read once.
    fn encode(self, plain: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Zstd => zstd::bulk::compress(plain, 1),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(plain)?;
                encoder.finish()
            }
        }
    }
}

/// Compresses JSON and text that is whole already, if the client takes it. Messages of gRPC are neither, and are
/// passed on as they come, with their trailers.
pub async fn layer(request: Request, next: Next) -> Response {
    let coding = Coding::of(request.headers());
    let mut response = next.run(request).await;
    let text = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| {
            let kind = kind.as_bytes();
            kind.starts_with(b"application/json") || kind.starts_with(b"text/")
        });
    if !text || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    response
        .headers_mut()
        .append(header::VARY, HeaderValue::from_static("accept-encoding"));
    let length = response.body().size_hint().exact();
    match (coding, length) {
        (Some(coding), Some(LEAST_BYTES..=MOST_BYTES)) => compress(response, coding).await,
        _ => response,
    }
}

async fn compress(response: Response, coding: Coding) -> Response {
    let (mut head, body) = response.into_parts();
    // The body is whole, so that this copies nothing and cannot fail.
    let Ok(plain) = to_bytes(body, usize::MAX).await else {
        return Response::from_parts(head, Body::empty());
    };
    let encoded = if plain.len() <= INLINE_BYTES {
        coding.encode(&plain)
    } else {
        let plain = plain.clone();
        let made = tokio::task::spawn_blocking(move || coding.encode(&plain)).await;
        made.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    };
    match encoded {
        Ok(encoded) => {
            head.headers.insert(header::CONTENT_ENCODING, coding.name());
            head.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(head, Body::from(Bytes::from(encoded)))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot compress a response; it is sent uncompressed");
            Response::from_parts(head, Body::from(plain))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accepted: &str, expect: Option<Coding>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, accepted.parse().unwrap());
        assert_eq!(Coding::of(&headers), expect, "{accepted}");
    }

    #[test]
    fn what_clients_take() {
        check("", None);
        check("br, identity", None);
        check("gzip", Some(Coding::Gzip));
        check("x-gzip", Some(Coding::Gzip));
        check("gzip, deflate, br, zstd", Some(Coding::Zstd));
        check("GZIP;q=1.0, zstd;q=0.5", Some(Coding::Gzip));
        check("gzip;q=0", None);
        check("gzip; q=0, *", Some(Coding::Zstd));
        check("*;q=0", None);
        check("zstd;q=x, gzip;q=0.1", Some(Coding::Gzip));
        assert_eq!(Coding::of(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let plain = b"[\"spans\"]".repeat(1000);
        let zstd = Coding::Zstd.encode(&plain).unwrap();
        assert_eq!(zstd::bulk::decompress(&zstd, plain.len()).unwrap(), plain);
        let gzip = Coding::Gzip.encode(&plain).unwrap();
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&gzip[..]), &mut read)
            .unwrap();
        assert_eq!(read, plain);
    }
}
