//! The one installation that most scenarios share.
//!
//! The chart binds the operator's rights in namespaces that exist when it is installed, so a number of
//! namespaces is made first; each scenario takes one. Scenarios that disturb the others (a node is
//! drained, the release is removed) hold the installation alone.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::kube::{helm, kubectl, try_get, try_helm, try_raw};
use super::namespace::{self, Namespace};
use super::random_word;

/// The release.
pub const RELEASE: &str = "spanloom";

/// Its namespace.
pub const NAMESPACE: &str = "spanloom-system";

/// The operator's Deployment.
pub const OPERATOR: &str = "deployment/spanloom-operator";

/// As many scenarios can ask for a namespace.
const NAMESPACES: usize = 30;

/// A rollout that fails is taken back after this time: shorter than people's, longer than a good
/// rollout takes here.
pub const ROLLOUT_DEADLINE_SECONDS: u64 = 90;

static USERS: RwLock<()> = RwLock::new(());

struct Install {
    free: Mutex<Vec<String>>,
    namespaces: Vec<String>,
}

static INSTALL: OnceLock<Install> = OnceLock::new();

/// What keeps the installation from being disturbed.
pub struct Shared(#[allow(dead_code, reason = "held, not read")] RwLockReadGuard<'static, ()>);

/// What keeps everybody else from it. A scenario that fails in the middle leaves the others a release.
pub struct Alone(#[allow(dead_code, reason = "held, not read")] RwLockWriteGuard<'static, ()>);

impl Drop for Alone {
    fn drop(&mut self) {
        if std::thread::panicking() && try_place(&installed().namespaces, &todays(), &[]).is_err() {
            eprintln!("and the release cannot be brought back");
        }
    }
}

/// The installation, with others.
pub fn shared() -> Shared {
    let guard = USERS.read().unwrap_or_else(|broken| broken.into_inner());
    installed();
    Shared(guard)
}

/// The installation, alone.
pub fn alone() -> Alone {
    let guard = USERS.write().unwrap_or_else(|broken| broken.into_inner());
    installed();
    Alone(guard)
}

/// A namespace where pipelines are accepted.
pub fn pipeline_namespace() -> Namespace {
    let name = installed().free.lock().unwrap().pop();
    let mut namespace = Namespace::adopt(name.expect("more scenarios than NAMESPACES"));
    namespace.also_show.push(NAMESPACE.to_owned());
    namespace.is_pooled = true;
    namespace
}

fn installed() -> &'static Install {
    INSTALL.get_or_init(|| {
        // What a run that was broken off has left.
        let _ = try_helm(&["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"]);
        let run = random_word();
        let namespaces: Vec<_> = (0..NAMESPACES)
            .map(|index| format!("e2e-{run}-{index}"))
            .collect();
        for name in &namespaces {
            Namespace::create(name, true);
        }
        let install = Install {
            free: Mutex::new(namespaces.clone()),
            namespaces,
        };
        place(&install.namespaces, &todays(), &[]);
        install
    })
}

/// Installs today's chart, or brings the release up to it.
pub fn upgrade() {
    upgrade_to(&todays(), &[]);
}

/// Brings the release up to today's chart, with further values as `name=value`, which count until the next
/// upgrade.
pub fn upgrade_with(further: &[&str]) {
    upgrade_to(&todays(), further);
}

/// Installs a chart, or brings the release up to it, with further values as `name=value`.
pub fn upgrade_to(chart: &Path, further: &[&str]) {
    place(&installed().namespaces, chart, further);
}

fn todays() -> PathBuf {
    spanloom_e2e::workspace().join("charts/spanloom")
}

fn place(namespaces: &[String], chart: &Path, further: &[&str]) {
    if let Err(error) = try_place(namespaces, chart, further) {
        namespace::show(NAMESPACE);
        panic!("{error}");
    }
    let set = ["wait", "--for=condition=Established", "--timeout=60s"];
    kubectl(&[&set[..], &["crd/tracingpipelines.spanloom.dev"]].concat());
}

fn try_place(namespaces: &[String], chart: &Path, further: &[&str]) -> Result<String, String> {
    let values = images().join("values.yaml");
    let listed = format!("operator.pipelineNamespaces={{{}}}", namespaces.join(","));
    let deadline = format!("operator.rolloutDeadlineSeconds={ROLLOUT_DEADLINE_SECONDS}");
    Namespace::create(NAMESPACE, false);
    // Another image under the same tag: only a change of the pod's document starts it.
    let newer = format!("operator.podAnnotations.made={}", made());
    let newer_webhook = format!("webhook.podAnnotations.made={}", made());
    let mut arguments = vec![
        "upgrade",
        "--install",
        RELEASE,
        chart.to_str().unwrap(),
        "--namespace",
        NAMESPACE,
        "--values",
        values.to_str().unwrap(),
        "--set",
        &listed,
        "--set",
        &deadline,
        // It shares two cores with everything else.
        "--set",
        "operator.resources.requests.cpu=200m",
        "--set-string",
        &newer,
        "--wait",
        "--timeout",
        "4m",
    ];
    // Earlier charts have no webhook.
    if chart == todays() {
        arguments.extend(["--set", "webhook.resources.requests.cpu=100m"]);
        arguments.extend(["--set-string", &newer_webhook]);
    }
    for value in further {
        arguments.extend(["--set", value]);
    }
    try_helm(&arguments)
}

/// Waits until the operator of the present release runs.
pub fn await_operator() {
    kubectl(&[
        "--namespace",
        NAMESPACE,
        "rollout",
        "status",
        OPERATOR,
        "--timeout=120s",
    ]);
}

/// Removes the release.
pub fn uninstall() {
    let wait = ["--wait", "--timeout", "2m"];
    helm(&[&["uninstall", RELEASE, "--namespace", NAMESPACE][..], &wait].concat());
}

/// When the operator's image was made, if it was made here.
fn made() -> u128 {
    let archive = images().join("spanloom-operator.tar").metadata();
    let time = archive.and_then(|archive| archive.modified()).ok();
    time.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(0, |since| since.as_millis())
}

/// Where `cargo xtask images` has put its archives.
fn images() -> PathBuf {
    match std::env::var_os("SPANLOOM_IMAGES") {
        Some(folder) => folder.into(),
        None => spanloom_e2e::workspace().join("target/images"),
    }
}

/// What the pods of a component of the release have counted together, of one series: its name and labels.
pub fn counted(component: &str, series: &str) -> u64 {
    let selector = format!("--selector=app.kubernetes.io/component={component}");
    let pods = try_get(NAMESPACE, &["pods", &selector]).unwrap();
    let of = format!("{series} ");
    let counts = pods["items"].as_array().unwrap().iter().map(|pod| {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}:9464/proxy/metrics");
        let metrics = try_raw(&path).unwrap();
        let count = metrics.lines().find_map(|line| line.strip_prefix(&of));
        count.map_or(0, |count| count.parse::<u64>().unwrap())
    });
    counts.sum()
}
