use super::*;

fn accounts() -> Arc<Accounts> {
    Accounts::new(&AccountsConfig {
        node: "node-a".to_owned(),
        agent: "collector-1".to_owned(),
        age: Duration::ZERO,
    })
}

fn sorted(rows: &[AccountRow]) -> Vec<(&str, &str, u64, u64)> {
    let mut rows: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.stage.as_ref(),
                row.reason.as_ref(),
                row.spans,
                row.bytes,
            )
        })
        .collect();
    rows.sort_unstable();
    rows
}

#[test]
fn each_span_of_a_request_has_its_reason_and_its_share_of_the_bytes() {
    let check = |tally: Tally, bytes: usize, expect: &[(&str, &str, u64, u64)]| {
        let accounts = accounts();
        let mut postings = Postings::default();
        postings.request(&tally, bytes);
        accounts.post(&postings);
        assert_eq!(sorted(&accounts.take_all()), expect, "{tally:?}");
    };
    let kept = Tally {
        kept: 3,
        ..Tally::default()
    };
    check(kept.clone(), 100, &[("store", "stored", 3, 100)]);
    let mut mixed = Tally {
        sampled_out: 2,
        dropped: 1,
        ..kept
    };
    mixed.reject(Rejection::TooOld, 1);
    mixed.reject(Rejection::Store, 3);
    check(
        mixed,
        101,
        &[
            ("process", "drop", 1, 10),
            ("process", "too_old", 1, 10),
            ("sample", "head_sampling", 2, 20),
            ("store", "refused", 3, 31),
            ("store", "stored", 3, 30),
        ],
    );
    // Probes are not accounted for.
    let probes = Tally {
        kept: 2,
        probes: 2,
        ..Tally::default()
    };
    check(probes, 100, &[]);
    check(Tally::default(), 100, &[]);
}

#[test]
fn what_is_not_written_comes_back() {
    let accounts = accounts();
    accounts.refused("memory", 10);
    let taken = accounts.take_due();
    assert_eq!(sorted(&taken), [("receive", "memory", 0, 10)]);
    assert!(accounts.take_due().is_empty(), "taken once");
    accounts.refused("memory", 5);
    accounts.put_back(taken.clone());
    let again = accounts.take_due();
    // The minute may have passed in between.
    let bytes: u64 = again.iter().map(|row| row.bytes).sum();
    assert_eq!(bytes, 15);
    assert_eq!(
        (&*again[0].node, &*again[0].agent),
        ("node-a", "collector-1")
    );
}

#[test]
fn young_rows_wait() {
    let accounts = Accounts::new(&AccountsConfig {
        age: Duration::from_secs(3600),
        ..AccountsConfig::default()
    });
    accounts.refused("memory", 10);
    assert!(accounts.take_due().is_empty());
    assert_eq!(accounts.take_all().len(), 1);
}

#[test]
fn rows_are_bounded_and_what_finds_no_room_is_counted() {
    let accounts = accounts();
    let row = |minute| AccountRow {
        minute,
        node: "n".into(),
        agent: "a".into(),
        stage: "store".into(),
        reason: "stored".into(),
        spans: 2,
        bytes: 1,
    };
    let most = u32::try_from(MAX_ROWS).unwrap();
    accounts.put_back((0..most + 3).map(row).collect());
    // What has a row already still counts.
    accounts.put_back(vec![row(0)]);
    assert_eq!(accounts.left_out.get(), 6);
    let rows = accounts.take_all();
    assert_eq!(rows.len(), MAX_ROWS);
    let spans: u64 = rows.iter().map(|row| row.spans).sum();
    assert_eq!(spans, 2 * u64::from(most) + 2);
}
