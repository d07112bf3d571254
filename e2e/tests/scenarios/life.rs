//! Starting, stopping, dying: the data stays, and nothing keeps running.

use std::time::Duration;

use spanloom_e2e::spanloom::{await_condition, children_of, is_alive, signal_process};

use super::support::{STOP_LIMIT, json_span, options, send_json, store_json, up, up_with};

/// An engine is started again up to five times, with pauses of 15 s in all.
const ENGINE_LIMIT: Duration = Duration::from_secs(180);

const TRACE: u128 = 0xaaaa_0000_0000_0000_0000_0000_0000_0001;

fn path(trace: u128) -> String {
    format!("/api/v1/traces/{trace:032x}")
}

/// The engine is a child process: its id.
fn engine_of(up: &spanloom_e2e::spanloom::Spanloom) -> u32 {
    let children = children_of(up.pid());
    let [(engine, _)] = &children[..] else {
        panic!("not one child: {children:?}")
    };
    *engine
}

#[test]
fn ctrl_c_drains_and_the_data_is_there_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let first = up(folder.path());
    let engine = engine_of(&first);
    store_json(&first, "shop", &[json_span(TRACE, 1, None, "before")]);
    let (status, said) = first.interrupt(STOP_LIMIT).unwrap();
    assert!(status.success(), "{status}\n{said}");
    assert!(!is_alive(engine), "the engine outlived spanloom up");

    let second = up(folder.path());
    let trace = second.get_json(&path(TRACE)).unwrap();
    assert_eq!(trace["spans"][0]["name"], "before");
    store_json(&second, "shop", &[json_span(TRACE, 2, Some(1), "after")]);
    assert_eq!(second.get_json(&path(TRACE)).unwrap()["spanCount"], 2);
    let (status, said) = second.interrupt(STOP_LIMIT).unwrap();
    assert!(status.success(), "{status}\n{said}");
}

#[test]
fn sigterm_is_as_good_as_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = up(folder.path());
    running.signal(libc::SIGTERM);
    let status = running.wait(STOP_LIMIT).unwrap();
    assert!(status.success(), "{status}\n{}", running.stderr());
}

#[test]
fn what_was_acknowledged_survives_kill_9_and_the_engine_dies_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = up(folder.path());
    let engine = engine_of(&first);
    for span in 1..=20 {
        let parent = (span > 1).then_some(1);
        store_json(
            &first,
            "shop",
            &[json_span(TRACE, span, parent, "acknowledged")],
        );
    }
    first.signal(libc::SIGKILL);
    first.wait(STOP_LIMIT).unwrap();
    await_condition(
        "the engine dies with its parent",
        Duration::from_secs(30),
        || !is_alive(engine),
    )
    .unwrap();

    let second = up(folder.path());
    let trace = second.get_json(&path(TRACE)).unwrap();
    assert_eq!(trace["spanCount"], 20);
}

#[test]
fn a_dead_engine_is_started_again_a_few_times_and_then_ends_up_with_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = up(folder.path());
    store_json(&running, "shop", &[json_span(TRACE, 1, None, "before")]);
    let first = engine_of(&running);
    signal_process(first, libc::SIGKILL);
    // Meanwhile the log takes what comes.
    store_json(&running, "shop", &[json_span(TRACE, 2, Some(1), "after")]);
    running.stored().unwrap();
    assert_ne!(engine_of(&running), first);
    let trace = running.get_json(&path(TRACE)).unwrap();
    assert_eq!(trace["spanCount"], 2);

    // One that dies again and again is given up.
    let pid = running.pid();
    await_condition("an end of spanloom up", ENGINE_LIMIT, || {
        for (engine, _) in children_of(pid) {
            signal_process(engine, libc::SIGKILL);
        }
        running.try_wait().unwrap().is_some()
    })
    .unwrap();
    let status = running.wait(STOP_LIMIT).unwrap();
    assert!(!status.success(), "{status}");
    let said = running.stderr();
    assert!(
        said.contains("engine"),
        "it does not say that the engine ended:\n{said}"
    );
    // And the folder is usable again.
    let again = up(folder.path());
    assert_eq!(again.get_json(&path(TRACE)).unwrap()["spanCount"], 2);
}

#[test]
fn a_repeated_export_is_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path());
    let spans = [
        json_span(TRACE, 1, None, "once"),
        json_span(TRACE, 2, Some(1), "once"),
    ];
    for _ in 0..3 {
        let (status, body) = send_json(&up, "shop", &spans);
        assert_eq!(status, 200, "{body}");
    }
    let trace = up.get_json(&path(TRACE)).unwrap();
    assert_eq!(trace["spanCount"], 2);
    assert!(trace["spans"][0].get("duplicates").is_none(), "{trace}");
}

#[test]
fn a_document_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("pipeline.yaml");
    let text = "\
apiVersion: spanloom.dev/v1alpha1
kind: TracingPipeline
metadata: {name: laptop}
spec:
  processing:
    resource: {deployment.environment.name: e2e}
    redact: [{keys: [\"*.password\"]}]
    drop: ['{ name = \"GET /healthz\" }']
";
    std::fs::write(&document, text).unwrap();
    let mut options = options(&folder.path().join("data"));
    options.arguments = vec!["-f".to_owned(), document.display().to_string()];
    let up = up_with(&options);
    let mut kept = json_span(TRACE, 1, None, "GET /orders");
    kept["attributes"] =
        serde_json::json!([{"key": "user.password", "value": {"stringValue": "secret"}}]);
    store_json(
        &up,
        "shop",
        &[kept, json_span(TRACE, 2, Some(1), "GET /healthz")],
    );
    let (status, body) = up.get(&path(TRACE)).unwrap();
    assert_eq!(status, 200, "{body}");
    assert!(
        body.contains(r#"{"key":"user.password","type":"string","value":"***"}"#),
        "{body}"
    );
    assert!(!body.contains("secret"), "{body}");
    assert!(!body.contains("healthz"), "{body}");
    assert!(body.contains(r#""key":"deployment.environment.name","type":"string","value":"e2e""#));
}
