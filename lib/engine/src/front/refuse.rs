//! SQL that reaches outside the data folder: refused unless the engine was started to allow it.
//! This keeps honest clients from surprises; it is not a security boundary.

use super::error::{ChError, code};
use super::lexer::Token;

/// Table functions, engines and dictionary sources that open files, sockets or programs. A name
/// also stands for its variants: `s3` for `s3Cluster`.
const OUTSIDE: [&str; 22] = [
    "azureblobstorage",
    "deltalake",
    "executable",
    "file",
    "filecluster",
    "gcs",
    "hdfs",
    "http",
    "hudi",
    "iceberg",
    "jdbc",
    "mongodb",
    "mysql",
    "odbc",
    "paimon",
    "postgresql",
    "python",
    "redis",
    "remote",
    "s3",
    "sqlite",
    "url",
];
/// Variants that are matched by how they begin.
const FAMILIES: [&str; 9] = [
    "azureblobstorage",
    "deltalake",
    "executable",
    "hdfs",
    "hudi",
    "iceberg",
    "paimon",
    "remote",
    "s3",
];

/// Checks a whole statement, or an `INSERT` up to its data.
pub(crate) fn check(tokens: &[Token<'_>], allow_files: bool) -> Result<(), ChError> {
    if allow_files {
        return Ok(());
    }
    for (at, token) in tokens.iter().enumerate() {
        let next = tokens.get(at + 1);
        let before = at.checked_sub(1).and_then(|n| tokens.get(n));
        if (token.is("INTO") && next.is_some_and(|t| t.is("OUTFILE")))
            || (token.is("FROM") && next.is_some_and(|t| t.is("INFILE")))
        {
            return Err(refused("INTO OUTFILE and FROM INFILE"));
        }
        let Some(name) = token.name() else { continue };
        let called = next.is_some_and(|t| t.is_mark(b'('));
        let engine = before.is_some_and(|t| t.is_mark(b'='))
            && at
                .checked_sub(2)
                .and_then(|n| tokens.get(n))
                .is_some_and(|t| t.is("ENGINE"));
        // `INSERT INTO url (a, b)`: a table that happens to have such a name.
        let table = before.is_some_and(|t| t.is("INTO") || t.is("TABLE") || t.is_mark(b'.'));
        if (called && !table || engine) && reaches_outside(name) {
            return Err(refused(&String::from_utf8_lossy(name)));
        }
    }
    Ok(())
}

fn reaches_outside(name: &[u8]) -> bool {
    let lower = name.to_ascii_lowercase();
    let known = |list: &[&str]| list.iter().any(|entry| lower == entry.as_bytes());
    known(&OUTSIDE)
        || lower == b"urlcluster"
        || FAMILIES
            .iter()
            .any(|family| lower.starts_with(family.as_bytes()))
}

fn refused(what: &str) -> ChError {
    ChError::new(
        code::ACCESS_DENIED,
        format!("{what}: the embedded engine does not reach files or the network from SQL"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::lexer::Lexer;
    use super::*;

    fn refused(sql: &str, expect: bool) {
        let tokens: Vec<_> = Lexer::new(sql.as_bytes()).collect();
        assert_eq!(check(&tokens, false).is_err(), expect, "{sql}");
        assert!(check(&tokens, true).is_ok(), "{sql}");
    }

    #[test]
    fn outside() {
        refused("select * from file('x')", true);
        refused("select * from `file`('x')", true);
        refused("select * from File ('x')", true);
        refused("select * from url('http://x')", true);
        refused("select * from remoteSecure('x', system.one)", true);
        refused("select * from s3Cluster('x')", true);
        refused("select 1 into outfile 'x'", true);
        refused("create table t (a Int8) engine = URL('x')", true);
        refused("create table t (a Int8) engine = File", true);
        refused("create dictionary d source(http(url 'x'))", true);
        refused("insert into url (a) select 1", false);
        refused("select file, url from t", false);
        refused("select 'file(1)'", false);
        refused("select length(url) from x.file", false);
        refused("select numbers.number from numbers(2)", false);
    }
}
