//! Reads the frames of a segment, whatever its bytes are: skips what is bad, and finds the next good one.

use std::io;

use memchr::memmem;

use crate::disk::DiskFile;
use crate::format::{FRAME_HEADER, FrameHeader, MARKER, SEGMENT_HEADER, Salt, open_frame};

/// Read at a time. Frames are read whole: memory is in proportion to the largest.
const CHUNK: usize = 256 * 1024;
/// After a read error the next try is at the next multiple of this.
const BLOCK: u64 = 4096;

/// A frame whose checksums are right.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) position: u64,
    pub(crate) offset: u64,
    pub(crate) payload: &'a [u8],
}

impl Frame<'_> {
    pub(crate) fn end(&self) -> u64 {
        self.offset + (FRAME_HEADER + self.payload.len()) as u64
    }
}

/// Bytes between two good frames, or behind the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadBytes {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) state: BadState,
}

/// What is wrong with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadState {
    /// They are zeros: the file grew, and its bytes were never written.
    Zeros,
    /// The disk does not give them.
    Unreadable,
    /// They are something else.
    Wrong,
}

/// What a scan found beside frames.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) bad: Vec<BadBytes>,
    /// Where the last good frame ends: what follows is a torn end.
    pub(crate) end: u64,
    pub(crate) frames: u64,
}

/// Reads a file in chunks.
#[derive(Debug)]
pub(crate) struct Chunks<'a> {
    file: &'a dyn DiskFile,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Chunks<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, length: u64) -> Self {
        Self {
            file,
            length,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// `count` bytes at `offset`; fewer at the end of the file.
    pub(crate) fn get(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        let left = self.length.saturating_sub(offset);
        let count = count.min(usize::try_from(left).unwrap_or(usize::MAX));
        let is_here = |start: u64, bytes: &[u8]| {
            offset >= start && offset + count as u64 <= start + bytes.len() as u64
        };
        if !is_here(self.start, &self.bytes) {
            let wanted = count.max(CHUNK.min(usize::try_from(left).unwrap_or(CHUNK)));
            // A byte that the disk does not give must not hide those before it.
            self.load(offset, wanted)
                .or_else(|_| self.load(offset, count))?;
        }
        let bytes = self.held_from(offset);
        Ok(bytes.get(..count).unwrap_or(bytes))
    }

    /// The bytes at `offset` that were read already, or else the next chunk or block.
    fn some(&mut self, offset: u64) -> io::Result<&[u8]> {
        if self.held_from(offset).len() < MARKER.len() {
            let block = BLOCK - offset % BLOCK;
            return self.get(offset, block as usize + MARKER.len());
        }
        Ok(self.held_from(offset))
    }

    fn load(&mut self, offset: u64, count: usize) -> io::Result<()> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        bytes.resize(count, 0);
        let read = read_up_to(self.file, &mut bytes, offset)?;
        bytes.truncate(read);
        self.bytes = bytes;
        self.start = offset;
        Ok(())
    }

    fn held_from(&self, offset: u64) -> &[u8] {
        let from = offset.checked_sub(self.start);
        let from = from.and_then(|from| usize::try_from(from).ok());
        from.and_then(|from| self.bytes.get(from..))
            .unwrap_or_default()
    }
}

