//! What a user may do. The library has no users, so this is the part of ClickHouse's access control that can
//! be told from a statement's text: enough to see that a program sends nothing that it was not granted.
//! It keeps honest clients within their grants; it is not a security boundary.

use super::error::{ChError, code};
use super::lexer::{Lexer, Token};

/// A privilege on some tables.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    /// In capitals: `SELECT`, `CREATE`, `DROP TABLE`.
    privilege: String,
    /// None: any.
    database: Option<String>,
    /// None: any.
    table: Option<String>,
}

/// What was granted to a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Grants(Vec<Grant>);

/// A privilege that a statement needs.
#[derive(Debug, PartialEq, Eq)]
struct Need {
    privilege: String,
    database: String,
    table: String,
}

impl Grants {
    /// Adds `GRANT SELECT, INSERT ON database.*`.
    pub(crate) fn add(&mut self, statement: &str) -> Result<(), String> {
        let tokens: Vec<_> = Lexer::new(statement.as_bytes()).collect();
        let failed = || format!("{statement:?} is not GRANT … ON …");
        let on = tokens.iter().position(|token| token.is("ON"));
        let on = on.filter(|_| tokens.first().is_some_and(|token| token.is("GRANT")));
        let on = on.ok_or_else(failed)?;
        let (database, table) = match tokens.get(on + 1..).unwrap_or_default() {
            [any] if any.is_mark(b'*') => (None, None),
            [first, dot, second] if dot.is_mark(b'.') => (name(first), name(second)),
            _ => return Err(failed()),
        };
        let privileges = tokens.get(1..on).unwrap_or_default();
        for words in privileges.split(|token| token.is_mark(b',')) {
            let words: Vec<_> = words.iter().filter_map(name).collect();
            if words.is_empty() {
                return Err(failed());
            }
            self.0.push(Grant {
                privilege: words.join(" ").to_ascii_uppercase(),
                database: database.clone(),
                table: table.clone(),
            });
        }
        Ok(())
    }

    /// Checks a statement, or an `INSERT` up to its data.
    pub(crate) fn check(
        &self,
        user: &str,
        statement: &[u8],
        database: &str,
    ) -> Result<(), ChError> {
        let tokens: Vec<_> = Lexer::new(statement).collect();
        for need in needs(&tokens, database) {
            if !self.0.iter().any(|grant| grant.covers(&need)) {
                return Err(ChError::new(
                    code::ACCESS_DENIED,
                    format!(
                        "{user}: Not enough privileges. To execute this query, it's necessary to have \
                         the grant {} ON {}.{}",
                        need.privilege, need.database, need.table
                    ),
                ));
            }
        }
        Ok(())
    }
}

impl Grant {
    fn covers(&self, need: &Need) -> bool {
        let rest = need.privilege.strip_prefix(&self.privilege);
        let is_group = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        let is = |granted: &Option<String>, needed: &str| {
            granted.as_ref().is_none_or(|granted| granted == needed)
        };
        is_group && is(&self.database, &need.database) && is(&self.table, &need.table)
    }
}

