//! What the sidecar keeps for its container's restart: the last good configuration, and the authorities to trust.
//! Files in a folder of the pod's own. Where it cannot be written, the environment is all there is at the next
//! start.

use std::path::{Path, PathBuf};

/// The last good configuration.
pub const CONFIG: &str = "config.json";
/// The authorities.
pub const CA: &str = "ca.pem";

/// A file of this kind that is larger is not ours.
const MAX_BYTES: u64 = 1 << 20;

/// The folder; none: nothing is kept.
#[derive(Debug, Clone, Default)]
pub struct State(Option<PathBuf>);

impl State {
    /// What is in this folder.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self(folder)
    }

    /// What was kept under this name.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.0.as_ref()?.join(name);
        let length = std::fs::metadata(&path).ok()?.len();
        (length <= MAX_BYTES)
            .then(|| std::fs::read(&path).ok())
            .flatten()
    }

    /// Keeps it; the file always has all of one content.
    pub fn write(&self, name: &str, content: &[u8]) {
        let Some(folder) = &self.0 else {
            return;
        };
        if let Err(error) = replace(folder, name, content) {
            tracing::warn!(%error, file = name, "cannot keep this for a restart of the container");
        }
    }
}

fn replace(folder: &Path, name: &str, content: &[u8]) -> std::io::Result<()> {
    let new = folder.join(format!("{name}.new"));
    std::fs::write(&new, content)?;
    std::fs::rename(new, folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_there_again_and_no_folder_is_no_fault() {
        let folder =
            std::env::temp_dir().join(format!("spanloom-state-{:x}", rand::random::<u64>()));
        std::fs::create_dir(&folder).unwrap();
        let state = State::new(Some(folder.clone()));
        assert_eq!(state.read(CONFIG), None);
        state.write(CONFIG, b"one");
        state.write(CONFIG, b"two");
        assert_eq!(state.read(CONFIG).as_deref(), Some(&b"two"[..]));
        std::fs::remove_dir_all(folder).unwrap();
        state.write(CONFIG, b"three");
        assert_eq!(state.read(CONFIG), None);
        State::default().write(CA, b"x");
    }
}
