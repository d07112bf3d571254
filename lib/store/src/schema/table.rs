//! What a table, a view and a rollup are made of, before they become SQL.

use std::borrow::Cow;

/// Text that is usually known at compile time; a benchmark may put its own in.
pub type Text = Cow<'static, str>;

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: Text,
    /// Its type, spelled as ClickHouse prints it, since a migration compares the two.
    pub ty: Text,
    /// An expression for inserts that leave the column out.
    pub default: Option<Text>,
    /// The codecs, without the word `CODEC`.
    pub codec: Option<Text>,
}

impl Column {
    /// A column with ClickHouse's default codec.
    pub fn new(name: impl Into<Text>, ty: impl Into<Text>) -> Self {
        Self {
            name: name.into(),
            ty: ty.into(),
            default: None,
            codec: None,
        }
    }

    /// With these codecs.
    pub fn codec(mut self, codec: impl Into<Text>) -> Self {
        self.codec = Some(codec.into());
        self
    }

    /// With this default.
    pub fn default_to(mut self, expression: impl Into<Text>) -> Self {
        self.default = Some(expression.into());
        self
    }
}

/// A skip index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Its name.
    pub name: Text,
    /// What is indexed.
    pub expression: Text,
    /// Its type with parameters.
    pub kind: Text,
    /// Granules per index entry.
    pub granularity: u32,
}

impl Index {
    /// An index with one entry a granule.
    pub fn new(name: impl Into<Text>, expression: impl Into<Text>, kind: impl Into<Text>) -> Self {
        Self {
            name: name.into(),
            expression: expression.into(),
            kind: kind.into(),
            granularity: 1,
        }
    }
}

/// The engines we use, without their `Replicated` prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// Rows as they are.
    MergeTree,
    /// Rows of one key become one by their `SimpleAggregateFunction`s.
    Aggregating,
    /// Rows of one key become one: the highest of this column, or any where none is named.
    Replacing(Option<Text>),
}

/// How long rows live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as the document's retention says.
    Retention,
    /// Just long enough to find the other half of an edge.
    HalfEdges,
}

/// When rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ttl {
    /// The `DateTime` expression that the lifetime is added to, spelled as ClickHouse prints it.
    pub from: Text,
    /// How long after it.
    pub lifetime: Lifetime,
    /// Whether a part goes only as a whole. That costs the server nothing, but a row lives until
    /// the last row of its part may go.
    pub whole_parts: bool,
}

/// One table; with a cluster it becomes a replicated local table and a `Distributed` one over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The name that readers and the writer use.
    pub name: Text,
    /// Its columns in order.
    pub columns: Vec<Column>,
    /// Its skip indices.
    pub indices: Vec<Index>,
    /// Its engine.
    pub engine: Engine,
    /// The partition expression, empty for one partition.
    pub partition_by: Text,
    /// The sort key, with its parentheses.
    pub order_by: Text,
    /// When rows go; `None` for never.
    pub ttl: Option<Ttl>,
    /// Which shard a row belongs to; empty for a table that every node of a cluster holds whole.
    pub sharding_key: Text,
    /// Whether the writer inserts into it, or into a table that feeds it, so that repeated inserts
    /// must be recognised.
    pub deduplicated: bool,
    /// More settings.
    pub settings: Vec<(Text, Text)>,
}

impl Table {
    /// The definition of a column.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// A plain view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Its name.
    pub name: Text,
    /// Its query.
    pub select: String,
}

/// A refreshable materialised view that appends what its query gives to a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollup {
    /// Its name.
    pub name: Text,
    /// Where the rows go.
    pub target: Text,
    /// Seconds between refreshes.
    pub every_seconds: u32,
    /// Its query.
    pub select: String,
}

/// A materialised view that turns what is inserted into one table into rows of another, as a part of
/// the insert. On a cluster it stands on every shard, between the local tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// Its name.
    pub name: Text,
    /// The table whose inserts it sees, as the rows' table is named.
    pub source: String,
    /// Where the rows go, likewise.
    pub target: String,
    /// What it selects from the source, there called `m`; without `FROM` and what follows.
    pub select: Text,
    /// Which rows of the source it takes.
    pub filter: Text,
    /// What it groups by.
    pub group_by: Text,
}

/// Anything that a migration creates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A table.
    Table(Table),
    /// A view.
    View(View),
    /// A rollup.
    Rollup(Rollup),
    /// A feed.
    Feed(Feed),
}
