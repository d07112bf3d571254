//! Rules about `Cargo.toml` files: versions in one place, no unused dependency, one direction.

use super::Source;

/// What each crate of ours may use: dependencies point downwards only. Not in the list: everything.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("spanloom-otlp", &[]),
    ("spanloom-traceql", &[]),
    ("spanloom-tls", &[]),
    ("spanloom-log", &[]),
    ("spanloom-program", &["spanloom-tls"]),
    ("spanloom-engine", &["spanloom-program", "spanloom-tls"]),
    ("spanloom-rules", &["spanloom-traceql"]),
    ("spanloom-crds", &["spanloom-rules"]),
    (
        "spanloom-pipeline",
        &[
            "spanloom-log",
            "spanloom-otlp",
            "spanloom-rules",
            "spanloom-tls",
            "spanloom-traceql",
        ],
    ),
    (
        "spanloom-store",
        &[
            "spanloom-otlp",
            "spanloom-program",
            "spanloom-tls",
            "spanloom-engine",
        ],
    ),
    (
        "spanloom-query",
        &[
            "spanloom-store",
            "spanloom-program",
            "spanloom-tls",
            "spanloom-traceql",
            "spanloom-crds",
            "spanloom-engine",
        ],
    ),
    (
        "spanloom-collector",
        &[
            "spanloom-pipeline",
            "spanloom-store",
            "spanloom-crds",
            "spanloom-otlp",
            "spanloom-program",
            "spanloom-proto",
            "spanloom-tls",
            "spanloom-traceql",
            "spanloom-engine",
        ],
    ),
    ("spanloom-proto", &[]),
    (
        "spanloom-sidecar",
        &[
            "spanloom-crds",
            "spanloom-otlp",
            "spanloom-pipeline",
            "spanloom-program",
            "spanloom-proto",
            "spanloom-rules",
            "spanloom-tls",
        ],
    ),
    (
        "spanloom-simulation",
        &[
            "spanloom-collector",
            "spanloom-log",
            "spanloom-otlp",
            "spanloom-pipeline",
            "spanloom-store",
        ],
    ),
    ("spanloom-inject", &["spanloom-crds"]),
    ("spanloom-plan", &["spanloom-crds", "spanloom-inject"]),
    (
        "spanloom-operator",
        &[
            "spanloom-crds",
            "spanloom-inject",
            "spanloom-plan",
            "spanloom-program",
            "spanloom-tls",
        ],
    ),
];

/// A dependency line of a manifest: the section it stands in, its name, and what follows.
struct Dependency<'a> {
    section: &'a str,
    name: &'a str,
    rest: &'a str,
}

/// Every rule that the manifests break.
pub fn check(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    let members: Vec<_> = sources
        .iter()
        .filter(|source| is_member_manifest(&source.path))
        .collect();
    for manifest in &members {
        check_member(manifest, sources, &mut broken);
    }
    if let Some(root) = sources.iter().find(|source| source.path == "Cargo.toml") {
        for pin in dependencies(&root.text) {
            let used = members
                .iter()
                .any(|member| dependencies(&member.text).any(|used| used.name == pin.name));
            if !used {
                broken.push(format!(
                    "Cargo.toml: pins {}, which no crate uses",
                    pin.name
                ));
            }
        }
    }
    broken
}

fn is_member_manifest(path: &str) -> bool {
    path.ends_with("/Cargo.toml") && !path.starts_with("fuzz/")
}

fn check_member(manifest: &Source, sources: &[Source], broken: &mut Vec<String>) {
    let Source { path, text } = manifest;
    let mut say = |what: String| broken.push(format!("{path}: {what}"));
    if !text.contains("[lints]\nworkspace = true") {
        say("does not take the workspace's lints".to_owned());
    }
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("name = "))
        .unwrap_or_default();
    let name = name.trim_matches('"');
    let folder = path.trim_end_matches("Cargo.toml");
    let allowed = DIRECTIONS
        .iter()
        .find(|(from, _)| *from == name)
        .map(|(_, to)| *to);
    for dependency in dependencies(text) {
        let Dependency {
            section,
            name: to,
            rest,
        } = dependency;
        if !rest.contains("workspace") {
            say(format!("{to} is not pinned in the workspace"));
        }
        let is_ours = to.starts_with("spanloom");
        // Tests may use the engine and each other's helpers.
        if is_ours && section == "[dependencies]" && allowed.is_some_and(|list| !list.contains(&to))
        {
            say(format!("{name} must not depend on {to}"));
        }
        if !is_named_in_code(to, folder, sources) {
            say(format!("{to} is not used"));
        }
    }
}

/// Whether a Rust file below `folder` writes the crate's name.
fn is_named_in_code(dependency: &str, folder: &str, sources: &[Source]) -> bool {
    let ident = dependency.replace('-', "_");
    sources
        .iter()
        .filter(|source| source.path.starts_with(folder) && source.path.ends_with(".rs"))
        .any(|source| source.text.contains(&ident))
}

fn dependencies(manifest: &str) -> impl Iterator<Item = Dependency<'_>> {
    let mut section = "";
    manifest.lines().filter_map(move |line| {
        if line.starts_with('[') {
            section = line.trim();
            return None;
        }
        if !section.ends_with("dependencies]") || line.starts_with('#') {
            return None;
        }
        let (name, rest) = line.split_once([' ', '.', '='])?;
        Some(Dependency {
            section,
            name,
            rest,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_broken, source};
    use super::*;

    const HEAD: &str = "[package]\nname = \"spanloom-otlp\"\n[lints]\nworkspace = true\n";

    fn check_manifest(dependencies: &str, code: &str, expected: &[&str]) {
        let manifest = format!("{HEAD}{dependencies}");
        let broken = check(&[
            source("lib/otlp/Cargo.toml", &manifest),
            source("lib/otlp/src/lib.rs", code),
        ]);
        check_broken(&broken, expected);
    }

    #[test]
    fn rules_about_members() {
        check_manifest(
            "[dependencies]\nbytes.workspace = true\n",
            "use bytes::Bytes;",
            &[],
        );
        check_manifest(
            "[dependencies]\nbytes = \"1\"\n",
            "use bytes::Bytes;",
            &["not pinned"],
        );
        check_manifest(
            "[dependencies]\nbytes.workspace = true\n",
            "",
            &["not used"],
        );
        let upwards = "[dependencies]\nspanloom-store.workspace = true\n";
        check_manifest(upwards, "use spanloom_store::X;", &["must not depend"]);
        let in_tests = "[dev-dependencies]\nspanloom-store.workspace = true\n";
        check_manifest(in_tests, "use spanloom_store::X;", &[]);
    }

    #[test]
    fn a_pin_that_nobody_uses_is_named() {
        let root = Source {
            path: "Cargo.toml".to_owned(),
            text: "[workspace.dependencies]\n# why\nbytes = \"1\"\n".to_owned(),
        };
        let broken = check(&[root]);
        assert_eq!(broken, ["Cargo.toml: pins bytes, which no crate uses"]);
    }
}
