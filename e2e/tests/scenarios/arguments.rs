//! What cannot work ends with a clear message and a status that is not 0.

use std::net::TcpListener;

use super::support::{options, spanloom, up, up_fails};

/// Starts `spanloom up` with a document that must be refused; the message must say all of this.
fn check_document(text: &str, expected: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("pipeline.yaml");
    std::fs::write(&document, text).unwrap();
    let mut options = options(&folder.path().join("data"));
    options.arguments = vec!["-f".to_owned(), document.display().to_string()];
    let (code, said) = up_fails(&options);
    assert_ne!(code, 0);
    for expected in expected {
        assert!(
            said.contains(expected),
            "it does not say {expected:?}:\n{said}"
        );
    }
}

const HEAD: &str =
    "apiVersion: spanloom.dev/v1alpha1\nkind: TracingPipeline\nmetadata: {name: x}\n";

#[test]
fn a_bad_document_is_refused_by_field() {
    let spec = |text: &str| format!("{HEAD}spec:\n{text}");
    check_document(&spec("  procesing: {}\n"), &["procesing"]);
    check_document(&spec("  processing: {drop: ['{ name == }']}\n"), &["drop"]);
    check_document(
        &spec("  processing: {limits: {attributesPerSpan: many}}\n"),
        &["attributesPerSpan"],
    );
    check_document(&spec("  sampling: {head: {ratio: 2}}\n"), &["ratio"]);
    check_document("kind: Deployment\n", &["pipeline.yaml"]);
    check_document("{", &["pipeline.yaml"]);
}

#[test]
fn a_missing_document_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.arguments = vec!["-f".to_owned(), "/nowhere/pipeline.yaml".to_owned()];
    let (code, said) = up_fails(&options);
    assert_ne!(code, 0);
    assert!(said.contains("/nowhere/pipeline.yaml"), "{said}");
}

#[test]
fn a_second_up_on_the_same_data_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = up(folder.path());
    let (code, said) = up_fails(&options(folder.path()));
    assert_ne!(code, 0);
    assert!(
        said.contains(&first.pid().to_string()),
        "it does not say who holds it:\n{said}"
    );
    assert!(said.contains("--data-dir"), "{said}");
    // The first one is not disturbed.
    assert_eq!(first.get("/readyz").unwrap().0, 200);
}

#[test]
fn a_busy_port_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap();
    for field in 0..3 {
        let mut options = options(folder.path());
        match field {
            0 => options.addresses.otlp_grpc = address,
            1 => options.addresses.otlp_http = address,
            _ => options.addresses.http = address,
        }
        let (code, said) = up_fails(&options);
        assert_ne!(code, 0);
        assert!(said.contains(&address.to_string()), "{said}");
        let flag = ["--otlp-grpc", "--otlp-http", "--http"][field];
        assert!(said.contains(flag), "it does not name {flag}:\n{said}");
    }
}

#[test]
fn unknown_arguments_are_usage_errors() {
    for arguments in [
        &["up", "--data-dri", "x"][..],
        &["sideways"],
        &["trace"],
        &["trace", "xyz"],
    ] {
        let output = spanloom(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_query_service_that_is_not_there_is_named() {
    for arguments in [&["trace", "abc"][..], &["search"]] {
        let output = spanloom(&[arguments, &["--url", "http://127.0.0.1:9"]].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(error.contains("127.0.0.1:9"), "{error}");
    }
}
