//! `cargo xtask cluster`: a real Kubernetes with two nodes on this machine, without a container
//! engine and without images to pull.
//!
//! Everything is built from pinned Go modules ([`go`]) or comes from the distribution ([`packages`]).
//! [`own`] puts it up: [`pki`], [`network`], [`control_plane`], [`node`], then [`base`] (DNS,
//! volumes). [`process`] keeps track of what runs, [`teardown`] takes it away, [`mod@remains`] looks whether it did. [`kind`] is the same for
//! machines that have Docker. [`layout`] names every folder and address.

mod base;
mod cgroups;
mod control_plane;

mod go;
mod kind;
pub mod kubectl;
mod layout;
mod network;
mod node;
mod own;
pub mod packages;
mod pki;
mod process;
mod remains;
pub mod sh;
mod teardown;

use std::path::PathBuf;

use anyhow::{Context, bail};

use layout::Layout;

/// Where the cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Provider {
    /// The one of this command, on this machine (Linux, root)
    #[default]
    Own,
    /// A cluster made with kind (Docker)
    Kind,
    /// The current context of kubectl
    Current,
}

/// The flags of `cargo xtask cluster`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose cluster
    #[arg(long, value_enum, default_value_t, global = true)]
    provider: Provider,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Start the cluster unless it runs, and print its kubeconfig
    Up,
    /// Take the cluster away, wholly
    Down,
    /// Put images on every node
    Load {
        /// OCI archives, as `cargo xtask images` makes them
        #[arg(required = true, value_name = "FILE.tar")]
        archives: Vec<PathBuf>,
    },
    /// Print the path of the kubeconfig
    Kubeconfig,
    /// Stop a node's kubelet and some of its pods where they are, as if the machine hung
    Freeze {
        /// The node
        node: String,
        /// The uids of the pods
        pods: Vec<String>,
    },
    /// Let them go on
    Thaw {
        /// The node
        node: String,
        /// The uids of the pods
        pods: Vec<String>,
    },
    /// Kill the containers of some of a node's pods, which then start again
    Kill {
        /// The node
        node: String,
        /// The uids of the pods
        pods: Vec<String>,
    },
}

/// Runs the command.
///
/// # Errors
/// When the cluster cannot be had, and why.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Up => {
            let kubeconfig = up(args.provider)?;
            println!("\n  export KUBECONFIG={}", kubeconfig.display());
            let kubectl = crate::kubetools::kubectl()?;
            let helm = crate::kubetools::helm()?;
            println!("  kubectl      {}", kubectl.display());
            println!("  helm         {}", helm.display());
            Ok(())
        }
        Command::Down => down(args.provider),
        Command::Load { archives } => load(args.provider, archives),
        Command::Kubeconfig => {
            println!("{}", kubeconfig(args.provider)?.display());
            Ok(())
        }
        Command::Freeze { node, pods } => freeze(args.provider, node, pods, true),
        Command::Thaw { node, pods } => freeze(args.provider, node, pods, false),
        Command::Kill { node, pods } => {
            cgroups::kill_containers(node_of_own(args.provider, node)?, pods)
        }
    }
}

/// Starts the cluster unless it runs; gives its kubeconfig.
///
/// # Errors
/// When it does not come up; with the ends of the logs.
pub fn up(provider: Provider) -> anyhow::Result<PathBuf> {
    match provider {
        Provider::Own => {
            if let Some(reason) = why_not_here() {
                bail!("{reason}; where Docker is, try {}", kind::UP);
            }
            own::up(&Layout::new()?)
        }
        Provider::Kind => kind::up(&Layout::new()?),
        Provider::Current => {
            let kubeconfig = current()?;
            kubectl::with(&kubeconfig, &["version"])
                .context("the current context's cluster does not answer")?;
            Ok(kubeconfig)
        }
    }
}

fn freeze(provider: Provider, node: &str, pods: &[String], is_frozen: bool) -> anyhow::Result<()> {
    let node = node_of_own(provider, node)?;
    let kubelet = format!("{}-kubelet", node.name());
    let recorded = process::recorded(&Layout::new()?);
    let kubelet = recorded
        .iter()
        .find(|process| process.name == kubelet && process.is_alive())
        .with_context(|| format!("{kubelet} does not run"))?;
    if is_frozen {
        kubelet.freeze();
        cgroups::freeze(node, pods, true)
    } else {
        let thawed = cgroups::freeze(node, pods, false);
        kubelet.thaw();
        thawed
    }
}

/// A node whose processes can be reached.
fn node_of_own(provider: Provider, name: &str) -> anyhow::Result<layout::Node> {
    if provider != Provider::Own {
        bail!("only processes of the cluster of this command can be reached");
    }
    let mut nodes = layout::NODES.into_iter();
    let node = nodes.find(|node| node.name() == name);
    node.with_context(|| format!("there is no node {name}"))
}

/// Whether the cluster of this command is up.
///
/// # Errors
/// When there is no cache folder.
pub fn is_up() -> anyhow::Result<bool> {
    Ok(why_not_here().is_none() && own::is_up(&Layout::new()?))
}

/// What is on this machine that only a cluster of this command makes: nothing without one.
///
/// # Errors
/// When the machine cannot be looked at.
pub fn remains() -> anyhow::Result<std::collections::BTreeSet<String>> {
    match why_not_here() {
        Some(_) => Ok(std::collections::BTreeSet::new()),
        None => remains::look(&Layout::new()?),
    }
}

/// Takes the cluster away.
///
/// # Errors
/// When something stays.
pub fn down(provider: Provider) -> anyhow::Result<()> {
    match provider {
        Provider::Own => own::down(&Layout::new()?),
        Provider::Kind => kind::down(),
        Provider::Current => bail!("the current context's cluster is not this command's to remove"),
    }
}

/// Puts images on every node.
///
/// # Errors
/// When one cannot be loaded.
pub fn load(provider: Provider, archives: &[PathBuf]) -> anyhow::Result<()> {
    match provider {
        Provider::Own => own::load(&Layout::new()?, archives),
        Provider::Kind => kind::load(archives),
        Provider::Current => bail!(
            "images cannot be put on the nodes of an unknown cluster; push them to a registry that \
             it pulls from, and set images.registry"
        ),
    }
}

/// The kubeconfig of a cluster that is up.
///
/// # Errors
/// When there is none.
fn kubeconfig(provider: Provider) -> anyhow::Result<PathBuf> {
    match provider {
        Provider::Own => {
            let layout = Layout::new()?;
            if !own::is_up(&layout) {
                bail!("there is no cluster; `cargo xtask cluster up` starts one");
            }
            Ok(layout.kubeconfig("admin"))
        }
        Provider::Kind => kind::kubeconfig(&Layout::new()?),
        Provider::Current => current(),
    }
}

fn current() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()) {
        return std::env::split_paths(&named)
            .next()
            .context("KUBECONFIG names no file");
    }
    let home = std::env::var_os("HOME").context("neither KUBECONFIG nor HOME is set")?;
    Ok(PathBuf::from(home).join(".kube/config"))
}

/// Why the cluster cannot run on this machine; nothing when it can.
pub fn why_not_here() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("the test cluster runs on Linux only".to_owned());
    }
    let root = sh::line("id -u").is_ok_and(|id| id.trim() == "0");
    if !root {
        return Some("the test cluster needs root (network namespaces, mounts)".to_owned());
    }
    None
}

/// What to type where the cluster cannot run but Docker does.
pub fn kind_command() -> &'static str {
    kind::UP
}
