//! A commit: writes what waits, applies it to the index once it is durable, and deletes segments that
//! are not needed.

use std::io::ErrorKind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::disk::Access;
use crate::error::WriteError;
use crate::format::FRAME_HEADER;
use crate::index::{KeptKey, Now};
use crate::options::{Event, Options};
use crate::read::read_frame;
use crate::record::{Position, Record};
use crate::state::{Content, Pending, State};
use crate::survey::{Segment, UnknownFrame};
use crate::writer::{Failed, Next, Turn, Writer, Written, remove, write_error};

/// A reserve that the disk has no room for is tried again so much later.
const RESERVE_PAUSE: Duration = Duration::from_secs(2);

/// What the log's owner and its thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) state: Mutex<State>,
    /// Something waits to be written, or the log is closing.
    pub(crate) work: Condvar,
    /// Something became durable, or failed, or the log is closed.
    pub(crate) progress: Condvar,
    /// Held for the length of a commit; taken before `state`.
    pub(crate) writer: Mutex<Writer>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes everything durable that was appended before, as far as the disk lets it.
    pub(crate) fn commit(&self) -> Result<(), WriteError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.lock().fault.clone();
        let mut result = self.write_waiting(&mut writer);
        self.set_fault(&result);
        if result.is_err() {
            result = self.make_way(&mut writer);
            self.set_fault(&result);
        }
        let result = result
            .and_then(|()| self.delete_finished(&mut writer))
            .and_then(|()| self.leave_reserve(&mut writer));
        self.lock().has_reserve = writer.reserve.is_there();
        drop(writer);
        self.set_fault(&result);
        self.progress.notify_all();
        match (&before, &result) {
            (None, Err(error)) => self.tell(Event::Failing(error.to_string())),
            (Some(_), Ok(())) => self.tell(Event::Working),
            _ => {}
        }
        result
    }

    /// A new segment may do where the old one did not, and there is the reserve. What settles requests goes
    /// first: what it gives room for is perhaps just what a full disk needs.
    fn make_way(&self, writer: &mut Writer) -> Result<(), WriteError> {
        writer.is_disk_full = self.lock().is_disk_full;
        let mut early = self.write_early(writer);
        self.delete_finished(writer)?;
        if early.is_err() {
            // A segment that went may be the reserve now.
            early = self.write_early(writer);
        }
        self.lock().takes_early = early.is_ok();
        early?;
        self.write_waiting(writer)
    }

    /// Writes what waits, once the disk has room for it and for a reserve. Until then nothing is written in its
    /// order: what settles it would come to lie in an older segment, which goes first.
    fn write_waiting(&self, writer: &mut Writer) -> Result<(), WriteError> {
        if writer.early().is_some() {
            self.leave_reserve(writer)?;
        }
        self.write_in_order(writer)
    }

    /// Ends the segment that is made of the reserve, if there is another reserve.
    fn leave_reserve(&self, writer: &mut Writer) -> Result<(), WriteError> {
        if writer.reserve.is_missing() {
            self.make_reserve(writer)?;
        }
        if let Some((number, bytes)) = writer.close_early() {
            self.lock().resize(number, bytes);
        }
        Ok(())
    }

    /// Makes the reserve of a log that is being opened, or goes on with what an earlier process left of it.
    pub(crate) fn open_reserve(&self) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.reserve.is_missing() {
            // It fails only while one is in use.
            let _ = self.make_reserve(&mut writer);
        }
        let mut state = self.lock();
        state.has_reserve = writer.reserve.is_there();
        let segments = state.segments.iter();
        let mut begun: Vec<_> = segments
            .filter_map(|segment| {
                let early = segment.early?;
                Some((segment.number, segment.path.clone(), segment.bytes, early))
            })
            .collect();
        if writer.reserve.is_missing()
            && let Some((number, path, bytes, early)) = begun.last()
            && writer.resume(*number, path, *bytes, *early).is_ok()
        {
            begun.pop();
        }
        for (number, path, _, early) in begun {
            let file = writer.disk.open(&path, Access::Write);
            if file.and_then(|mut file| file.truncate(early.end)).is_ok() {
                state.resize(number, early.end);
            }
        }
    }

    /// Makes the reserve, if there is room for it. That there is none is a failure only while the one before is
    /// in use: then the disk is still full.
    fn make_reserve(&self, writer: &mut Writer) -> Result<(), WriteError> {
        let now = writer.clock.monotonic();
        if !writer.uses_reserve() && writer.next_reserve_at > now {
            return Ok(());
        }
        writer.next_reserve_at = now + RESERVE_PAUSE;
        // A log that is as large as it may be has no room either.
        let made = match self.lock().used_bytes() > self.options.max_bytes {
            true => Err(ErrorKind::StorageFull.into()),
            false => writer.reserve.make(&*writer.disk),
        };
        let Err(source) = made else {
            writer.is_reserve_missed = false;
            return Ok(());
        };
        let error = write_error("make", writer.reserve.path(), source);
        // While the one before is in use, there is one.
        if !writer.uses_reserve() && !std::mem::replace(&mut writer.is_reserve_missed, true) {
            self.tell(Event::NoReserve(error.to_string()));
        }
        match writer.uses_reserve() {
            true => Err(error),
            false => Ok(()),
        }
    }

    fn set_fault(&self, result: &Result<(), WriteError>) {
        let error = result.as_ref().err();
        let mut state = self.lock();
        state.fault = error.map(ToString::to_string);
        state.is_disk_full = error.is_some_and(|error| {
            let kind = error.source.kind();
            matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        });
    }

    pub(crate) fn tell(&self, event: Event) {
        if let Some(observer) = &self.options.observer {
            observer.tell(event);
        }
    }

    fn write_in_order(&self, writer: &mut Writer) -> Result<(), WriteError> {
        loop {
            let group = self.lock().group(writer.segment_bytes);
            if group.is_empty() {
                return Ok(());
            }
            self.write_group(writer, &group, Turn::InOrder)?;
        }
    }

    /// Writes what can be written before its turn.
    fn write_early(&self, writer: &mut Writer) -> Result<(), WriteError> {
        loop {
            let (room, request_room) = writer.early_room();
            let group = self.lock().early_group(room, request_room);
            match group {
                Some(group) if group.is_empty() => return Ok(()),
                Some(group) => self.write_group(writer, &group, Turn::Early)?,
                // The segment is full. There may be another reserve.
                None => match writer.close_early() {
                    Some((number, bytes)) => self.lock().resize(number, bytes),
                    None => {
                        let source = ErrorKind::StorageFull.into();
                        return Err(write_error("write to", writer.reserve.path(), source));
                    }
                },
            }
        }
    }

    fn write_group(
        &self,
        writer: &mut Writer,
        group: &[Arc<Pending>],
        turn: Turn,
    ) -> Result<(), WriteError> {
        let next = {
            let state = self.lock();
            let first = state.buffer.front();
            Next {
                number: state.next_number,
                previous: state.written,
                has_gaps: first.is_some_and(|first| first.position < state.written),
            }
        };
        match writer.write(group, next, turn) {
            Ok(written) => {
                self.apply(writer, group, written);
                Ok(())
            }
            Err(Failed { error, used_number }) => {
                if used_number {
                    self.lock().next_number += 1;
                }
                Err(error)
            }
        }
    }

    /// A group is durable.
    fn apply(&self, writer: &Writer, group: &[Arc<Pending>], written: Written) {
        let mut state = self.lock();
        let before = state.durable();
        if written.is_new_segment {
            state.next_number += 1;
            state.segments.push_back(Segment {
                number: written.number,
                path: written.path,
                bytes: 0,
                last: 0,
                unknown: Vec::new(),
                goes_after: None,
                early: None,
            });
        }
        // A key is as old as its request, which was received a moment ago: the calendar may have jumped.
        let now = Now {
            unix_ms: 0,
            monotonic: writer.clock.monotonic(),
        };
        let mut last = 0;
        let mut unknown = Vec::new();
        for (pending, place) in group.iter().zip(written.places) {
            let position = pending.position;
            last = last.max(position);
            match &pending.content {
                Content::Record(record) => state.index.durable(position, record, place, now),
                Content::Keys(_, keys) => state.index.keep_again(position, keys),
                Content::Unknown(kind, _) => unknown.push(UnknownFrame {
                    kind: *kind,
                    position,
                    place,
                }),
            }
            state.buffered_bytes -= pending.frame_bytes;
        }
        remove_group(&mut state, group);
        state.written = state.written.max(last);
        state.resize(written.number, written.length);
        if let Some(segment) = state.segment_mut(written.number) {
            segment.last = segment.last.max(last);
            segment.unknown.append(&mut unknown);
        }
        let Options {
            key_window,
            max_keys,
            ..
        } = self.options;
        let evicted = state.index.forget_keys(key_window, max_keys, now.monotonic);
        state.keys_evicted += evicted as u64;
        let after = state.durable();
        let early: Vec<_> = group
            .iter()
            .map(|pending| Position(pending.position))
            .filter(|position| *position > after)
            .collect();
        drop(state);
        self.progress.notify_all();
        if after > before {
            self.tell(Event::Durable(after));
        }
        if !early.is_empty() {
            self.tell(Event::DurableEarly(early));
        }
        if evicted > 0 {
            self.tell(Event::KeysEvicted(evicted));
        }
    }

    /// Deletes the oldest segments while nothing in them is needed. What says so is durable by now; keys that
    /// are still young, and records that only a later version knows, are copied and durable before.
    fn delete_finished(&self, writer: &mut Writer) -> Result<(), WriteError> {
        loop {
            let before = self.lock().keys_evicted;
            let step = self.next_deletion(writer);
            let evicted = self.lock().keys_evicted - before;
            if evicted > 0 {
                self.tell(Event::KeysEvicted(to_count(evicted)));
            }
            let Some(step) = step else {
                return Ok(());
            };
            match step {
                Deletion::WriteCopies => self.write_waiting(writer)?,
                Deletion::Copy(unknown) => self.copy_unknown(writer, unknown),
                Deletion::Remove => self.remove_oldest(writer)?,
            }
        }
    }

    fn next_deletion(&self, writer: &Writer) -> Option<Deletion> {
        let mut state = self.lock();
        let needed_from = state.index.needed_from();
        let durable = state.durable().0;
        let is_disk_full = state.is_disk_full;
        // The newest one stays: it says which positions were given, and whose log this is.
        if state.segments.len() < 2 {
            return None;
        }
        let oldest = state.segments.front()?;
        if Some(oldest.number) == writer.active() || oldest.last >= needed_from {
            return None;
        }
        if let Some(position) = oldest.goes_after {
            // On a disk that is full, keys that wait must not keep the segment that would give it room.
            let can_go = position <= durable || (is_disk_full && oldest.unknown.is_empty());
            return Some(if can_go {
                Deletion::Remove
            } else {
                Deletion::WriteCopies
            });
        }
        let last = oldest.last;
        let unknown = oldest.unknown.clone();
        let is_mostly_keys = 2 * state.index.key_bytes(last) > oldest.bytes;
        if is_mostly_keys {
            // Copying them gives no room, and would go on for ever once keys fill whole segments.
            let is_room_needed = is_disk_full || state.used_bytes() > self.options.max_bytes / 2;
            if !is_room_needed {
                return None;
            }
            let now = writer.clock.monotonic();
            let gone = state.index.take_keys(last);
            let young = gone
                .iter()
                .filter(|key| !key.is_older(self.options.key_window, now));
            state.keys_evicted += young.count() as u64;
        }
        let before = state.next_position;
        self.copy_keys(&mut state, writer, last);
        let after = state.next_position;
        if let Some(oldest) = state.segments.front_mut() {
            oldest.goes_after = Some(if after > before { after - 1 } else { 0 });
        }
        Some(Deletion::Copy(unknown))
    }

    /// Copies the keys that would go with records up to `last`.
    fn copy_keys(&self, state: &mut State, writer: &Writer, last: u64) {
        let now = writer.clock.monotonic();
        let mut keys = state.index.take_keys(last);
        keys.retain(|key| !key.is_older(self.options.key_window, now));
        // One record for each part that fits: a record has a limit.
        let mut rest = keys.into_iter().peekable();
        while rest.peek().is_some() {
            let mut bytes = (FRAME_HEADER + 4) as u64;
            let mut part: Vec<KeptKey> = Vec::new();
            while let Some(key) = rest.next_if(|key| {
                part.is_empty() || bytes + key.encoded_bytes() <= writer.segment_bytes
            }) {
                bytes += key.encoded_bytes();
                part.push(key);
            }
            if state.used_bytes() + bytes > self.options.max_bytes {
                state.keys_evicted += part.len() as u64;
                continue;
            }
            let record = Record::Keys(part.iter().map(KeptKey::key).collect());
            let frame_bytes = record.frame_bytes();
            state.push(Content::Keys(record, part), frame_bytes);
        }
    }

    fn copy_unknown(&self, writer: &Writer, unknown: Vec<UnknownFrame>) {
        for frame in unknown {
            // What cannot be read now could not be read by the later version either.
            let Ok(payload) =
                read_frame(&*writer.disk, &writer.folder, frame.position, frame.place)
            else {
                continue;
            };
            let mut state = self.lock();
            let bytes = frame.place.frame_bytes;
            let position = state.push(Content::Unknown(frame.kind, payload), bytes);
            if let Some(oldest) = state.segments.front_mut() {
                oldest.goes_after = Some(position.0);
            }
        }
    }

    fn remove_oldest(&self, writer: &mut Writer) -> Result<(), WriteError> {
        let oldest = {
            let state = self.lock();
            let oldest = state.segments.front();
            oldest.map(|oldest| (oldest.number, oldest.path.clone(), oldest.bytes))
        };
        let Some((number, path, bytes)) = oldest else {
            return Ok(());
        };
        if writer.early() == Some(number) {
            // Nothing in it is needed; its room is not given away before it is the reserve again.
            writer.forget_early();
        }
        let is_recycled = writer.reserve.is_missing()
            && bytes >= writer.reserve.bytes()
            && writer.reserve.recycle(&*writer.disk, &path).is_ok();
        if !is_recycled {
            remove(&*writer.disk, &path).map_err(|source| write_error("delete", &path, source))?;
            // One at a time: if a later one were gone after a crash and this one were not, its requests would
            // be delivered again, since the later one says that they are stored.
            writer
                .disk
                .sync_folder(&writer.folder)
                .map_err(|source| write_error("sync the folder of", &path, source))?;
        }
        let mut state = self.lock();
        if let Some(gone) = state.segments.pop_front() {
            state.disk_bytes -= gone.bytes;
        }
        Ok(())
    }
}

fn to_count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

enum Deletion {
    /// Copies wait to be written.
    WriteCopies,
    /// These are to be copied.
    Copy(Vec<UnknownFrame>),
    Remove,
}

/// Takes a group, whose order is that of the buffer, out of the buffer.
fn remove_group(state: &mut State, group: &[Arc<Pending>]) {
    let is_front = |pending: &Arc<Pending>, state: &State| {
        let front = state.buffer.front();
        front.is_some_and(|front| front.position == pending.position)
    };
    let mut rest = group.iter();
    while let Some(pending) = rest.as_slice().first() {
        if !is_front(pending, state) {
            break;
        }
        state.buffer.pop_front();
        rest.next();
    }
    // Ends that were written before their turn.
    let early: std::collections::HashSet<u64> = rest.map(|pending| pending.position).collect();
    if !early.is_empty() {
        state
            .buffer
            .retain(|pending| !early.contains(&pending.position));
    }
}
