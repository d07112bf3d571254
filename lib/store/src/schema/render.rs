//! Definitions become SQL: for the version table, for tests and for benchmarks. What a database is made
//! with are [migrations](crate::migrate).

use super::SchemaOptions;
use super::table::{Column, Engine, Feed, Lifetime, Object, Rollup, Table, Text, Ttl, View};

/// A name as an SQL identifier.
pub fn identifier(name: &str) -> String {
    format!("`{}`", escape(name, '`'))
}

/// Text as an SQL string literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", escape(text, '\''))
}

/// Text as it stands between these quotes.
pub(crate) fn escape(text: &str, quote: char) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character == quote || character == '\\' {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// A column as `CREATE TABLE` and `ADD COLUMN` have it.
fn column_definition(column: &Column) -> String {
    let mut sql = format!("{} {}", identifier(&column.name), column.ty);
    if let Some(default) = &column.default {
        sql.push_str(&format!(" DEFAULT {default}"));
    }
    if let Some(codec) = &column.codec {
        sql.push_str(&format!(" CODEC({codec})"));
    }
    sql
}

impl SchemaOptions {
    /// A table's name with its database, quoted.
    pub fn qualified(&self, name: &str) -> String {
        format!("{}.{}", identifier(&self.database), identifier(name))
    }

    /// The name of the table that holds the rows: with a cluster, of the local one under the
    /// `Distributed` one.
    pub fn table_with_rows(&self, table: &Table) -> String {
        match self.cluster {
            Some(_) if !table.sharding_key.is_empty() => format!("{}_local", table.name),
            _ => table.name.to_string(),
        }
    }

    pub(crate) fn on_cluster(&self) -> String {
        match &self.cluster {
            Some(cluster) => format!(" ON CLUSTER {}", identifier(cluster)),
            None => String::new(),
        }
    }

    /// The statement that creates our database.
    pub fn create_database(&self) -> String {
        format!(
            "CREATE DATABASE IF NOT EXISTS {}{}",
            identifier(&self.database),
            self.on_cluster()
        )
    }

    /// The TTL of a table as ClickHouse prints it, without the word `TTL`.
    pub fn ttl_expression(&self, ttl: &Ttl) -> String {
        let lifetime = match ttl.lifetime {
            Lifetime::Retention => self.retention,
            Lifetime::HalfEdges => self.half_edges_ttl,
        };
        format!("{} + toIntervalSecond({})", ttl.from, lifetime.as_secs())
    }

    /// The statement that gives a table the present retention.
    pub fn modify_ttl(&self, table: &Table) -> Option<String> {
        let ttl = self.ttl_expression(table.ttl.as_ref()?);
        Some(self.alter(table, &format!("MODIFY TTL {ttl}")))
    }

    /// The statement that adds a column of a table's definition where it is missing.
    pub fn add_column(&self, table: &Table, column: &str) -> Option<String> {
        let definition = column_definition(table.column(column)?);
        Some(self.alter(table, &format!("ADD COLUMN IF NOT EXISTS {definition}")))
    }

    fn alter(&self, table: &Table, change: &str) -> String {
        format!(
            "ALTER TABLE {}{} {change}",
            self.qualified(&self.table_with_rows(table)),
            self.on_cluster(),
        )
    }

    fn engine(&self, table: &Table) -> String {
        let (name, column): (&str, Option<&Text>) = match &table.engine {
            Engine::MergeTree => ("MergeTree", None),
            Engine::Aggregating => ("AggregatingMergeTree", None),
            Engine::Replacing(column) => ("ReplacingMergeTree", column.as_ref()),
        };
        let mut arguments = Vec::new();
        let mut prefix = "";
        if self.cluster.is_some() {
            prefix = "Replicated";
            let (shard, replica) = match table.sharding_key.is_empty() {
                true => ("all", "{shard}-{replica}"),
                false => ("{shard}", "{replica}"),
            };
            arguments.push(format!(
                "'/clickhouse/tables/{shard}/{{database}}/{{table}}'"
            ));
            arguments.push(format!("'{replica}'"));
        }
        arguments.extend(column.map(|column| column.to_string()));
        match arguments.is_empty() {
            true => format!("{prefix}{name}"),
            false => format!("{prefix}{name}({})", arguments.join(", ")),
        }
    }

    fn settings(&self, table: &Table) -> Vec<String> {
        let mut settings = Vec::new();
        if table.ttl.as_ref().is_some_and(|ttl| ttl.whole_parts) {
            settings.push("ttl_only_drop_parts = 1".to_owned());
        }
        if table.deduplicated {
            let window = self.deduplication_window;
            match self.cluster {
                // A Replicated table keeps its window in Keeper, and forgets by age too.
                Some(_) => settings.extend([
                    format!("replicated_deduplication_window = {window}"),
                    "replicated_deduplication_window_seconds = 86400".to_owned(),
                ]),
                None => settings.push(format!("non_replicated_deduplication_window = {window}")),
            }
        }
        settings.extend(
            table
                .settings
                .iter()
                .map(|(name, value)| format!("{name} = {value}")),
        );
        settings
    }

    /// The statements that create a table: one, or with a cluster the local and the `Distributed`.
    pub fn create_table(&self, table: &Table) -> Vec<String> {
        let mut lines: Vec<String> = table
            .columns
            .iter()
            .map(|column| format!("    {}", column_definition(column)))
            .collect();
        lines.extend(table.indices.iter().map(|index| {
            format!(
                "    INDEX {} {} TYPE {} GRANULARITY {}",
                identifier(&index.name),
                index.expression,
                index.kind,
                index.granularity
            )
        }));
        let local = self.qualified(&self.table_with_rows(table));
        let mut sql = format!(
            "CREATE TABLE IF NOT EXISTS {local}{}\n(\n{}\n)\nENGINE = {}",
            self.on_cluster(),
            lines.join(",\n"),
            self.engine(table),
        );
        if !table.partition_by.is_empty() {
            sql.push_str(&format!("\nPARTITION BY {}", table.partition_by));
        }
        sql.push_str(&format!("\nORDER BY {}", table.order_by));
        if let Some(ttl) = &table.ttl {
            sql.push_str(&format!("\nTTL {}", self.ttl_expression(ttl)));
        }
        let settings = self.settings(table);
        if !settings.is_empty() {
            sql.push_str(&format!("\nSETTINGS {}", settings.join(", ")));
        }
        let mut statements = vec![sql];
        if let Some(cluster) = self
            .cluster
            .as_ref()
            .filter(|_| !table.sharding_key.is_empty())
        {
            statements.push(format!(
                "CREATE TABLE IF NOT EXISTS {}{} AS {local}\n\
                 ENGINE = Distributed({}, {}, {}, {})",
                self.qualified(&table.name),
                self.on_cluster(),
                literal(cluster),
                literal(&self.database),
                literal(&self.table_with_rows(table)),
                table.sharding_key,
            ));
        }
        statements
    }

    fn create_view(&self, view: &View) -> String {
        format!(
            "CREATE VIEW IF NOT EXISTS {}{} AS\n{}",
            self.qualified(&view.name),
            self.on_cluster(),
            view.select
        )
    }

    fn create_rollup(&self, rollup: &Rollup) -> String {
        format!(
            "CREATE MATERIALIZED VIEW IF NOT EXISTS {}{}\nREFRESH EVERY {} SECOND APPEND TO {} AS\n{}",
            self.qualified(&rollup.name),
            self.on_cluster(),
            rollup.every_seconds,
            self.qualified(&rollup.target),
            rollup.select
        )
    }

    fn create_feed(&self, feed: &Feed) -> String {
        format!(
            "CREATE MATERIALIZED VIEW IF NOT EXISTS {}{} TO {} AS\n{}\nFROM {} AS m\n\
             WHERE {}\nGROUP BY {}",
            self.qualified(&feed.name),
            self.on_cluster(),
            self.qualified(&feed.target),
            feed.select,
            self.qualified(&feed.source),
            feed.filter,
            feed.group_by,
        )
    }

    /// The statements that create an object; each may run again without harm.
    pub fn create(&self, object: &Object) -> Vec<String> {
        match object {
            Object::Table(table) => self.create_table(table),
            Object::View(view) => vec![self.create_view(view)],
            Object::Rollup(rollup) => vec![self.create_rollup(rollup)],
            Object::Feed(feed) => vec![self.create_feed(feed)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_text_are_quoted() {
        let check = |name: &str, as_identifier: &str, as_literal: &str| {
            assert_eq!(identifier(name), as_identifier);
            assert_eq!(literal(name), as_literal);
        };
        check("spans", "`spans`", "'spans'");
        check("a`b", "`a\\`b`", "'a`b'");
        check("it's", "`it's`", "'it\\'s'");
        check("a\\b", "`a\\\\b`", "'a\\\\b'");
        check("", "``", "''");
    }
}
