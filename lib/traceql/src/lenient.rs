//! Filters that are still being written, as look-ups of tags and values send them.

use crate::ast::{CompareOp, Expr, Literal, Node};
use crate::check::{Mode, check};
use crate::lexer::{Lexer, Tok, Token};
use crate::parser::{MAX_LENGTH, parse};

/// The spans that `text` is about as far as it says, for tag look-ups: one spanset filter, perhaps unfinished.
///
/// A comparison without its value (`name =`) holds always: it is gone beside `&&`, and takes all of an `||`
/// with it. Missing operands and brackets are filled in. `None` means no filter: every span matches, also where the
/// text is something else than one filter. There are no errors.
pub fn parse_lenient(text: &str) -> Option<Expr> {
    if text.len() > MAX_LENGTH {
        return None;
    }
    let expr = match parse(text) {
        Ok(expr) if check(&expr, Mode::Trace).is_ok() => expr,
        _ => {
            let completed = completed(text)?;
            let expr = parse(&completed).ok()?;
            check(&expr, Mode::Trace).ok()?;
            expr
        }
    };
    let expr = reduced(expr);
    (expr.node != Node::Literal(Literal::Bool(true))).then_some(expr)
}

/// Without the parts that hold always.
fn reduced(expr: Expr) -> Expr {
    let is_true = |expr: &Expr| expr.node == Node::Literal(Literal::Bool(true));
    let Expr { node, at } = expr;
    let always = Expr {
        node: Node::Literal(Literal::Bool(true)),
        at,
    };
    match node {
        Node::And(list) => {
            let mut list: Vec<Expr> = list.into_iter().map(reduced).collect();
            list.retain(|expr| !is_true(expr));
            match list.len() {
                0 => always,
                1 => list.remove(0),
                _ => Expr {
                    node: Node::And(list),
                    at,
                },
            }
        }
        Node::Or(list) => {
            let list: Vec<Expr> = list.into_iter().map(reduced).collect();
            if list.iter().any(is_true) {
                return always;
            }
            Expr {
                node: Node::Or(list),
                at,
            }
        }
        node => Expr { node, at },
    }
}

/// The tokens up to the first that is none.
fn tokens(text: &str) -> Vec<(Token, String)> {
    let mut lexer = Lexer::new(text);
    let mut tokens = Vec::new();
    while let Ok(token) = lexer.next() {
        if token.tok == Tok::End {
            break;
        }
        let text = lexer.text_of(&token).to_owned();
        tokens.push((token, text));
    }
    tokens
}

fn is_comparison(tok: &Tok) -> bool {
    use CompareOp::{Eq, Ge, Gt, Le, Lt, Match, Ne, NotMatch};
    let Tok::Symbol(symbol) = tok else {
        return false;
    };
    [Eq, Ne, Lt, Le, Gt, Ge, Match, NotMatch]
        .iter()
        .any(|op| op.symbol() == *symbol)
}

/// The text, completed; `None` if it cannot be one filter.
fn completed(text: &str) -> Option<String> {
    let tokens = tokens(text);
    let symbol = |n: usize| match tokens.get(n).map(|(token, _)| &token.tok) {
        Some(Tok::Symbol(symbol)) => symbol,
        _ => "",
    };
    if symbol(0) != "{" {
        return None;
    }
    let mut out = String::from("{ ");
    let mut open = 0usize;
    // Whether an operand is expected, so that what is missing is known.
    let mut expects = true;
    let mut n = 1;
    while let Some((token, text)) = tokens.get(n) {
        n += 1;
        match &token.tok {
            Tok::Symbol("}") => break,
            Tok::Symbol("(") if expects => {
                open += 1;
                out.push_str("( ");
            }
            Tok::Symbol(")") if open > 0 => {
                open -= 1;
                out.push_str(if expects { "true ) " } else { ") " });
                expects = false;
            }
            Tok::Symbol("&&" | "||") => {
                out.push_str(if expects { "true " } else { "" });
                out.push_str(text);
                out.push(' ');
                expects = true;
            }
            Tok::Symbol("!") if expects => out.push('!'),
            _ if expects => {
                n = matcher(&tokens, n - 1, &mut out);
                expects = false;
            }
            _ => return None,
        }
    }
    out.push_str(if expects { "true " } else { "" });
    out.push_str(&") ".repeat(open));
    out.push('}');
    // Only one filter: nothing may follow.
    (n >= tokens.len()).then_some(out)
}

