//! The rendered schema, single node and cluster, against the files in `golden/`.
//! `UPDATE_GOLDEN=1` writes them again.

#![allow(clippy::expect_used)] // a test stops on the first surprise

use spanloom_store::migrate::statements;
use spanloom_store::schema::SchemaOptions;

fn check(file: &str, options: &SchemaOptions) {
    let rendered = statements(options).join(";\n\n") + ";\n";
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &rendered).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == rendered,
        "{path} differs from what is rendered now; UPDATE_GOLDEN=1 rewrites it, then read the diff"
    );
}

#[test]
fn single_node() {
    check("single_node.sql", &SchemaOptions::default());
}

#[test]
fn cluster() {
    let cluster = Some("prod".to_owned());
    check(
        "cluster.sql",
        &SchemaOptions {
            cluster,
            ..SchemaOptions::default()
        },
    );
}
