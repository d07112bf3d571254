//! A log that is open: its owner's calls, and the thread that commits.

use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::commit::Shared;
use crate::dead_letters::{self, DeadLetter, DeadLetters};
use crate::disk::{Clock, Disk, Lock, LockGuard, RealClock, RealDisk};
use crate::error::{AppendError, DeadLetterError, OpenError, ReadError, WaitError, WriteError};
use crate::index::Now;
use crate::names::LOCK;
use crate::options::{Committer, Event, Options};
use crate::read::read_frame;
use crate::record::{Decoded, Position, Record, Request, kind};
use crate::recovered::Recovered;
use crate::repair::repair;
use crate::reserve::Reserve;
use crate::state::{Content, State};
use crate::status::Status;
use crate::survey::survey;
use crate::told;
use crate::writer::Writer;

/// After a failed commit the next one follows so much later; twice as much after each, up to the most.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(2);

/// The log of one process. Dropped, it ends its thread, which commits what was appended.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    id: u128,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    dead_letters: Mutex<DeadLetters>,
    thread: Option<JoinHandle<()>>,
    /// Given back last of all.
    _lock: Box<dyn LockGuard>,
}

impl Log {
    /// Opens the log in a folder, which is made when it is missing.
    ///
    /// # Errors
    /// When another process has it, or the folder cannot be used. Damaged files are no reason: they are
    /// among the findings.
    pub fn open(folder: &Path, options: Options) -> Result<(Self, Recovered), OpenError> {
        let clock = Arc::new(RealClock::default());
        Self::open_on(Arc::new(RealDisk), clock, folder, options)
    }

