//! Starting, stopping, dying.

use std::path::Path;
use std::time::Duration;

use clickhouse::Client;
use spanloom_engine::{Engine, EngineConfig, testing};

fn client(engine: &Engine) -> Client {
    Client::default()
        .with_url(engine.url())
        .with_user(engine.user())
        .with_password(engine.password())
}

async fn start(config: &EngineConfig) -> Engine {
    Engine::start(config.clone()).await.unwrap()
}

async fn count(engine: &Engine) -> u64 {
    client(engine)
        .query("SELECT count() FROM d.t")
        .fetch_one()
        .await
        .unwrap()
}

async fn fill(engine: &Engine) {
    let client = client(engine);
    client.query("CREATE DATABASE d").execute().await.unwrap();
    let table = "CREATE TABLE d.t (n UInt64) ENGINE = MergeTree ORDER BY n";
    client.query(table).execute().await.unwrap();
    let rows = "INSERT INTO d.t SELECT number FROM numbers(1000)";
    client.query(rows).execute().await.unwrap();
}

#[tokio::test]
async fn data_stays() {
    let folder = tempfile::tempdir().unwrap();
    let config = testing::config(folder.path()).await;
    let engine = start(&config).await;
    fill(&engine).await;
    // A query that runs does not hold up the stop.
    let slow = client(&engine);
    let slow = tokio::spawn(async move {
        slow.query("SELECT count() FROM system.numbers WHERE NOT ignore(number)")
            .fetch_one::<u64>()
            .await
    });
    until_running(&engine).await;
    let since = std::time::Instant::now();
    engine.stop().await.unwrap();
    assert!(
        since.elapsed() < Duration::from_secs(10),
        "{:?}",
        since.elapsed()
    );
    assert!(slow.await.unwrap().is_err());
    let mut engine = start(&config).await;
    assert_eq!(count(&engine).await, 1000);
    kill(engine.pid());
    assert!(!engine.died().await.unwrap().success());
    let engine = start(&config).await;
    assert_eq!(count(&engine).await, 1000);
    engine.stop().await.unwrap();
}

#[tokio::test]
async fn an_engine_that_dies_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let config = testing::config(folder.path()).await;
    let mut engine = start(&config).await;
    fill(&engine).await;
    let (client, first) = (client(&engine), engine.pid());
    let count = "SELECT count() FROM system.one";
    let answers = async || client.query(count).fetch_one::<u64>().await.is_ok();
    assert!(answers().await);
    kill(first);
    let again = async {
        // Until it is gone, and until it is there again.
        while answers().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        while !answers().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        ended = engine.wait() => panic!("{ended:?}"),
        () = again => {}
    }
    assert_ne!(engine.pid(), first);
    assert_eq!(self::count(&engine).await, 1000);
    engine.stop().await.unwrap();
}

