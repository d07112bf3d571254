//! Checks JSON against the schemas of the OpenAPI document: the few keywords that it uses, and that
//! an answer has nothing that the document does not know.

use serde_json::Value;

/// Checks the body of an answer of `route` with `status`.
#[track_caller]
pub fn check_answer(document: &Value, route: &str, status: &str, body: &Value) {
    let responses = &document["paths"][route]["get"]["responses"];
    let content = responses[status]["content"].as_object().expect(route);
    let schema = &content.values().next().expect(route)["schema"];
    if let Err(reason) = check(document, schema, body, "$") {
        panic!("the answer of {route} is not as documented: {reason}");
    }
}

fn check(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.strip_prefix('#').ok_or("a foreign reference")?;
        let target = document.pointer(pointer).ok_or(format!("no {reference}"))?;
        return check(document, target, value, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fits = |choice| check(document, choice, value, at).is_ok();
        return choices
            .iter()
            .any(fits)
            .then_some(())
            .ok_or(format!("{at}: fits no choice"));
    }
    check_type(schema, value, at)?;
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return Err(format!("{at}: {value} is not of {allowed:?}"));
    }
    if let Some(items) = value.as_array() {
        for (place, item) in items.iter().enumerate() {
            check(document, &schema["items"], item, &format!("{at}[{place}]"))?;
        }
    }
    let (Some(members), Some(properties)) = (value.as_object(), schema["properties"].as_object())
    else {
        return Ok(());
    };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !members.contains_key(name.as_str().unwrap_or_default()) {
            return Err(format!("{at}: {name} is missing"));
        }
    }
    for (name, member) in members {
        let property = properties
            .get(name)
            .ok_or(format!("{at}: {name} is unknown"))?;
        check(document, property, member, &format!("{at}.{name}"))?;
    }
    Ok(())
}

fn check_type(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let actual = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = match &schema["type"] {
        Value::String(one) => one == actual,
        Value::Array(several) => several.iter().any(|one| one == actual),
        _ => true,
    };
    fits.then_some(())
        .ok_or(format!("{at}: a {actual}, not {}", schema["type"]))
}