    /// Opens a log on another disk, by another clock.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        folder: &Path,
        options: Options,
    ) -> Result<(Self, Recovered), OpenError> {
        let options = within_bounds(options);
        let lock = take_folder(&*disk, folder)?;
        let now = Now {
            unix_ms: clock.unix_ms(),
            monotonic: clock.monotonic(),
        };
        let mut survey = survey(&*disk, folder, now).map_err(|source| OpenError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        repair(&*disk, folder, options.damaged_bytes, &mut survey);
        told::remember(&*disk, folder, &mut survey.findings);
        survey
            .index
            .forget_keys(options.key_window, options.max_keys, now.monotonic);
        let recovered = Recovered::new(&survey);
        let mut reserve = Reserve::new(folder, options.reserve_bytes);
        // One that cannot be used is made again.
        let _ = reserve.adopt(&*disk, |header| survey.headers.contains(header));
        let log_id = survey.log_id.unwrap_or_else(|| clock.random_id());
        let dead_letters = DeadLetters::new(&*disk, folder, log_id, options.dead_letter_bytes);
        let writer = Writer::new(
            Arc::clone(&disk),
            Arc::clone(&clock),
            folder.to_owned(),
            log_id,
            options.segment_bytes,
            reserve,
        );
        let committer = options.committer;
        let state = State::new(&mut survey, options.reserve_bytes);
        let shared = Arc::new(Shared {
            options,
            state: Mutex::new(state),
            work: Condvar::new(),
            progress: Condvar::new(),
            writer: Mutex::new(writer),
        });
        shared.open_reserve();
        let mut log = Self {
            folder: folder.to_owned(),
            id: log_id,
            disk,
            clock,
            shared,
            dead_letters: Mutex::new(dead_letters),
            thread: None,
            _lock: lock,
        };
        if committer == Committer::Thread {
            log.start_thread()?;
        }
        Ok((log, recovered))
    }

    fn start_thread(&mut self) -> Result<(), OpenError> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || run(&shared))
            .map_err(|source| OpenError::Thread {
                folder: self.folder.clone(),
                source,
            })?;
        self.thread = Some(thread);
        Ok(())
    }

    /// The log's random id. It stays the same as long as the log has any key, so keys can be hashed with it.
    pub fn id(&self) -> u128 {
        self.id
    }

    /// Takes a record. It is durable once [`Self::durable`] has reached its position.
    ///
    /// # Errors
    /// When there is no room, or the record cannot follow those before; nothing is changed then.
    pub fn append(&self, record: Record) -> Result<Position, AppendError> {
        let position = self.shared.lock().append(record, &self.shared.options)?;
        self.shared.work.notify_one();
        if self.shared.options.committer == Committer::Caller {
            self.shared.tell(Event::Appended);
        }
        Ok(position)
    }

    /// Everything up to this position is durable.
    pub fn durable(&self) -> Position {
        self.shared.lock().durable()
    }

    /// Waits until a position is durable.
    ///
    /// # Errors
    /// When the time is over before, or the log is closed.
    pub fn wait_durable(&self, position: Position, timeout: Duration) -> Result<(), WaitError> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        while !state.is_durable(position) {
            if state.is_closed {
                return Err(WaitError::Closed);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let fault = state.fault.clone();
                return Err(WaitError::TimedOut { fault });
            }
            let waited = self.shared.progress.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Commits now, on this thread. It returns when everything that was appended before is durable, and
    /// segments that are not needed are deleted.
    ///
    /// # Errors
    /// When the disk fails. What it did not take stays in memory and is written by a later commit.
    pub fn commit(&self) -> Result<(), WriteError> {
        self.shared.commit()
    }

    /// The spans of a request that is not stored yet.
    pub fn spans_of(&self, position: Position) -> Option<u32> {
        let state = self.shared.lock();
        let waiting = state.index.requests.get(&position.0)?;
        Some(waiting.spans)
    }

    /// Reads a request that is not stored yet.
    ///
    /// # Errors
    /// When it is stored, damaged, or the disk fails.
    pub fn read(&self, position: Position) -> Result<Request, ReadError> {
        let place = {
            let state = self.shared.lock();
            let waiting = state.index.requests.get(&position.0);
            let waiting = waiting.ok_or(ReadError::NoRequest(position))?;
            match waiting.place {
                Some(place) => place,
                None => return buffered(&state, position),
            }
        };
        let payload = read_frame(&*self.disk, &self.folder, position.0, place)?;
        match Record::decode(kind::REQUEST, &payload) {
            Decoded::Record(Record::Request(request)) => Ok(request),
            _ => Err(ReadError::NoRequest(position)),
        }
    }

    /// Whether a record of about so many bytes need not wait for the disk to take others, if records of `before`
    /// bytes come before it. While it would have to, it is refused.
    pub fn buffer_has_room(&self, before: u64, bytes: u64) -> bool {
        let buffer_bytes = self.shared.options.buffer_bytes;
        self.shared
            .lock()
            .buffer_has_room(before, bytes, buffer_bytes)
    }

    /// Keeps rows that the store refused for good in the file of dead letters. It returns when they are
    /// durable there. Rows that are in the file already are not written again. Whether they were kept is
    /// for [`Record::Refused`], which the caller appends.
    ///
    /// # Errors
    /// When the file is full, or the disk fails.
    pub fn keep_dead_letter(&self, letter: &DeadLetter) -> Result<(), DeadLetterError> {
        let mended = self
            .lock_dead_letters()
            .write(&*self.disk, &self.folder, letter)?;
        if let Some(left) = mended {
            self.shared.tell(Event::DeadLettersDamaged { left });
        }
        Ok(())
    }

    /// Calls `on_letter` with each dead letter, the oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read_dead_letters(
        &self,
        mut on_letter: impl FnMut(DeadLetter),
    ) -> Result<(), ReadError> {
        let _letters = self.lock_dead_letters();
        dead_letters::read(&*self.disk, &self.folder, &mut on_letter)
            .map(|_| ())
            .map_err(|source| ReadError::Io {
                path: self.folder.join(crate::names::DEAD_LETTERS),
                source,
            })
    }

    /// Removes all dead letters, after they were replayed or given up.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn clear_dead_letters(&self) -> Result<(), WriteError> {
        self.lock_dead_letters().clear(&*self.disk, &self.folder)
    }

    fn lock_dead_letters(&self) -> std::sync::MutexGuard<'_, DeadLetters> {
        self.dead_letters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of requests that the log can still take: what its limit and the disk have room for. 0 while the disk
    /// does not say.
    pub fn free_bytes(&self) -> u64 {
        let left = self.shared.lock().free_bytes(&self.shared.options);
        left.min(self.disk.free_bytes(&self.folder).unwrap_or(0))
    }

    /// How the log is doing.
    pub fn status(&self) -> Status {
        Status::of(
            &self.shared.lock(),
            &self.shared.options,
            self.clock.unix_ms(),
        )
    }

    /// Commits what was appended and ends the thread.
    ///
    /// # Errors
    /// When the disk did not take all of it. Senders of what is not durable were not answered.
    pub fn close(mut self) -> Result<(), WriteError> {
        self.stop();
        self.shared.commit()
    }

    fn stop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.work.notify_all();
        self.shared.progress.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has closed the log; what it did not write was not acknowledged.
            let _ = thread.join();
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sizes that cannot work together are made to: one segment, one group and one record fit, and leave room.
fn within_bounds(mut options: Options) -> Options {
    options.max_bytes = options.max_bytes.max(64 * 1024);
    options.segment_bytes = options.segment_bytes.clamp(1024, options.max_bytes / 8);
    let most = (options.max_bytes / 4).min(u64::from(u32::MAX));
    options.record_bytes = options.record_bytes.min(most);
    // A segment's header says how long its file was made, in 4 bytes.
    let most = (options.max_bytes / 32).min(u64::from(u32::MAX));
    options.reserve_bytes = options.reserve_bytes.min(most);
    options
}