/// The name that a token spells; none for `*`.
fn name(token: &Token<'_>) -> Option<String> {
    let name = token.name()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// What a statement needs.
fn needs(tokens: &[Token<'_>], database: &str) -> Vec<Need> {
    let mut needs = Vec::new();
    let mut need = |privilege: &str, (of, table): (Option<String>, String)| {
        needs.push(Need {
            privilege: privilege.to_owned(),
            database: of.unwrap_or_else(|| database.to_owned()),
            table,
        });
    };
    let first = tokens.iter().find(|token| !token.is_mark(b'('));
    let first = first.and_then(name).unwrap_or_default();
    match first.to_ascii_uppercase().as_str() {
        // What these read and write is seen below.
        "" | "SELECT" | "INSERT" | "WITH" | "FROM" | "EXPLAIN" | "SHOW" | "DESCRIBE" | "DESC"
        | "EXISTS" | "SET" | "USE" => {}
        ddl @ ("CREATE" | "ALTER" | "DROP" | "TRUNCATE" | "OPTIMIZE" | "RENAME" | "ATTACH"
        | "DETACH") => {
            let (kind, target) = target_of(tokens);
            let target = match kind.as_str() {
                "DATABASE" => (Some(target.1), String::new()),
                _ => target,
            };
            need(&format!("{ddl} {kind}"), target);
        }
        other => need(other, (None, String::new())),
    }
    for (at, token) in tokens.iter().enumerate() {
        if token.is("INSERT") && tokens.get(at + 1).is_some_and(|next| next.is("INTO")) {
            let skipped = usize::from(tokens.get(at + 2).is_some_and(|next| next.is("TABLE")));
            if let Some((of, table, _)) = table_at(tokens, at + 2 + skipped) {
                need("INSERT", (of, table));
            }
        }
        let is_array_join = at
            .checked_sub(1)
            .and_then(|before| tokens.get(before))
            .is_some_and(|before| before.is("ARRAY"));
        let names_a_table = token.is("FROM") || (token.is("JOIN") && !is_array_join);
        let named = table_at(tokens, at + 1).filter(|_| names_a_table);
        let Some((of, table, next)) = named else {
            continue;
        };
        let is_function = tokens.get(next).is_some_and(|token| token.is_mark(b'('));
        let is_table = of.is_some() || !is_expression(tokens, &table);
        if is_table && !is_function {
            need("SELECT", (of, table));
        }
    }
    needs
}

/// The kind of object that DDL is about, and which.
fn target_of(tokens: &[Token<'_>]) -> (String, (Option<String>, String)) {
    const PASSED: [&str; 8] = [
        "OR",
        "REPLACE",
        "MATERIALIZED",
        "TEMPORARY",
        "IF",
        "NOT",
        "EXISTS",
        "SYNC",
    ];
    let mut kind = String::new();
    for (at, token) in tokens.iter().enumerate().skip(1) {
        if PASSED.iter().any(|passed| token.is(passed)) {
            continue;
        }
        if kind.is_empty() {
            kind = name(token).unwrap_or_default().to_ascii_uppercase();
            continue;
        }
        let target = table_at(tokens, at).map(|(database, table, _)| (database, table));
        return (kind, target.unwrap_or_default());
    }
    (kind, (None, String::new()))
}

/// The table that is named at this token, with its database, and what follows it.
fn table_at(tokens: &[Token<'_>], at: usize) -> Option<(Option<String>, String, usize)> {
    let first = name(tokens.get(at)?)?;
    let second = tokens
        .get(at + 1)
        .filter(|token| token.is_mark(b'.'))
        .and_then(|_| name(tokens.get(at + 2)?));
    Some(match second {
        Some(second) => (Some(first), second, at + 3),
        None => (None, first, at + 1),
    })
}

/// Whether a name is that of a common table expression: `name AS (`.
fn is_expression(tokens: &[Token<'_>], name: &str) -> bool {
    tokens.windows(3).any(|three| match three {
        [first, second, third] => {
            first.name() == Some(name.as_bytes()) && second.is("AS") && third.is_mark(b'(')
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(statements: &[&str]) -> Grants {
        let mut grants = Grants::default();
        for statement in statements {
            grants.add(statement).unwrap();
        }
        grants
    }

    #[test]
    fn what_is_granted_is_allowed_and_nothing_else() {
        let grants = grants(&[
            "GRANT INSERT ON spanloom.spans",
            "GRANT SELECT, ALTER ON `spanloom`.*",
            "GRANT DROP TABLE ON system.*",
        ]);
        let check = |sql: &str, expect: Option<&str>| {
            let refused = grants.check("u", sql.as_bytes(), "spanloom");
            let refused = refused.err().map(|error| error.to_string());
            let grant = refused
                .as_deref()
                .and_then(|text| text.split("the grant ").nth(1));
            let grant = grant.map(|grant| grant.split(". (").next().unwrap_or(grant));
            assert_eq!(grant, expect, "{sql}");
        };
        check("INSERT INTO spanloom.spans (a) FORMAT Native", None);
        check("insert into `spans` values", None);
        check("INSERT INTO tags SELECT 1", Some("INSERT ON spanloom.tags"));
        check("SELECT 1", None);
        check("SELECT a FROM spans JOIN spanloom.tags USING a", None);
        check("SELECT a FROM system.disks", Some("SELECT ON system.disks"));
        check(
            "WITH c AS (SELECT 1 FROM spans) SELECT * FROM c AS x JOIN c",
            None,
        );
        check(
            "SELECT * FROM (SELECT * FROM other.t)",
            Some("SELECT ON other.t"),
        );
        check("SELECT * FROM numbers(3) ARRAY JOIN a", None);
        check("ALTER TABLE spans ADD COLUMN a Int8", None);
        check("DROP TABLE IF EXISTS system.text_log SYNC", None);
        check("DROP TABLE spans", Some("DROP TABLE ON spanloom.spans"));
        check("DROP DATABASE system", Some("DROP DATABASE ON system."));
        check(
            "CREATE MATERIALIZED VIEW IF NOT EXISTS v TO spans AS SELECT 1",
            Some("CREATE VIEW ON spanloom.v"),
        );
        check("KILL QUERY WHERE 1", Some("KILL ON spanloom."));
    }

    #[test]
    fn a_group_of_privileges_has_its_members() {
        let grants = grants(&["GRANT CREATE, DROP ON spanloom.*"]);
        for sql in [
            "CREATE DATABASE IF NOT EXISTS spanloom",
            "CREATE TABLE IF NOT EXISTS t (a Int8) ENGINE = Memory",
            "CREATE OR REPLACE MATERIALIZED VIEW v REFRESH EVERY 1 SECOND AS SELECT 1",
            "DROP VIEW v",
        ] {
            grants.check("u", sql.as_bytes(), "spanloom").unwrap();
            grants
                .check("u", sql.replace("spanloom", "x").as_bytes(), "x")
                .unwrap_err();
        }
    }

    #[test]
    fn what_is_no_grant_is_refused() {
        for text in [
            "",
            "GRANT",
            "GRANT ON a.b",
            "GRANT SELECT ON a",
            "SELECT 1",
            "GRANT a ON b.c d",
        ] {
            assert!(Grants::default().add(text).is_err(), "{text}");
        }
    }
}
