//! The store's writer as the place where frozen batches go.

use std::time::Duration;

use spanloom_pipeline::durable::{self, History};
use spanloom_pipeline::{Export, ExportOutcome, RefusedRows, Trouble};
use spanloom_store::block::{Frozen, TableId};
use spanloom_store::writer::{BatchHistory, Http, Inserts, Piece, WriteOutcome, Writer};

/// The writer, under the pipeline's name for it.
#[derive(Debug)]
pub struct StoreExport<I = Http>(pub Writer<I>);

impl<I: Inserts> Export for StoreExport<I> {
    type Frozen = Frozen;

    fn trouble(&self) -> Option<Trouble> {
        self.0.trouble().now().map(|kind| Trouble {
            message: kind.to_string(),
            lasts: kind.lasts(),
        })
    }

    async fn export(&self, batch: Frozen, history: &History) -> ExportOutcome {
        match self.0.write_with(batch, &Book(history)).await {
            WriteOutcome::Stored => ExportOutcome::Stored,
            WriteOutcome::Unavailable(reason) => ExportOutcome::Unavailable(reason),
            WriteOutcome::Partial(refused) => ExportOutcome::Partial(
                refused
                    .into_iter()
                    .map(|rows| RefusedRows {
                        range: rows.range,
                        reason: rows.reason,
                    })
                    .collect(),
            ),
        }
    }
}

/// How long ClickHouse knows the token of an insert, for certain: its window is one of inserts, which
/// [`pace`](crate::pace) makes 1,400 s long where no batch is full.
const REMEMBERED: Duration = Duration::from_secs(600);

/// A batch's history, under the writer's name for it: the parts of a batch are its tables.
struct Book<'h>(&'h History);

impl BatchHistory for Book<'_> {
    fn is_kept(&self) -> bool {
        self.0.is_logged()
    }

    fn may_be_forgotten(&self) -> bool {
        self.0.age() > REMEMBERED
    }

    fn pieces(&self) -> Vec<Piece> {
        let known = self.0.pieces().into_iter();
        let piece = known.map(|piece| {
            Some(Piece {
                table: TableId::numbered(piece.part)?,
                rows: piece.rows.start as usize..piece.rows.end as usize,
            })
        });
        piece.flatten().collect()
    }

    async fn cut(&self, pieces: Vec<Piece>) -> Result<(), String> {
        let rows = |row: usize| u32::try_from(row).unwrap_or(u32::MAX);
        let pieces = pieces.into_iter().map(|piece| durable::Piece {
            part: piece.table.number(),
            rows: rows(piece.rows.start)..rows(piece.rows.end),
        });
        self.0.cut(pieces.collect()).await
    }
}
