//! What each of our programs does beside its work, so that all do it alike: logs ([`logs`]), the
//! signals that stop it ([`Signals`]), the admin port ([`Admin`]) and its connections ([`Places`]), the
//! memory that it may use ([`memory`]), errors as one line ([`causes`]), and why it ends
//! ([`termination_message`]).

mod admin;
pub mod logs;
pub mod memory;
mod places;
mod signals;
mod termination;

pub use admin::{Admin, Health, OPENMETRICS, Pages};
pub use places::{Place, Places};
pub use signals::{Asked, Signals};
pub use termination::termination_message;

/// An error and what caused it, in one line.
pub fn causes(error: &dyn std::error::Error) -> String {
    with_causes(error).replace('\n', " ")
}

/// An error and what caused it. Many errors' own text leaves the cause out, some repeat it; it is said once.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Because(&'static str, Option<Box<Because>>);

    impl fmt::Display for Because {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Because {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    #[test]
    fn each_cause_is_said_once() {
        let cause = Because("no route\nto host", None);
        let middle = Because("cannot connect: no route\nto host", Some(Box::new(cause)));
        let error = Because("cannot insert", Some(Box::new(middle)));
        assert_eq!(
            causes(&error),
            "cannot insert: cannot connect: no route to host"
        );
    }
}
