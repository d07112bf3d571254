//! A release has no switch that turns a protection off: what a collector protects spans with can be left out
//! only in a binary with the cargo feature `control-runs`, where this test finds the switch.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test stops on the first surprise

use std::collections::BTreeSet;
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_spanloom-collector");

/// Every variable of the environment that a release reads, and other names with the same beginning.
const KNOWN: &[&str] = &[
    "SPANLOOM_CLICKHOUSE_CA_FILE",
    "SPANLOOM_CLICKHOUSE_CREDENTIALS_DIR",
    "SPANLOOM_CLICKHOUSE_DATABASE",
    "SPANLOOM_CLICKHOUSE_PASSWORD",
    "SPANLOOM_CLICKHOUSE_URL",
    "SPANLOOM_CLICKHOUSE_USER",
    "SPANLOOM_CONFIG_FILE",
    "SPANLOOM_CONFIG_MAP",
    "SPANLOOM_CORS_ORIGINS",
    "SPANLOOM_DRAIN_DELAY_SECONDS",
    "SPANLOOM_DRAIN_SECONDS",
    "SPANLOOM_LOG",
    "SPANLOOM_MEMORY_LIMIT_BYTES",
    "SPANLOOM_METRICS",
    "SPANLOOM_NODE_NAME",
    "SPANLOOM_OTLP_GRPC",
    "SPANLOOM_OTLP_HTTP",
    "SPANLOOM_PIPELINE",
    "SPANLOOM_SIDECARS",
    "SPANLOOM_SIDECARS_CA_FILE",
    "SPANLOOM_SIDECARS_CERT_FILE",
    "SPANLOOM_SIDECARS_KEY_FILE",
];

/// The one of a control run.
const SWITCH: &str = "SPANLOOM_CONTROL_WITHOUT";

/// What begins like a variable of ours in the program, but for those that are known.
fn unknown_variables(program: &[u8]) -> BTreeSet<String> {
    const START: &[u8] = b"SPANLOOM_";
    let starts = memchr::memmem::find_iter(program, START);
    let names = starts.map(|start| &program[start..]).filter(|rest| {
        // Literals follow one another without an end.
        !KNOWN.iter().any(|known| rest.starts_with(known.as_bytes()))
    });
    let in_name = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'_';
    names
        .map(|rest| rest.iter().copied().take_while(in_name).collect())
        .map(|name| String::from_utf8(name).unwrap())
        .collect()
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn only_a_control_run_has_switches() {
    let program = std::fs::read(PROGRAM).unwrap();
    let variables = unknown_variables(&program);
    let help = help(&["run", "--help"]);
    if cfg!(feature = "control-runs") {
        let first = variables.first().unwrap();
        assert!(first.starts_with(SWITCH), "{variables:?}");
        assert!(help.contains("--without"), "{help}");
    } else {
        assert_eq!(variables, BTreeSet::new());
        assert!(!help.contains("--without"), "{help}");
    }
}

#[test]
fn not_to_drain_is_no_choice() {
    let output = Command::new(PROGRAM)
        .args(["run", "--drain-seconds", "0"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("--drain-seconds"), "{said}");
}
