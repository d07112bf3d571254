//! From tokens to the syntax tree, by precedence climbing with Tempo's precedences.

use crate::ast::{ArithOp, CompareOp, Expr, Literal, Node};
use crate::error::{Error, ErrorKind, Position};
use crate::field::OLD_CHILD_COUNT;
use crate::lexer::{Lexer, Tok, Token};
use crate::query::Place;

/// The longest filter or query in bytes.
pub const MAX_LENGTH: usize = 128 << 10;
/// The deepest tree, so that nothing that walks one needs much stack.
pub const MAX_DEPTH: u32 = 100;
/// The deepest recursion of the parser: a printed tree has parentheses around each level at most.
const MAX_RECURSION: u32 = 2 * MAX_DEPTH + 2;

// How tightly operators bind. As in Tempo, `&&` and `||` bind alike, from the left.
const LOGIC: u8 = 1;
const COMPARE: u8 = 2;
const ADD: u8 = 3;
const NOT: u8 = 4;
const MUL: u8 = 5;
const POW: u8 = 6;

/// Parses one spanset filter, braces included. [`crate::check`] says whether it can be meant.
pub fn parse(text: &str) -> Result<Expr, Error> {
    Parser::new(text)?.filter()
}

/// Looks at one token at a time.
pub(crate) struct Parser<'t> {
    lexer: Lexer<'t>,
    /// The token that is looked at, not yet taken.
    token: Token,
    /// Whether this is a query, not one filter.
    pub(crate) is_query: bool,
}

/// A binary operator.
#[derive(Clone, Copy)]
enum Binary {
    And,
    Or,
    Compare(CompareOp),
    Arith(ArithOp),
}

fn binary(tok: &Tok) -> Option<(Binary, u8)> {
    let Tok::Symbol(symbol) = tok else {
        return None;
    };
    Some(match *symbol {
        "&&" => (Binary::And, LOGIC),
        "||" => (Binary::Or, LOGIC),
        "=" => (Binary::Compare(CompareOp::Eq), COMPARE),
        "!=" => (Binary::Compare(CompareOp::Ne), COMPARE),
        "<" => (Binary::Compare(CompareOp::Lt), COMPARE),
        "<=" => (Binary::Compare(CompareOp::Le), COMPARE),
        ">" => (Binary::Compare(CompareOp::Gt), COMPARE),
        ">=" => (Binary::Compare(CompareOp::Ge), COMPARE),
        "=~" => (Binary::Compare(CompareOp::Match), COMPARE),
        "!~" => (Binary::Compare(CompareOp::NotMatch), COMPARE),
        "+" => (Binary::Arith(ArithOp::Add), ADD),
        "-" => (Binary::Arith(ArithOp::Sub), ADD),
        "*" => (Binary::Arith(ArithOp::Mul), MUL),
        "/" => (Binary::Arith(ArithOp::Div), MUL),
        "%" => (Binary::Arith(ArithOp::Mod), MUL),
        "^" => (Binary::Arith(ArithOp::Pow), POW),
        _ => return None,
    })
}

/// An expression and the depth of its tree.
type Deep = (Expr, u32);

impl<'t> Parser<'t> {
    pub(crate) fn new(text: &'t str) -> Result<Self, Error> {
        if text.len() > MAX_LENGTH {
            let found = format!("{} bytes", text.len());
            let expected = format!("a query has at most {MAX_LENGTH} bytes");
            let at = Position {
                offset: 0,
                line: 1,
                column: 1,
            };
            return Err(Error::new(ErrorKind::TooLarge, at, expected, found));
        }
        let mut lexer = Lexer::new(text);
        let token = lexer.next()?;
        Ok(Self {
            lexer,
            token,
            is_query: false,
        })
    }

    /// The token that is looked at.
    pub(crate) fn tok(&self) -> &Tok {
        &self.token.tok
    }

    pub(crate) fn place(&self) -> Place {
        Place(self.token.at)
    }

