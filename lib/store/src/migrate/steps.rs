//! The migrations, in order.

use crate::schema::{SchemaOptions, objects};

/// One migration. Its statements can run any number of times, and on two nodes at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Its number, counted from 1.
    pub version: u32,
    /// What it does.
    pub name: &'static str,
    /// How.
    pub statements: Vec<String>,
}

/// All migrations as these options render them.
pub fn migrations(options: &SchemaOptions) -> Vec<Migration> {
    let objects = objects(options);
    vec![Migration {
        version: 1,
        name: "first schema",
        statements: objects.iter().flat_map(|o| options.create(o)).collect(),
    }]
}

/// The checksum of a migration whatever the retention: that may change, the statements may not.
pub fn checksum(options: &SchemaOptions, version: u32) -> String {
    let canonical = SchemaOptions {
        cluster: options.cluster.clone(),
        ..SchemaOptions::default()
    };
    let all = migrations(&canonical);
    let statements = all
        .iter()
        .filter(|migration| migration.version == version)
        .flat_map(|migration| &migration.statements);
    // FNV-1a: it guards against editing a migration by mistake, not against anyone's will.
    let mut hash: u64 = 0xCBF2_9CE4_8422_2325;
    for byte in statements.flat_map(|statement| statement.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_checksum_is_of_the_schema_and_not_of_its_place_or_retention() {
        let options = SchemaOptions::default();
        let other = SchemaOptions {
            database: "elsewhere".to_owned(),
            retention: Duration::from_secs(1),
            ..SchemaOptions::default()
        };
        let cluster = SchemaOptions {
            cluster: Some("c".to_owned()),
            ..SchemaOptions::default()
        };
        assert_eq!(checksum(&options, 1), checksum(&other, 1));
        assert_ne!(checksum(&options, 1), checksum(&cluster, 1));
    }
}
