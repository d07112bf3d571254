//! A node: containerd, a kubelet and kube-proxy, each in the node's network namespace.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::go::Programs;
use super::layout::{DNS_IP, DOMAIN, Layout, NODES, Node, PAUSE_IMAGE, POD_RANGE};
use super::{cgroups, kubectl, network, packages, process, sh};

/// How long a container runtime may take to answer.
const RUNTIME_LIMIT: Duration = Duration::from_secs(120);

/// How long nodes may take to be Ready.
const READY_LIMIT: Duration = Duration::from_secs(180);

/// Starts the container runtimes, and waits until they answer.
///
/// # Errors
/// When one does not.
pub fn start_runtimes(layout: &Layout, programs: &Programs) -> anyhow::Result<()> {
    cgroups::up()?;
    for node in NODES {
        write_cni(layout, node)?;
        let config = write_containerd(layout, node)?;
        let mut containerd = network::inside(node, &programs.path("containerd")?);
        containerd.arg("--config").arg(config);
        // Its shim and runc are found by name.
        containerd.env("PATH", search_path(programs)?);
        process::start(
            layout,
            &format!("{}-containerd", node.name()),
            &mut containerd,
        )?;
    }
    for node in NODES {
        let what = format!("containerd of {}", node.name());
        process::wait_until(layout, &what, RUNTIME_LIMIT, || {
            sh::run(
                ctr(layout, programs, node)
                    .map_err(|error| format!("{error:#}"))?
                    .args(["version"]),
            )
            .map_err(|error| format!("{error:#}"))
        })?;
    }
    Ok(())
}

/// Starts the kubelets and the proxies, and waits until the nodes are Ready.
///
/// # Errors
/// When one does not become so.
pub fn join(layout: &Layout, programs: &Programs) -> anyhow::Result<()> {
    for node in NODES {
        start_kubelet(layout, programs, node)?;
        start_proxy(layout, programs, node)?;
    }
    process::wait_until(layout, "nodes that are Ready", READY_LIMIT, || {
        let mut wait = vec!["wait", "--for=condition=Ready", "--timeout=1s"];
        let names = NODES.map(|node| format!("node/{}", node.name()));
        wait.extend(names.iter().map(String::as_str));
        kubectl::admin(layout, &wait)
            .map(|_| ())
            .map_err(|error| format!("{error:#}"))
    })
}

/// containerd's client, in the namespace that the kubelet's containers live in.
///
/// # Errors
/// When it was not built.
pub fn ctr(layout: &Layout, programs: &Programs, node: Node) -> anyhow::Result<Command> {
    let mut ctr = Command::new(programs.path("ctr")?);
    ctr.arg("--address")
        .arg(layout.containerd_socket(node))
        .args(["--namespace", "k8s.io"]);
    Ok(ctr)
}

fn search_path(programs: &Programs) -> anyhow::Result<std::ffi::OsString> {
    let shim = programs.path("containerd-shim-runc-v2")?;
    let runc = packages::program("runc")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [&shim, &runc]
        .into_iter()
        .filter_map(|program| program.parent().map(Path::to_owned))
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .chain(std::env::split_paths(&path))
        .collect::<Vec<_>>();
    std::env::join_paths(folders).context("a folder of programs has a colon in its name")
}

