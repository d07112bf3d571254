//! Any bytes can be a segment, the dead letters or the reserve of a log: it is opened, explained without a change, and takes
//! a request; what was recovered once is recovered again.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use spanloom_log::disk::simulated::{SimulatedClock, SimulatedDisk};
use spanloom_log::disk::{Access, Disk};
use spanloom_log::{
    Committer, DeadLetter, DeadLetterFile, Log, Options, Record, Recovered, Request, inspect_on,
};

const FOLDER: &str = "/log";
const NOW_MS: u64 = 1_800_000_000_000;
const NAMES: [&str; 3] = ["00000001.seg", "dead-letters", "reserve"];

fn open(disk: &SimulatedDisk) -> (Log, Recovered) {
    let clock = Arc::new(SimulatedClock::at(NOW_MS));
    let options = Options {
        committer: Committer::Caller,
        reserve_bytes: 4096,
        ..Options::default()
    };
    Log::open_on(Arc::new(disk.clone()), clock, Path::new(FOLDER), options)
        .expect("no damage is a reason")
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, content)) = bytes.split_first() else {
        return;
    };
    let Some(name) = NAMES.get(usize::from(*which)) else {
        return;
    };
    let (disk, path) = (SimulatedDisk::default(), Path::new(FOLDER).join(name));
    disk.create_folder(Path::new(FOLDER)).expect("a folder");
    let mut file = disk.create(&path).expect("a file");
    file.write_at(content, 0).expect("a write");
    file.sync().expect("a sync");
    disk.sync_folder(Path::new(FOLDER)).expect("a sync");

    let clock = SimulatedClock::at(NOW_MS);
    let _ = inspect_on(&disk, &clock, Path::new(FOLDER));
    let mut same = vec![0; content.len()];
    let read = disk.open(&path, Access::Read).expect("it is there");
    assert_eq!(read.read_at(&mut same, 0).expect("a read"), content.len());
    assert_eq!(same, content);

    let (log, recovered) = open(&disk);
    for request in &recovered.requests {
        let read = log
            .read(request.position)
            .expect("what was recovered can be read");
        assert_eq!(read.key, request.key);
    }
    let _ = log.read_dead_letters(|_| ());
    let file = DeadLetterFile::on(Arc::new(disk.clone()), Path::new(FOLDER));
    let letters = file.read().expect("the disk works");
    let (gone, left) = letters.split_at(letters.len() / 2);
    if file.replace(gone, &[]).is_ok() {
        let after = file.read().expect("the disk works");
        let is_gone = |letter: &DeadLetter| {
            let mut same = gone.iter().map(|gone| (gone.batch, &gone.rows));
            same.any(|name| name == (letter.batch, &letter.rows))
        };
        assert!(
            left.iter()
                .all(|letter| after.contains(letter) || is_gone(letter))
        );
    }
    let position = log
        .append(Record::Request(Request {
            key: 7,
            received_at_ms: 1,
            spans: 1,
            answer: Vec::new().into(),
            payload: vec![1].into(),
        }))
        .expect("there is room");
    log.commit().expect("the disk works");
    drop(log);

    let (log, again) = open(&disk);
    let before: Vec<_> = recovered.requests.iter().map(|it| it.position).collect();
    let mut after: Vec<_> = again.requests.iter().map(|it| it.position).collect();
    assert_eq!(after.pop(), Some(position));
    assert_eq!(after, before);
    assert_eq!(log.read(position).expect("it is there").key, 7);
});
