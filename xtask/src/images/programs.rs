//! The programs, and what each image holds: the program, the libraries it needs, and nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::{Profile, image_name};
use crate::oci::tree::Tree;
use crate::oci::{Image, libraries};

/// The user of our own programs: the `nonroot` of minimal images.
const USER: u32 = 65_532;

/// ClickHouse's user, in its official image too: the volume belongs to it.
const CLICKHOUSE_USER: u32 = 101;

/// Where distributions keep the authorities that everybody trusts.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where the engine's image keeps the library, and how the program is told.
const LIBRARY: &str = "/usr/lib/libchdb.so";

/// Where programs for control runs are put aside, in the folder of the others.
const CONTROL_FOLDER: &str = "control";

/// One program.
pub struct Program {
    /// Its name in the image's.
    pub name: &'static str,
    /// The crate.
    package: &'static str,
    /// The crate's binary.
    binary: &'static str,
    about: &'static str,
    /// Arguments that come before those of the pod.
    arguments: &'static [&'static str],
    user: u32,
    /// Needs libchdb beside it.
    engine: bool,
    /// Its protections can be switched off, for control runs: only beside what tests have compiled.
    control: bool,
}

/// Whether there is an embedded ClickHouse for this architecture.
pub const HAS_ENGINE: bool = cfg!(target_arch = "x86_64");

/// Every image of the project.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "operator",
        package: "spanloom-operator",
        binary: "spanloom-operator",
        about: "Spanloom's operator",
        arguments: &[],
        user: USER,
        engine: false,
        control: false,
    },
    Program {
        name: "collector",
        package: "spanloom-collector",
        binary: "spanloom-collector",
        about: "Spanloom's collector",
        arguments: &[],
        user: USER,
        engine: false,
        control: false,
    },
    Program {
        name: "query",
        package: "spanloom-query",
        binary: "spanloom-query",
        about: "Spanloom's query service",
        arguments: &[],
        user: USER,
        engine: false,
        control: false,
    },
    Program {
        name: "engine",
        package: "spanloom-engine",
        binary: "spanloom-engine",
        about: "The embedded ClickHouse as a server",
        // Pods start it as they start ClickHouse's own image: without arguments.
        arguments: &["serve"],
        user: CLICKHOUSE_USER,
        engine: true,
        control: false,
    },
    Program {
        name: "collector-control",
        package: "spanloom-collector",
        binary: "spanloom-collector",
        about: "Spanloom's collector for control runs of tests: it may lose spans",
        arguments: &[],
        user: USER,
        engine: false,
        control: true,
    },
];

/// Compiles all of them; gives the folder they are in.
///
/// # Errors
/// When cargo fails.
pub fn build(profile: Profile) -> anyhow::Result<PathBuf> {
    let (name, folder) = profile.names();
    let folder = crate::test::target_dir().join(folder);
    let cargo = || {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--locked", "--profile", name]);
        cargo
    };
    for program in PROGRAMS.iter().filter(|program| program.control) {
        if program.is_for(profile) {
            // It has the name of the one without the feature, which is put in its place below.
            run(cargo().arg("--workspace").args(crate::test::CONTROL))?;
            let control = program.path(&folder);
            let made = folder.join(program.binary);
            std::fs::create_dir_all(folder.join(CONTROL_FOLDER))
                .and_then(|()| std::fs::copy(&made, &control))
                .with_context(|| format!("cannot copy {}", made.display()))?;
        }
    }
    let mut cargo = cargo();
    if profile == Profile::Debug {
        // The same features as the tests': nothing is compiled twice.
        cargo.args(["--workspace", "--all-targets"]);
    } else {
        for program in PROGRAMS.iter().filter(|program| !program.control) {
            cargo.args(["--package", program.package, "--bin", program.binary]);
        }
    }
    run(&mut cargo)?;
    Ok(folder)
}

fn run(cargo: &mut Command) -> anyhow::Result<()> {
    let status = cargo
        .current_dir(spanloom_e2e::workspace())
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "cargo build ended with {status}");
    Ok(())
}

impl Program {
    /// Whether there is an image of it when programs are compiled so, on this machine.
    pub fn is_for(&self, profile: Profile) -> bool {
        (!self.control || profile == Profile::Debug) && (!self.engine || HAS_ENGINE)
    }

    /// Whether there is an image of it for some architectures only.
    pub fn is_partial(&self) -> bool {
        self.engine
    }

    /// Where [`build`] has put it.
    fn path(&self, folder: &Path) -> PathBuf {
        match self.control {
            true => folder.join(CONTROL_FOLDER).join(self.binary),
            false => folder.join(self.binary),
        }
    }

    /// The image, of programs in `folder`.
    ///
    /// # Errors
    /// When the program or a library is missing.
    pub fn image(&self, folder: &Path) -> anyhow::Result<Image> {
        let mut layers = vec![self.base()];
        let mut environment = vec![format!("SSL_CERT_FILE={AUTHORITIES}")];
        if self.engine {
            let library = library()?;
            let mut tree = Tree::default();
            libraries::add_program(&mut tree, LIBRARY, &library)?;
            layers.push(tree);
            environment.push(format!("SPANLOOM_CHDB_LIB={LIBRARY}"));
        }
        let mut tree = Tree::default();
        let path = format!("/usr/bin/{}", self.binary);
        libraries::add_program(&mut tree, &path, &self.path(folder))?;
        layers.push(tree);
        let arguments = self.arguments.iter().map(|word| (*word).to_owned());
        Ok(Image {
            name: image_name(self.name),
            layers,
            entrypoint: std::iter::once(path).chain(arguments).collect(),
            environment,
            user: format!("{0}:{0}", self.user),
            folder: "/".to_owned(),
            labels: vec![
                (
                    "org.opencontainers.image.title".to_owned(),
                    self.about.to_owned(),
                ),
                (
                    "org.opencontainers.image.licenses".to_owned(),
                    "Apache-2.0".to_owned(),
                ),
                (
                    "org.opencontainers.image.version".to_owned(),
                    super::tag().to_owned(),
                ),
            ],
        })
    }

    /// What a program expects of any Linux.
    fn base(&self) -> Tree {
        let mut tree = base(self.user);
        if self.engine {
            tree.folder("/var/lib/clickhouse", 0o755, self.user);
        }
        tree
    }
}

/// Users, a folder for temporary files, trusted authorities.
pub fn base(user: u32) -> Tree {
    let mut tree = Tree::default();
    let passwd =
        format!("root:x:0:0:root:/:/sbin/nologin\nspanloom:x:{user}:{user}::/:/sbin/nologin\n");
    tree.bytes("/etc/passwd", passwd);
    tree.bytes("/etc/group", format!("root:x:0:\nspanloom:x:{user}:\n"));
    tree.bytes("/etc/nsswitch.conf", "hosts: files dns\n");
    tree.folder("/tmp", 0o1777, 0);
    // Where there is none, nothing public can be reached either.
    let _ = tree.copy(AUTHORITIES, Path::new(AUTHORITIES));
    tree
}

/// libchdb, from the cache or fetched now.
fn library() -> anyhow::Result<PathBuf> {
    if let Some(library) = spanloom_engine::library_cached() {
        return Ok(library);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let fetched = runtime.block_on(spanloom_engine::fetch::library(|line| println!("{line}")));
    fetched.context("cannot fetch the embedded ClickHouse")
}
