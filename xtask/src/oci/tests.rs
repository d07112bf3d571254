use super::*;

fn image(layers: Vec<Tree>) -> Image {
    Image {
        name: "spanloom.test/app:1".to_owned(),
        layers,
        entrypoint: vec!["/app".to_owned()],
        environment: vec!["A=b".to_owned()],
        user: "65532:65532".to_owned(),
        folder: "/".to_owned(),
        labels: vec![("x".to_owned(), "y".to_owned())],
    }
}

fn tree(folder: &Path) -> Tree {
    let source = folder.join("source");
    std::fs::write(&source, "a program").unwrap();
    let mut tree = Tree::default();
    tree.bytes("/etc/passwd", "nobody");
    tree.copy("/usr/bin/app", &source).unwrap();
    tree.link("/app", "usr/bin/app");
    tree.folder("/data", 0o755, 65532);
    tree
}

#[test]
fn an_archive_holds_what_its_documents_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.tar");
    let digest = write(&image(vec![tree(folder.path())]), &path).unwrap();

    let files = files(&path);
    let blob = |digest: &str| {
        let digest = digest.trim_start_matches("sha256:");
        let bytes = &files[&format!("blobs/sha256/{digest}")];
        assert_eq!(hex(&Sha256::digest(bytes)), digest);
        bytes
    };
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let entry = &index["manifests"][0];
    assert_eq!(entry["digest"], format!("sha256:{digest}"));
    assert_eq!(
        entry["annotations"]["io.containerd.image.name"],
        "spanloom.test/app:1"
    );
    let manifest: Value = serde_json::from_slice(blob(&digest)).unwrap();
    let config: Value =
        serde_json::from_slice(blob(manifest["config"]["digest"].as_str().unwrap())).unwrap();
    assert_eq!(config["config"]["User"], "65532:65532");
    let layer = &manifest["layers"][0];
    assert_eq!(config["rootfs"]["diff_ids"][0], layer["digest"]);
    let bytes = blob(layer["digest"].as_str().unwrap());
    assert_eq!(layer["size"], bytes.len());

    let mut layer = tar::Archive::new(bytes.as_slice());
    let names: Vec<_> = layer
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    let expected = [
        "app",
        "data/",
        "etc/",
        "etc/passwd",
        "usr/",
        "usr/bin/",
        "usr/bin/app",
    ];
    assert_eq!(names, expected);
}

#[test]
fn the_same_files_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let path = folder.path().join(name);
        write(&image(vec![tree(folder.path())]), &path).unwrap();
        std::fs::read(path).unwrap()
    };
    assert_eq!(make("a.tar"), make("b.tar"));
}

/// The files of an archive.
fn files(path: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(File::open(path).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        (name, bytes)
    });
    entries.collect()
}

/// The same archive, as a machine of another architecture would make it.
fn made_elsewhere(path: &Path, elsewhere: &Path) {
    let other = match architecture().unwrap() {
        "amd64" => "arm64",
        _ => "amd64",
    };
    let mut files = files(path);
    let mut index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    index["manifests"][0]["platform"]["architecture"] = json!(other);
    // Another manifest, of the same layers.
    let key = |digest: &Value| {
        let digest = digest.as_str().unwrap().trim_start_matches("sha256:");
        format!("blobs/sha256/{digest}")
    };
    let mut manifest = files
        .remove(&key(&index["manifests"][0]["digest"]))
        .unwrap();
    manifest.push(b' ');
    let blob = Blob::of(&manifest);
    index["manifests"][0]["digest"] = json!(format!("sha256:{}", blob.digest));
    index["manifests"][0]["size"] = json!(blob.bytes);
    archive(elsewhere, &index, |archive| {
        append(archive, &blob.path(), &manifest)?;
        for (name, bytes) in files.iter().filter(|(name, _)| name.starts_with("blobs/")) {
            append(archive, name, bytes)?;
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn archives_of_two_architectures_become_one() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (folder.path().join("a.tar"), folder.path().join("b.tar"));
    let digest = write(&image(vec![tree(folder.path())]), &here).unwrap();
    made_elsewhere(&here, &there);
    let before = [files(&here), files(&there)];

    // Twice the same is a mistake, and leaves the archive as it was.
    let error = join::join(&[here.clone(), here.clone()], &here).unwrap_err();
    assert!(error.to_string().contains("as another one is"), "{error}");
    assert_eq!(files(&here), before[0]);

    let joined = join::join(&[here.clone(), there], &here).unwrap();
    let files = files(&here);
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let entry = &index["manifests"][0];
    assert_eq!(entry["digest"], format!("sha256:{joined}"));
    assert_eq!(entry["mediaType"], INDEX);
    assert_eq!(
        entry["annotations"]["io.containerd.image.name"],
        "spanloom.test/app:1"
    );
    let inner = &files[&format!("blobs/sha256/{joined}")];
    assert_eq!(hex(&Sha256::digest(inner)), joined);
    let inner: Value = serde_json::from_slice(inner).unwrap();
    let platforms = |index: &Value| -> Vec<String> {
        let manifests = index["manifests"].as_array().unwrap().iter();
        let names = manifests.map(|one| one["platform"]["architecture"].as_str().unwrap());
        names.map(str::to_owned).collect()
    };
    let mut both = platforms(&inner);
    both.sort();
    assert_eq!(both, ["amd64", "arm64"]);
    assert_eq!(inner["manifests"][0]["digest"], format!("sha256:{digest}"));
    let blobs = |files: &std::collections::BTreeMap<String, Vec<u8>>| {
        let names = files.keys().filter(|name| name.starts_with("blobs/"));
        names.cloned().collect::<std::collections::BTreeSet<_>>()
    };
    let expect: std::collections::BTreeSet<_> = before.iter().flat_map(blobs).collect();
    let found: std::collections::BTreeSet<_> = blobs(&files)
        .into_iter()
        .filter(|name| !name.ends_with(&joined))
        .collect();
    assert_eq!(found, expect);

    // What is joined is not of one architecture any more.
    let error = join::join(&[here.clone(), here.clone()], &here).unwrap_err();
    assert!(format!("{error:#}").contains("one platform"), "{error:#}");
}