/// Fills `buffer` from `offset` on, as far as the file goes.
pub(crate) fn read_up_to(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

enum Step {
    Good(FrameHeader),
    /// A good header, and a payload that is not what it says.
    BadPayload(FrameHeader),
    BadHeader,
    Unreadable,
}

/// Calls `on_frame` with each good frame, in the order of the file.
pub(crate) fn scan(
    file: &dyn DiskFile,
    length: u64,
    salts: &[Salt],
    on_frame: &mut dyn FnMut(Frame<'_>),
) -> Scan {
    let mut chunks = Chunks::new(file, length);
    let mut result = Scan {
        end: SEGMENT_HEADER as u64,
        ..Scan::default()
    };
    let mut at = result.end;
    let mut bad: Option<(u64, bool)> = None;
    while at < length {
        match step(&mut chunks, at, salts) {
            Step::Good(header) => {
                let Ok(payload) = payload(&mut chunks, at, &header) else {
                    bad.get_or_insert((at, true)).1 = true;
                    at += header.frame_bytes();
                    continue;
                };
                if let Some((start, is_unreadable)) = bad.take() {
                    result.bad.push(describe(file, start, at, is_unreadable));
                }
                on_frame(Frame {
                    kind: header.kind,
                    position: header.position,
                    offset: at,
                    payload,
                });
                result.frames += 1;
                at += header.frame_bytes();
                result.end = at;
            }
            Step::BadPayload(header) => {
                bad.get_or_insert((at, false));
                // The header is right, so its length is: the next frame is behind it, if it was written.
                let next = at + header.frame_bytes();
                at = if next <= length {
                    next
                } else {
                    find_marker(&mut chunks, at + 1, length, &mut bad)
                };
            }
            Step::BadHeader => {
                bad.get_or_insert((at, false));
                at = find_marker(&mut chunks, at + 1, length, &mut bad);
            }
            Step::Unreadable => {
                bad.get_or_insert((at, true)).1 = true;
                at = find_marker(&mut chunks, (at / BLOCK + 1) * BLOCK, length, &mut bad);
            }
        }
    }
    if let Some((start, is_unreadable)) = bad {
        result
            .bad
            .push(describe(file, start, length, is_unreadable));
    }
    result
}

fn step(chunks: &mut Chunks<'_>, at: u64, salts: &[Salt]) -> Step {
    let Ok(bytes) = chunks.get(at, FRAME_HEADER) else {
        return Step::Unreadable;
    };
    let Some(header) = open_frame(bytes, salts, at) else {
        return Step::BadHeader;
    };
    match payload(chunks, at, &header) {
        Ok(payload) if header.is_payload(payload) => Step::Good(header),
        Ok(_) => Step::BadPayload(header),
        Err(_) => Step::Unreadable,
    }
}

fn payload<'a>(chunks: &'a mut Chunks<'_>, at: u64, header: &FrameHeader) -> io::Result<&'a [u8]> {
    chunks.get(at + FRAME_HEADER as u64, header.length as usize)
}

/// Where the next frame may begin, from `at` on.
fn find_marker(
    chunks: &mut Chunks<'_>,
    mut at: u64,
    length: u64,
    bad: &mut Option<(u64, bool)>,
) -> u64 {
    while at < length {
        match chunks.some(at) {
            // The file is shorter than it was.
            Ok([]) => return length,
            Ok(bytes) => {
                if let Some(found) = memmem::find(bytes, &MARKER) {
                    return at + found as u64;
                }
                // A marker may lie across the end of what was read.
                let step = bytes.len().saturating_sub(MARKER.len() - 1).max(1);
                at += step as u64;
            }
            Err(_) => {
                if let Some((_, is_unreadable)) = bad {
                    *is_unreadable = true;
                }
                at = (at / BLOCK + 1) * BLOCK;
            }
        }
    }
    length
}

fn describe(file: &dyn DiskFile, start: u64, end: u64, is_unreadable: bool) -> BadBytes {
    let state = if is_unreadable {
        BadState::Unreadable
    } else if is_zeros(file, start, end) {
        BadState::Zeros
    } else {
        BadState::Wrong
    };
    BadBytes { start, end, state }
}

fn is_zeros(file: &dyn DiskFile, start: u64, end: u64) -> bool {
    let mut chunks = Chunks::new(file, end);
    let mut at = start;
    while at < end {
        match chunks.get(at, CHUNK) {
            Ok(bytes) if !bytes.is_empty() && bytes.iter().all(|byte| *byte == 0) => {
                at += bytes.len() as u64;
            }
            _ => return false,
        }
    }
    true
}
