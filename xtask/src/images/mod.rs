//! `cargo xtask images`: the programs' container images as OCI archives, and the chart values under
//! which an installation uses exactly these.
//!
//! [`programs`] is the table of what is built; [`demo`] makes the images that only scenarios use.

pub mod demo;
mod programs;

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use crate::oci;
use programs::{HAS_ENGINE, PROGRAMS, Program};

/// Where the chart's defaults say the images are.
const REGISTRY: &str = "ghcr.io/spanloom";

/// The flags of `cargo xtask images`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the archives and values.yaml are put
    #[arg(long, value_name = "DIR", default_value = "target/images")]
    out: PathBuf,
    /// How the programs are compiled; `debug` uses what tests have compiled already
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
    /// Make the demo apps' images, which only scenarios use, and nothing else
    #[arg(long)]
    demo: bool,
    /// A folder of archives that were made on a machine of another architecture; those in --out then hold
    /// the images of both. May be repeated
    #[arg(long, value_name = "DIR")]
    join: Vec<PathBuf>,
}

/// A profile of cargo's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Profile {
    /// Quick to compile, slow to run
    Debug,
    /// Near to release, but quick to link
    #[default]
    Fast,
    /// As released
    Release,
}

impl Profile {
    /// cargo's name for it, and its folder below `target`.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Debug => ("dev", "debug"),
            Self::Fast => ("fast", "fast"),
            Self::Release => ("release", "release"),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When a program cannot be built or an archive not written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let out = spanloom_e2e::workspace().join(&args.out);
    if args.demo {
        for archive in demo::make(&out)? {
            println!("{}", archive.display());
        }
        return Ok(());
    }
    for (program, archive) in make_programs(&out, args.profile)? {
        join(program, &archive, &args.join)?;
        println!("{}", archive.display());
    }
    println!("{}", values_path(&out).display());
    Ok(())
}

/// Puts the images of the same program that lie in other folders into its archive.
fn join(program: &Program, archive: &Path, folders: &[PathBuf]) -> anyhow::Result<()> {
    let name = archive.file_name().unwrap_or_default();
    let mut parts = vec![archive.to_owned()];
    for folder in folders {
        let other = folder.join(name);
        if other.exists() || !program.is_partial() {
            parts.push(other);
        }
    }
    if parts.len() > 1 {
        oci::join::join(&parts, archive)?;
    }
    Ok(())
}

/// Builds every program, writes every archive and `values.yaml`; gives the archives.
///
/// # Errors
/// When a program cannot be built or an archive not written.
pub fn make(out: &Path, profile: Profile) -> anyhow::Result<Vec<PathBuf>> {
    let made = make_programs(out, profile)?.into_iter();
    Ok(made.map(|(_, archive)| archive).collect())
}

fn make_programs(out: &Path, profile: Profile) -> anyhow::Result<Vec<(&'static Program, PathBuf)>> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let folder = programs::build(profile)?;
    let mut archives = Vec::new();
    for program in PROGRAMS.iter().filter(|program| program.is_for(profile)) {
        let path = out.join(format!("spanloom-{}.tar", program.name));
        let image = program
            .image(&folder)
            .with_context(|| format!("cannot make the image of {}", program.name))?;
        oci::write(&image, &path)?;
        archives.push((program, path));
    }
    let values = values();
    let path = values_path(out);
    std::fs::write(&path, values).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(archives)
}

/// Where the chart values are.
pub fn values_path(out: &Path) -> PathBuf {
    out.join("values.yaml")
}

/// The version of all images.
fn tag() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// The full name of a program's image.
fn image_name(program: &str) -> String {
    format!("{REGISTRY}/spanloom-{program}:{}", tag())
}

fn values() -> String {
    let mut values = json!({
        "images": {
            "registry": REGISTRY,
            "tag": tag(),
            "pullPolicy": "IfNotPresent",
        },
    });
    if HAS_ENGINE {
        values["clickhouse"] = json!({"image": image_name("engine")});
    }
    let json = serde_json::to_string_pretty(&values).unwrap_or_default();
    // JSON is YAML.
    format!(
        "# Chart values for the images that lie beside this file (cargo xtask images).\n{json}\n"
    )
}