fn take_folder(disk: &dyn Disk, folder: &Path) -> Result<Box<dyn LockGuard>, OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Folder { path, source }
    };
    disk.create_folder(folder).map_err(failed(folder))?;
    let path = folder.join(LOCK);
    let owner = format!("pid {}\n", process::id());
    match disk.lock(&path, &owner).map_err(failed(&path))? {
        Lock::Taken(guard) => Ok(guard),
        Lock::Held(owner) => Err(OpenError::InUse {
            folder: folder.to_owned(),
            owner: owner.trim().to_owned(),
        }),
    }
}

/// A request that is not durable yet.
fn buffered(state: &State, position: Position) -> Result<Request, ReadError> {
    match state.buffered(position.0).map(|pending| &pending.content) {
        Some(Content::Record(Record::Request(request))) => Ok(Request {
            payload: Bytes::clone(&request.payload),
            ..request.clone()
        }),
        _ => Err(ReadError::NoRequest(position)),
    }
}

/// The thread that commits.
fn run(shared: &Shared) {
    /// However the thread ends, all waits for it end.
    struct Close<'a>(&'a Shared);
    impl Drop for Close<'_> {
        fn drop(&mut self) {
            self.0.lock().is_closed = true;
            self.0.progress.notify_all();
        }
    }
    let _close = Close(shared);
    let mut retry = RETRY_FIRST;
    // What an earlier process left finished goes now.
    let mut result = shared.commit();
    loop {
        let mut state = shared.lock();
        if result.is_err() {
            let waited = shared.work.wait_timeout_while(state, retry, |state| {
                let is_early = state.takes_early && state.has_early();
                !state.is_closed && !is_early
            });
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            retry = (retry * 2).min(RETRY_MOST);
        } else {
            retry = RETRY_FIRST;
            let waited = shared
                .work
                .wait_while(state, |state| state.buffer.is_empty() && !state.is_closed);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            // More may arrive in a moment, and share the sync.
            let waited =
                shared
                    .work
                    .wait_timeout_while(state, shared.options.commit_wait, |state| {
                        !state.is_closed && state.buffered_bytes < shared.options.buffer_bytes / 2
                    });
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let is_closed = state.is_closed;
        drop(state);
        result = shared.commit();
        if is_closed {
            return;
        }
    }
}
