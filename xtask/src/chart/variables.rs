//! Whether a program knows the environment variables that it is started with.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;

/// What each program is made of beside its own folder and does read variables.
const SHARED: &str = "lib/program/src";

/// Each variable of ours that a container of ours gets and its program's source does not name.
pub fn check(objects: &[Value], workspace: &Path) -> anyhow::Result<Vec<String>> {
    let mut broken = Vec::new();
    for object in objects {
        let pod = &object["spec"]["template"]["spec"];
        for container in pod["containers"].as_array().into_iter().flatten() {
            let Some(program) = program(container) else {
                continue;
            };
            let own = source(&workspace.join(program).join("src"))?;
            let source = own + &source(&workspace.join(SHARED))?;
            let names = container["env"].as_array().into_iter().flatten();
            let names = names.filter_map(|variable| variable["name"].as_str());
            let ours = |name: &&str| name.starts_with("SPANLOOM_");
            for name in names.filter(ours) {
                if !source.contains(&format!("\"{name}\"")) {
                    broken.push(format!("spanloom-{program} does not know {name}"));
                }
            }
        }
    }
    Ok(broken)
}

/// The program of ours in a container: its image is `…/spanloom-<program>:tag`.
fn program(container: &Value) -> Option<&str> {
    let image = container["image"].as_str()?.rsplit('/').next()?;
    let (name, _) = image.split_once(':').unwrap_or((image, ""));
    name.strip_prefix("spanloom-")
        .filter(|name| *name != "engine")
}

/// All Rust files of a folder, one after the other.
fn source(folder: &Path) -> anyhow::Result<String> {
    let name = folder.display();
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {name}"))?;
    let mut text = String::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            text.push_str(&source(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(&path)?);
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_variable_that_nobody_reads_is_named() {
        let workspace = tempfile::tempdir().unwrap();
        let folder = workspace.path().join("query/src/deep");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("a.rs"), r#"env = "SPANLOOM_READ""#).unwrap();
        let shared = workspace.path().join(SHARED);
        std::fs::create_dir_all(&shared).unwrap();
        std::fs::write(shared.join("b.rs"), r#"from_env("SPANLOOM_LOG")"#).unwrap();
        let env = json!([{"name": "SPANLOOM_READ"}, {"name": "SPANLOOM_LOG"}, {"name": "SPANLOOM_REA"}, {"name": "OTHER"}]);
        let deployment = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"image": image, "env": env}]}}}});
        let check = |image: &str| check(&[deployment(image)], workspace.path()).unwrap();
        let expect = ["spanloom-query does not know SPANLOOM_REA"];
        assert_eq!(check("a.example:5000/b/spanloom-query:1"), expect);
        assert_eq!(check("spanloom-query"), expect);
        assert!(check("a.example/clickhouse:1").is_empty());
        assert!(check("a.example/spanloom-engine:1").is_empty());
    }
}
