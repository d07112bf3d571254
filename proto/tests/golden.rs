//! The wire format: bytes of version 1, which never change, and of an invented version 2, which version 1 survives.
#![allow(clippy::unwrap_used)] // a test stops on the first surprise

use std::fmt::Debug;

use bytes::Bytes;
use prost::Message;
use spanloom_proto::sidecar::v1::{
    ConfigureRequest, ConfigureResponse, ForwardRequest, ForwardResponse,
};

fn forward() -> ForwardRequest {
    ForwardRequest {
        version: 1,
        pod_uid: "5a1f".to_owned(),
        instance: Bytes::from_static(&[0xab; 16]),
        sequence: 300,
        config_hash: "c0ffee".to_owned(),
        records: Bytes::from_static(&[0x80, 0x7d, 1]),
        measures: Bytes::from_static(&[8, 1]),
    }
}

fn hello() -> ConfigureRequest {
    ConfigureRequest {
        version: 1,
        pod_uid: "5a1f".to_owned(),
        instance: Bytes::from_static(&[0xab; 16]),
        program_version: "0.1.0".to_owned(),
        understands: vec!["enabled".to_owned(), "sampling.head".to_owned()],
        applied: "c0ffee".to_owned(),
        refused: "beef".to_owned(),
        error: "it requires later".to_owned(),
    }
}

fn configuration() -> ConfigureResponse {
    ConfigureResponse {
        version: 1,
        hash: "c0ffee".to_owned(),
        configuration: Bytes::from_static(br#"{"version":1}"#),
        ca: Bytes::from_static(b"-----BEGIN CERTIFICATE-----"),
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    let pairs = (0..digits.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

/// The golden bytes are written and read as they always were, and with what a later version adds read the same.
#[track_caller]
fn check<M: Message + Default + PartialEq + Debug>(message: &M, golden: &str) {
    let golden = bytes(golden);
    let written: String = message
        .encode_to_vec()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(message.encode_to_vec(), golden, "{written}");
    assert_eq!(M::decode(&*golden).unwrap(), *message);
    // A number, text, a message with a field of its own, and both fixed widths, under numbers that are free.
    let later = bytes("f8062a fa06036e6577 820702081e 8d0701000000 91070100000000000000");
    for added in [[&*later, &golden].concat(), [&*golden, &later].concat()] {
        assert_eq!(M::decode(&*added).unwrap(), *message);
    }
}

#[test]
fn forward_requests() {
    check(&forward(), include_str!("golden/forward_request.v1.hex"));
}

#[test]
fn forward_responses() {
    let response = ForwardResponse {
        rejected_spans: 2,
        message: "too old".to_owned(),
    };
    check(&response, include_str!("golden/forward_response.v1.hex"));
}

#[test]
fn configure_requests() {
    check(&hello(), include_str!("golden/configure_request.v1.hex"));
}

#[test]
fn configure_responses() {
    check(
        &configuration(),
        include_str!("golden/configure_response.v1.hex"),
    );
}
