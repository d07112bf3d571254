//! The views against prost, on the same bytes.

mod common;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use prost::Message as _;
use spanloom_otlp::{DecodeErrorKind, write};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn views_read_what_prost_wrote(request in common::request()) {
        let bytes = request.encode_to_vec();
        let viewed = common::viewed(&bytes);
        prop_assert_eq!(viewed, Ok(common::normal(request)));
    }

    #[test]
    fn damaged_bytes(
        request in common::request(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = request.encode_to_vec();
        if !bytes.is_empty() {
            for (index, byte) in damage {
                *index.get_mut(&mut bytes) = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
        }
        prop_assert_eq!(common::compare(&bytes), Ok(()));
    }

    #[test]
    fn two_requests_in_a_row_are_one(a in common::request(), b in common::request()) {
        let bytes = [a.encode_to_vec(), b.encode_to_vec()].concat();
        prop_assert_eq!(common::compare(&bytes), Ok(()));
    }
}

/// A request of one span with these bytes.
fn span(fields: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write::message(&mut bytes, 1, |resource| {
        write::message(resource, 2, |scope| write::bytes(scope, 2, fields));
    });
    bytes
}

fn error(bytes: &[u8]) -> Option<DecodeErrorKind> {
    assert_eq!(common::compare(bytes), Ok(()));
    common::viewed(bytes).err().map(|error| error.kind)
}

#[test]
fn pieces_are_merged() {
    let mut bytes = Vec::new();
    write::message(&mut bytes, 1, |r| {
        for (n, key) in [(1, b"a"), (2, b"b"), (3, b"c")] {
            write::message(r, 1, |resource| {
                write::message(resource, 1, |pair| write::bytes(pair, 1, key));
                write::uint(resource, 2, n);
            });
            write::bytes(r, 3, key);
            write::message(r, 2, |scopes| {
                for key in [b"x", b"y"] {
                    write::message(scopes, 1, |scope| {
                        write::bytes(scope, 1, key);
                        write::message(scope, 3, |pair| write::bytes(pair, 1, key));
                    });
                    write::bytes(scopes, 7, b"unknown");
                }
            });
        }
    });
    assert_eq!(error(&bytes), None);
    let request = common::viewed(&bytes).unwrap();
    let resource = request.resource_spans[0].resource.as_ref().unwrap();
    let keys: Vec<_> = resource.attributes.iter().map(|a| a.key.as_str()).collect();
    assert_eq!(
        (keys, resource.dropped_attributes_count),
        (vec!["a", "b", "c"], 3)
    );
}

#[test]
fn fields_given_twice() {
    let mut fields = Vec::new();
    write::bytes(&mut fields, 5, b"first");
    write::message(&mut fields, 15, |status| {
        write::bytes(status, 2, b"message")
    });
    write::bytes(&mut fields, 5, b"second");
    write::message(&mut fields, 15, |status| write::uint(status, 3, 2));
    // A value in two parts: the last counts.
    write::message(&mut fields, 9, |pair| {
        write::message(pair, 2, |any| write::uint(any, 3, 1));
        write::message(pair, 2, |any| write::bytes(any, 1, b"text"));
        write::message(pair, 2, |_| {});
    });
    assert_eq!(error(&span(&fields)), None);
    let request = common::viewed(&span(&fields)).unwrap();
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(span.name, "second");
    assert_eq!(span.status.as_ref().unwrap().message, "message");
    assert_eq!(span.status.as_ref().unwrap().code, 2);
}

#[test]
fn lists_in_pieces() {
    let attribute = |pieces: &[&[u8]]| {
        let mut fields = Vec::new();
        write::message(&mut fields, 9, |pair| {
            pieces
                .iter()
                .for_each(|piece| write::message(pair, 2, |any| write::bytes(any, 5, piece)));
        });
        span(&fields)
    };
    assert_eq!(error(&attribute(&[&[0x0a, 0], &[]])), None);
    assert_eq!(error(&attribute(&[&[], &[0x0a, 0]])), None);
    assert_eq!(
        error(&attribute(&[&[0x0a, 0], &[0x0a, 0]])),
        Some(DecodeErrorKind::SplitValue)
    );
}

#[test]
fn odd_bytes() {
    use DecodeErrorKind::{InvalidFieldNumber, Truncated, UnexpectedEndGroup, VarintTooLong};
    let check = |fields: &[u8], expect| assert_eq!(error(&span(fields)), expect, "{fields:02x?}");
    check(&[], None);
    check(&[0x2a, 1], Some(Truncated));
    check(&[0x29, 1], Some(DecodeErrorKind::WrongWireType(5)));
    check(&[0x2b, 0x2c], Some(DecodeErrorKind::WrongWireType(5)));
    check(
        &[
            0x30, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
        ],
        None,
    );
    check(
        &[
            0x30, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,
        ],
        Some(VarintTooLong),
    );
    check(&[0xc0, 0x3e, 1], None);
    check(&[0xc3, 0x3e, 0x08, 1, 0xc4, 0x3e], None);
    check(&[0xc3, 0x3e, 0x08, 1, 0xc4, 0x3f], Some(UnexpectedEndGroup));
    check(&[0x00], Some(InvalidFieldNumber));
    check(&[0xaa, 0x80, 0x00, 1, b'x'], None);
    check(&[0x2a, 1, 0xff], None);
    check(&[0x4a, 2, 0x0a, 5], Some(Truncated));
    check(&[0x5a, 1, 0x0b], Some(DecodeErrorKind::WrongWireType(1)));
}

#[test]
fn nothing_at_all() {
    assert_eq!(
        common::viewed(&[]),
        Ok(ExportTraceServiceRequest::default())
    );
}
