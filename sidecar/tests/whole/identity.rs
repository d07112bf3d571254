//! Who may forward, and as whom: what the token and the API server say counts.

use bytes::Bytes;
use http::HeaderValue;
use prost::Message;
use serde_json::{Value, json};
use spanloom_otlp::records::RecordWriter;
use spanloom_proto::sidecar::v1::{ForwardRequest, ForwardResponse};
use spanloom_proto::sidecar::{FORWARD, VERSION};
use spanloom_sidecar::client::{CallError, Client};
use spanloom_tls::ClientTls;

use super::app::request;
use super::rig::{Rig, until};
use super::{MEASURED, STORED};

/// A sidecar that says what the test wants.
struct Peer {
    client: Client,
}

impl Peer {
    async fn new(rig: &Rig) -> Self {
        let uri = format!("https://localhost:{}", rig.sidecars().port());
        let tls = ClientTls::with_ca_pem(rig.ca.as_bytes(), "the test").unwrap();
        let client = Client::connect(&uri.parse().unwrap(), &tls).await;
        Self {
            client: client.unwrap(),
        }
    }

    async fn forward(&self, token: &str, message: &[u8]) -> Result<ForwardResponse, CallError> {
        let token = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        let mut body = vec![0];
        body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend_from_slice(message);
        let answer = self.client.call(FORWARD, Some(&token), body.into()).await?;
        Ok(ForwardResponse::decode(answer).unwrap())
    }

    /// The code that a message is refused with.
    async fn refused(&self, token: &str, message: &ForwardRequest) -> u32 {
        match self.forward(token, &message.encode_to_vec()).await {
            Err(CallError::Status { code, .. }) => code,
            other => panic!("{other:?}"),
        }
    }
}

/// A message of one span, which was not redacted.
fn message(pod: &str, sequence: u64) -> ForwardRequest {
    // Records are an OTLP request with a version.
    let mut records = RecordWriter::new().finish();
    records.extend_from_slice(&request(&["forwarded"]).encode_to_vec());
    ForwardRequest {
        version: VERSION,
        pod_uid: format!("uid-of-{pod}"),
        instance: Bytes::from_static(&[7; 16]),
        sequence,
        config_hash: String::new(),
        records: records.into(),
        measures: Bytes::new(),
    }
}