async fn until_running(engine: &Engine) {
    let client = client(engine);
    let query = "SELECT count() FROM system.processes WHERE query LIKE '%system.numbers%'";
    // This query itself is one.
    while client.query(query).fetch_one::<u64>().await.unwrap() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn kill(pid: u32) {
    let status = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let config = testing::config(folder.path()).await;
    let engine = start(&config).await;
    let error = Engine::start(config.clone()).await.unwrap_err().to_string();
    let pid = format!("(process {})", engine.pid());
    assert!(
        error.contains("another spanloom is using") && error.contains(&pid),
        "{error}"
    );
    engine.stop().await.unwrap();
}

#[tokio::test]
async fn parent_gone() {
    let folder = tempfile::tempdir().unwrap();
    let config = testing::config(folder.path()).await;
    let engine = start(&config).await;
    let process = format!("/proc/{}", engine.pid());
    fill(&engine).await;
    drop(engine);
    // Its standard input has ended, as it does when the parent dies.
    let since = std::time::Instant::now();
    while is_running(Path::new(&process)) {
        assert!(
            since.elapsed() < Duration::from_secs(20),
            "the child outlives its parent"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Not gone, and not merely waiting to be collected.
fn is_running(process: &Path) -> bool {
    std::fs::read_to_string(process.join("stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim()
            .starts_with('Z')
    })
}

#[tokio::test]
async fn what_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let good = testing::config(folder.path()).await;
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a library").unwrap();
    let cases = [
        (
            EngineConfig {
                listen: busy.local_addr().unwrap(),
                ..good.clone()
            },
            "cannot listen on",
        ),
        (
            EngineConfig {
                library: file.clone(),
                ..good.clone()
            },
            "cannot load",
        ),
        (
            EngineConfig {
                data_dir: file.clone(),
                ..good.clone()
            },
            "file",
        ),
        (
            EngineConfig {
                host_command: vec!["/no/such".into()],
                ..good.clone()
            },
            "/no/such",
        ),
        (
            EngineConfig {
                host_command: vec![],
                ..good.clone()
            },
            "no command",
        ),
        (
            EngineConfig {
                host_command: vec!["true".into()],
                ..good.clone()
            },
            "before it was ready",
        ),
    ];
    for (config, expect) in cases {
        let error = Engine::start(config).await.unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    }
}

/// More at once than there are slots and places to wait: some are told to come again, all others
/// get their answer.
#[tokio::test]
async fn overload() {
    let folder = tempfile::tempdir().unwrap();
    let engine = start(&testing::config(folder.path()).await).await;
    let client = client(&engine);
    let asked: Vec<_> = (0..320)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                client
                    .query("SELECT 1 + sleep(0.2)")
                    .fetch_one::<u16>()
                    .await
            })
        })
        .collect();
    let (mut answered, mut refused) = (0, 0);
    for one in asked {
        match one.await.unwrap() {
            Ok(1) => answered += 1,
            Ok(other) => panic!("{other}"),
            Err(error) => {
                assert!(error.to_string().contains("Code: 202."), "{error}");
                refused += 1;
            }
        }
    }
    assert!(
        refused > 0 && answered >= 256,
        "{answered} answered, {refused} refused"
    );
    engine.stop().await.unwrap();
}

/// Reads that last take ten of the twelve slots at most.
#[tokio::test]
async fn slow_reads_do_not_keep_inserts_out() {
    let folder = tempfile::tempdir().unwrap();
    let engine = start(&testing::config(folder.path()).await).await;
    let client = client(&engine);
    let run = |sql: &'static str| client.query(sql).execute();
    run("CREATE TABLE running (reads UInt64) ENGINE = Memory")
        .await
        .unwrap();
    let mut slow = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let client = client.clone();
        slow.spawn(async move {
            client
                .query("SELECT sum(sleepEachRow(1)) FROM numbers(120) SETTINGS max_block_size = 1")
                .fetch_one::<u64>()
                .await
        });
    }
    for _ in 0..200 {
        run("INSERT INTO running SELECT count() FROM system.processes \
             WHERE query LIKE 'SELECT sum(sleepEachRow%'")
        .await
        .unwrap();
    }
    assert!(slow.try_join_next().is_none(), "a slow read has ended");
    // Their clients go, so reads get slots again.
    slow.shutdown().await;
    let most: u64 = client
        .query("SELECT max(reads) FROM running")
        .fetch_one()
        .await
        .unwrap();
    assert_eq!(most, 10);
    engine.stop().await.unwrap();
}

#[tokio::test]
async fn memory_limit() {
    let folder = tempfile::tempdir().unwrap();
    let config = testing::config(folder.path()).await;
    let engine = start(&EngineConfig {
        memory_limit_bytes: 1 << 30,
        ..config
    })
    .await;
    let query = "SELECT value FROM system.server_settings WHERE name = 'max_server_memory_usage'";
    let limit: String = client(&engine).query(query).fetch_one().await.unwrap();
    assert_eq!(limit, (1_u64 << 30).to_string());
    let greedy = "SELECT length(groupArray(toString(number))) FROM numbers(100000000)";
    let error = client(&engine)
        .query(greedy)
        .fetch_one::<u64>()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("Code: 241."), "{error}");
    engine.stop().await.unwrap();
}
