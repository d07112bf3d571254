//! Dead letters once more: rows that the store refused for good are sent again, after what was wrong has been
//! put right.
//!
//! Only rows of the spans' table are ever kept as dead letters, and all else of their batch is stored. So the
//! export must write these rows only. Each letter is a batch whose id follows from its name: sent twice, it has the
//! same tokens. What is stored leaves the file, and what is refused again stays, with the new reason.

use std::path::Path;

use spanloom_log::{DeadLetter, DeadLetterError, DeadLetterFile, ReadError};

use super::{History, numbers, payload};
use crate::batch::{Batch, Export, ExportOutcome, RefusedRows};
use crate::clock::unix_ms;
use crate::measure::Measures;

/// So many letters are sent before the file is written anew.
const LETTERS_PER_FILE: usize = 256;
/// After so many letters in a row that the store did not take, it is not the letters.
const FAILURES: u32 = 2;

/// What became of the dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplayedLetters {
    /// Letters that there were.
    pub letters: usize,
    /// Spans that are stored now.
    pub stored_spans: u64,
    /// Spans that the store refused again: they stay.
    pub refused_spans: u64,
    /// Why, for the first of them.
    pub refused: Option<String>,
    /// Letters that cannot be read: they stay.
    pub unreadable_letters: usize,
    /// Why, for the first of them.
    pub unreadable: Option<String>,
    /// Letters that were not taken: they stay.
    pub left_letters: usize,
    /// Why the store did not take them.
    pub unavailable: Option<String>,
}

impl ReplayedLetters {
    /// What became of them, in a line.
    pub fn summary(&self) -> String {
        match self.letters {
            0 => "no dead letters".to_owned(),
            letters => format!(
                "{letters} dead letters: {} spans stored, {} rejected again",
                self.stored_spans, self.refused_spans
            ),
        }
    }

    /// Whether all spans are stored.
    ///
    /// # Errors
    /// With the reason why some letters stay.
    pub fn into_result(self) -> Result<(), LettersStay> {
        let Self {
            left_letters,
            unreadable_letters,
            refused_spans,
            ..
        } = self;
        if let Some(reason) = self.unavailable {
            return Err(LettersStay::Unavailable {
                left_letters,
                reason,
            });
        }
        if let Some(reason) = self.refused {
            return Err(LettersStay::Refused {
                refused_spans,
                reason,
            });
        }
        match self.unreadable {
            Some(reason) => Err(LettersStay::Unreadable {
                unreadable_letters,
                reason,
            }),
            None => Ok(()),
        }
    }
}

/// Why some letters stay in the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LettersStay {
    /// The store does not take them now.
    #[error("{left_letters} dead letters are not stored: {reason}")]
    Unavailable {
        /// How many.
        left_letters: usize,
        /// Why the first of them is not.
        reason: String,
    },
    /// The store refused rows again.
    #[error("ClickHouse rejected {refused_spans} spans again: {reason}")]
    Refused {
        /// How many.
        refused_spans: u64,
        /// Why the first of them.
        reason: String,
    },
    /// They are not what a log of this version writes.
    #[error("{unreadable_letters} dead letters cannot be read: {reason}")]
    Unreadable {
        /// How many.
        unreadable_letters: usize,
        /// Why the first of them.
        reason: String,
    },
}

/// Why letters are not replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// They cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What was replayed cannot be taken out of the file. It is not stored twice by the next try, if that is soon.
    #[error("the spans are stored, and their dead letters are still there: {0}; replay them again")]
    Write(#[from] DeadLetterError),
}

/// Sends the dead letters of the log in a folder, which another process may have open.
///
/// # Errors
/// When the file cannot be read, or not be changed.
pub async fn replay_letters<B, E>(
    folder: &Path,
    make_batch: impl Fn() -> B,
    export: &E,
) -> Result<ReplayedLetters, ReplayError>
where
    B: Batch,
    E: Export<Frozen = B::Frozen>,
{
    let file = DeadLetterFile::of(folder);
    let letters = file.read()?;
    let mut report = ReplayedLetters {
        letters: letters.len(),
        ..ReplayedLetters::default()
    };
    let mut failures = 0;
    for part in letters.chunks(LETTERS_PER_FILE) {
        let (mut gone, mut added) = (Vec::new(), Vec::new());
        for letter in part {
            if failures == FAILURES {
                report.left_letters += 1;
                continue;
            }
            let mut batch = make_batch();
            batch.set_id(id_of(letter));
            let spans = match payload::spans(&letter.payload, &mut batch) {
                Ok(spans) => spans,
                Err(error) => {
                    report.unreadable_letters += 1;
                    report.unreadable.get_or_insert(error.to_string());
                    continue;
                }
            };
            let frozen = batch.seal(Measures::default())();
            let refused = match export.export(frozen, &History::default()).await {
                ExportOutcome::Stored => Vec::new(),
                ExportOutcome::Partial(refused) => refused,
                ExportOutcome::Unavailable(why) => {
                    failures += 1;
                    report.left_letters += 1;
                    report.unavailable.get_or_insert(why);
                    continue;
                }
            };
            failures = 0;
            let count: u64 = refused.iter().map(|rows| rows.range.len() as u64).sum();
            report.stored_spans += spans.saturating_sub(count);
            report.refused_spans += count;
            if let Some(rows) = refused.first() {
                report.refused.get_or_insert_with(|| rows.reason.clone());
            }
            // A letter that was read once can be read again.
            if let Some(again) = refused
                .iter()
                .map(|rows| refused_again(letter, rows))
                .collect::<Option<Vec<_>>>()
            {
                gone.push(letter.clone());
                added.extend(again);
            }
        }
        if !gone.is_empty() {
            file.replace(&gone, &added)?;
        }
    }
    Ok(report)
}

/// Another id than the batch's own, whose tokens the store may have for other rows.
fn id_of(letter: &DeadLetter) -> u128 {
    let rows = (u128::from(letter.rows.start) << 64) | u128::from(letter.rows.end);
    letter.batch.0 ^ rows
}

/// The letter of rows that were refused again.
fn refused_again(letter: &DeadLetter, refused: &RefusedRows) -> Option<DeadLetter> {
    let rows = numbers(&refused.range);
    let first = letter.rows.start;
    Some(DeadLetter {
        rows: first.checked_add(rows.start)?..first.checked_add(rows.end)?,
        at_ms: unix_ms(),
        reason: refused.reason.clone(),
        payload: payload::part(&refused.range, &letter.payload).ok()?.into(),
        batch: letter.batch,
    })
}
