//! What the webhook sets in the sidecar's environment.
//!
//! What is missing or wrong never keeps the sidecar from starting, since the app's container may wait for it:
//! each fault is said, and what depends on it does without.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use spanloom_crds::sidecar::PodFacts;

/// Where spans are received; the environment of the app's containers names the first.
const PORTS: [u16; 2] = [24317, 24318];
/// The ports of OTLP, on request.
const STANDARD_PORTS: [u16; 2] = [4317, 4318];
/// How long a sidecar may take to end where nothing is said: less than a pod's grace period.
const DRAIN: Duration = Duration::from_secs(20);

/// The sidecar's environment.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `SPANLOOM_SIDECAR_CONFIG`: the configuration, as JSON; none: it comes by the stream.
    pub config: Option<String>,
    /// `SPANLOOM_SIDECAR_CA`: the authorities that collectors' certificates are checked against, in PEM.
    pub ca: Option<String>,
    /// `SPANLOOM_COLLECTOR_URL`: the collector of this node.
    pub collector: Option<Uri>,
    /// `SPANLOOM_COLLECTOR_FALLBACK_URL`: any collector of the cluster.
    pub fallback: Option<Uri>,
    /// `SPANLOOM_TOKEN_FILE`: the projected token.
    pub token_file: Option<PathBuf>,
    /// `SPANLOOM_STATE_DIR`: where the last good configuration is kept.
    pub state_dir: Option<PathBuf>,
    /// `SPANLOOM_POD_NAME`, `SPANLOOM_POD_UID`, `SPANLOOM_POD_NAMESPACE` and `SPANLOOM_NODE_NAME`.
    pub place: Place,
    /// `SPANLOOM_POD`: what the webhook knows of the pod, as JSON.
    pub pod: PodFacts,
    /// Where spans are received.
    pub listen: Vec<SocketAddr>,
    /// `SPANLOOM_ADMIN`: where metrics are served; none: nowhere.
    pub admin: Option<SocketAddr>,
    /// `SPANLOOM_DRAIN_SECONDS`: how long the sidecar may take to end.
    pub drain: Duration,
}

/// Where the sidecar runs.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The node's name.
    pub node: String,
}

/// A variable that cannot be used, and what follows from that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Environment {
    /// Reads the variables, each by its name, and says which cannot be used.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> (Self, Vec<Fault>) {
        let mut reader = Reader {
            variable,
            faults: Vec::new(),
        };
        let mut listen = PORTS.to_vec();
        if reader.flag("SPANLOOM_STANDARD_PORTS") {
            listen.extend(STANDARD_PORTS);
        }
        // For tests, which cannot have the usual ports: not set by the webhook.
        if let Some(ports) = reader.text("SPANLOOM_SIDECAR_PORTS") {
            listen = ports
                .split(',')
                .filter_map(|port| port.parse().ok())
                .collect();
        }
        let environment = Self {
            config: reader.text("SPANLOOM_SIDECAR_CONFIG"),
            ca: reader.text("SPANLOOM_SIDECAR_CA"),
            collector: reader.url("SPANLOOM_COLLECTOR_URL"),
            fallback: reader.url("SPANLOOM_COLLECTOR_FALLBACK_URL"),
            token_file: reader.text("SPANLOOM_TOKEN_FILE").map(PathBuf::from),
            state_dir: reader.text("SPANLOOM_STATE_DIR").map(PathBuf::from),
            place: Place {
                pod: reader.text("SPANLOOM_POD_NAME").unwrap_or_default(),
                uid: reader.text("SPANLOOM_POD_UID").unwrap_or_default(),
                namespace: reader.text("SPANLOOM_POD_NAMESPACE").unwrap_or_default(),
                node: reader.text("SPANLOOM_NODE_NAME").unwrap_or_default(),
            },
            pod: reader.pod("SPANLOOM_POD"),
            listen: listen
                .into_iter()
                .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
                .collect(),
            admin: reader.parsed("SPANLOOM_ADMIN"),
            drain: reader
                .parsed("SPANLOOM_DRAIN_SECONDS")
                .map_or(DRAIN, Duration::from_secs),
        };
        if environment.collector.is_none() {
            let why = "SPANLOOM_COLLECTOR_URL is not set: spans go nowhere but to the fallback";
            reader.faults.push(Fault(why.to_owned()));
        }
        (environment, reader.faults)
    }
}

struct Reader<F> {
    variable: F,
    faults: Vec<Fault>,
}

impl<F: Fn(&str) -> Option<String>> Reader<F> {
    fn text(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|text| !text.is_empty())
    }

    fn fault(&mut self, name: &str, why: impl fmt::Display) {
        self.faults.push(Fault(format!("{name} is ignored: {why}")));
    }

    fn parsed<T>(&mut self, name: &str) -> Option<T>
    where
        T: std::str::FromStr<Err: fmt::Display>,
    {
        let text = self.text(name)?;
        text.parse()
            .inspect_err(|error| self.fault(name, error))
            .ok()
    }

    fn flag(&mut self, name: &str) -> bool {
        self.parsed(name).unwrap_or(false)
    }

    fn url(&mut self, name: &str) -> Option<Uri> {
        let uri: Uri = self.parsed(name)?;
        if uri.scheme_str() == Some("https") && uri.host().is_some() {
            return Some(uri);
        }
        self.fault(name, "it must be https://host:port");
        None
    }

    fn pod(&mut self, name: &str) -> PodFacts {
        let Some(text) = self.text(name) else {
            return PodFacts::default();
        };
        serde_json::from_str(&text).unwrap_or_else(|error| {
            self.fault(name, error);
            PodFacts::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> (Environment, Vec<String>) {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, text)| (*text).to_owned())
        };
        let (environment, faults) = Environment::read(variable);
        let faults = faults.iter().map(ToString::to_string).collect();
        (environment, faults)
    }

    #[test]
    fn what_is_wrong_is_said_and_the_rest_counts() {
        let (environment, faults) = read(&[
            (
                "SPANLOOM_COLLECTOR_URL",
                "https://collector.tracing.svc:4319",
            ),
            ("SPANLOOM_COLLECTOR_FALLBACK_URL", "http://plain:4319"),
            ("SPANLOOM_POD", "{"),
            ("SPANLOOM_STANDARD_PORTS", "true"),
            ("SPANLOOM_DRAIN_SECONDS", "soon"),
            ("SPANLOOM_POD_NAME", "web-1"),
        ]);
        let about: Vec<_> = faults
            .iter()
            .filter_map(|fault| fault.split(' ').next())
            .collect();
        assert_eq!(
            about,
            [
                "SPANLOOM_COLLECTOR_FALLBACK_URL",
                "SPANLOOM_POD",
                "SPANLOOM_DRAIN_SECONDS"
            ]
        );
        assert!(environment.collector.is_some());
        let ports: Vec<_> = environment.listen.iter().map(SocketAddr::port).collect();
        assert_eq!(ports, [24317, 24318, 4317, 4318]);
        assert!(
            environment
                .listen
                .iter()
                .all(|address| address.ip().is_loopback())
        );
        assert_eq!(
            (environment.drain, &*environment.place.pod),
            (DRAIN, "web-1")
        );
    }

    #[test]
    fn an_empty_environment_is_enough_to_start() {
        let (environment, faults) = read(&[]);
        assert_eq!(faults.len(), 1, "{faults:?}");
        let ports: Vec<_> = environment.listen.iter().map(SocketAddr::port).collect();
        assert_eq!(ports, PORTS);
        assert!(environment.admin.is_none());
    }
}
