//! Writes what waits into segments, and makes it durable.
//!
//! Records are written in the order in which they were appended. On a full disk those that settle requests are
//! written before their turn, to segments of their own which are made of the reserve.
//!
//! A segment whose write or sync failed is not trusted any more: after a failed sync the system may show
//! bytes that the disk does not have. It is cut to what was durable and closed, and what memory still has
//! goes to a new one.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::disk::{Access, Clock, Disk, DiskFile};
use crate::error::WriteError;
use crate::format::{FRAME_HEADER, SEGMENT_HEADER, Salt, SegmentHeader, VERSION, seal_frame};
use crate::index::Place;
use crate::names::segment_path;
use crate::reserve::Reserve;
use crate::state::Pending;
use crate::survey::EarlySegment;

/// The buffer that groups are encoded in is given back when it was larger than this.
const KEPT_BUFFER_BYTES: usize = 1024 * 1024;

/// What was tried when the reserve did not become a segment.
const RENAME: &str = "rename";

#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) folder: PathBuf,
    pub(crate) log_id: u128,
    pub(crate) segment_bytes: u64,
    pub(crate) reserve: Reserve,
    active: Option<Active>,
    /// For records that are written before their turn.
    early: Option<Active>,
    /// A segment with nothing in it that could not be removed.
    leftover: Option<PathBuf>,
    /// The disk has no room: the reserve is for that, and not for a disk that fails.
    pub(crate) is_disk_full: bool,
    /// When to try again to make the reserve, and whether it was said that there is none.
    pub(crate) next_reserve_at: Duration,
    pub(crate) is_reserve_missed: bool,
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
    /// How long its file is from the beginning; 0 if it grows.
    allocated: u64,
    /// Bytes of requests in it, if they were written before their turn.
    request_bytes: u64,
}

/// Which records are written, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The first that wait.
    InOrder,
    /// Some, before their turn.
    Early,
}

/// What the state knows that a new segment's header says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Next {
    pub(crate) number: u64,
    /// The highest position that is written.
    pub(crate) previous: u64,
    /// Some positions below that are not.
    pub(crate) has_gaps: bool,
}

