//! The messages are those of the .proto file: the same fields, with the same numbers and types.

/// Fields of a message: its name, and each field's name, number and type.
type Fields = Vec<(String, Vec<(String, u32, String)>)>;

/// The messages of a .proto file.
fn declared(text: &str) -> Fields {
    let mut messages = Fields::new();
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("message ") {
            messages.push((rest.trim_end_matches(" {").to_owned(), Vec::new()));
        } else if let Some((head, number)) = line.trim_end_matches(';').split_once(" = ")
            && let Some((kind, name)) = head.rsplit_once(' ')
            && let Ok(number) = number.parse()
            && let Some((_, fields)) = messages.last_mut()
        {
            fields.push((name.to_owned(), number, kind.to_owned()));
        }
    }
    messages
}

/// The messages of the Rust file.
fn written(text: &str) -> Fields {
    let mut messages = Fields::new();
    let mut attribute = None;
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            messages.push((rest.trim_end_matches(" {").to_owned(), Vec::new()));
        } else if let Some(rest) = line.strip_prefix("#[prost(") {
            attribute = rest.trim_end_matches("\")]").split_once(", tag = \"");
        } else if let Some(rest) = line.strip_prefix("pub ")
            && let Some((name, _)) = rest.split_once(':')
            && let Some((kind, number)) = attribute.take()
            && let Ok(number) = number.parse()
            && let Some((_, fields)) = messages.last_mut()
        {
            let kind = match kind {
                "bytes = \"bytes\"" => "bytes",
                "string, repeated" => "repeated string",
                kind => kind,
            };
            fields.push((name.to_owned(), number, kind.to_owned()));
        }
    }
    messages
}

#[test]
fn the_messages_are_those_of_the_contract() {
    let contract = declared(include_str!("../proto/spanloom/sidecar/v1/sidecar.proto"));
    assert_eq!(contract.len(), 4);
    assert!(
        contract.iter().all(|(_, fields)| fields.len() > 1),
        "{contract:?}"
    );
    assert_eq!(written(include_str!("../src/sidecar.rs")), contract);
}

#[test]
fn the_methods_are_those_of_the_contract() {
    use spanloom_proto::sidecar::{CONFIGURE, FORWARD};
    let contract = include_str!("../proto/spanloom/sidecar/v1/sidecar.proto");
    let line = |start: &str| {
        contract
            .lines()
            .find_map(|line| line.trim().strip_prefix(start))
    };
    let package = line("package ").map(|rest| rest.trim_end_matches(';'));
    let service = line("service ").map(|rest| rest.trim_end_matches(" {"));
    let path = format!(
        "/{}.{}/",
        package.unwrap_or_default(),
        service.unwrap_or_default()
    );
    for method in [FORWARD, CONFIGURE] {
        let name = method.strip_prefix(&path).unwrap_or_default();
        assert!(contract.contains(&format!("rpc {name}(")), "{method}");
    }
}