const UNAUTHENTICATED: u32 = 16;
const PERMISSION_DENIED: u32 = 7;
const INVALID_ARGUMENT: u32 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn only_pods_of_this_node_with_a_token_of_theirs_forward() {
    let rig = Rig::new(super::REDACT).await;
    let peer = Peer::new(&rig).await;
    let good = rig.signer.token("web-1", &[]);
    peer.forward(&good, &message("web-1", 1).encode_to_vec())
        .await
        .unwrap();
    rig.reaches(STORED, 1).await;

    let check = async |what: &str, token: String, expected: u32| {
        let code = peer
            .refused(&token, &message("web-1", rand::random()))
            .await;
        assert_eq!(code, expected, "{what}");
    };
    let with = |pointer: &str, value: Value| rig.signer.token("web-1", &[(pointer, value)]);
    let past = super::unix_now() - 120;
    check("audience", with("/aud", json!(["api"])), UNAUTHENTICATED).await;
    check(
        "issuer",
        with("/iss", json!("https://other")),
        UNAUTHENTICATED,
    )
    .await;
    check("expired", with("/exp", json!(past)), UNAUTHENTICATED).await;
    check(
        "namespace",
        with("/kubernetes.io/namespace", json!("bank")),
        UNAUTHENTICATED,
    )
    .await;
    check(
        "name",
        with("/kubernetes.io/pod/name", json!("web-2")),
        UNAUTHENTICATED,
    )
    .await;
    check(
        "no pod",
        with("/kubernetes.io/pod", Value::Null),
        UNAUTHENTICATED,
    )
    .await;
    check(
        "another key",
        super::tokens::Signer::new().token("web-1", &[]),
        UNAUTHENTICATED,
    )
    .await;
    check("no token", "x".to_owned(), UNAUTHENTICATED).await;
    // A pod that is not there, and one that says it is another.
    check("unknown", rig.signer.token("web-9", &[]), UNAUTHENTICATED).await;
    let another = peer.refused(&good, &message("web-2", 5)).await;
    assert_eq!(another, PERMISSION_DENIED);

    let pods = rig.metric("spanloom_pods").unwrap();
    rig.api.delete("pods", "web-1");
    until("the watch has told of it", async || {
        rig.metric("spanloom_pods").unwrap() < pods
    })
    .await;
    check("deleted", good, UNAUTHENTICATED).await;
    assert_eq!(rig.number(STORED).await, 1);
    assert!(rig.metric("spanloom_sidecars_refused_calls_total{reason=\"audience\"}") >= Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_recognised_and_the_collector_does_what_the_sidecar_has_not() {
    let rig = Rig::new(super::REDACT).await;
    let peer = Peer::new(&rig).await;
    let token = rig.signer.token("web-1", &[]);
    let bytes = message("web-1", 1).encode_to_vec();
    for _ in 0..3 {
        peer.forward(&token, &bytes).await.unwrap();
    }
    // The same spans in another message are other spans.
    let mut other = message("web-1", 2);
    other.pod_uid = "uid-of-web-1".to_owned();
    peer.forward(&token, &other.encode_to_vec()).await.unwrap();
    rig.reaches(STORED, 2).await;
    rig.reaches(MEASURED, 2).await;
    let leaked = "SELECT count() FROM otel_traces WHERE toString(SpanAttributes) LIKE '%hunter2%'";
    assert_eq!(rig.number(leaked).await, 0);
    let resource = rig
        .text("SELECT toString(resource) FROM spans LIMIT 1")
        .await;
    assert!(
        resource.contains("web-1") && !resource.contains("somebody-else"),
        "{resource}"
    );

    // One that says that all was done is believed for its spans, and not for its pod.
    let mut current = message("web-1", 3);
    current.config_hash = "hash-1".to_owned();
    peer.forward(&token, &current.encode_to_vec())
        .await
        .unwrap();
    rig.reaches(STORED, 3).await;
    assert_eq!(rig.number(leaked).await, 1);
    let claimed = "SELECT count() FROM spans WHERE toString(resource) LIKE '%somebody-else%'";
    assert_eq!(rig.number(claimed).await, 0);
    rig.reaches(MEASURED, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_another_node_is_known_by_its_token() {
    let rig = Rig::new("").await;
    let peer = Peer::new(&rig).await;
    let elsewhere = [("/kubernetes.io/node/name", json!("node-b"))];
    let token = rig.signer.token("far-1", &elsewhere);
    peer.forward(&token, &message("far-1", 1).encode_to_vec())
        .await
        .unwrap();
    rig.reaches(STORED, 1).await;
    let resource = rig.text("SELECT toString(resource) FROM spans").await;
    assert!(
        resource.contains("far-1") && resource.contains("node-b"),
        "{resource}"
    );
    assert!(!resource.contains("somebody-else"), "{resource}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_version_is_taken_and_what_is_no_message_is_not() {
    let rig = Rig::new("").await;
    let peer = Peer::new(&rig).await;
    let token = rig.signer.token("web-1", &[]);
    let mut later = ForwardRequest {
        version: 2,
        ..message("web-1", 1)
    }
    .encode_to_vec();
    // Fields that version 1 does not have: a number, and text.
    later.extend_from_slice(&[0xf8, 0x06, 0x2a, 0xfa, 0x06, 3, b'n', b'e', b'w']);
    peer.forward(&token, &later).await.unwrap();
    rig.reaches(STORED, 1).await;
    let without = ForwardRequest {
        version: 0,
        ..message("web-1", 2)
    };
    assert_eq!(peer.refused(&token, &without).await, INVALID_ARGUMENT);
    let mut of_later_records = message("web-1", 3);
    // Field 2000 with a version of records that nobody knows.
    of_later_records.records = Bytes::from_static(&[0x80, 0x7d, 99]);
    assert_eq!(
        peer.refused(&token, &of_later_records).await,
        INVALID_ARGUMENT
    );
}
