//! One SQL statement taken apart: what kind it is, where its output format stands, and, for an
//! `INSERT` with data, where the data begins. Data must never reach the engine as part of the SQL:
//! it would end at the first empty line, and what follows would run as SQL.

use super::error::{ChError, code};
use super::lexer::{Lexer, Token};

/// What the front does with a statement.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    /// Nothing but white space and comments.
    Empty,
    /// It gives rows: runs with `INTO OUTFILE` between `head` and `FORMAT`.
    Output {
        /// Up to the format clause.
        head: Vec<u8>,
        /// The format it asks for itself.
        format: Option<String>,
        /// `SETTINGS …` that followed the format, with that word; may be empty.
        tail: Vec<u8>,
    },
    /// `INSERT` whose data comes with the request.
    Insert {
        /// Up to the settings: `INSERT INTO t (a, b)`.
        head: Vec<u8>,
        /// Its own settings, without the word `SETTINGS`; may be empty.
        settings: Vec<u8>,
        /// The format of the data.
        format: String,
        /// Where in the text the data begins.
        data: usize,
    },
    /// Runs as it is and gives nothing to format: DDL, `SET`, `INSERT … SELECT`.
    Command {
        /// The statement.
        text: Vec<u8>,
        /// Whether it is `SET` or `USE`, that mean something on a session only.
        session: bool,
    },
}

impl Statement {
    /// Takes the text apart. `text` may be followed by data only if it is an `INSERT` with data.
    pub(crate) fn parse(text: &[u8], allow_files: bool) -> Result<Statement, ChError> {
        let mut lexer = Lexer::new(text);
        let Some(first) = lexer.next() else {
            return Ok(Statement::Empty);
        };
        if first.is("INSERT")
            && let Some(statement) = insert(text, lexer, allow_files)?
        {
            return Ok(statement);
        }
        let tokens = one_statement(text)?;
        let Some(last) = tokens.last() else {
            return Ok(Statement::Empty);
        };
        super::refuse::check(&tokens, allow_files)?;
        let whole = text.get(..last.end()).unwrap_or_default();
        if !gives_rows(&tokens) {
            return Ok(Statement::Command {
                text: whole.to_vec(),
                session: first.is("SET") || first.is("USE"),
            });
        }
        Ok(match format_clause(&tokens) {
            Some((at, format)) => Statement::Output {
                head: up_to(text, tokens.get(at)),
                format: Some(format),
                tail: tokens
                    .get(at + 2)
                    .and_then(|t| whole.get(t.start..))
                    .unwrap_or_default()
                    .to_vec(),
            },
            None => Statement::Output {
                head: whole.to_vec(),
                format: None,
                tail: Vec::new(),
            },
        })
    }

    /// Its text, without a format, settings that follow it, and data.
    pub(crate) fn text(&self) -> &[u8] {
        match self {
            Statement::Empty => &[],
            Statement::Output { head, .. } | Statement::Insert { head, .. } => head,
            Statement::Command { text, .. } => text,
        }
    }

    /// Whether it may run when only reading is allowed (HTTP `GET`).
    pub(crate) fn only_reads(&self) -> bool {
        match self {
            Statement::Empty | Statement::Output { .. } => true,
            Statement::Insert { .. } => false,
            Statement::Command { session, .. } => *session,
        }
    }
}

fn up_to(text: &[u8], token: Option<&Token<'_>>) -> Vec<u8> {
    token
        .and_then(|t| text.get(..t.start))
        .unwrap_or_default()
        .to_vec()
}

/// The tokens of the only statement; semicolons may follow it, nothing else.
fn one_statement(text: &[u8]) -> Result<Vec<Token<'_>>, ChError> {
    let mut tokens = Vec::new();
    let mut ended = false;
    for token in Lexer::new(text) {
        if token.is_mark(b';') {
            ended = true;
        } else if ended {
            return Err(ChError::new(
                code::SYNTAX_ERROR,
                format!(
                    "Syntax error (Multi-statements are not allowed): failed at position {}: \
                     one request runs one statement",
                    token.start + 1
                ),
            ));
        } else {
            tokens.push(token);
        }
    }
    Ok(tokens)
}

