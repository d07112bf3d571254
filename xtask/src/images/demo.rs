//! Images that only scenarios use: this machine's own Python and Node with the official
//! OpenTelemetry SDKs, and small apps on them. There is nothing to pull them from.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use spanloom_e2e::clients;

use super::programs;
use crate::cluster::sh;
use crate::oci::tree::Tree;
use crate::oci::{self, Image, libraries};

/// The user of the apps.
const USER: u32 = 65_532;

/// Parts of Python's library that no app here uses, most of its size.
const PYTHON_UNUSED: &[&str] = &[
    "__pycache__",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
];

/// Makes them; gives the archives.
///
/// # Errors
/// When Python or Node is missing, or their packages cannot be installed.
pub fn make(out: &Path) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let images = [
        (
            "demo-python",
            python().context("cannot make the Python app's image")?,
        ),
        (
            "demo-node",
            node().context("cannot make the Node app's image")?,
        ),
    ];
    images
        .into_iter()
        .map(|(name, image)| {
            let path = out.join(format!("{name}.tar"));
            oci::write(&image, &path)?;
            Ok(path)
        })
        .collect()
}

fn app(file: &str) -> PathBuf {
    spanloom_e2e::workspace()
        .join("e2e/cluster/apps")
        .join(file)
}

fn client(language: &str) -> PathBuf {
    spanloom_e2e::workspace().join("e2e/clients").join(language)
}

fn image(name: &str, layers: Vec<Tree>, entrypoint: &[&str], environment: &[&str]) -> Image {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Image {
        name: format!("spanloom.test/{name}:1"),
        layers,
        entrypoint: owned(entrypoint),
        environment: owned(environment),
        user: format!("{USER}:{USER}"),
        folder: "/app".to_owned(),
        labels: Vec::new(),
    }
}

/// The interpreter keeps its place, for it finds its library by it.
fn python() -> anyhow::Result<Image> {
    let venv = clients::python(&client("python").join("requirements.txt"))?;
    let ask = |expression: &str| {
        let script = format!("import os, sys, sysconfig; print({expression})");
        let said = sh::output(Command::new(&venv).args(["-c", &script]))?;
        anyhow::Ok(said.trim().to_owned())
    };
    let interpreter = ask("os.path.realpath(sys.executable)")?;
    let library = ask(
        "sysconfig.get_path('stdlib', vars={'base': sys.base_prefix, \
                       'installed_base': sys.base_prefix})",
    )?;
    let packages = ask("sysconfig.get_path('purelib')")?;

    let mut base = programs::base(USER);
    libraries::add_program(&mut base, &interpreter, Path::new(&interpreter))?;
    let unused = |path: &Path| {
        path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            PYTHON_UNUSED.contains(&name.as_ref()) || name.starts_with("config-")
        })
    };
    base.copy_folder(&library, Path::new(&library), &unused)?;
    let loaded = Path::new(&library).join("lib-dynload");
    for module in loaded.read_dir().into_iter().flatten() {
        libraries::add_libraries_of(&mut base, &module?.path())?;
    }
    let mut sdk = Tree::default();
    let skip = |path: &Path| {
        path.file_name()
            .is_some_and(|name| name == "__pycache__" || name == "pip" || name == "setuptools")
    };
    sdk.copy_folder("/app/packages", Path::new(&packages), &skip)?;
    // A package's own extension modules need libraries too.
    for extension in extensions(Path::new(&packages))? {
        libraries::add_libraries_of(&mut sdk, &extension)?;
    }
    let mut top = Tree::default();
    top.link("/usr/bin/python", &interpreter);
    top.copy("/app/demo.py", &app("demo.py"))?;
    Ok(image(
        "demo-python",
        vec![base, sdk, top],
        &["/usr/bin/python", "/app/demo.py"],
        &[
            "PYTHONPATH=/app/packages",
            "PYTHONDONTWRITEBYTECODE=1",
            "PYTHONUNBUFFERED=1",
            "PATH=/usr/bin",
        ],
    ))
}

fn extensions(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(extensions(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "so") {
            found.push(path);
        }
    }
    Ok(found)
}

fn node() -> anyhow::Result<Image> {
    let modules = clients::node_modules(&client("javascript"))?;
    let program = sh::output(Command::new("node").args(["-p", "process.execPath"]))?;
    let mut base = programs::base(USER);
    libraries::add_program(&mut base, "/usr/bin/node", Path::new(program.trim()))?;
    // Debian's Node keeps parts of itself outside the program.
    let parts = Path::new("/usr/share/nodejs");
    if parts.is_dir() {
        base.copy_folder("/usr/share/nodejs", parts, &|_| false)?;
    }
    let mut sdk = Tree::default();
    sdk.copy_folder("/app/node_modules", &modules, &|path| {
        path.extension()
            .is_some_and(|extension| extension == "map" || extension == "ts")
    })?;
    let mut top = Tree::default();
    top.copy("/app/demo.cjs", &app("demo.cjs"))?;
    Ok(image(
        "demo-node",
        vec![base, sdk, top],
        &["/usr/bin/node", "/app/demo.cjs"],
        &["PATH=/usr/bin"],
    ))
}
