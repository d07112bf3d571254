//! etcd, the API server, the controllers and the scheduler: on this machine, beside the nodes.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::go::Programs;
use super::layout::{API_PORT, ETCD_PORTS, HOST_IP, Layout, POD_RANGE, SERVICE_RANGE, api_url};
use super::{kubectl, packages, process};

/// How long the API may take to answer: a loaded machine needs a while.
const API_LIMIT: Duration = Duration::from_secs(180);

/// Starts them, and waits for the API.
///
/// # Errors
/// When one does not start; with its log's end.
pub fn up(layout: &Layout, programs: &Programs) -> anyhow::Result<()> {
    start_etcd(layout)?;
    start_api(layout, programs)?;
    let ready = || kubectl::admin(layout, &["get", "--raw", "/readyz"]).map(|_| ());
    process::wait_until(layout, "the API server", API_LIMIT, || {
        ready().map_err(|error| format!("{error:#}"))
    })?;
    start_controllers(layout, programs)?;
    start_scheduler(layout, programs)
}

fn start_etcd(layout: &Layout) -> anyhow::Result<()> {
    let data = layout.part("etcd");
    std::fs::create_dir_all(&data)?;
    let (clients, peers) = ETCD_PORTS;
    let peer = format!("http://127.0.0.1:{peers}");
    let client = format!("http://127.0.0.1:{clients}");
    let mut etcd = Command::new(packages::program("etcd")?);
    etcd.arg("--name=spanloom")
        .arg(format!("--data-dir={}", data.display()))
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster=spanloom={peer}"))
        // Nothing here outlives the machine's next start.
        .arg("--unsafe-no-fsync")
        .arg("--log-level=warn");
    // etcd 3.4 takes flags from the environment too, a distribution's settings among them.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD_") {
            etcd.env_remove(name);
        }
    }
    process::start(layout, "etcd", &mut etcd).map(|_| ())
}

fn start_api(layout: &Layout, programs: &Programs) -> anyhow::Result<()> {
    let pki = |name: &str| layout.pki(name).display().to_string();
    let mut api = Command::new(programs.path("kube-apiserver")?);
    api.args([
        format!("--etcd-servers=http://127.0.0.1:{}", ETCD_PORTS.0),
        format!("--bind-address={HOST_IP}"),
        format!("--advertise-address={HOST_IP}"),
        format!("--secure-port={API_PORT}"),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!(
            "--service-account-signing-key-file={}",
            pki("service-accounts.key")
        ),
        format!("--service-account-key-file={}", pki("service-accounts.pub")),
        format!(
            "--kubelet-client-certificate={}",
            pki("apiserver-kubelet-client.crt")
        ),
        format!(
            "--kubelet-client-key={}",
            pki("apiserver-kubelet-client.key")
        ),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!(
            "--requestheader-client-ca-file={}",
            pki("front-proxy-ca.crt")
        ),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        format!("--proxy-client-cert-file={}", pki("front-proxy-client.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy-client.key")),
        // Webhooks are called at their pods' addresses: this machine has no kube-proxy.
        "--enable-aggregator-routing=true".to_owned(),
        "--profiling=false".to_owned(),
    ]);
    process::start(layout, "kube-apiserver", &mut api).map(|_| ())
}

fn start_controllers(layout: &Layout, programs: &Programs) -> anyhow::Result<()> {
    let pki = |name: &str| layout.pki(name).display().to_string();
    let mut manager = Command::new(programs.path("kube-controller-manager")?);
    manager.args([
        format!(
            "--kubeconfig={}",
            layout.kubeconfig("kube-controller-manager").display()
        ),
        format!("--bind-address={HOST_IP}"),
        // The pods' ranges are the CNI configuration's.
        "--controllers=*,-node-ipam-controller".to_owned(),
        format!("--cluster-cidr={POD_RANGE}"),
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
        format!(
            "--service-account-private-key-file={}",
            pki("service-accounts.key")
        ),
        format!("--root-ca-file={}", pki("ca.crt")),
        "--profiling=false".to_owned(),
    ]);
    process::start(layout, "kube-controller-manager", &mut manager).map(|_| ())
}

fn start_scheduler(layout: &Layout, programs: &Programs) -> anyhow::Result<()> {
    let mut scheduler = Command::new(programs.path("kube-scheduler")?);
    scheduler.args([
        format!(
            "--kubeconfig={}",
            layout.kubeconfig("kube-scheduler").display()
        ),
        format!("--bind-address={HOST_IP}"),
        "--leader-elect=false".to_owned(),
        "--profiling=false".to_owned(),
    ]);
    process::start(layout, "kube-scheduler", &mut scheduler)
        .map(|_| ())
        .with_context(|| format!("the API is at {}", api_url()))
}
