//! What a log holds is stored without a restart when ClickHouse has another password or is elsewhere.

use std::fs;
use std::path::Path;

use http::StatusCode;
use spanloom_collector::LogConfig;
use spanloom_engine::testing::TestEngine;
use spanloom_store::access::{PASSWORD_FILE, USER_FILE};

use super::gate::Gate;
use super::sending::request;
use super::{DEADLINE, ENGINE, Setup, config, until};

/// Changes a file in one step, as a kubelet does.
fn write(folder: &Path, name: &str, text: &str) {
    let temporary = folder.join(".new");
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, folder.join(name)).unwrap();
}

/// What the operator writes for a ClickHouse of the user's own.
pub fn external(url: &str) -> String {
    format!("storage: {{external: {{url: '{url}'}}}}")
}

/// Waits until these spans are stored, each once.
pub async fn await_stored(setup: &Setup, names: &str) {
    let sql = "SELECT arrayStringConcat(arraySort(groupArray(name)), ' ') FROM spans";
    let begun = std::time::Instant::now();
    loop {
        let stored = setup.text(sql).await;
        if stored == names {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "{stored}, not {names}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn another_password_and_another_address_need_no_restart() {
    let engine = ENGINE.get_or_init(TestEngine::start).await;
    let (url, inner) = (engine.url(), engine.password());
    let gate = Gate::open(&url, "one", inner).await;
    let temporary = tempfile::tempdir().unwrap();
    let credentials = temporary.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    write(&credentials, USER_FILE, engine.user());
    write(&credentials, PASSWORD_FILE, "one");
    let setup = Setup::changed(|config| {
        // Of these nothing is told but in the configuration and the files.
        config.store.url.clear();
        config.store.password.clear();
        config.store.credentials_dir = Some(credentials.clone());
        config.log = Some(LogConfig {
            folder: temporary.path().join("log"),
            max_bytes: 64 << 20,
        });
    })
    .await;
    setup.configure(&config(1, &external(&gate.url()))).await;
    setup.ready().await;
    let app = setup.sender("127.0.0.1");
    assert_eq!(app.send(&request("a", &[])).await, StatusCode::OK);
    await_stored(&setup, "a").await;
    assert_eq!(gate.refused(), 0);

    // The old password does not do any more; the new one comes to the pod later.
    gate.change("two");
    assert_eq!(app.send(&request("b", &[])).await, StatusCode::OK);
    until("the old password is refused", || gate.refused() > 0).await;
    write(&credentials, PASSWORD_FILE, "two\n");
    await_stored(&setup, "a b").await;

    // It moves.
    drop(gate);
    assert_eq!(app.send(&request("c", &[])).await, StatusCode::OK);
    let status = setup.collector.status();
    until("the old address is away", || status().impairment.is_some()).await;
    let gate = Gate::open(&url, "two", inner).await;
    setup.configure(&config(2, &external(&gate.url()))).await;
    await_stored(&setup, "a b c").await;

    // Files that are gone change nothing.
    fs::remove_dir_all(&credentials).unwrap();
    assert_eq!(app.send(&request("d", &[])).await, StatusCode::OK);
    await_stored(&setup, "a b c d").await;
    setup.collector.shutdown(DEADLINE).await.unwrap();
}
