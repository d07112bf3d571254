//! The migrations, in order.

use super::template;
use crate::schema::SchemaOptions;
use crate::schema::tables::schema_migrations;

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

/// A migration as it is written down: text that never changes once it has landed.
struct Landed {
    needs: u32,
    name: &'static str,
    /// The text for a single node.
    node: &'static str,
    /// The text for a cluster.
    cluster: &'static str,
}

/// The files of a migration.
macro_rules! landed {
    (needs $needs:literal, $name:literal, $file:literal) => {
        Landed {
            needs: $needs,
            name: $name,
            node: include_str!(concat!("../../migrations/", $file, ".node.sql")),
            cluster: include_str!(concat!("../../migrations/", $file, ".cluster.sql")),
        }
    };
}

/// All of them; the first is version 1.
const LANDED: [Landed; 5] = [
    landed!(needs 1, "first schema", "0001-first-schema"),
    landed!(needs 1, "measures of hours in LZ4", "0002-red-hours-lz4"),
    landed!(needs 1, "accounts", "0003-accounts"),
    landed!(needs 1, "calls between spans of any kind", "0004-calls"),
    landed!(needs 1, "measures of hours by the writer", "0005-hours-by-the-writer"),
];

/// All migrations as these options render them. The definitions in [`schema`](crate::schema) say what is
/// there after the last one.
pub fn migrations(options: &SchemaOptions) -> Vec<Migration> {
    let numbered = (1..).zip(&LANDED);
    numbered
        .map(|(version, landed)| {
            let text = match options.cluster {
                Some(_) => landed.cluster,
                None => landed.node,
            };
            Migration {
                version,
                needs: landed.needs,
                name: landed.name,
                statements: template::statements(text, options),
            }
        })
        .collect()
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
    use crate::schema::tables;

    fn cluster() -> SchemaOptions {
        SchemaOptions {
            cluster: Some("c".to_owned()),
            ..SchemaOptions::default()
        }
    }

    #[test]
    fn the_checksum_is_of_the_schema_and_not_of_its_place_or_retention() {
        let options = SchemaOptions::default();
        let other = SchemaOptions {
            database: "elsewhere".to_owned(),
            retention: Duration::from_secs(1),
            ..SchemaOptions::default()
        };
        assert_eq!(checksum(&options, 1), checksum(&other, 1));
        assert_ne!(checksum(&options, 1), checksum(&cluster(), 1));
    }

    #[test]
    fn what_has_landed_does_not_change() {
        let cluster = cluster();
        let landed = [
            (1, "87f7284d49097e74", "c5d46299ba0474e6"),
            (2, "2ddf410fd94d6225", "fb65deee470868ef"),
            (3, "ba7044f34fb66520", "b2f8f9844cda02b4"),
            (4, "13a619dc3bc822a9", "57aab5c8e2bac0d5"),
            (5, "bbe3de7ee571179a", "832d11e0e58400a0"),
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
            versions.eq(1..=5),
            "a new migration belongs into the table above"
        );
    }

    #[test]
    fn every_placeholder_is_filled_in() {
        for options in [SchemaOptions::default(), cluster()] {
            for migration in migrations(&options) {
                for statement in migration.statements {
                    assert!(!statement.contains("${"), "{}: {statement}", migration.name);
                }
            }
        }
    }

    /// What a cluster gets beyond a single node: the statement of a node as far as it is the same.
    fn as_on_a_node(statement: &str) -> String {
        let mut plain = statement
            .replace(" ON CLUSTER `c`", "")
            .replace("_local`", "`");
        let replicated = "Replicated";
        while let Some(at) = plain.find(replicated) {
            let (head, tail) = plain.split_at(at);
            let tail = tail.strip_prefix(replicated).unwrap();
            let (engine, arguments) = tail.split_once('(').unwrap();
            let (arguments, tail) = arguments.split_once(")\n").unwrap();
            // The path and the replica; what else the engine takes stays.
            let own = arguments.splitn(3, ", ").nth(2);
            let own = own.map(|own| format!("({own})")).unwrap_or_default();
            plain = format!("{head}{engine}{own}\n{tail}");
        }
        plain
            .replace(", replicated_deduplication_window_seconds = 86400", "")
            .replace(
                "replicated_deduplication_window",
                "non_replicated_deduplication_window",
            )
    }

    /// A cluster's statements must be those of a node, each for the local table; a column is added to the
    /// `Distributed` table right after, and one that becomes of another type may be changed there.
    fn check_cluster(version: u32, node: &[String], cluster: &[String]) -> Result<(), String> {
        let mut expected = Vec::new();
        for statement in node {
            expected.push(statement.clone());
            if statement.contains(" ADD COLUMN ") {
                expected.push(statement.clone());
            }
        }
        let local = cluster
            .iter()
            .filter(|statement| !statement.contains("ENGINE = Distributed("));
        let mut local: Vec<String> = local.map(|statement| as_on_a_node(statement)).collect();
        local.dedup_by(|next, before| next == before && next.contains(" MODIFY COLUMN "));
        match local == expected {
            true => Ok(()),
            false => Err(format!(
                "migration {version}: {local:#?} is not {expected:#?}"
            )),
        }
    }

    #[test]
    fn a_cluster_gets_what_a_node_gets() {
        let node = migrations(&SchemaOptions::default());
        for (node, cluster) in node.into_iter().zip(migrations(&cluster())) {
            check_cluster(node.version, &node.statements, &cluster.statements).unwrap();
        }
        let check = |node: &str, cluster: &[&str], right: bool| {
            let cluster: Vec<String> = cluster.iter().map(|&sql| sql.to_owned()).collect();
            let result = check_cluster(0, &[node.to_owned()], &cluster);
            assert_eq!(result.is_ok(), right, "{cluster:?}: {result:?}");
        };
        let add = "ALTER TABLE `d`.`t` ADD COLUMN IF NOT EXISTS `x` String";
        let local = "ALTER TABLE `d`.`t_local` ON CLUSTER `c` ADD COLUMN IF NOT EXISTS `x` String";
        let distributed = "ALTER TABLE `d`.`t` ON CLUSTER `c` ADD COLUMN IF NOT EXISTS `x` String";
        check(add, &[local, distributed], true);
        check(add, &[local], false);
        check(add, &[], false);
        let other = "ALTER TABLE `d`.`t` ON CLUSTER `c` ADD COLUMN IF NOT EXISTS `x` UInt8";
        check(add, &[local, other], false);
    }

    #[test]
    fn each_table_of_a_cluster_has_its_distributed_one() {
        let cluster = cluster();
        let made: Vec<String> = migrations(&cluster)
            .into_iter()
            .flat_map(|migration| migration.statements)
            .collect();
        for table in tables() {
            let distributed = cluster.create_table(&table).pop().unwrap();
            assert!(distributed.contains("Distributed("), "{distributed}");
            assert!(made.contains(&distributed), "{distributed}");
        }
    }
}
