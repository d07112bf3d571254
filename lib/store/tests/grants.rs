//! The grants of a managed store are for all tables that collectors write.

/// A managed store's collectors may insert into all tables of a batch.
#[test]
fn collectors_may_write_every_table() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../operator/plan/tests/golden/users.xml"
    );
    let users = std::fs::read_to_string(path).unwrap();
    for table in spanloom_store::block::TableId::ALL {
        let grant = format!("GRANT INSERT ON spanloom.{}<", table.name());
        assert!(users.contains(&grant), "{grant}");
    }
}
