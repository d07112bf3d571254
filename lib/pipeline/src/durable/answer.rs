//! What a sender is told, as bytes beside its request, so that its repeats are told the same by a later
//! process. Plain success has none.

use crate::outcome::Outcome;

const DONE: u8 = 1;
const MALFORMED: u8 = 2;

/// The bytes of an outcome that a logged request can have.
pub(crate) fn encode(outcome: &Outcome) -> Vec<u8> {
    let (tag, rejected, message) = match outcome {
        Outcome::Done {
            rejected: 0,
            message: None,
        } => return Vec::new(),
        Outcome::Done { rejected, message } => (DONE, *rejected, message.as_deref()),
        Outcome::Malformed(message) => (MALFORMED, 0, Some(&**message)),
        // Nothing of them is kept.
        Outcome::Denied(_)
        | Outcome::TooLarge(_)
        | Outcome::Unavailable(_)
        | Outcome::Internal(_) => return Vec::new(),
    };
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&rejected.to_le_bytes());
    bytes.extend_from_slice(message.unwrap_or_default().as_bytes());
    bytes
}

/// The outcome. Bytes that a later version has written are plain success: the spans are stored.
pub(crate) fn decode(bytes: &[u8]) -> Outcome {
    let read = || {
        let (tag, rest) = bytes.split_first()?;
        let (rejected, message) = rest.split_first_chunk::<8>()?;
        let message = str::from_utf8(message).ok()?;
        match *tag {
            DONE => Some(Outcome::Done {
                rejected: u64::from_le_bytes(*rejected),
                message: (!message.is_empty()).then(|| message.into()),
            }),
            MALFORMED => Some(Outcome::Malformed(message.into())),
            _ => None,
        }
    };
    read().unwrap_or(Outcome::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_survives() {
        let done = |rejected, message: Option<&str>| Outcome::Done {
            rejected,
            message: message.map(Into::into),
        };
        for outcome in [
            Outcome::OK,
            done(2, Some("zero ids")),
            done(0, Some("é")),
            done(7, None),
            Outcome::Malformed("cut".into()),
        ] {
            assert_eq!(decode(&encode(&outcome)), outcome);
        }
        assert!(encode(&Outcome::OK).is_empty());
        for damaged in [
            &[9][..],
            &[1, 2],
            &[7, 0, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0xff],
        ] {
            assert_eq!(decode(damaged), Outcome::OK);
        }
    }
}