/// Whether the statement ends in rows that a format writes.
fn gives_rows(tokens: &[Token<'_>]) -> bool {
    const FIRST: [&str; 9] = [
        "SELECT", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS", "CHECK", "FROM", "KILL",
    ];
    let opens = |t: &&Token<'_>| t.is_mark(b'(');
    let Some(first) = tokens.iter().find(|t| !opens(t)) else {
        return false;
    };
    if first.is("WITH") {
        // `WITH … INSERT INTO … SELECT` writes.
        return !outside_brackets(tokens).any(|(_, t)| t.is("INSERT"));
    }
    FIRST.iter().any(|keyword| first.is(keyword))
}

/// The tokens that are in no bracket, with their places.
fn outside_brackets<'t, 'a>(
    tokens: &'t [Token<'a>],
) -> impl Iterator<Item = (usize, &'t Token<'a>)> {
    let mut depth = 0_usize;
    tokens
        .iter()
        .enumerate()
        .filter(move |(_, token)| match token.kind {
            super::lexer::Kind::Mark(b'(' | b'[' | b'{') => {
                depth += 1;
                false
            }
            super::lexer::Kind::Mark(b')' | b']' | b'}') => {
                depth = depth.saturating_sub(1);
                false
            }
            _ => depth == 0,
        })
}

/// Where `FORMAT Name` stands at the end, perhaps before `SETTINGS …`.
fn format_clause(tokens: &[Token<'_>]) -> Option<(usize, String)> {
    let (at, _) = outside_brackets(tokens)
        .filter(|(_, t)| t.is("FORMAT"))
        .last()?;
    if at == 0 || tokens.get(at - 1)?.is_mark(b'.') || tokens.get(at - 1)?.is_mark(b',') {
        return None;
    }
    let name = tokens.get(at + 1)?.name()?;
    match tokens.get(at + 2) {
        None => {}
        Some(next) if next.is("SETTINGS") => {}
        Some(_) => return None,
    }
    Some((at, String::from_utf8_lossy(name).into_owned()))
}

/// An `INSERT` with data; none if it takes its rows from a query or a file.
fn insert(text: &[u8], lexer: Lexer<'_>, allow_files: bool) -> Result<Option<Statement>, ChError> {
    let mut depth = 0_usize;
    let mut seen: Vec<Token<'_>> = Vec::new();
    let mut settings: Option<Token<'_>> = None;
    let mut tokens = lexer;
    while let Some(token) = tokens.next() {
        match token.kind {
            super::lexer::Kind::Mark(b'(' | b'[' | b'{') => depth += 1,
            super::lexer::Kind::Mark(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            super::lexer::Kind::Mark(b';') if depth == 0 => return Ok(None),
            _ => {}
        }
        // The first word after INTO is the table's name, whatever it spells.
        let named = seen.iter().any(|t| !t.is("INTO") && !t.is("TABLE"));
        let qualified = seen.last().is_some_and(|t| t.is_mark(b'.'));
        if depth == 0 && named && !qualified {
            if ["SELECT", "WITH", "WATCH", "FROM"]
                .iter()
                .any(|k| token.is(k))
            {
                return Ok(None);
            }
            if token.is("SETTINGS") {
                settings.get_or_insert(token);
            }
            let format = if token.is("VALUES") {
                Some(("Values".to_owned(), token.end()))
            } else if token.is("FORMAT") {
                let name = tokens.next();
                name.and_then(|t| {
                    Some((
                        String::from_utf8_lossy(t.name()?).into_owned(),
                        data_start(text, t.end()),
                    ))
                })
            } else {
                None
            };
            if let Some((format, data)) = format {
                super::refuse::check(&seen, allow_files)?;
                let head = up_to(text, Some(&settings.unwrap_or(token)));
                let settings = settings
                    .and_then(|s| text.get(s.end()..token.start))
                    .unwrap_or_default()
                    .to_vec();
                return Ok(Some(Statement::Insert {
                    head,
                    settings,
                    format,
                    data,
                }));
            }
        }
        seen.push(token);
    }
    Ok(None)
}

/// Where the data begins after `FORMAT Name`: after the blanks, a semicolon and one line's end.
fn data_start(text: &[u8], from: usize) -> usize {
    let mut at = from;
    let byte = |at: usize| text.get(at).copied();
    let blanks = |mut at: usize| {
        while matches!(byte(at), Some(b' ' | b'\t' | 0x0c)) {
            at += 1;
        }
        at
    };
    at = blanks(at);
    if byte(at) == Some(b';') {
        at = blanks(at + 1);
    }
    if byte(at) == Some(b'\r') {
        at += 1;
    }
    if byte(at) == Some(b'\n') {
        at += 1;
    }
    at.min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expect: &str) {
        let shown = match Statement::parse(sql.as_bytes(), false) {
            Ok(Statement::Empty) => "empty".to_owned(),
            Ok(Statement::Output { head, format, tail }) => format!(
                "output [{}] {} [{}]",
                String::from_utf8_lossy(&head).trim(),
                format.unwrap_or("-".into()),
                String::from_utf8_lossy(&tail)
            ),
            Ok(Statement::Insert {
                head,
                settings,
                format,
                data,
            }) => format!(
                "insert [{}] {} {format} {:?}",
                String::from_utf8_lossy(&head).trim(),
                String::from_utf8_lossy(&settings).trim(),
                &sql[data..]
            ),
            Ok(Statement::Command { text, session }) => format!(
                "{} [{}]",
                if session { "session" } else { "command" },
                String::from_utf8_lossy(&text)
            ),
            Err(error) => format!("error {}", error.code),
        };
        assert_eq!(shown, expect, "{sql}");
    }

    #[test]
    fn queries() {
        check("", "empty");
        check(" -- nothing\n;", "empty");
        check("select 1", "output [select 1] - []");
        check("select 1;", "output [select 1] - []");
        check("select 1; ; -- x", "output [select 1] - []");
        check("select 1 format JSON", "output [select 1] JSON []");
        check(
            "select 1 FORMAT TSV SETTINGS a=1;",
            "output [select 1] TSV [SETTINGS a=1]",
        );
        check(
            "select 1 SETTINGS a=1 FORMAT TSV",
            "output [select 1 SETTINGS a=1] TSV []",
        );
        check(
            "select t.format from t",
            "output [select t.format from t] - []",
        );
        check("select 'format JSON'", "output [select 'format JSON'] - []");
        check(
            "(select 1) union all (select 2)",
            "output [(select 1) union all (select 2)] - []",
        );
        check("with 1 as x select x", "output [with 1 as x select x] - []");
        check("show tables", "output [show tables] - []");
        check("select 1; select 2", "error 62");
        check("select ';'", "output [select ';'] - []");
    }

    #[test]
    fn commands() {
        check("set a = 1", "session [set a = 1]");
        check(
            "create table t (a Int8) engine=Memory;",
            "command [create table t (a Int8) engine=Memory]",
        );
        check("insert into t select 1", "command [insert into t select 1]");
        check(
            "insert into t (a) with 1 as x select x",
            "command [insert into t (a) with 1 as x select x]",
        );
        check(
            "with 1 as x insert into t select x",
            "command [with 1 as x insert into t select x]",
        );
        check("drop table t; drop table u", "error 62");
    }

    #[test]
    fn inserts() {
        check(
            "insert into t values (1)",
            "insert [insert into t]  Values \" (1)\"",
        );
        check(
            "INSERT INTO t(a,b) FORMAT CSV\n1,2\n\n3",
            "insert [INSERT INTO t(a,b)]  CSV \"1,2\\n\\n3\"",
        );
        check(
            "insert into `t`(`select`) format TSV",
            "insert [insert into `t`(`select`)]  TSV \"\"",
        );
        check(
            "insert into d.values values (1);(2)",
            "insert [insert into d.values]  Values \" (1);(2)\"",
        );
        check(
            "insert into format format TSV;\nx",
            "insert [insert into format]  TSV \"x\"",
        );
        check(
            "insert into table t settings a=1, b='x' format TSV\r\nx",
            "insert [insert into table t] a=1, b='x' TSV \"x\"",
        );
        check(
            "insert into t format JSONEachRow {\"a\":\"; select 1\"}",
            "insert [insert into t]  JSONEachRow \"{\\\"a\\\":\\\"; select 1\\\"}\"",
        );
        check("insert into function file('x') values (1)", "error 497");
        check(
            "insert into t from infile '/etc/passwd' format TSV",
            "error 497",
        );
    }
}
