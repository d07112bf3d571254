//! User and password: fixed, or in two files that are read again when they change.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::AccessError;

/// The file with the user in a folder of [`Credentials::in_folder`].
pub const USER_FILE: &str = "username";
/// The file with the password.
pub const PASSWORD_FILE: &str = "password";

/// How often the files are looked at, at most.
const INTERVAL: Duration = Duration::from_secs(1);
/// A longer file holds something else.
const MAX_BYTES: u64 = 64 << 10;

/// User and password.
pub struct Credentials(Source);

enum Source {
    Fixed(Login),
    Folder {
        folder: PathBuf,
        state: Mutex<State>,
    },
}

#[derive(Clone, PartialEq, Eq)]
struct Login {
    user: String,
    password: String,
}

struct State {
    login: Login,
    /// Of what `login` was read.
    stamp: Stamp,
    looked: Instant,
    /// What was logged last, so that it is logged once.
    complaint: Option<String>,
}

/// What tells the files from others without reading them. Links are followed: Kubernetes changes a mounted
/// Secret by swapping one.
type Stamp = [Option<(u64, u64, i64, i64, i64, i64)>; 2];

impl Credentials {
    /// These, for good.
    pub fn fixed(user: String, password: String) -> Self {
        Self(Source::Fixed(Login { user, password }))
    }

    /// Those in the files `username` and `password` of a folder. They are looked at when somebody asks, at
    /// most once a second; while they cannot be read, the last ones hold.
    ///
    /// # Errors
    /// When they cannot be read now.
    pub fn in_folder(folder: PathBuf) -> Result<Self, AccessError> {
        // Taken first: a change in between is seen later and not missed.
        let stamp = stamp(&folder);
        let state = State {
            login: read(&folder)?,
            stamp,
            looked: Instant::now(),
            complaint: None,
        };
        let state = Mutex::new(state);
        Ok(Self(Source::Folder { folder, state }))
    }

    /// User and password as they are now.
    pub fn now(&self) -> (String, String) {
        let login = match &self.0 {
            Source::Fixed(login) => login.clone(),
            Source::Folder { folder, state } => {
                // What is set under it is set in whole values.
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.looked.elapsed() >= INTERVAL {
                    state.looked = Instant::now();
                    state.refresh(folder);
                }
                state.login.clone()
            }
        };
        (login.user, login.password)
    }
}

impl State {
    fn refresh(&mut self, folder: &Path) {
        let now = stamp(folder);
        if now == self.stamp {
            return;
        }
        match read(folder) {
            Ok(login) => {
                if login != self.login {
                    tracing::info!(folder = %folder.display(), "the credentials for ClickHouse were reloaded");
                }
                self.login = login;
                self.stamp = now;
                self.complaint = None;
            }
            Err(error) => {
                let complaint = error.to_string();
                if self.complaint.as_ref() != Some(&complaint) {
                    tracing::warn!(
                        complaint,
                        "cannot read the changed credentials; the last ones stay in use"
                    );
                    self.complaint = Some(complaint);
                }
            }
        }
    }
}

fn stamp(folder: &Path) -> Stamp {
    [USER_FILE, PASSWORD_FILE].map(|name| {
        let meta = std::fs::metadata(folder.join(name)).ok()?;
        Some((
            meta.ino(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        ))
    })
}

fn read(folder: &Path) -> Result<Login, AccessError> {
    let file = |name: &str| {
        let path = folder.join(name);
        text(&path).map_err(|source| AccessError::Credentials { path, source })
    };
    Ok(Login {
        user: file(USER_FILE)?,
        password: file(PASSWORD_FILE)?,
    })
}

/// A file's text. The line's end that editors and `kubectl create secret --from-file` leave is no part of it.
fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)?;
    if read as u64 > MAX_BYTES {
        let error = format!("it has more than {MAX_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    let end = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(end);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// The folder as a kubelet writes it: links to files below a link that is swapped.
    fn mount(folder: &Path, version: u32, password: &str) {
        let name = format!("..{version}");
        let data = folder.join(&name);
        fs::create_dir(&data).unwrap();
        fs::write(data.join(USER_FILE), "user\n").unwrap();
        fs::write(data.join(PASSWORD_FILE), password).unwrap();
        let temporary = folder.join("..data_tmp");
        symlink(&name, &temporary).unwrap();
        fs::rename(&temporary, folder.join("..data")).unwrap();
        for name in [USER_FILE, PASSWORD_FILE] {
            let _ = symlink(Path::new("..data").join(name), folder.join(name));
        }
    }

    /// As if a second had passed since the last look.
    fn later(credentials: &Credentials) -> (String, String) {
        if let Source::Folder { state, .. } = &credentials.0 {
            state.lock().unwrap().looked -= INTERVAL;
        }
        credentials.now()
    }

    #[test]
    fn files_are_read_again_when_they_change() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Credentials::in_folder(folder.path().to_owned());
        let missing = missing.err().unwrap().to_string();
        assert!(missing.contains("username"), "{missing}");
        mount(folder.path(), 1, "old\r\n");
        let credentials = Credentials::in_folder(folder.path().to_owned()).unwrap();
        let expect = |password: &str| ("user".to_owned(), password.to_owned());
        assert_eq!(credentials.now(), expect("old"));
        mount(folder.path(), 2, "new");
        assert_eq!(credentials.now(), expect("old"), "not looked at yet");
        assert_eq!(later(&credentials), expect("new"));
        // What cannot be read changes nothing.
        fs::remove_file(folder.path().join("..data")).unwrap();
        assert_eq!(later(&credentials), expect("new"));
        mount(folder.path(), 3, &"x".repeat(MAX_BYTES as usize + 1));
        assert_eq!(later(&credentials), expect("new"));
        mount(folder.path(), 4, "");
        assert_eq!(later(&credentials), expect(""));
    }
}
