//! The table of promoted columns in docs/query.md is that of the code.
//!
//! `UPDATE_GOLDEN=1 cargo test -p spanloom-store --test docs` writes it.

#![allow(clippy::expect_used)] // a test stops on the first surprise

use spanloom_store::schema::promoted::{PROMOTED, SERVICE, Scope};
use std::fmt::Write;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/query.md");
const BEGIN: &str = "<!-- promoted columns, from lib/store/src/schema/promoted.rs -->\n";
const END: &str = "<!-- end of promoted columns -->\n";

fn table() -> String {
    let mut table =
        "| attribute | of the | column of `spans` | type |\n|---|---|---|---|\n".to_owned();
    for promoted in PROMOTED.iter().chain([&SERVICE]) {
        let scope = match promoted.scope {
            Scope::Span => "span",
            Scope::Resource => "resource",
        };
        let (key, column, ty) = (promoted.key, promoted.column, promoted.kind.sql());
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| `{key}` | {scope} | `{column}` | `{ty}` |");
    }
    table
}

#[test]
fn the_page_lists_the_promoted_columns() {
    let page = std::fs::read_to_string(PAGE).expect("the page is there");
    let (before, rest) = page.split_once(BEGIN).expect("the table's begin is marked");
    let (listed, after) = rest.split_once(END).expect("the table's end is marked");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let page = format!("{before}{BEGIN}{}{END}{after}", table());
        std::fs::write(PAGE, page).expect("the page can be written");
        return;
    }
    assert!(
        listed == table(),
        "docs/query.md does not list the promoted columns as they are; run UPDATE_GOLDEN=1 cargo test -p \
         spanloom-store --test docs"
    );
}
