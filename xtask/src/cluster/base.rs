//! What a bare cluster lacks: its own images, DNS, and volumes to claim.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use super::go::Programs;
use super::layout::{COREDNS_IMAGE, DNS_IP, DOMAIN, Layout, NODES, PAUSE_IMAGE};
use super::{kubectl, process};
use crate::oci::{self, Image, tree::Tree};

/// How long DNS may take to answer.
const DNS_LIMIT: Duration = Duration::from_secs(180);

/// How many volumes wait to be claimed.
const VOLUMES: usize = 32;

/// What each of them says it holds.
const VOLUME_SIZE: &str = "100Gi";

/// The pause image and the DNS server's, as archives.
///
/// # Errors
/// When one cannot be written.
pub fn images(layout: &Layout, programs: &Programs) -> anyhow::Result<Vec<PathBuf>> {
    let folder = layout.part("images");
    std::fs::create_dir_all(&folder)?;
    let programs = [
        ("pause", PAUSE_IMAGE, "65535:65535"),
        ("coredns", COREDNS_IMAGE, "65532:65532"),
    ]
    .map(|(program, name, user)| (program, name, user, programs.path(program)));
    let mut archives = Vec::new();
    for (program, name, user, binary) in programs {
        let mut tree = Tree::default();
        tree.copy(&format!("/{program}"), &binary?)?;
        let image = Image {
            name: name.to_owned(),
            layers: vec![tree],
            entrypoint: vec![format!("/{program}")],
            environment: Vec::new(),
            user: user.to_owned(),
            folder: "/".to_owned(),
            labels: Vec::new(),
        };
        let path = folder.join(format!("{program}.tar"));
        oci::write(&image, &path)?;
        archives.push(path);
    }
    Ok(archives)
}

/// Applies DNS and volumes.
///
/// # Errors
/// When the API refuses something.
pub fn apply(layout: &Layout) -> anyhow::Result<()> {
    let template = include_str!("../../../e2e/cluster/coredns/coredns.yaml");
    let manifest = template
        .replace("${IMAGE}", COREDNS_IMAGE)
        .replace("${DNS_IP}", &DNS_IP.to_string())
        .replace("${DOMAIN}", DOMAIN);
    let path = layout.part("coredns.yaml");
    std::fs::write(&path, manifest)?;
    apply_file(layout, &path)?;
    let volumes = (0..VOLUMES).map(|index| volume(layout, index));
    let mut items = vec![storage_class()];
    items.extend(volumes.collect::<anyhow::Result<Vec<_>>>()?);
    apply_items(layout, &items)
}

/// Waits until the cluster's DNS answers.
///
/// # Errors
/// When it does not.
pub fn wait(layout: &Layout) -> anyhow::Result<()> {
    process::wait_until(layout, "the cluster's DNS", DNS_LIMIT, || {
        let arguments = [
            "--namespace=kube-system",
            "rollout",
            "status",
            "deployment/coredns",
            "--timeout=2s",
        ];
        kubectl::admin(layout, &arguments)
            .map(|_| ())
            .map_err(|error| format!("{error:#}"))
    })
}

/// Volumes that were claimed and given back become new ones.
///
/// # Errors
/// When the API refuses something.
pub fn renew_volumes(layout: &Layout) -> anyhow::Result<()> {
    let listed = kubectl::admin(layout, &["get", "persistentvolumes", "--output=json"])?;
    let listed: Value = serde_json::from_str(&listed)?;
    for item in listed["items"].as_array().into_iter().flatten() {
        let name = item["metadata"]["name"].as_str().unwrap_or_default();
        let Some(index) = name.strip_prefix("spanloom-").and_then(|n| n.parse().ok()) else {
            continue;
        };
        if item["status"]["phase"] == "Released" {
            kubectl::admin(layout, &["delete", "persistentvolume", name])?;
            let folder = volume_folder(layout, index);
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot empty {}", folder.display()))?;
            let fresh = volume(layout, index)?;
            apply_items(layout, &[fresh])?;
        }
    }
    Ok(())
}

fn storage_class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "standard",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    })
}

fn volume_folder(layout: &Layout, index: usize) -> PathBuf {
    layout.part("volumes").join(index.to_string())
}

/// Both nodes see this machine's files, so a volume may be used on either.
fn volume(layout: &Layout, index: usize) -> anyhow::Result<Value> {
    let folder = volume_folder(layout, index);
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let nodes = NODES.map(super::layout::Node::name);
    Ok(json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": format!("spanloom-{index}")},
        "spec": {
            "storageClassName": "standard",
            "capacity": {"storage": VOLUME_SIZE},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": folder},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{
                "key": "kubernetes.io/hostname",
                "operator": "In",
                "values": nodes,
            }]}]}},
        },
    }))
}

fn apply_items(layout: &Layout, items: &[Value]) -> anyhow::Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let path = layout.part("volumes.json");
    std::fs::write(&path, serde_json::to_vec(&list)?)?;
    apply_file(layout, &path)
}

fn apply_file(layout: &Layout, path: &std::path::Path) -> anyhow::Result<()> {
    let path = path.display().to_string();
    let arguments = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--filename",
        &path,
    ];
    kubectl::admin(layout, &arguments).map(|_| ())
}