/// Writes the comparison that starts at `start`, or `true` where it is not whole; gives where it ends.
fn matcher(tokens: &[(Token, String)], start: usize, out: &mut String) -> usize {
    let ends = |n: usize| match tokens.get(n).map(|(token, _)| &token.tok) {
        None => true,
        Some(Tok::Symbol(symbol)) => matches!(*symbol, "}" | ")" | "&&" | "||"),
        Some(_) => false,
    };
    let mut end = start;
    while !ends(end) {
        end += 1;
    }
    let parts = tokens.get(start..end).unwrap_or(&[]);
    let comparison = parts
        .iter()
        .position(|(token, _)| is_comparison(&token.tok));
    let is_whole = comparison.is_some_and(|at| at > 0 && at + 1 < parts.len())
        && parts.iter().all(|(token, _)| token.tok != Tok::Word)
        && !ends_in_operator(parts);
    if is_whole {
        for (_, text) in parts {
            out.push_str(text);
            out.push(' ');
        }
    } else {
        out.push_str("true ");
    }
    end
}

fn ends_in_operator(parts: &[(Token, String)]) -> bool {
    matches!(
        parts.last().map(|(token, _)| &token.tok),
        Some(Tok::Symbol(_))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn gives(text: &str, expected: &str) {
        let filter = parse_lenient(text).map_or(String::new(), |expr| expr.to_string());
        assert_eq!(filter, expected, "{text}");
    }

    #[test]
    fn whole_filters_are_kept() {
        gives("{ .a = 1 }", "{ .a = 1 }");
        gives(
            "{ .a = 1 && (name =~ \"x\" || !(.b < 2)) }",
            "{ .a = 1 && (name =~ \"x\" || !(.b < 2)) }",
        );
        gives("{ .a }", "{ .a }");
        gives("{ }", "");
        gives("{ true }", "");
    }

    #[test]
    fn what_is_not_whole_is_left_out() {
        gives(
            "{ resource.service.name = \"tree\" && name = }",
            "{ resource.service.name = \"tree\" }",
        );
        gives("{ resource.service.name = ", "");
        gives("{ .a = 1 && name =", "{ .a = 1 }");
        gives("{ .a = 1 && ", "{ .a = 1 }");
        gives("{ && .a = 1 && && .b = 2", "{ .a = 1 && .b = 2 }");
        gives("{ .a = 1 && span.", "{ .a = 1 }");
        gives("{ .a = 1 && name }", "{ .a = 1 }");
        gives("{ .a = 1 && name = foo }", "{ .a = 1 }");
        gives("{ .a = 1 && .b = \"x", "{ .a = 1 }");
        gives("{ .a = 1 && (.b = 2 || .c = ", "{ .a = 1 }");
        gives("{ .a = 1 && (.b = 2", "{ .a = 1 && .b = 2 }");
        gives("{ (.a = 1 || ) && .b = 2 }", "{ .b = 2 }");
        gives("{ .a = 1 || name = }", "");
        gives(
            "{ span.\"a b\" = \"c\" && status = }",
            "{ span.\"a b\" = \"c\" }",
        );
        gives(
            "{ .a = -1 && .b + 1 > 2 && kind = ",
            "{ .a = -1 && .b + 1 > 2 }",
        );
    }

    #[test]
    fn what_is_no_filter_is_none() {
        for text in [
            "",
            "foo",
            "{ .a = 1 } && { .b = 2 }",
            "{ .a = 1 } | rate()",
            "{ .a = } > { }",
            "{ .a = 1 }}",
            "({ .a = 1 })",
            "{ name > 3 && .a = 1 }",
            "{ .a = 1 ) }",
            "{ .a =~ \"(\" && .b = }",
            "{ 1 }",
        ] {
            gives(text, "");
        }
    }
}
