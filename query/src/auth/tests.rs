use prometheus_client::registry::Registry;

use super::*;

fn headers(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(header::AUTHORIZATION, value.parse().unwrap());
    }
    headers
}

/// The token that a request with these `Authorization` headers carries.
#[track_caller]
fn check_bearer(values: &[&str], expect: Option<&str>) {
    let headers = headers(values);
    let token = bearer(&headers).map(|token| String::from_utf8_lossy(token).into_owned());
    assert_eq!(token.as_deref(), expect, "{values:?}");
}

#[test]
fn authorization_headers() {
    check_bearer(&["Bearer abc"], Some("abc"));
    check_bearer(&["bearer abc"], Some("abc"));
    check_bearer(&["BEARER   a.b-c_d~e+f/g== "], Some("a.b-c_d~e+f/g=="));
    check_bearer(&[], None);
    check_bearer(&["abc"], None);
    check_bearer(&["Bearer"], None);
    check_bearer(&["Bearer "], None);
    check_bearer(&["Bearerabc"], None);
    check_bearer(&["Bearer a b"], None);
    check_bearer(&["Bearer a,b"], None);
    check_bearer(&["Basic abc"], None);
    check_bearer(&["Bearer abc", "Bearer abc"], None);
    check_bearer(&["Bearer \u{e9}"], None);
}

struct Folder {
    path: PathBuf,
    _kept: tempfile::TempDir,
}

fn folder(files: &[(&str, &str)]) -> Folder {
    let kept = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(kept.path().join(name), text).unwrap();
    }
    Folder {
        path: kept.path().to_owned(),
        _kept: kept,
    }
}

/// Which of these tokens the directory makes valid, and how much it complains.
#[track_caller]
fn check_files(files: &[(&str, &str)], valid: &[&str], invalid: &[&str], complaints: &[&str]) {
    let found = read(&folder(files).path);
    for (said, expect) in found.complaints.iter().zip(complaints) {
        assert!(said.contains(expect), "{said:?} does not say {expect:?}");
    }
    assert_eq!(
        found.complaints.len(),
        complaints.len(),
        "{:?}",
        found.complaints
    );
    let known = Known {
        digests: found.digests,
        said: Vec::new(),
        read: Instant::now(),
    };
    for token in valid {
        assert!(known.has(token.as_bytes()), "{token} is valid");
    }
    for token in invalid {
        assert!(!known.has(token.as_bytes()), "{token} is not valid");
    }
}

#[test]
fn files_of_tokens() {
    check_files(
        &[("token", "abc")],
        &["abc"],
        &["ab", "abcd", "", "ABC"],
        &[],
    );
    check_files(
        &[("grafana", "g1\n\n g2 \r\n"), ("people", "p1\n")],
        &["g1", "g2", "p1"],
        &["g1\n", " g2"],
        &[],
    );
    check_files(&[], &[], &[""], &["it contains no token"]);
    check_files(
        &[("token", "\n \n")],
        &[],
        &["", " "],
        &["it contains no token"],
    );
    check_files(
        &[("bad", "a b\nok"), ("good", "fine")],
        &["ok", "fine"],
        &["a", "a b"],
        &["bad:1 is ignored"],
    );
}

#[test]
fn too_many_tokens_are_said() {
    let many: String = (0..=TOKENS_MAX).map(|n| format!("t{n}\n")).collect();
    let last = format!("t{TOKENS_MAX}");
    check_files(
        &[("many", &many)],
        &["t0", "t999"],
        &[&last],
        &["at most 1000 tokens are allowed"],
    );
}

#[test]
fn what_cannot_be_read_holds_no_token() {
    let there = folder(&[("good", "fine")]);
    std::fs::write(there.path.join("binary"), [0xff, 0xfe]).unwrap();
    std::fs::create_dir(there.path.join("folder")).unwrap();
    std::os::unix::fs::symlink("nowhere", there.path.join("gone")).unwrap();
    std::fs::create_dir(there.path.join("..data")).unwrap();
    let found = read(&there.path);
    assert_eq!(found.digests.len(), 1);
    assert_eq!(found.complaints.len(), 3, "{:?}", found.complaints);

    let found = read(&there.path.join("not-there"));
    assert!(found.digests.is_empty());
    assert!(found.complaints[0].contains("cannot be read"));
}

/// As Kubernetes does it: a new folder, and one link that is swapped.
#[test]
fn a_swapped_link_is_seen_within_a_second() {
    let there = folder(&[]);
    let version = |name: &str, token: &str| {
        let folder = there.path.join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("token"), token).unwrap();
        let link = there.path.join("..data_tmp");
        std::os::unix::fs::symlink(name, &link).unwrap();
        std::fs::rename(&link, there.path.join("..data")).unwrap();
    };
    version("..1", "old");
    std::os::unix::fs::symlink("..data/token", there.path.join("token")).unwrap();
    let metrics = Metrics::register(&mut Registry::default());
    let tokens = Tokens::open(there.path.clone(), metrics);
    let (old, new) = (headers(&["Bearer old"]), headers(&["Bearer new"]));
    assert!(tokens.allow(&old) && !tokens.allow(&new));

    version("..2", "new");
    let begun = Instant::now();
    while !tokens.allow(&new) {
        assert!(begun.elapsed() < Duration::from_secs(60), "not read again");
        std::thread::yield_now();
    }
    assert!(!tokens.allow(&old));

    std::fs::remove_dir_all(&there.path).unwrap();
    while tokens.allow(&new) {
        assert!(begun.elapsed() < Duration::from_secs(60), "not refused");
        std::thread::yield_now();
    }
}

/// Links that lead to each other stand for a disk that fails: they are there and cannot be read.
#[test]
fn tokens_stay_valid_while_they_cannot_be_read() {
    let there = folder(&[("people", "first")]);
    let metrics = Metrics::register(&mut Registry::default());
    let mut known = Known {
        digests: BTreeSet::new(),
        said: Vec::new(),
        read: Instant::now(),
    };
    known.renew(&there.path, read(&there.path), &metrics);
    assert!(known.has(b"first"));

    let (one, other) = (there.path.join("people"), there.path.join("..other"));
    std::fs::remove_file(&one).unwrap();
    std::os::unix::fs::symlink(&other, &one).unwrap();
    std::os::unix::fs::symlink(&one, &other).unwrap();
    let found = read(&there.path);
    assert!(found.failed && found.digests.is_empty(), "{found:?}");
    known.renew(&there.path, found, &metrics);
    assert!(known.has(b"first"));

    // What is gone, or can be read again, counts.
    std::fs::remove_file(&one).unwrap();
    std::fs::write(&one, "second").unwrap();
    known.renew(&there.path, read(&there.path), &metrics);
    assert!(known.has(b"second") && !known.has(b"first"));
    std::fs::remove_file(&one).unwrap();
    known.renew(&there.path, read(&there.path), &metrics);
    assert!(!known.has(b"second"));
}
