//! Fetching, with a program that stands in for npm.

use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use super::*;

/// A package with a library of a few bytes, and an npm that gives it.
struct Fake {
    folder: tempfile::TempDir,
    package: &'static Package,
    lines: Mutex<Vec<String>>,
}

impl Fake {
    fn new(member: &str) -> Fake {
        let folder = tempfile::tempdir().unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(7);
        header.set_mode(0o755);
        tar.append_data(&mut header, member, &b"library"[..])
            .unwrap();
        let tar = tar.into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let archive = gzip.finish().unwrap();
        std::fs::write(folder.path().join("source"), &archive).unwrap();
        let digest = base64::engine::general_purpose::STANDARD.encode(Sha512::digest(&archive));
        let package = Box::leak(Box::new(Package {
            os: "",
            arch: "",
            name: "fake",
            digest: digest.leak(),
        }));
        Fake {
            folder,
            package,
            lines: Mutex::new(Vec::new()),
        }
    }

    /// A program that stands in for npm.
    fn npm(&self, script: &str) -> PathBuf {
        let npm = self.folder.path().join("npm");
        let source = self.folder.path().join("source");
        let count = self.folder.path().join("count");
        let script = script
            .replace("SOURCE", &source.to_string_lossy())
            .replace("COUNT", &count.to_string_lossy());
        std::fs::write(&npm, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&npm, std::fs::Permissions::from_mode(0o755)).unwrap();
        npm
    }

    async fn run(&self, npm: &OsStr) -> Result<PathBuf, FetchError> {
        let cache = self.folder.path().join("cache");
        fetch(self.package, npm, &cache, |line| {
            self.lines.lock().unwrap().push(line.to_owned());
        })
        .await
    }
}

const GIVE: &str = "echo x >> COUNT; cp SOURCE \"$4/fake.tgz\"";

async fn fetched_once() {
    let fake = Fake::new("package/libchdb.so");
    let npm = fake.npm(GIVE);
    let (one, two) = tokio::join!(fake.run(npm.as_os_str()), fake.run(npm.as_os_str()));
    let path = one.unwrap();
    assert_eq!(path, two.unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), b"library");
    assert_eq!(
        std::fs::read_to_string(fake.folder.path().join("count")).unwrap(),
        "x\n"
    );
    let left: Vec<_> = std::fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "lock" && name != FILE)
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!fake.lines.lock().unwrap().is_empty());
}

async fn fails(member: &str, script: &str, expect: &str) {
    let fake = Fake::new(member);
    let npm = fake.npm(script);
    let error = fake.run(npm.as_os_str()).await.unwrap_err().to_string();
    assert!(error.contains(expect), "{script}: {error}");
}

async fn failures() {
    const LIBRARY: &str = "package/libchdb.so";
    fails(LIBRARY, "echo other > \"$4/fake.tgz\"", "SHA-512").await;
    fails(
        LIBRARY,
        "echo npm error code ENOTFOUND >&2; exit 1",
        "check the network connection",
    )
    .await;
    fails(
        LIBRARY,
        "echo npm error code E404 >&2; exit 1",
        "does not have it",
    )
    .await;
    fails(
        LIBRARY,
        "echo npm error code ENOSPC >&2; exit 1",
        "not enough disk space",
    )
    .await;
    fails(LIBRARY, "exit 0", "npm could not download").await;
    fails("package/other", GIVE, "does not contain libchdb.so").await;
    let fake = Fake::new(LIBRARY);
    let error = fake
        .run(OsStr::new("/no/such/npm"))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("install Node.js"), "{error}");
}

/// One test: a program that is being written cannot be started, and a process that another
/// test starts at that moment keeps the file open.
#[tokio::test]
async fn fetching() {
    fetched_once().await;
    failures().await;
}
