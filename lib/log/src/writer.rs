//! Writes what waits into segments, and makes it durable.
//!
//! A segment whose write or sync failed is not trusted any more: after a failed sync the system may show
//! bytes that the disk does not have. It is cut to what was durable and closed, and what memory still has
//! goes to a new one.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Clock, Disk, DiskFile};
use crate::error::WriteError;
use crate::format::{FRAME_HEADER, Salt, SegmentHeader, VERSION, seal_frame};
use crate::index::Place;
use crate::names::segment_path;
use crate::state::Pending;

/// The buffer that groups are encoded in is given back when it was larger than this.
const KEPT_BUFFER_BYTES: usize = 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) folder: PathBuf,
    pub(crate) log_id: u128,
    pub(crate) segment_bytes: u64,
    active: Option<Active>,
    /// A segment with nothing in it that could not be removed.
    leftover: Option<PathBuf>,
    encoded: Vec<u8>,
}

#[derive(Debug)]
struct Active {
    number: u64,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    salt: Salt,
    /// Bytes that are durable.
    length: u64,
}

/// What the state knows that a new segment's header says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Next {
    pub(crate) number: u64,
    /// The highest position that is written.
    pub(crate) previous: u64,
}

/// A group that is durable.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    /// Whether the segment was made for it.
    pub(crate) is_new_segment: bool,
    /// Of the segment.
    pub(crate) length: u64,
    /// In the order of the group.
    pub(crate) places: Vec<Place>,
}

/// A write failed. The number of a segment that was begun must not be used again.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: WriteError,
    pub(crate) used_number: bool,
}

impl Writer {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        folder: PathBuf,
        log_id: u128,
        segment_bytes: u64,
    ) -> Self {
        Self {
            disk,
            clock,
            folder,
            log_id,
            segment_bytes,
            active: None,
            leftover: None,
            encoded: Vec::new(),
        }
    }

    /// The segment that is written to.
    pub(crate) fn active(&self) -> Option<u64> {
        self.active.as_ref().map(|active| active.number)
    }

    /// Writes a group to the end of a segment, and returns when it is durable.
    pub(crate) fn write(&mut self, group: &[Arc<Pending>], next: Next) -> Result<Written, Failed> {
        if let Some(full) = &self.active
            && full.length >= self.segment_bytes
        {
            self.active = None;
        }
        self.encoded.clear();
        let is_new_segment = self.active.is_none();
        let mut active = match self.active.take() {
            Some(active) => active,
            None => self.begin_segment(group, next)?,
        };
        let Frames { places, pieces } = encode_frames(&mut self.encoded, &active, group);
        let group_bytes: usize = pieces.iter().map(Piece::bytes).sum();
        let mut parts: Vec<_> = pieces
            .iter()
            .flat_map(|piece| piece.parts(&self.encoded))
            .collect();
        let written = active
            .file
            .write_parts_at(&mut parts, active.length)
            .map_err(|source| ("write to", source))
            .and_then(|()| active.file.sync().map_err(|source| ("sync", source)))
            .and_then(|()| {
                // A segment is there after a crash only if its name is.
                if is_new_segment {
                    let synced = self.disk.sync_folder(&self.folder);
                    synced.map_err(|source| ("sync the name of", source))?;
                }
                Ok(())
            });
        if self.encoded.capacity() > KEPT_BUFFER_BYTES {
            self.encoded = Vec::new();
        }
        if let Err((action, source)) = written {
            let path = active.path.clone();
            self.give_up(active);
            return Err(Failed {
                error: write_error(action, &path, source),
                used_number: is_new_segment,
            });
        }
        active.length += group_bytes as u64;
        let written = Written {
            number: active.number,
            path: active.path.clone(),
            is_new_segment,
            length: active.length,
            places,
        };
        self.active = Some(active);
        Ok(written)
    }

    /// Makes a segment's file; its header is written together with the first group.
    fn begin_segment(&mut self, group: &[Arc<Pending>], next: Next) -> Result<Active, Failed> {
        let failed = |action, path: &Path, source, used_number| Failed {
            error: write_error(action, path, source),
            used_number,
        };
        if let Some(path) = self.leftover.take()
            && let Err(source) = remove(&*self.disk, &path)
        {
            // While it cannot be removed no other one is made, or they would be more at each try.
            let failed = failed("remove", &path, source, false);
            self.leftover = Some(path);
            return Err(failed);
        }
        let path = segment_path(&self.folder, next.number);
        let file = self
            .disk
            .create(&path)
            .map_err(|source| failed("make", &path, source, true))?;
        let first = group.first().map_or(0, |pending| pending.position);
        let (header, salt) = SegmentHeader {
            version: VERSION,
            number: next.number,
            log_id: self.log_id,
            created_ms: self.clock.unix_ms(),
            first,
            previous: next.previous,
        }
        .encode();
        self.encoded.extend_from_slice(&header);
        Ok(Active {
            number: next.number,
            path,
            file,
            salt,
            length: 0,
        })
    }

    /// Gives back what the failed write took, as far as the disk lets us.
    fn give_up(&mut self, mut failed: Active) {
        if failed.length > 0 {
            // If this fails too, the next start finds a torn end, or records that are in the next segment
            // as well.
            let _ = failed.file.truncate(failed.length);
        } else if remove(&*self.disk, &failed.path).is_err() {
            self.leftover = Some(failed.path);
        }
    }
}

/// A group as it is written.
struct Frames<'g> {
    /// In the order of the group.
    places: Vec<Place>,
    pieces: Vec<Piece<'g>>,
}

/// Bytes that were encoded, and then bytes that lie where they are: payloads are not copied.
struct Piece<'g> {
    encoded: Range<usize>,
    rest: &'g [u8],
}

impl<'g> Piece<'g> {
    fn bytes(&self) -> usize {
        self.encoded.len() + self.rest.len()
    }

    fn parts<'a>(&self, encoded: &'a [u8]) -> [IoSlice<'a>; 2]
    where
        'g: 'a,
    {
        let encoded = encoded.get(self.encoded.clone()).unwrap_or_default();
        [IoSlice::new(encoded), IoSlice::new(self.rest)]
    }
}

/// Encodes a group behind the header of its segment, if that is in `out`.
fn encode_frames<'g>(out: &mut Vec<u8>, active: &Active, group: &'g [Arc<Pending>]) -> Frames<'g> {
    let mut places = Vec::with_capacity(group.len());
    let mut pieces = Vec::with_capacity(group.len() + 1);
    let mut offset = active.length + out.len() as u64;
    let header = 0..out.len();
    pieces.push(Piece {
        encoded: header,
        rest: &[],
    });
    for pending in group {
        let start = out.len();
        out.resize(start + FRAME_HEADER, 0);
        let rest = pending.encode(out);
        let frame = out.get_mut(start..).unwrap_or_default();
        seal_frame(
            frame,
            rest,
            active.salt,
            offset,
            pending.kind(),
            pending.position,
        );
        let piece = Piece {
            encoded: start..out.len(),
            rest,
        };
        let frame_bytes = piece.bytes() as u64;
        places.push(Place {
            segment: active.number,
            offset,
            frame_bytes,
        });
        offset += frame_bytes;
        pieces.push(piece);
    }
    Frames { places, pieces }
}

/// Removes a file that may be gone already.
pub(crate) fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

pub(crate) fn write_error(action: &'static str, path: &Path, source: io::Error) -> WriteError {
    WriteError {
        action,
        path: path.to_owned(),
        source,
    }
}
