//! One leader, whatever the API server does.

use std::time::Duration;

use http::Method;
use spanloom_operator::leadership::Leadership;
use spanloom_operator::lease::{Claim, Lost};
use tokio::time::Instant;

use super::api::{Api, Rule, Trouble};

const DURATION: Duration = Duration::from_secs(15);

fn claim(api: &Api, name: &'static str) -> (Claim, Leadership) {
    let leadership = Leadership::default();
    let client = api.client(name);
    let claim = Claim::new(client, "tracing", "op", name, DURATION, leadership.clone());
    (claim, leadership)
}

/// What should not take longer than this: hours pass in moments while everybody waits.
async fn in_time<T>(done: impl Future<Output = T>) -> T {
    let hour = Duration::from_secs(3_600);
    tokio::time::timeout(hour, done)
        .await
        .expect("it takes for ever")
}

/// From when on the old leader meets trouble, when it stops, and when the new one begins.
async fn change_of_leader(trouble: Trouble, after: Duration) -> (Duration, Duration) {
    let api = Api::new();
    let (mut old, of_old) = claim(&api, "old");
    let (mut new, _) = claim(&api, "new");
    in_time(old.acquire()).await;
    let start = Instant::now();
    let script = async {
        tokio::time::sleep(after).await;
        for method in [Method::GET, Method::PUT] {
            api.rule(Rule {
                client: "old",
                method,
                path: "leases",
                times: None,
                trouble: trouble.clone(),
            });
        }
        // A write that was begun just before.
        let write = of_old.during(std::future::pending::<()>()).await;
        assert!(write.is_err());
        start.elapsed()
    };
    let holds = async {
        let lost = old.hold().await;
        assert!(matches!(lost, Lost::NotRenewed { .. }), "{lost}");
        start.elapsed()
    };
    let takes = async {
        new.acquire().await;
        start.elapsed()
    };
    let all = async { tokio::join!(script, holds, takes) };
    let (broken_off, stopped, began) = in_time(all).await;
    assert!(of_old.term().is_none(), "it may still write");
    assert!(
        broken_off < began,
        "a write went on: {broken_off:?} {began:?}"
    );
    (stopped, began)
}

#[tokio::test(start_paused = true)]
async fn the_old_leader_has_stopped_before_another_begins() {
    for trouble in [
        Trouble::Hang,
        // The API server does what it is asked and never says so.
        Trouble::HangAfter,
        Trouble::Status(500, "etcdserver: request timed out"),
        Trouble::Late(Duration::from_secs(8)),
    ] {
        for after in [0, 4, 5, 7, 23] {
            let after = Duration::from_secs(after);
            let (stopped, began) = change_of_leader(trouble.clone(), after).await;
            assert!(
                stopped < began,
                "{trouble:?} after {after:?}: {stopped:?} {began:?}"
            );
            assert!(
                began < Duration::from_secs(90),
                "nobody took over: {began:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_api_server_and_short_failures_change_no_leader() {
    let api = Api::new();
    let (mut old, of_old) = claim(&api, "old");
    let (mut new, of_new) = claim(&api, "new");
    in_time(old.acquire()).await;
    let troubles = [
        (Method::PUT, Some(2), Trouble::Status(500, "away")),
        (Method::GET, Some(1), Trouble::Late(Duration::from_secs(4))),
        (Method::PUT, Some(1), Trouble::Hang),
        (
            Method::PUT,
            Some(1),
            Trouble::Status(409, "changed meanwhile"),
        ),
    ];
    let script = async {
        for (method, times, trouble) in troubles {
            api.rule(Rule {
                client: "old",
                method,
                path: "leases",
                times,
                trouble,
            });
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    };
    tokio::select! {
        lost = old.hold() => panic!("{lost}"),
        () = new.acquire() => panic!("another one began"),
        () = script => {}
    }
    assert!(of_old.term().is_some() && of_new.term().is_none());
    // One that stops gives the Lease away.
    old.vacate().await;
    let before = Instant::now();
    in_time(new.acquire()).await;
    assert!(before.elapsed() < DURATION, "{:?}", before.elapsed());
}