    /// The word that is looked at, if it is one that means nothing among values.
    pub(crate) fn word(&self) -> Option<&'t str> {
        (self.token.tok == Tok::Word).then(|| self.lexer.text_of(&self.token))
    }

    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.word() == Some(word)
    }

    /// Takes `symbol` if it is there.
    pub(crate) fn accept(&mut self, symbol: &str) -> Result<bool, Error> {
        let there = self.is(symbol);
        if there {
            self.take()?;
        }
        Ok(there)
    }

    pub(crate) fn expect(&mut self, symbol: &str) -> Result<(), Error> {
        if self.accept(symbol)? {
            Ok(())
        } else {
            Err(self.unexpected(&format!("expected `{symbol}`")))
        }
    }

    pub(crate) fn take(&mut self) -> Result<Token, Error> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.token, next))
    }

    pub(crate) fn is(&self, symbol: &str) -> bool {
        matches!(self.token.tok, Tok::Symbol(s) if s == symbol)
    }

    fn error(&self, kind: ErrorKind, expected: &str) -> Error {
        Error::new(kind, self.token.at, expected, self.lexer.shown(&self.token))
    }

    pub(crate) fn too_deep(&self) -> Error {
        self.error(
            ErrorKind::TooLarge,
            &format!("a query is at most {MAX_DEPTH} levels deep"),
        )
    }

    fn filter(mut self) -> Result<Expr, Error> {
        if !self.is("{") {
            return Err(if self.is("(") {
                self.one_filter()
            } else {
                self.error(ErrorKind::Syntax, "expected `{`")
                    .hint("a filter is written in braces: { span.http.route = \"/healthz\" }")
            });
        }
        let expr = self.braced()?;
        match self.token.tok {
            Tok::End => Ok(expr),
            Tok::Symbol("}") | Tok::Symbol(")") => {
                Err(self.error(ErrorKind::Syntax, "expected the end"))
            }
            _ => Err(self.one_filter()),
        }
    }

    /// `{ … }`, at its first brace.
    pub(crate) fn braced(&mut self) -> Result<Expr, Error> {
        let open = self.take()?;
        let expr = if self.is("}") {
            Expr {
                node: Node::Literal(Literal::Bool(true)),
                at: open.at,
            }
        } else {
            self.inner_expression()?
        };
        if !self.is("}") {
            return Err(self.unexpected("expected an operator or `}`"));
        }
        self.take()?;
        Ok(expr)
    }

    /// An expression over fields, whole.
    pub(crate) fn inner_expression(&mut self) -> Result<Expr, Error> {
        Ok(self.expression(0, 0)?.0)
    }

    fn one_filter(&self) -> Error {
        self.error(
            ErrorKind::Unsupported,
            "only one spanset filter is supported here",
        )
        .hint("write one { … }, its conditions joined with && and ||")
    }

    /// The error for a token that cannot stand here, with a hint where people often err.
    pub(crate) fn unexpected(&self, expected: &str) -> Error {
        let e = self.error(ErrorKind::Syntax, expected);
        let word = self.lexer.shown(&self.token);
        let word = word.trim_matches('`');
        match &self.token.tok {
            Tok::Symbol("=") => e.hint("equality is written with a single ="),
            Tok::Symbol("|") => e.hint("\"or\" is written ||"),
            Tok::Word if matches!(word, "and" | "AND") => e.hint("\"and\" is written &&"),
            Tok::Word if matches!(word, "or" | "OR") => e.hint("\"or\" is written ||"),
            Tok::Word => e.hint(format!(
                "strings need quotes: \"{word}\"; an attribute needs a scope: span.{word}, \
                 resource.{word} or .{word}"
            )),
            _ => e,
        }
    }

    /// Queries have lost a way to write an intrinsic that filters still know.
    pub(crate) fn refuse_old_name(&self) -> Result<(), Error> {
        if self.is_query && self.lexer.text_of(&self.token) == OLD_CHILD_COUNT {
            let e = self.error(ErrorKind::Syntax, "expected a value");
            return Err(e.hint("it is written span:childCount"));
        }
        Ok(())
    }

    /// An expression of operators that bind at least as tightly as `tight`.
    fn expression(&mut self, tight: u8, depth: u32) -> Result<Deep, Error> {
        if depth >= MAX_RECURSION {
            return Err(self.too_deep());
        }
        let mut left = self.prefix(depth)?;
        if left.1 > MAX_DEPTH {
            return Err(self.too_deep());
        }
        while let Some((op, binds)) = binary(&self.token.tok).filter(|(_, binds)| *binds >= tight) {
            let operator = self.take()?;
            // `^` groups from the right, everything else from the left.
            let right = self.expression(if binds == POW { POW } else { binds + 1 }, depth + 1)?;
            left = join(op, operator.at, left, right);
            if left.1 > MAX_DEPTH {
                return Err(self.too_deep());
            }
        }
        Ok(left)
    }

    /// A value, or an expression with a sign, a `!` or parentheses.
    fn prefix(&mut self, depth: u32) -> Result<Deep, Error> {
        let at = self.token.at;
        let node = match &self.token.tok {
            Tok::Symbol("(") => {
                self.take()?;
                let inner = self.expression(0, depth + 1)?;
                if !self.is(")") {
                    return Err(self.unexpected("expected an operator or `)`"));
                }
                self.take()?;
                return Ok(inner);
            }
            Tok::Symbol("!") => {
                self.take()?;
                let (inner, deep) = self.expression(NOT + 1, depth + 1)?;
                return Ok((
                    Expr {
                        node: Node::Not(Box::new(inner)),
                        at,
                    },
                    deep + 1,
                ));
            }
            Tok::Symbol("-") => {
                self.take()?;
                if self.token.tok == Tok::Int(i64::MIN.unsigned_abs()) {
                    self.take()?;
                    let node = Node::Literal(Literal::Int(i64::MIN));
                    return Ok((Expr { node, at }, 1));
                }
                let (inner, deep) = self.expression(ADD + 1, depth + 1)?;
                return Ok((
                    Expr {
                        node: Node::Neg(Box::new(inner)),
                        at,
                    },
                    deep + 1,
                ));
            }
            Tok::Int(n) => match i64::try_from(*n) {
                Ok(n) => Node::Literal(Literal::Int(n)),
                Err(_) => {
                    return Err(
                        self.error(ErrorKind::Syntax, "expected a number that fits 64 bits")
                    );
                }
            },
            Tok::Literal(literal) => Node::Literal(literal.clone()),
            Tok::Field(field) => {
                self.refuse_old_name()?;
                Node::Field(field.clone())
            }
            Tok::Word | Tok::End | Tok::Symbol(_) => {
                return Err(self.unexpected("expected a value"));
            }
        };
        self.take()?;
        Ok((Expr { node, at }, 1))
    }
}

