//! Why a program ends, where Kubernetes looks for it: the state of the container then has it, in plain words.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// The file that the kubelet makes for each container (`terminationMessagePath`).
const FILE: &str = "/dev/termination-log";

/// More than this is cut off by the kubelet.
const MAX_BYTES: usize = 4096;

/// Says why the program ends. Outside a container, where there is no such file, this does nothing.
pub fn termination_message(text: &str) {
    write(Path::new(FILE), text);
}

fn write(file: &Path, text: &str) {
    let end = text.floor_char_boundary(MAX_BYTES);
    let text = text.get(..end).unwrap_or_default();
    // Never created here: only the kubelet reads it.
    let written = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(file)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    if let Err(error) = written {
        tracing::debug!(%error, "no termination message was written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_that_is_there_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("termination-log");
        write(&file, "nobody reads it");
        assert!(!file.exists());
        for text in ["an earlier message", "why", &"é".repeat(MAX_BYTES)] {
            std::fs::write(&file, "before").unwrap();
            write(&file, text);
            let found = std::fs::read_to_string(&file).unwrap();
            assert!(found.len() <= MAX_BYTES && text.starts_with(&found));
            assert!(!found.is_empty());
        }
    }
}
