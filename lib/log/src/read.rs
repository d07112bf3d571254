//! Reads single records back.

use std::path::Path;

use bytes::Bytes;

use crate::disk::{Access, Disk};
use crate::error::ReadError;
use crate::format::{FRAME_HEADER, HeaderState, SEGMENT_HEADER, SegmentHeader, open_frame};
use crate::index::Place;
use crate::names::segment_path;
use crate::record::Position;
use crate::scan::read_up_to;

/// The payload of a frame.
pub(crate) fn read_frame(
    disk: &dyn Disk,
    folder: &Path,
    position: u64,
    place: Place,
) -> Result<Bytes, ReadError> {
    let path = segment_path(folder, place.segment);
    let io = |source| ReadError::Io {
        path: path.clone(),
        source,
    };
    let file = disk.open(&path, Access::Read).map_err(io)?;
    let mut header = vec![0; SEGMENT_HEADER];
    let read = read_up_to(&*file, &mut header, 0).map_err(io)?;
    header.truncate(read);
    let salts = match SegmentHeader::decode(&header) {
        HeaderState::Good(_, salt) => vec![salt],
        HeaderState::Damaged(salts) => salts.to_vec(),
        HeaderState::Short => Vec::new(),
    };
    let mut frame = vec![0; usize::try_from(place.frame_bytes).unwrap_or(0)];
    let read = read_up_to(&*file, &mut frame, place.offset).map_err(io)?;
    frame.truncate(read);
    let frame = Bytes::from(frame);
    let is_good = open_frame(&frame, &salts, place.offset).is_some_and(|header| {
        let payload = frame.get(FRAME_HEADER..).unwrap_or_default();
        header.position == position && header.is_payload(payload)
    });
    if !is_good {
        return Err(ReadError::Damaged {
            position: Position(position),
            path,
        });
    }
    Ok(frame.slice(FRAME_HEADER..))
}
