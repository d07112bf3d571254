//! The migrations, in order.

use crate::schema::tables::{red_hours, schema_migrations};
use crate::schema::{Object, SchemaOptions, objects};

/// One migration. Its statements can run any number of times, and on two nodes at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Its number, counted from 1.
    pub version: u32,
    /// The schema version that a program must know at least to work with the result: a program of
    /// an earlier release still writes and reads while a new one is rolled out, or after going back.
    pub needs: u32,
    /// What it does.
    pub name: &'static str,
    /// How.
    pub statements: Vec<String>,
}

/// All migrations as these options render them. The definitions in [`schema`](crate::schema) say what is
/// there after the last one; a migration that has landed never changes.
pub fn migrations(options: &SchemaOptions) -> Vec<Migration> {
    let first = objects(options).into_iter().map(as_at_first);
    vec![
        Migration {
            version: 1,
            needs: 1,
            name: "first schema",
            statements: first.flat_map(|o| options.create(&o)).collect(),
        },
        Migration {
            version: 2,
            needs: 1,
            name: "measures of hours in LZ4",
            statements: Vec::from_iter(options.modify_column(&red_hours(), "buckets")),
        },
    ]
}

/// An object as migration 1 makes it: without what later ones change.
fn as_at_first(mut object: Object) -> Object {
    if let Object::Table(table) = &mut object
        && table.name == "red_hours"
    {
        for column in table.columns.iter_mut().filter(|c| c.name == "buckets") {
            column.codec = Some("ZSTD(1)".into());
        }
    }
    object
}

/// The statements that create it all on an empty server, the database included. Each may run again
/// without harm.
pub fn statements(options: &SchemaOptions) -> Vec<String> {
    let mut statements = vec![options.create_database()];
    statements.extend(options.create_table(&schema_migrations()));
    for migration in migrations(options) {
        statements.extend(migration.statements);
    }
    statements
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

    #[test]
    fn what_has_landed_does_not_change() {
        let cluster = SchemaOptions {
            cluster: Some("c".to_owned()),
            ..SchemaOptions::default()
        };
        let landed = [
            (1, "87f7284d49097e74", "c5d46299ba0474e6"),
            (2, "2ddf410fd94d6225", "fb65deee470868ef"),
        ];
        let now = landed.map(|(version, ..)| {
            let of = |options| checksum(options, version);
            (version, of(&SchemaOptions::default()), of(&cluster))
        });
        assert_eq!(
            now.each_ref()
                .map(|(v, single, clustered)| (*v, single.as_str(), clustered.as_str())),
            landed
        );
        let versions = migrations(&cluster).into_iter().map(|m| m.version);
        assert!(
            versions.eq(1..=2),
            "a new migration belongs into the table above"
        );
    }
}
