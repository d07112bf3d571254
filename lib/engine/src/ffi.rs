//! libchdb's C interface, loaded at run time: the only unsafe code of this crate.
//!
//! What the rest of the crate relies on:
//!
//! - A [`Connection`] is used by one thread at a time and is closed when dropped. One that saw an
//!   error must not be used for another query: leftovers of the failed one would come back.
//! - Every connection is closed before the process ends, or it ends with [`exit_now`]: the
//!   library's destructors crash while a table is loaded.
#![allow(unsafe_code)]

use std::ffi::{CString, OsString, c_char, c_int, c_void};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Mutex;

/// What can go wrong before there is a query.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FfiError {
    /// The dynamic loader refused the library.
    #[error("cannot load {path}: {source}")]
    Load {
        /// The library.
        path: PathBuf,
        /// What the loader said.
        source: libloading::Error,
    },
    /// `chdb_connect` returned nothing; the text is what it wrote to stderr.
    #[error("the engine did not open its data: {0}")]
    Connect(String),
    /// The operating system refused something.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

type ConnectFn = unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut *mut c_void;
type CloseFn = unsafe extern "C" fn(*mut *mut c_void);
type QueryFn = unsafe extern "C" fn(
    *mut c_void,
    *const c_char,
    usize,
    *const c_char,
    usize,
    *const *const c_char,
    *const usize,
    *const *const c_char,
    *const usize,
    usize,
) -> *mut c_void;
type BufferFn = unsafe extern "C" fn(*mut c_void) -> *const c_char;
type NumberFn = unsafe extern "C" fn(*mut c_void) -> u64;
type DestroyFn = unsafe extern "C" fn(*mut c_void);
type SignalsFn = unsafe extern "C" fn(c_int);

/// The loaded library. Lives as long as the process: it is never unloaded.
pub(crate) struct Chdb {
    connect: ConnectFn,
    close: CloseFn,
    query: QueryFn,
    buffer: BufferFn,
    error: BufferFn,
    length: NumberFn,
    rows_read: NumberFn,
    bytes_read: NumberFn,
    rows_written: NumberFn,
    bytes_written: NumberFn,
    destroy: DestroyFn,
    /// Opening and closing connections is not known to be safe from many threads at once.
    open: Mutex<()>,
}

impl Chdb {
    /// Loads the library and switches its signal handlers off.
    pub(crate) fn load(path: &Path) -> Result<&'static Chdb, FfiError> {
        let failed = |source| FfiError::Load {
            path: path.to_owned(),
            source,
        };
        // SAFETY: loading runs the library's initialisers; it is the file whose digest was checked
        // when it was fetched, or one that the person who set the override chose.
        let library = unsafe { libloading::Library::new(path) }.map_err(failed)?;
        macro_rules! symbol {
            ($name:literal as $kind:ty) => {{
                // SAFETY: the types are those of the header of this version (26.x), and the
                // pointer stays valid because the library is leaked below.
                *unsafe { library.get::<$kind>($name) }.map_err(failed)?
            }};
        }
        let chdb = Chdb {
            connect: symbol!(b"chdb_connect\0" as ConnectFn),
            close: symbol!(b"chdb_close_conn\0" as CloseFn),
            query: symbol!(b"chdb_query_with_params_n\0" as QueryFn),
            buffer: symbol!(b"chdb_result_buffer\0" as BufferFn),
            error: symbol!(b"chdb_result_error\0" as BufferFn),
            length: symbol!(b"chdb_result_length\0" as NumberFn),
            rows_read: symbol!(b"chdb_result_storage_rows_read\0" as NumberFn),
            bytes_read: symbol!(b"chdb_result_storage_bytes_read\0" as NumberFn),
            rows_written: symbol!(b"chdb_result_rows_written\0" as NumberFn),
            bytes_written: symbol!(b"chdb_result_bytes_written\0" as NumberFn),
            destroy: symbol!(b"chdb_destroy_query_result\0" as DestroyFn),
            open: Mutex::new(()),
        };
        let signals = symbol!(b"chdb_set_signal_handlers_enabled\0" as SignalsFn);
        // SAFETY: takes a flag, and is called before the first connection, as it asks.
        unsafe { signals(0) };
        std::mem::forget(library);
        Ok(Box::leak(Box::new(chdb)))
    }

    /// Opens a connection. The first one opens the data folder; the settings of the server in
    /// `arguments` count only there.
    pub(crate) fn connect(&'static self, arguments: &[OsString]) -> Result<Connection, FfiError> {
        let mut owned = vec![c"chdb".to_owned()];
        for argument in arguments {
            owned.push(CString::new(argument.clone().into_vec()).map_err(|_| {
                FfiError::Connect(format!("a zero byte in the argument {argument:?}"))
            })?);
        }
        let mut pointers: Vec<*mut c_char> = owned
            .iter()
            .map(|a| a.as_ptr().cast_mut())
            .chain([ptr::null_mut()])
            .collect();
        let count = c_int::try_from(owned.len()).unwrap_or(c_int::MAX);
        let _one_at_a_time = self.open.lock().unwrap_or_else(|e| e.into_inner());
        // SAFETY: `pointers` is an argv: `count` zero-ended strings and a null, all alive here;
        // the library copies what it keeps.
        let raw = unsafe { (self.connect)(count, pointers.as_mut_ptr()) };
        // SAFETY: a non-null result points at the connection.
        if raw.is_null() || unsafe { *raw }.is_null() {
            return Err(FfiError::Connect(
                "the reason is on its standard error".to_owned(),
            ));
        }
        Ok(Connection { chdb: self, raw })
    }
}

