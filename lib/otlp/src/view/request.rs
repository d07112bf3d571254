//! The request down to its scopes.

use super::sealed::Parse;
use super::{Extent, MergedAttributes, Messages, SpanView};
use crate::error::DecodeError;
use crate::records::OWN;
use crate::wire::{LEN, Reader, VARINT, key};

/// An `ExportTraceServiceRequest` (or `TracesData`, which is the same on the wire).
#[derive(Debug, Clone, Copy)]
pub struct TracesView<'a>(&'a [u8]);

impl<'a> TracesView<'a> {
    /// A view of `bytes`. Nothing is read yet.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The resources with their spans.
    pub fn resource_spans(&self) -> Messages<'a, ResourceSpansView<'a>> {
        Messages::new(Reader::new(self.0, 0), 1)
    }
}

// ResourceSpans and ScopeSpans have the same shape: 1 what the spans belong to, 2 they, 3 a URL.
const OWNER: u32 = key(1, LEN);
const ITEMS: u32 = key(2, LEN);
const SCHEMA_URL: u32 = key(3, LEN);
const SERVICE: u32 = key(OWN, LEN);

/// The spans of one resource.
#[derive(Debug, Clone, Copy)]
pub struct ResourceSpansView<'a> {
    /// The schema URL of the resource.
    pub schema_url: &'a [u8],
    /// The service, in [records](crate::records) only: a field of our own, which OTLP does not have.
    pub service: &'a [u8],
    /// The resource; empty where the message has none.
    pub resource: ResourceView<'a>,
    scopes: Reader<'a>,
}

impl<'a> ResourceSpansView<'a> {
    /// The scopes with their spans.
    pub fn scope_spans(&self) -> Messages<'a, ScopeSpansView<'a>> {
        Messages::new(self.scopes, 2)
    }
}

impl<'a> Parse<'a> for ResourceSpansView<'a> {
    fn parse(whole: Reader<'a>) -> Result<Self, DecodeError> {
        let mut reader = whole;
        let mut resource = Owner::new(whole);
        let mut dropped_attributes_count = 0;
        let mut scopes = Extent::NONE;
        let (mut schema_url, mut service): (&[u8], &[u8]) = (&[], &[]);
        while !reader.is_empty() {
            let before = reader.left();
            match reader.key()? {
                OWNER => {
                    let mut fields = reader.message()?;
                    resource.piece(fields, reader.left());
                    while !fields.is_empty() {
                        match fields.key()? {
                            RESOURCE_ATTRIBUTES | RESOURCE_ENTITIES => drop(fields.bytes()?),
                            RESOURCE_DROPPED => dropped_attributes_count = fields.varint()? as u32,
                            other => fields.unused(other, 0b1110)?,
                        }
                    }
                }
                ITEMS => {
                    reader.bytes()?;
                    scopes.cover(before, reader.left());
                }
                SCHEMA_URL => schema_url = reader.bytes()?,
                SERVICE => service = reader.bytes()?,
                other => reader.unused(other, 0b1110)?,
            }
        }
        let resource = ResourceView {
            dropped_attributes_count,
            owner: resource,
        };
        Ok(Self {
            schema_url,
            service,
            resource,
            scopes: scopes.of(whole),
        })
    }
}

/// A message whose attributes are read later: the first piece, and where further pieces lie.
#[derive(Debug, Clone, Copy)]
struct Owner<'a> {
    parent: Reader<'a>,
    first: Reader<'a>,
    more: Reader<'a>,
    /// Bytes left in the parent after the first piece; `None` before it.
    after_first: Option<usize>,
}

impl<'a> Owner<'a> {
    fn new(parent: Reader<'a>) -> Self {
        let none = Reader::new(&[], 0);
        Self {
            parent,
            first: none,
            more: none,
            after_first: None,
        }
    }

    #[inline(always)]
    fn piece(&mut self, fields: Reader<'a>, after: usize) {
        match self.after_first {
            None => {
                self.first = fields;
                self.after_first = Some(after);
            }
            Some(after_first) => self.more = self.parent.part(after_first, after),
        }
    }

    fn attributes(&self, field: u32) -> MergedAttributes<'a> {
        MergedAttributes::new(self.first, self.more, field)
    }
}

const RESOURCE_ATTRIBUTES: u32 = key(1, LEN);
const RESOURCE_DROPPED: u32 = key(2, VARINT);
const RESOURCE_ENTITIES: u32 = key(3, LEN);

/// A resource.
#[derive(Debug, Clone, Copy)]
pub struct ResourceView<'a> {
    /// Attributes that the sender left out.
    pub dropped_attributes_count: u32,
    owner: Owner<'a>,
}

impl<'a> ResourceView<'a> {
    /// The resource's attributes.
    pub fn attributes(&self) -> MergedAttributes<'a> {
        self.owner.attributes(1)
    }
}

/// The spans of one scope.
#[derive(Debug, Clone, Copy)]
pub struct ScopeSpansView<'a> {
    /// The schema URL of the scope.
    pub schema_url: &'a [u8],
    /// The scope; empty where the message has none.
    pub scope: ScopeView<'a>,
    spans: Reader<'a>,
}

impl<'a> ScopeSpansView<'a> {
    /// The spans.
    pub fn spans(&self) -> Messages<'a, SpanView<'a>> {
        Messages::new(self.spans, 2)
    }
}

impl<'a> Parse<'a> for ScopeSpansView<'a> {
    fn parse(whole: Reader<'a>) -> Result<Self, DecodeError> {
        let mut reader = whole;
        let mut scope = ScopeView {
            name: &[],
            version: &[],
            dropped_attributes_count: 0,
            owner: Owner::new(whole),
        };
        let mut spans = Extent::NONE;
        let mut schema_url: &[u8] = &[];
        while !reader.is_empty() {
            let before = reader.left();
            match reader.key()? {
                OWNER => {
                    let fields = reader.message()?;
                    scope.owner.piece(fields, reader.left());
                    scope.merge(fields)?;
                }
                ITEMS => {
                    reader.bytes()?;
                    spans.cover(before, reader.left());
                }
                SCHEMA_URL => schema_url = reader.bytes()?,
                other => reader.unused(other, 0b1110)?,
            }
        }
        Ok(Self {
            schema_url,
            scope,
            spans: spans.of(whole),
        })
    }
}

const SCOPE_NAME: u32 = key(1, LEN);
const SCOPE_VERSION: u32 = key(2, LEN);
const SCOPE_ATTRIBUTES: u32 = key(3, LEN);
const SCOPE_DROPPED: u32 = key(4, VARINT);

/// An instrumentation scope.
#[derive(Debug, Clone, Copy)]
pub struct ScopeView<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its version.
    pub version: &'a [u8],
    /// Attributes that the sender left out.
    pub dropped_attributes_count: u32,
    owner: Owner<'a>,
}

impl<'a> ScopeView<'a> {
    /// The scope's attributes.
    pub fn attributes(&self) -> MergedAttributes<'a> {
        self.owner.attributes(3)
    }

    fn merge(&mut self, mut fields: Reader<'a>) -> Result<(), DecodeError> {
        while !fields.is_empty() {
            match fields.key()? {
                SCOPE_NAME => self.name = fields.bytes()?,
                SCOPE_VERSION => self.version = fields.bytes()?,
                SCOPE_ATTRIBUTES => drop(fields.bytes()?),
                SCOPE_DROPPED => self.dropped_attributes_count = fields.varint()? as u32,
                other => fields.unused(other, 0b1_1110)?,
            }
        }
        Ok(())
    }
}
