//! Compressed answers.

use std::io::Read;

use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::harness::{Service, span};

/// The body of an answer, and the headers that say what it is.
async fn ask(service: &Service, path: &str, accept: Option<&str>) -> (Vec<u8>, String, String) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut request = http::Request::get(format!("http://{}{path}", service.address));
    if let Some(accept) = accept {
        request = request.header("accept-encoding", accept);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    let (head, body) = client.request(request).await.unwrap().into_parts();
    assert_eq!(head.status, 200, "{path}");
    let header = |name: &str| {
        let value = head.headers.get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or_default().to_owned()
    };
    let body = body.collect().await.unwrap().to_bytes();
    if let Ok(length) = header("content-length").parse::<usize>() {
        assert_eq!(length, body.len());
    }
    (body.to_vec(), header("content-encoding"), header("vary"))
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed_for_those_who_take_it() {
    let service = Service::start().await;
    // More than what is compressed between two awaits.
    let spans: Vec<_> = (0..300).map(|n| span(7, n + 1, 0, 0)).collect();
    service.insert(&spans).await;
    let path = "/api/v1/traces/7";
    let (plain, coding, vary) = ask(&service, path, None).await;
    assert_eq!((coding.as_str(), vary.as_str()), ("", "accept-encoding"));
    assert!(plain.len() > 100_000, "{}", plain.len());
    let (body, coding, vary) = ask(&service, path, Some("gzip, br")).await;
    assert_eq!(
        (coding.as_str(), vary.as_str()),
        ("gzip", "accept-encoding")
    );
    assert!(body.len() * 10 < plain.len(), "{}", body.len());
    let mut read = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(&body[..]);
    decoder.read_to_end(&mut read).unwrap();
    assert!(read == plain, "gzip gives back the same");
    let (body, coding, _) = ask(&service, path, Some("gzip, zstd")).await;
    assert_eq!(coding, "zstd");
    assert!(zstd::bulk::decompress(&body, 1 << 24).unwrap() == plain);
    let (page, coding, _) = ask(&service, "/ui/", Some("gzip")).await;
    assert_eq!(coding, "gzip");
    assert!(!page.is_empty());
    let (_, coding, _) = ask(&service, "/api/v1/services?start=1&end=2", Some("gzip")).await;
    assert_eq!(coding, "", "too short to be worth it");
}
