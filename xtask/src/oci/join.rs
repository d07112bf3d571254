//! One archive of several, each of the same image for another architecture: what a registry then serves
//! under one name.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::{Blob, INDEX, append, archive};

/// Joins the archives that [`super::write`] made, and gives the digest of what they have become. `path` may
/// be one of them.
///
/// # Errors
/// When an archive cannot be read or was not made so, when they are of different images, or when two are for
/// the same architecture.
pub fn join(parts: &[PathBuf], path: &Path) -> anyhow::Result<String> {
    let mut manifests = Vec::new();
    let mut annotations = Value::Null;
    let mut platforms = BTreeSet::new();
    for part in parts {
        let of = || format!("cannot use {}", part.display());
        let mut manifest = only_manifest(part).with_context(of)?;
        let said = manifest["annotations"].take();
        if let Some(fields) = manifest.as_object_mut() {
            fields.remove("annotations");
        }
        ensure!(
            annotations.is_null() || annotations == said,
            "{} is of another image",
            part.display()
        );
        annotations = said;
        let platform = manifest["platform"].to_string();
        ensure!(
            platforms.insert(platform.clone()),
            "{} is for {platform}, as another one is",
            part.display()
        );
        manifests.push(manifest);
    }
    let joined = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let joined = serde_json::to_vec(&joined)?;
    let blob = Blob::of(&joined);
    let mut entry = blob.describe(INDEX);
    entry["annotations"] = annotations;
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    archive(path, &index, |archive| {
        append(archive, &blob.path(), &joined)?;
        let mut written = BTreeSet::new();
        for part in parts {
            let mut from = open(part)?;
            for entry in from.entries()? {
                let entry = entry?;
                let name = entry.path()?.display().to_string();
                if name.starts_with("blobs/") && written.insert(name) {
                    let header = entry.header().clone();
                    archive.append(&header, entry)?;
                }
            }
        }
        Ok(())
    })?;
    Ok(blob.digest)
}

fn open(path: &Path) -> anyhow::Result<tar::Archive<BufReader<File>>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(tar::Archive::new(BufReader::with_capacity(1 << 20, file)))
}

fn only_manifest(path: &Path) -> anyhow::Result<Value> {
    for entry in open(path)?.entries()? {
        let mut entry = entry?;
        if entry.path()?.as_os_str() != "index.json" {
            continue;
        }
        let mut text = String::new();
        entry.read_to_string(&mut text)?;
        let mut index: Value = serde_json::from_str(&text)?;
        let manifests = index["manifests"].as_array_mut().map(std::mem::take);
        let mut manifests = manifests.unwrap_or_default().into_iter();
        return match (manifests.next(), manifests.next()) {
            (Some(manifest), None) if manifest["platform"].is_object() => Ok(manifest),
            _ => bail!("it is not of one image for one platform"),
        };
    }
    bail!("it has no index.json")
}