/// A group that is durable.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    /// Whether the segment was made for it.
    pub(crate) is_new_segment: bool,
    /// Of the segment's file.
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
        reserve: Reserve,
    ) -> Self {
        Self {
            disk,
            clock,
            folder,
            log_id,
            segment_bytes,
            reserve,
            active: None,
            early: None,
            leftover: None,
            is_disk_full: false,
            next_reserve_at: Duration::ZERO,
            is_reserve_missed: false,
            encoded: Vec::new(),
        }
    }

    /// The segment that is written to.
    pub(crate) fn active(&self) -> Option<u64> {
        self.active.as_ref().map(|active| active.number)
    }

    /// Goes on with a segment of the reserve that an earlier process left, for records before their turn.
    pub(crate) fn resume(
        &mut self,
        number: u64,
        path: &Path,
        allocated: u64,
        early: EarlySegment,
    ) -> io::Result<()> {
        self.early = Some(Active {
            number,
            path: path.to_owned(),
            file: self.disk.open(path, Access::Write)?,
            salt: early.salt,
            length: early.end,
            allocated,
            // How many are requests is not known: no more of them.
            request_bytes: allocated,
        });
        Ok(())
    }

    /// The segment that is open for records before their turn.
    pub(crate) fn early(&self) -> Option<u64> {
        self.early.as_ref().map(|early| early.number)
    }

    /// It is open, and a part of the reserve.
    pub(crate) fn uses_reserve(&self) -> bool {
        self.early.as_ref().is_some_and(|early| early.allocated > 0)
    }

    fn takes_reserve(&self) -> bool {
        self.is_disk_full && self.reserve.is_there()
    }

    /// Bytes of records that can be written before their turn now, and how many of them may be requests: so many
    /// that there is room for what settles others.
    pub(crate) fn early_room(&self) -> (u64, u64) {
        match &self.early {
            Some(early) if early.allocated > 0 => (
                early.allocated.saturating_sub(early.length),
                (early.allocated / 2).saturating_sub(early.request_bytes),
            ),
            None if self.takes_reserve() => {
                let bytes = self.reserve.bytes();
                (bytes.saturating_sub(SEGMENT_HEADER as u64), bytes / 2)
            }
            _ => (self.segment_bytes, 0),
        }
    }

    /// The segment for records before their turn is going.
    pub(crate) fn forget_early(&mut self) {
        self.early = None;
    }

    /// Ends the segment for records before their turn, and gives the disk what is left of it. Returns its number
    /// and the length of its file.
    pub(crate) fn close_early(&mut self) -> Option<(u64, u64)> {
        let mut early = self.early.take()?;
        let length = match early.file.truncate(early.length) {
            Ok(()) => early.length,
            Err(_) => early.length.max(early.allocated),
        };
        Some((early.number, length))
    }

    /// Writes a group to the end of a segment, and returns when it is durable.
    pub(crate) fn write(
        &mut self,
        group: &[Arc<Pending>],
        next: Next,
        turn: Turn,
    ) -> Result<Written, Failed> {
        self.encoded.clear();
        let open = match turn {
            Turn::InOrder => self.active.take(),
            Turn::Early => self.early.take(),
        };
        let open = open.filter(|open| turn == Turn::Early || open.length < self.segment_bytes);
        let is_new_segment = open.is_none();
        let mut active = match open {
            Some(active) => active,
            None => self.begin_segment(group, next, turn)?,
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
            .and_then(|()| match is_new_segment {
                true => self.name(&mut active),
                false => Ok(()),
            });
        if self.encoded.capacity() > KEPT_BUFFER_BYTES {
            self.encoded = Vec::new();
        }
        if let Err((action, source)) = written {
            let path = active.path.clone();
            // What is in a reserve that could not be renamed is written over by the next try.
            if action != RENAME {
                self.give_up(active);
            }
            return Err(Failed {
                error: write_error(action, &path, source),
                used_number: is_new_segment,
            });
        }
        active.length += group_bytes as u64;
        if turn == Turn::Early {
            let requests = group.iter().filter(|pending| pending.is_request());
            active.request_bytes += requests.map(|pending| pending.frame_bytes).sum::<u64>();
        }
        let written = Written {
            number: active.number,
            path: active.path.clone(),
            is_new_segment,
            length: active.length.max(active.allocated),
            places,
        };
        match turn {
            Turn::InOrder => self.active = Some(active),
            Turn::Early => self.early = Some(active),
        }
        Ok(written)
    }

    /// Makes a new segment's name durable: it is there after a crash only if its name is.
    fn name(&mut self, active: &mut Active) -> Result<(), (&'static str, io::Error)> {
        if active.path == self.reserve.path() {
            let path = segment_path(&self.folder, active.number);
            let renamed = self.disk.rename(&active.path, &path);
            renamed.map_err(|source| (RENAME, source))?;
            active.path = path;
            self.reserve.is_gone();
        }
        let synced = self.disk.sync_folder(&self.folder);
        synced.map_err(|source| ("sync the name of", source))
    }

    /// Makes a segment's file, or takes the reserve; its header is written together with the first group.
    fn begin_segment(
        &mut self,
        group: &[Arc<Pending>],
        next: Next,
        turn: Turn,
    ) -> Result<Active, Failed> {
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
        let is_reserve = turn == Turn::Early && self.takes_reserve();
        let (path, allocated) = match is_reserve {
            true => (self.reserve.path().to_owned(), self.reserve.bytes()),
            false => (segment_path(&self.folder, next.number), 0),
        };
        let file = match is_reserve {
            true => self.disk.open(&path, Access::Write),
            false => self.disk.create(&path),
        };
        let file = file.map_err(|source| failed("make", &path, source, true))?;
        let first = group.first().map_or(0, |pending| pending.position);
        let (header, salt) = SegmentHeader {
            version: VERSION,
            number: next.number,
            log_id: self.log_id,
            created_ms: self.clock.unix_ms(),
            first,
            previous: next.previous,
            is_early: turn == Turn::Early || next.has_gaps,
            allocated: u32::try_from(allocated).unwrap_or(u32::MAX),
        }
        .encode();
        self.encoded.extend_from_slice(&header);
        Ok(Active {
            number: next.number,
            path,
            file,
            salt,
            length: 0,
            allocated,
            request_bytes: 0,
        })
    }

    /// Gives back what the failed write took, as far as the disk lets us.
    fn give_up(&mut self, mut failed: Active) {
        if failed.length > 0 {
            // If this fails too, the next start finds a torn end, or records that are in the next segment
            // as well.
            let _ = failed.file.truncate(failed.length);
            return;
        }
        if failed.path == self.reserve.path() {
            self.reserve.is_gone();
        }
        if remove(&*self.disk, &failed.path).is_err() {
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