/// Joins two operands; a chain of `&&` or of `||` becomes one node, however long.
fn join(op: Binary, at: Position, left: Deep, right: Deep) -> Deep {
    let mut deep = left.1.max(right.1) + 1;
    let (left_deep, right_deep) = (left.1, right.1);
    let (left, right) = (left.0, right.0);
    let node = match op {
        Binary::And | Binary::Or => {
            let is_and = matches!(op, Binary::And);
            let own = |e: &Expr| match e.node {
                Node::And(_) => is_and,
                Node::Or(_) => !is_and,
                _ => false,
            };
            deep = (left_deep + u32::from(!own(&left))).max(right_deep + u32::from(!own(&right)));
            let list = chain(is_and, left, right);
            if is_and {
                Node::And(list)
            } else {
                Node::Or(list)
            }
        }
        Binary::Compare(op @ (CompareOp::Eq | CompareOp::Ne)) if is_nil(&right) => Node::Exists {
            value: Box::new(left),
            negated: op == CompareOp::Eq,
        },
        Binary::Compare(op @ (CompareOp::Eq | CompareOp::Ne)) if is_nil(&left) => Node::Exists {
            value: Box::new(right),
            negated: op == CompareOp::Eq,
        },
        Binary::Compare(op) => Node::Compare {
            op,
            left: Box::new(left),
            right: Box::new(right),
        },
        Binary::Arith(op) => Node::Arith {
            op,
            left: Box::new(left),
            right: Box::new(right),
        },
    };
    (Expr { node, at }, deep)
}

fn is_nil(expr: &Expr) -> bool {
    expr.node == Node::Literal(Literal::Nil)
}

/// The operands of `&&` (or of `||`), without lists of the same kind among them.
fn chain(is_and: bool, left: Expr, right: Expr) -> Vec<Expr> {
    let mut list = Vec::new();
    for Expr { node, at } in [left, right] {
        match node {
            Node::And(inner) if is_and && list.is_empty() => list = inner,
            Node::Or(inner) if !is_and && list.is_empty() => list = inner,
            Node::And(inner) if is_and => list.extend(inner),
            Node::Or(inner) if !is_and => list.extend(inner),
            node => list.push(Expr { node, at }),
        }
    }
    list
}
