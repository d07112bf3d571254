//! The store's writer as the place where frozen batches go.

use spanloom_pipeline::durable::{self, Cuts};
use spanloom_pipeline::{Export, ExportOutcome, RefusedRows, Trouble};
use spanloom_store::block::{Frozen, TableId};
use spanloom_store::writer::{CutBook, Http, Inserts, Piece, WriteOutcome, Writer};

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

    async fn export(&self, batch: Frozen, cuts: &Cuts) -> ExportOutcome {
        match self.0.write_with(batch, &Book(cuts)).await {
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

/// The pipeline's cuts as the writer's book: the parts of a batch are its tables.
struct Book<'c>(&'c Cuts);

impl CutBook for Book<'_> {
    fn known(&self) -> Vec<Piece> {
        let known = self.0.known().into_iter();
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
