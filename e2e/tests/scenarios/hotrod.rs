//! Jaeger's example application HotROD: what its service graph and its traces are is well known.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use spanloom_e2e::clients;
use spanloom_e2e::spanloom::{Spanloom, await_condition};
use spanloom_e2e::workspace;

use super::support::{now_ns, up};

const LIMIT: Duration = Duration::from_secs(120);

/// All of HotROD's services in one process; killed with this.
struct HotRod {
    child: Child,
    frontend: u16,
}

impl Drop for HotRod {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl HotRod {
    fn start(up: &Spanloom) -> Self {
        let program = clients::go_program(&workspace().join("e2e/clients/hotrod")).unwrap();
        // Held together, so that they differ.
        let ports: Vec<_> = (0..4)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
            .collect();
        let ports: Vec<u16> = ports
            .iter()
            .map(|listener| listener.local_addr().unwrap().port())
            .collect();
        let mut command = Command::new(program);
        command.args(["all", "--otel-exporter", "otlp"]);
        let services = ["frontend", "customer", "driver", "route"];
        for (service, port) in services.iter().zip(&ports) {
            command.args([format!("--{service}-service-hostname"), "127.0.0.1".into()]);
            command.args([format!("--{service}-service-port"), port.to_string()]);
        }
        let endpoint = format!("http://{}", up.addresses().otlp_http);
        let child = command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            frontend: ports[0],
        }
    }

    /// Orders a car, as its page does; whether it answered.
    fn dispatch(&self) -> bool {
        let url = format!("http://127.0.0.1:{}/dispatch?customer=123", self.frontend);
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(30)))
            .proxy(None);
        let agent: ureq::Agent = config.build().into();
        agent.get(url).call().is_ok()
    }
}

#[test]
fn hotrod_has_its_service_graph() {
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path());
    let hotrod = HotRod::start(&up);
    await_condition("HotROD answers", LIMIT, || hotrod.dispatch()).unwrap();
    let now = now_ns() / 1_000_000_000;
    let window = format!("start={}&end={}", now - 3600, now + 3600);
    let edges = || -> anyhow::Result<Vec<String>> {
        let graph = up.get_json(&format!("/api/v1/dependencies?{window}"))?;
        let rows = graph["dependencies"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let rows = rows.iter().map(|row| {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let edge = format!("{} > {}", text("caller"), text("callee"));
            format!("{edge} {}", text("connectionType"))
                .trim()
                .to_owned()
        });
        Ok(rows.collect())
    };
    let expect = [
        "customer > mysql",
        "driver > redis-manual",
        "frontend > customer",
        "frontend > driver",
        "frontend > route",
    ];
    // Its services send by themselves, each when it likes: at first some halves are missing.
    let complete = || edges().is_ok_and(|edges| edges == expect);
    let came = await_condition("the graph is complete", LIMIT, complete);
    assert!(came.is_ok(), "{:?}", edges());

    let list = up
        .get_json(&format!("/api/v1/traces?{window}&service=mysql"))
        .unwrap();
    let trace = &list["traces"][0];
    assert_eq!(trace["rootService"], "frontend", "{list}");
    assert_eq!(trace["rootMissing"], false, "{list}");
    let id = trace["traceId"].as_str().unwrap();
    let whole = up.get_json(&format!("/api/v1/traces/{id}")).unwrap();
    let services = [
        "customer",
        "driver",
        "frontend",
        "mysql",
        "redis-manual",
        "route",
    ];
    assert_eq!(whole["services"], serde_json::json!(services));
    assert_eq!(whole["spanCount"], trace["spanCount"]);
}