/// Every pod has a cable to its node, which routes: traffic between pods of one node passes the
/// proxy's rules too, whether or not this kernel filters bridges.
fn write_cni(layout: &Layout, node: Node) -> anyhow::Result<()> {
    let folder = layout.part(&node.name()).join("cni");
    std::fs::create_dir_all(&folder)?;
    let config = json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": layout.part(&node.name()).join("addresses"),
                "ranges": [[{"subnet": node.pod_range()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    });
    std::fs::write(
        folder.join("10-pods.conflist"),
        serde_json::to_vec_pretty(&config)?,
    )?;
    Ok(())
}

fn write_containerd(layout: &Layout, node: Node) -> anyhow::Result<std::path::PathBuf> {
    let folder = layout.part(&node.name());
    let run = layout.run().join(node.name());
    std::fs::create_dir_all(&run)?;
    let socket = layout.containerd_socket(node);
    let runc = packages::program("runc")?;
    let text = format!(
        r#"version = 3
root = "{root}"
state = "{run}"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.differ.v1.erofs", "io.containerd.mount-handler.v1.erofs", "io.containerd.image-verifier.v1.bindir", "io.containerd.tracing.processor.v1.otlp"]
imports = []

[grpc]
address = "{socket}"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
# Without CAP_SYS_RESOURCE every sandbox would fail.
restrict_oom_score_adj = true
# So that they can be told from other runtimes' namespaces, and go with this folder.
netns_mounts_under_state_dir = true
disable_apparmor = true

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
BinaryName = "{runc}"
Root = "{run}/runc"

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{cni}"]
conf_dir = "{cni_config}"

[plugins."io.containerd.grpc.v1.cri"]
disable_tcp_service = true

[plugins."io.containerd.internal.v1.opt"]
path = "{opt}"

[plugins."io.containerd.metadata.v1.bolt"]
# Nothing here outlives the machine's next start.
no_sync = true

[plugins."io.containerd.shim.v1.manager"]
socket_dir = "{sockets}"
"#,
        root = folder.join("containerd").display(),
        run = run.display(),
        socket = socket.display(),
        runc = runc.display(),
        cni = packages::cni_folder()?,
        cni_config = folder.join("cni").display(),
        opt = folder.join("opt").display(),
        sockets = layout.run().join("s").display(),
    );
    let path = folder.join("containerd.toml");
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn start_kubelet(layout: &Layout, programs: &Programs, node: Node) -> anyhow::Result<()> {
    let (name, folder) = (node.name(), layout.part(&node.name()));
    let pki = |file: String| layout.pki(&file);
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.ip(),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki("ca.crt".to_owned())},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki(format!("{name}.crt")),
        "tlsPrivateKeyFile": pki(format!("{name}.key")),
        "containerRuntimeEndpoint": format!("unix://{}", layout.containerd_socket(node).display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": node.cgroup(),
        "failCgroupV1": false,
        "failSwapOn": false,
        "clusterDNS": [DNS_IP],
        "clusterDomain": DOMAIN,
        // A full disk of the developer's is not the tests' business.
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "podLogsDir": folder.join("pods"),
        "resolvConf": write_resolv(layout)?,
        "healthzBindAddress": "127.0.0.1",
        "serializeImagePulls": false,
        "registerNode": true,
        "volumePluginDir": folder.join("volume-plugins"),
        // Configuration reaches mounted files in seconds instead of a minute.
        "syncFrequency": "10s",
        "configMapAndSecretChangeDetectionStrategy": "Watch",
        "shutdownGracePeriod": "0s",
        "maxPods": 110,
        "protectKernelDefaults": false,
        "makeIPTablesUtilChains": true,
    });
    let path = folder.join("kubelet.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
    let mut kubelet = network::inside(node, &programs.path("kubelet")?);
    kubelet.args([
        format!("--config={}", path.display()),
        format!("--kubeconfig={}", layout.kubeconfig(&name).display()),
        format!("--root-dir={}", folder.join("kubelet").display()),
        format!("--node-ip={}", node.ip()),
        format!("--hostname-override={name}"),
        format!("--node-labels=spanloom.test/node={name}"),
    ]);
    kubelet.env("PATH", search_path(programs)?);
    process::start(layout, &format!("{name}-kubelet"), &mut kubelet).map(|_| ())
}

/// Pods that ask the node's own resolver find nobody: there is nothing beyond the cluster.
fn write_resolv(layout: &Layout) -> anyhow::Result<std::path::PathBuf> {
    let path = layout.part("resolv.conf");
    std::fs::write(&path, "options ndots:1\n")?;
    Ok(path)
}

fn start_proxy(layout: &Layout, programs: &Programs, node: Node) -> anyhow::Result<()> {
    let (name, folder) = (node.name(), layout.part(&node.name()));
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": layout.kubeconfig("kube-proxy")},
        "clusterCIDR": POD_RANGE,
        "hostnameOverride": name,
        "bindAddress": node.ip(),
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        // It may not write those settings here, and need not.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "10s"},
    });
    let path = folder.join("kube-proxy.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
    let mut proxy = network::inside(node, &programs.path("kube-proxy")?);
    proxy.arg(format!("--config={}", path.display()));
    proxy.env("PATH", search_path(programs)?);
    process::start(layout, &format!("{name}-kube-proxy"), &mut proxy).map(|_| ())
}
