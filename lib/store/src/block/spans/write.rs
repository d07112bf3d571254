//! The columns of spans become a Native block.

use std::ops::Range;

use super::{Ends, Group, Row, SpanColumns, column_names};
use crate::block::dictionary::Dictionary;
use crate::block::keys::MapColumn;
use crate::block::native::{self, Fixed};
use crate::block::nested::bytes_of;
use crate::block::out::Out;
use crate::block::strings::Strings;
use crate::schema::promoted::{Kind, PROMOTED_RESOURCE, PROMOTED_SPAN, numbered};
use crate::schema::spans::{KIND, MAP_TO_STRING, STATUS};

/// A range of rows on its way out.
struct Written<'a> {
    columns: &'a SpanColumns,
    rows: &'a [Row],
    range: Range<usize>,
}

impl Written<'_> {
    fn fixed<T: Fixed>(&self, out: &mut Out<'_>, name: &str, ty: &str, of: impl Fn(&Row) -> T) {
        native::column(out.buffer(), name, ty);
        native::all(out.buffer(), self.rows.iter().map(of));
    }

    /// A column that spans share with their group.
    fn grouped(
        &self,
        out: &mut Out<'_>,
        name: &str,
        dictionary: &Dictionary,
        of: impl Fn(&Group) -> u32,
    ) {
        let number = |row: &Row| self.columns.groups.get(row.group as usize).map_or(0, &of);
        dictionary.write_column(out.buffer(), name, self.rows.iter().map(number));
    }

    /// Where the values of these rows lie in a column of variable length.
    fn range_of(&self, end: impl Fn(&Ends) -> usize) -> Range<usize> {
        bytes_of(self.range.clone(), |row| {
            self.columns.rows.get(row).map(|row| end(&row.ends))
        })
    }

    fn text(&self, out: &mut Out<'_>, name: &str, strings: &Strings, end: impl Fn(&Ends) -> usize) {
        native::column(out.buffer(), name, "String");
        let range = self.range_of(end);
        strings.write(out, range.start, range.end);
    }

    /// The head, offsets and keys of a map column; its values follow.
    fn map(
        &self,
        out: &mut Out<'_>,
        (name, ty): (&str, &str),
        map: MapColumn,
        end: impl Fn(&Ends) -> usize,
    ) -> Range<usize> {
        native::column(out.buffer(), name, ty);
        native::low_cardinality_version(out.buffer());
        let pairs = self.range_of(&end);
        native::offsets(
            out.buffer(),
            pairs.start,
            self.rows.iter().map(|row| end(&row.ends)),
        );
        self.columns.maps[map as usize].write(out.buffer(), pairs.clone());
        pairs
    }

    fn promoted(&self, out: &mut Out<'_>) {
        let columns = self.columns;
        for (promoted, i) in numbered(&PROMOTED_SPAN) {
            let name = promoted.column;
            match promoted.kind {
                Kind::Name => {
                    if let Some(dictionary) = columns.promoted_names.get(i) {
                        let number = |row: &Row| row.promoted.get(i).copied().unwrap_or(0);
                        dictionary.write_column(out.buffer(), name, self.rows.iter().map(number));
                    }
                }
                Kind::Text => {
                    if let Some(strings) = columns.promoted_texts.get(i) {
                        let end = |ends: &Ends| ends.texts.get(i).copied().unwrap_or(0);
                        self.text(out, name, strings, end);
                    }
                }
                Kind::Code => {
                    let code = |row: &Row| row.codes.get(i).copied().unwrap_or(0);
                    self.fixed(out, name, promoted.kind.sql(), code);
                }
            }
        }
        for (i, promoted) in PROMOTED_RESOURCE.iter().enumerate() {
            if let Some(dictionary) = columns.promoted_resource.get(i) {
                let number = |group: &Group| group.promoted.get(i).copied().unwrap_or(0);
                self.grouped(out, promoted.column, dictionary, number);
            }
        }
    }

    fn maps(&self, out: &mut Out<'_>) {
        let columns = self.columns;
        self.map(out, ("attr_str", MAP_TO_STRING), MapColumn::Str, |e| {
            e.str_pairs
        });
        let bytes = self.range_of(|ends| ends.str_bytes);
        columns.str_values.write(out, bytes.start, bytes.end);
        let int = ("attr_int", "Map(LowCardinality(String), Int64)");
        let pairs = self.map(out, int, MapColumn::Int, |e| e.int_pairs);
        let values = columns.int_values.get(pairs).unwrap_or_default();
        native::all(out.buffer(), values.iter().copied());
        let double = ("attr_double", "Map(LowCardinality(String), Float64)");
        let pairs = self.map(out, double, MapColumn::Double, |e| e.double_pairs);
        let values = columns.double_values.get(pairs).unwrap_or_default();
        native::all(out.buffer(), values.iter().copied());
        self.map(out, ("attr_other", MAP_TO_STRING), MapColumn::Other, |e| {
            e.other_pairs
        });
        let bytes = self.range_of(|ends| ends.other_bytes);
        columns.other_values.write(out, bytes.start, bytes.end);
    }
}

impl SpanColumns {
    /// Appends a Native block of these rows; nothing for none, since an empty block looks different.
    pub(crate) fn write(&self, range: Range<usize>, out: &mut Out<'_>) {
        let rows = self.rows.get(range.clone()).unwrap_or_default();
        if rows.is_empty() {
            return;
        }
        let w = Written {
            columns: self,
            rows,
            range,
        };
        native::block(out.buffer(), column_names().len(), rows.len());
        w.fixed(out, "time", "DateTime64(9)", |row| row.time);
        w.fixed(out, "duration_ns", "UInt64", |row| row.duration_ns);
        w.grouped(out, "service", &self.services, |group| group.service);
        self.names
            .write_column(out.buffer(), "name", rows.iter().map(|row| row.name));
        w.fixed(out, "kind", KIND, |row| row.kind);
        w.fixed(out, "status", STATUS, |row| row.status);
        w.text(out, "status_message", &self.status_messages, |e| {
            e.status_message
        });
        w.fixed(out, "trace_id", "FixedString(16)", |row| row.trace_id);
        w.fixed(out, "span_id", "FixedString(8)", |row| row.span_id);
        w.fixed(out, "parent_span_id", "FixedString(8)", |row| {
            row.parent_span_id
        });
        w.text(out, "trace_state", &self.trace_states, |ends| {
            ends.trace_state
        });
        w.fixed(out, "flags", "UInt32", |row| row.flags);
        w.promoted(out);
        w.grouped(out, "resource", &self.resources, |group| group.resource);
        w.grouped(out, "scope_name", &self.scope_names, |group| {
            group.scope_name
        });
        w.grouped(out, "scope_version", &self.scope_versions, |group| {
            group.scope_version
        });
        w.grouped(out, "scope_attributes", &self.scope_attributes, |g| {
            g.scope_attributes
        });
        w.grouped(out, "envelope", &self.envelopes, |group| group.envelope);
        w.maps(out);
        w.fixed(out, "dropped_attributes_count", "UInt32", |row| {
            row.dropped_attributes
        });
        w.fixed(out, "dropped_events_count", "UInt32", |row| {
            row.dropped_events
        });
        w.fixed(out, "dropped_links_count", "UInt32", |row| {
            row.dropped_links
        });
        let before = w.range_of(|ends| ends.events).start;
        self.events
            .write(out, before, rows.iter().map(|row| row.ends.events));
        let before = w.range_of(|ends| ends.links).start;
        self.links
            .write(out, before, rows.iter().map(|row| row.ends.links));
    }
}
