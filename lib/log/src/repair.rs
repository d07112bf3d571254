//! Makes a folder fit to go on with, after a survey: torn ends are cut, what cannot be read is kept aside,
//! and what was read is made durable. Nothing that fails here keeps the log from starting.

use std::io;
use std::path::Path;

use crate::aside::{Aside, Kept};
use crate::disk::{Access, Disk, write_zeros};
use crate::finding::{Finding, Problem};
use crate::format::SEGMENT_HEADER;
use crate::scan::{BadBytes, BadState};
use crate::survey::{Repair, Survey};

/// Does what the survey says.
pub(crate) fn repair(disk: &dyn Disk, folder: &Path, max_damaged_bytes: u64, survey: &mut Survey) {
    let mut aside = Aside::new(disk, folder, max_damaged_bytes);
    let mut failures = Vec::new();
    for step in std::mem::take(&mut survey.repairs) {
        let (Repair::KeepAside { finding, .. }
        | Repair::Cut { finding, .. }
        | Repair::Wipe { finding, .. }
        | Repair::SetAside { finding }
        | Repair::Remove { finding }) = &step;
        let Some(found) = survey.findings.get_mut(*finding) else {
            continue;
        };
        if let Err(error) = carry_out(disk, &mut aside, &step, found) {
            failures.push(not_repaired(&found.path, "repair", &error));
        }
    }
    sync(disk, folder, survey, &mut failures);
    if let Err(error) = aside.sync() {
        failures.push(not_repaired(folder, "sync the damaged bytes of", &error));
    }
    survey.findings.append(&mut failures);
}

fn carry_out(
    disk: &dyn Disk,
    aside: &mut Aside<'_>,
    step: &Repair,
    found: &mut Finding,
) -> io::Result<()> {
    match step {
        Repair::Remove { .. } => disk.remove(&found.path),
        Repair::SetAside { .. } => {
            let bytes = disk.open(&found.path, Access::Read)?.length()?;
            let kept = aside.take(&found.path, bytes)?;
            say(found, kept);
            Ok(())
        }
        // Nobody was told that these records are durable, and on a full disk a copy has no room.
        Repair::Wipe { bytes, .. } => {
            let mut file = disk.open(&found.path, Access::Write)?;
            write_zeros(&mut *file, bytes.start, bytes.end)
        }
        Repair::KeepAside { bytes, .. } => keep(aside, bytes, found),
        Repair::Cut { bytes, .. } => {
            // Kept or not: what is behind the end would only be found again.
            let kept = keep(aside, bytes, found);
            disk.open(&found.path, Access::Write)?
                .truncate(bytes.start)?;
            kept
        }
    }
}

fn keep(aside: &mut Aside<'_>, bytes: &BadBytes, found: &mut Finding) -> io::Result<()> {
    // Zeros tell nothing, and what the disk does not give cannot be copied.
    if bytes.state != BadState::Wrong {
        return Ok(());
    }
    let kept = aside.copy(&found.path, bytes.start, bytes.end)?;
    say(found, kept);
    Ok(())
}

fn say(found: &mut Finding, kept: Kept) {
    match kept {
        Kept::Now(path) => found.kept_in = Some(path),
        Kept::Before(path) => {
            found.kept_in = Some(path);
            found.is_new = false;
        }
        Kept::NoRoom => {}
    }
}

/// What was read may lie in the machine's memory only: its process was killed before it synced. Requests
/// whose repeats are answered from now on must not vanish with the machine.
fn sync(disk: &dyn Disk, folder: &Path, survey: &mut Survey, failures: &mut Vec<Finding>) {
    survey.segments.retain(|segment| {
        if segment.bytes <= SEGMENT_HEADER as u64 && disk.remove(&segment.path).is_ok() {
            return false;
        }
        let synced = disk
            .open(&segment.path, Access::Write)
            .and_then(|mut file| file.sync());
        if let Err(error) = synced {
            failures.push(not_repaired(&segment.path, "sync", &error));
        }
        true
    });
    if let Err(error) = disk.sync_folder(folder) {
        failures.push(not_repaired(folder, "sync the folder", &error));
    }
}

fn not_repaired(path: &Path, action: &str, error: &io::Error) -> Finding {
    Finding {
        path: path.to_owned(),
        problem: Problem::NotRepaired {
            error: format!("cannot {action} it: {error}; check the disk"),
        },
        kept_in: None,
        is_new: true,
    }
}
