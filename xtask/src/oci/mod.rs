//! Container images without a container engine: an OCI archive is a tar of a few JSON documents and
//! of layers, which are tars themselves.
//!
//! [`tree`] is a layer's files; here is what makes an image of layers. The same files give the same
//! bytes: entries are sorted, and no time, owner or name of this machine is in them.

pub mod join;
pub mod libraries;
pub mod tree;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use tree::Tree;

/// What a container of the image starts as.
#[derive(Debug, Clone)]
pub struct Image {
    /// The full name, with host and tag.
    pub name: String,
    /// From the base upwards.
    pub layers: Vec<Tree>,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// `uid:gid`.
    pub user: String,
    /// Where it starts.
    pub folder: String,
    /// What is said about it: title, licence.
    pub labels: Vec<(String, String)>,
}

/// A blob's digest and length.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Blob {
    digest: String,
    bytes: u64,
}

impl Blob {
    fn of(bytes: &[u8]) -> Self {
        Self {
            digest: hex(&Sha256::digest(bytes)),
            bytes: bytes.len() as u64,
        }
    }

    fn describe(&self, media_type: &str) -> Value {
        json!({
            "mediaType": media_type,
            "digest": format!("sha256:{}", self.digest),
            "size": self.bytes,
        })
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }
}

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The machine's architecture, as images name it.
///
/// # Errors
/// When this program was built for one that images have no name for.
pub fn architecture() -> anyhow::Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => anyhow::bail!("images are made for amd64 and arm64, not for {other}"),
    }
}

/// Writes the archive and gives the manifest's digest.
///
/// # Errors
/// When a file of a layer cannot be read, or changes meanwhile, or the archive cannot be written.
pub fn write(image: &Image, path: &Path) -> anyhow::Result<String> {
    let layers: Vec<Blob> = image
        .layers
        .iter()
        .map(measure)
        .collect::<anyhow::Result<_>>()?;
    let config = config(image, &layers)?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": Blob::of(&config).describe(CONFIG),
        "layers": layers.iter().map(|layer| layer.describe(LAYER)).collect::<Vec<_>>(),
    }))?;
    let manifest_blob = Blob::of(&manifest);
    let mut entry = manifest_blob.describe(MANIFEST);
    let tag = image.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    entry["annotations"] = json!({
        "io.containerd.image.name": image.name,
        "org.opencontainers.image.ref.name": tag,
    });
    entry["platform"] = json!({"os": "linux", "architecture": architecture()?});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});

    archive(path, &index, |archive| {
        append(archive, &Blob::of(&config).path(), &config)?;
        append(archive, &manifest_blob.path(), &manifest)?;
        let mut written: Vec<&Blob> = Vec::new();
        for (tree, blob) in image.layers.iter().zip(&layers) {
            if !written.contains(&blob) {
                append_layer(archive, tree, blob)?;
                written.push(blob);
            }
        }
        Ok(())
    })?;
    Ok(manifest_blob.digest)
}

type Archive = tar::Builder<BufWriter<File>>;

/// Writes an archive with this `index.json`, and with what `blobs` appends.
fn archive(
    path: &Path,
    index: &Value,
    blobs: impl FnOnce(&mut Archive) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // Renamed when whole: a broken-off archive is none.
    let fresh = path.with_extension("tar.new");
    let file = File::create(&fresh).with_context(|| format!("cannot write {}", fresh.display()))?;
    let mut archive = tar::Builder::new(BufWriter::with_capacity(1 << 20, file));
    append(
        &mut archive,
        "oci-layout",
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    append(&mut archive, "index.json", &serde_json::to_vec(index)?)?;
    blobs(&mut archive)?;
    archive.into_inner()?.flush()?;
    std::fs::rename(&fresh, path).with_context(|| format!("cannot make {}", path.display()))
}

fn config(image: &Image, layers: &[Blob]) -> anyhow::Result<Vec<u8>> {
    let digests: Vec<_> = layers
        .iter()
        .map(|layer| format!("sha256:{}", layer.digest))
        .collect();
    let labels: serde_json::Map<String, Value> = image
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    Ok(serde_json::to_vec(&json!({
        "created": "1970-01-01T00:00:00Z",
        "os": "linux",
        "architecture": architecture()?,
        "config": {
            "User": image.user,
            "Entrypoint": image.entrypoint,
            "Env": image.environment,
            "WorkingDir": image.folder,
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": digests},
    }))?)
}

fn header(path: &str, bytes: u64) -> anyhow::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(path)?;
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(header)
}

fn append<W: Write>(archive: &mut tar::Builder<W>, path: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let header = header(path, bytes.len() as u64)?;
    archive
        .append(&header, bytes)
        .with_context(|| format!("cannot write {path} into the archive"))
}

/// The layer goes through twice: its length and digest come before it. A large one need not be
/// kept anywhere then.
fn append_layer<W: Write>(
    archive: &mut tar::Builder<W>,
    tree: &Tree,
    blob: &Blob,
) -> anyhow::Result<()> {
    let header = header(&blob.path(), blob.bytes)?;
    let out = archive.get_mut();
    out.write_all(header.as_bytes())?;
    let mut counted = Counter::new(&mut *out);
    tree.write(&mut counted)?;
    let again = counted.blob();
    ensure!(
        again == *blob,
        "a file of the image changed while it was read; try again"
    );
    let rest = (512 - blob.bytes % 512) % 512;
    out.write_all(&vec![0; usize::try_from(rest)?])?;
    Ok(())
}

fn measure(tree: &Tree) -> anyhow::Result<Blob> {
    let mut counted = Counter::new(std::io::sink());
    tree.write(&mut counted)?;
    Ok(counted.blob())
}

/// Hashes and counts what passes.
struct Counter<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Counter<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    fn blob(self) -> Blob {
        Blob {
            digest: hex(&self.hash.finalize()),
            bytes: self.bytes,
        }
    }
}

impl<W: Write> Write for Counter<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        if let Some(written_bytes) = bytes.get(..written) {
            self.hash.update(written_bytes);
        }
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
