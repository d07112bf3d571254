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

    let mut files = std::collections::HashMap::new();
    let mut archive = tar::Archive::new(File::open(&path).unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        files.insert(name, bytes);
    }
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