/// What a finished statement left behind.
#[derive(Debug, Default, Clone)]
pub(crate) struct Finished {
    /// What the statement printed, when it did not write into a file.
    pub(crate) output: Vec<u8>,
    /// Rows read from storage.
    pub(crate) rows_read: u64,
    /// Bytes read from storage.
    pub(crate) bytes_read: u64,
    /// Rows written, those of materialised views included.
    pub(crate) rows_written: u64,
    /// Bytes written.
    pub(crate) bytes_written: u64,
}

/// One connection to the engine: its settings, its current database, its temporary tables.
pub(crate) struct Connection {
    chdb: &'static Chdb,
    raw: *mut *mut c_void,
}

// SAFETY: the library lets any thread use a connection, one at a time; `&mut self` on every call
// ensures that.
unsafe impl Send for Connection {}

impl Connection {
    /// Runs one statement; `Err` is the engine's own text (`Code: N. DB::Exception: …`).
    pub(crate) fn query(
        &mut self,
        sql: &[u8],
        format: &str,
        parameters: &[(String, String)],
    ) -> Result<Finished, String> {
        let names: Vec<*const c_char> = parameters
            .iter()
            .map(|(name, _)| name.as_ptr().cast())
            .collect();
        let name_lengths: Vec<usize> = parameters.iter().map(|(name, _)| name.len()).collect();
        let values: Vec<*const c_char> = parameters
            .iter()
            .map(|(_, value)| value.as_ptr().cast())
            .collect();
        let value_lengths: Vec<usize> = parameters.iter().map(|(_, value)| value.len()).collect();
        let chdb = self.chdb;
        // SAFETY: every pointer goes with its length and outlives the call; `raw` was checked
        // when the connection was opened and is closed only on drop.
        let result = unsafe {
            (chdb.query)(
                *self.raw,
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                names.as_ptr(),
                name_lengths.as_ptr(),
                values.as_ptr(),
                value_lengths.as_ptr(),
                parameters.len(),
            )
        };
        if result.is_null() {
            return Err("Code: 1002. DB::Exception: the engine gave no result. \
                        (UNKNOWN_EXCEPTION)"
                .to_owned());
        }
        // SAFETY: `result` is alive until destroyed; the error is a zero-ended string and the
        // buffer has the stated length.
        unsafe {
            let error = (chdb.error)(result);
            let outcome = if error.is_null() || *error == 0 {
                let length = usize::try_from((chdb.length)(result)).unwrap_or(0);
                let buffer = (chdb.buffer)(result);
                Ok(Finished {
                    output: if buffer.is_null() || length == 0 {
                        Vec::new()
                    } else {
                        std::slice::from_raw_parts(buffer.cast::<u8>(), length).to_vec()
                    },
                    rows_read: (chdb.rows_read)(result),
                    bytes_read: (chdb.bytes_read)(result),
                    rows_written: (chdb.rows_written)(result),
                    bytes_written: (chdb.bytes_written)(result),
                })
            } else {
                Err(std::ffi::CStr::from_ptr(error)
                    .to_string_lossy()
                    .into_owned())
            };
            (chdb.destroy)(result);
            outcome
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _one_at_a_time = self.chdb.open.lock().unwrap_or_else(|e| e.into_inner());
        // SAFETY: `raw` came from `chdb_connect` and is closed once.
        unsafe { (self.chdb.close)(self.raw) };
    }
}

/// An anonymous file in memory, that the engine opens by its number under `/proc/self/fd`.
pub(crate) fn memory_file(name: &std::ffi::CStr) -> std::io::Result<File> {
    // SAFETY: the name is zero-ended; the number returned is a new descriptor of ours.
    let number = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if number < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: as above: nobody else owns it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Runs `work` with standard error going into memory, and returns what was written there. Why a
/// data folder does not open is said nowhere else. For use before other threads write to it.
pub(crate) fn with_captured_stderr<T>(work: impl FnOnce() -> T) -> std::io::Result<(T, String)> {
    let mut file = memory_file(c"stderr")?;
    // SAFETY: plain descriptor calls on numbers that are open.
    let saved = unsafe { libc::dup(libc::STDERR_FILENO) };
    if saved < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: `dup` returned a new descriptor of ours.
    let saved = unsafe { OwnedFd::from_raw_fd(saved) };
    // SAFETY: both are open descriptors.
    if unsafe { libc::dup2(file.as_raw_fd(), libc::STDERR_FILENO) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    let outcome = work();
    // SAFETY: both are open descriptors.
    unsafe { libc::dup2(saved.as_raw_fd(), libc::STDERR_FILENO) };
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(64 << 10).read_to_end(&mut text)?;
    Ok((outcome, String::from_utf8_lossy(&text).into_owned()))
}

/// Ends the process at once, without the destructors that crash inside the library.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: does not return and touches no memory.
    unsafe { libc::_exit(code) }
}
