//! Who asks how the process is gets an answer, whatever others ask of it or keep from it.

use std::net::SocketAddr;
use std::time::Duration;

use spanloom_query::{Access, Limits};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::harness::{Service, T0, ask, serve_to};

/// What a kubelet waits at most, and more.
const PATIENCE: Duration = Duration::from_secs(5);

/// The value of a metric of the port at `address`.
async fn metric(address: SocketAddr, name: &str) -> u64 {
    let metrics = ask(address, "GET", "/metrics").await.text;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or("0").trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_queries_of_people_leave_the_probes_answered() {
    const IN_FLIGHT: &str = "spanloom_query_clickhouse_in_flight ";
    let service = Service::start().await;
    let access = Access {
        admin: Some(([127, 0, 0, 1], 0).into()),
        ..Access::default()
    };
    // As with 512 MiB: the engine has slots for twelve.
    let slots = 8;
    let limits = Limits {
        concurrent_queries: slots,
        ..Limits::default()
    };
    let server = serve_to(service.clickhouse(), limits, access).await;
    let admin = server.admin_address().unwrap();
    // Each row sleeps, and each part of the table is read by itself.
    service.sql("RENAME TABLE red TO real_red").await;
    service
        .sql("CREATE VIEW red AS SELECT * FROM real_red WHERE sleepEachRow(3) = 0")
        .await;
    service.sql("SYSTEM STOP MERGES real_red").await;
    for _ in 0..4 {
        service
            .sql(&format!(
                "INSERT INTO real_red (minute, service, name, count) \
                 SELECT toStartOfMinute(toDateTime({T0})), 'slow', 'slow', 1"
            ))
            .await;
    }

    let mut people = JoinSet::new();
    for _ in 0..2 * slots {
        let address = server.address();
        let path = format!("/api/v1/latency?start={T0}&end={}", T0 + 1);
        people.spawn(async move { ask(address, "GET", &path).await.status });
    }
    while metric(admin, IN_FLIGHT).await < slots as u64 {
        tokio::task::yield_now().await;
    }
    for path in ["/readyz", "/healthz", "/probe/1"] {
        for address in [admin, server.address()] {
            if address != admin && path.starts_with("/probe") {
                continue;
            }
            let answer = tokio::time::timeout(PATIENCE, ask(address, "GET", path)).await;
            let answer = answer.unwrap_or_else(|_| panic!("{path} is not answered"));
            assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        }
    }
    // The slots are taken all the same.
    assert_eq!(metric(admin, IN_FLIGHT).await, slots as u64);
    assert!(people.try_join_next().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_leave_the_admin_port_answering() {
    let service = Service::start().await;
    let access = Access {
        admin: Some(([127, 0, 0, 1], 0).into()),
        ..Access::default()
    };
    let server = service.beside(access).await;
    let admin = server.admin_address().unwrap();
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(connect(3, admin).await);
        if silent.len().is_multiple_of(40) {
            for path in ["/healthz", "/readyz", "/metrics", "/probe/1"] {
                let answer = tokio::time::timeout(PATIENCE, ask(admin, "GET", path)).await;
                let answer = answer.unwrap_or_else(|_| panic!("{path} is not answered"));
                assert_eq!(answer.status, 200, "{path}: {}", answer.text);
            }
        }
    }
}

/// A connection from another address of this machine.
async fn connect(from: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::from(([127, 0, 0, from], 0)))
        .unwrap();
    socket.connect(to).await.unwrap()
}
