//! Where the test cluster keeps what it makes, and which addresses its parts have.
//!
//! One cluster a machine: its bridge, its addresses and its cgroups have fixed names, so that a
//! later run finds them and can take them away.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The bridge that joins the nodes with this machine.
pub const BRIDGE: &str = "spanloom0";

/// This machine on the bridge: the API server listens here.
pub const HOST_IP: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);

/// The API server's port: not 6443, which a cluster of the user's own may have.
pub const API_PORT: u16 = 16443;

/// etcd's ports on loopback, for clients and for (absent) peers.
pub const ETCD_PORTS: (u16, u16) = (32379, 32380);

/// All pods' addresses; every node has a /24 of it.
pub const POD_RANGE: &str = "10.244.0.0/16";

/// All Services' addresses.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";

/// The API server's own Service.
pub const API_SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// The cluster's DNS Service.
pub const DNS_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// The domain of Services.
pub const DOMAIN: &str = "cluster.local";

/// The pause image, which holds each pod's namespaces.
pub const PAUSE_IMAGE: &str = "spanloom.test/pause:1";

/// The DNS server's image.
pub const COREDNS_IMAGE: &str = "spanloom.test/coredns:1";

/// The nodes, in the order they start.
pub const NODES: [Node; 2] = [Node { index: 1 }, Node { index: 2 }];

/// One node: a network namespace with a container runtime, a kubelet and a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// 1 or 2.
    pub index: u8,
}

impl Node {
    /// Its name in the API.
    pub fn name(self) -> String {
        format!("node{}", self.index)
    }

    /// Its network namespace, as `ip netns` names it.
    pub fn netns(self) -> String {
        format!("spanloom-node{}", self.index)
    }

    /// The end of its cable that is plugged into the bridge.
    pub fn host_cable(self) -> String {
        format!("spanloom-n{}", self.index)
    }

    /// Its address on the bridge.
    pub fn ip(self) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, 0, 10 + self.index)
    }

    /// Its pods' addresses.
    pub fn pod_range(self) -> String {
        format!("10.244.{}.0/24", self.index)
    }

    /// Its cgroup, below the root of every controller.
    pub fn cgroup(self) -> String {
        format!("/spanloom-n{}", self.index)
    }
}

/// The folders of the cluster.
#[derive(Debug, Clone)]
pub struct Layout {
    /// What a cluster of its own holds: certificates, etcd's data, images, logs.
    state: PathBuf,
    /// Built programs, by version; they outlive every cluster.
    cache: PathBuf,
}

impl Layout {
    /// Below the user's cache folder.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn new() -> anyhow::Result<Self> {
        let cache = spanloom_e2e::cache_dir()?.join("cluster");
        let state = match std::env::var_os("SPANLOOM_CLUSTER_STATE").filter(|v| !v.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => cache.join("state"),
        };
        std::fs::create_dir_all(&cache)
            .with_context(|| format!("cannot make {}", cache.display()))?;
        Ok(Self { state, cache })
    }

    /// The folder that `down` removes.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Sockets: their paths may have 107 characters only, so they are not below the cache folder.
    pub fn run(&self) -> PathBuf {
        PathBuf::from("/run/spanloom-cluster")
    }

    /// Built programs.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Held while `up` or `down` works.
    pub fn lock(&self) -> PathBuf {
        self.cache.join("lock")
    }

    /// A folder of one part's own.
    pub fn part(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// A program's log.
    pub fn log(&self, process: &str) -> PathBuf {
        self.state.join("logs").join(format!("{process}.log"))
    }

    /// All logs.
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// Certificates and keys.
    pub fn pki(&self, name: &str) -> PathBuf {
        self.state.join("pki").join(name)
    }

    /// The kubeconfig of a part, or of the people: `admin`.
    pub fn kubeconfig(&self, who: &str) -> PathBuf {
        self.state.join("kubeconfig").join(format!("{who}.yaml"))
    }

    /// What was started.
    pub fn processes(&self) -> PathBuf {
        self.state.join("processes.json")
    }

    /// Says that a cluster came up wholly, and from what.
    pub fn complete(&self) -> PathBuf {
        self.state.join("complete")
    }

    /// The container runtime's socket on a node.
    pub fn containerd_socket(&self, node: Node) -> PathBuf {
        self.run().join(format!("{}.sock", node.name()))
    }
}

/// The API server's URL.
pub fn api_url() -> String {
    format!("https://{HOST_IP}:{API_PORT}")
}
