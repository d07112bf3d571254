//! What is wrong with a document, all of it, and where.

use std::fmt;

/// One step from the document's top to a place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// A place in the document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Path(pub(crate) Vec<Step>);

impl Path {
    /// The path of dotted `text`, whose keys have no dots.
    pub(crate) fn of(text: &str) -> Self {
        Self(
            text.split('.')
                .map(|key| Step::Key(key.to_owned()))
                .collect(),
        )
    }

    pub(crate) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    pub(crate) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Self {
        let mut path = self.clone();
        path.0.push(step);
        path
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                    if key.is_empty() || !key.chars().all(plain) {
                        write!(f, "[{key:?}]")?;
                    } else if n == 0 {
                        f.write_str(key)?;
                    } else {
                        write!(f, ".{key}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Something wrong that was not looked up in the text yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) path: Path,
    /// It is the key that is wrong, not its value.
    pub(crate) at_key: bool,
    pub(crate) text: String,
    pub(crate) advice: String,
}

impl Problem {
    pub(crate) fn new(path: Path, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            path,
            at_key: false,
            text: text.into(),
            advice: advice.into(),
        }
    }
}

/// One thing that is wrong. `Display` is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentError {
    /// The field, such as `spec.processing.drop[0]`; empty for the document as a whole.
    pub path: String,
    /// Line and column in the text, from 1, where they are known.
    pub at: Option<(usize, usize)>,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub advice: String,
}

impl DocumentError {
    pub(crate) fn from_problem(problem: Problem, at: Option<(usize, usize)>) -> Self {
        let Problem {
            path, text, advice, ..
        } = problem;
        Self {
            path: path.to_string(),
            at,
            problem: text,
            advice,
        }
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.path.is_empty(), self.at) {
            (false, Some((line, column))) => {
                write!(f, "{} (line {line}, column {column}): ", self.path)?;
            }
            (false, None) => write!(f, "{}: ", self.path)?,
            (true, Some((line, column))) => write!(f, "line {line}, column {column}: ")?,
            (true, None) => {}
        }
        let mut text = self.problem.clone();
        if !self.advice.is_empty() {
            text = format!("{text}; {}", self.advice);
        }
        // User text may hold anything; an error stays one line.
        for c in text.chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?
            } else {
                write!(f, "{c}")?
            }
        }
        Ok(())
    }
}

/// Everything that is wrong with a document, never empty. `Display` has a line for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct DocumentErrors(pub Vec<DocumentError>);

impl DocumentErrors {
    pub(crate) fn one(problem: impl Into<String>, advice: impl Into<String>) -> Self {
        let (problem, advice) = (problem.into(), advice.into());
        Self(vec![DocumentError {
            path: String::new(),
            at: None,
            problem,
            advice,
        }])
    }
}

impl fmt::Display for DocumentErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}
