//! What earlier starts found to be damaged or lost, so that it is counted once: what is missing stays missing
//! until the segments around it go.
//!
//! The file `told` has a line for each finding, as people read it. It is as the last start found things.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use crate::disk::{Access, Disk};
use crate::finding::Finding;
use crate::names::TOLD;
use crate::scan::read_up_to;
use crate::writer::remove;

/// What is remembered at most.
const MOST_BYTES: usize = 64 * 1024;

/// Marks findings that were told before, and remembers those of now. Nothing but that is lost if the disk fails.
pub(crate) fn remember(disk: &dyn Disk, folder: &Path, findings: &mut [Finding]) {
    let before = read(disk, folder).unwrap_or_default();
    let known: HashSet<&str> = before.lines().collect();
    let mut now = String::new();
    for finding in findings {
        if finding.problem.lost_records() == 0 && finding.problem.damaged_bytes() == 0 {
            continue;
        }
        let line = line(finding);
        if known.contains(&*line) {
            finding.is_new = false;
        }
        if now.len() + line.len() < MOST_BYTES {
            now.push_str(&line);
            now.push('\n');
        }
    }
    if now != before {
        let _ = write(disk, folder, &now);
    }
}

fn line(finding: &Finding) -> String {
    let name = finding.path.file_name().unwrap_or_default();
    format!("{}: {}", name.to_string_lossy(), finding.problem).replace('\n', " ")
}

fn read(disk: &dyn Disk, folder: &Path) -> io::Result<String> {
    let file = disk.open(&folder.join(TOLD), Access::Read)?;
    let mut bytes = vec![0; MOST_BYTES];
    let length = read_up_to(&*file, &mut bytes, 0)?;
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A crash on the way leaves less than all of it: then that is told again.
fn write(disk: &dyn Disk, folder: &Path, text: &str) -> io::Result<()> {
    let path = folder.join(TOLD);
    remove(disk, &path)?;
    if !text.is_empty() {
        let mut file = disk.create(&path)?;
        file.write_at(text.as_bytes(), 0)?;
        file.sync()?;
    }
    disk.sync_folder(folder)
}
