//! A trace as it is sent: its spans are encoded one by one, by resource and scope, and a large trace is kept compressed,
//! so that it takes much less memory than its answer.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, message, string};
use serde::Serialize;
use zstd::bulk::Compressor;

use crate::tempo::{json, otlp};
use crate::trace::outline::SpanRecord as _;
use crate::trace::rows::{Converter, SpanRow};
use crate::trace::span;

/// What a resource or a scope takes, in times of its encoding: it is known in other forms as long as rows come.
const COPIES: usize = 4;

/// How it is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Tempo's protobuf.
    Protobuf,
    /// Tempo's JSON.
    Json,
}

impl Format {
    /// What stands before the spans of a resource or a scope: in protobuf its field.
    fn head<M: Message>(self, made: &M) -> Vec<u8>
    where
        for<'a> json::Of<'a, M>: Serialize,
    {
        let mut bytes = Vec::new();
        match self {
            Self::Protobuf => message::encode(1, made, &mut bytes),
            Self::Json => json::write(made, &mut bytes),
        }
        bytes
    }
}

/// A part of an answer. Spans repeat each other, so that the parts of a large trace are kept compressed.
#[derive(Debug)]
pub enum Piece {
    /// As it is sent.
    Plain(Bytes),
    /// Compressed by zstd.
    Packed {
        /// What is kept.
        bytes: Bytes,
        /// How many bytes it stands for.
        length: usize,
    },
}

impl Piece {
    /// The bytes to send.
    ///
    /// # Errors
    /// Never, of what was compressed here.
    pub fn open(self) -> io::Result<Bytes> {
        match self {
            Self::Plain(bytes) => Ok(bytes),
            Self::Packed { bytes, length } => {
                zstd::bulk::decompress(&bytes, length).map(Bytes::from)
            }
        }
    }

    fn kept(&self) -> usize {
        match self {
            Self::Plain(bytes) | Self::Packed { bytes, .. } => bytes.len(),
        }
    }
}

/// Compresses pieces; what it needs is made once.
#[derive(Default)]
struct Packer {
    compressor: Option<Compressor<'static>>,
    /// Larger than what is kept.
    scratch: Vec<u8>,
}

impl Packer {
    /// The fastest level that is worth it: an answer is sent soon.
    const LEVEL: i32 = 1;

    fn pack(&mut self, plain: Vec<u8>) -> Piece {
        match self.compress(&plain) {
            Ok(()) => Piece::Packed {
                bytes: Bytes::copy_from_slice(&self.scratch),
                length: plain.len(),
            },
            Err(_) => Piece::Plain(plain.into()),
        }
    }

    fn compress(&mut self, plain: &[u8]) -> io::Result<()> {
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => none.insert(Compressor::new(Self::LEVEL)?),
        };
        self.scratch.clear();
        self.scratch
            .reserve(zstd::zstd_safe::compress_bound(plain.len()));
        compressor.compress_to_buffer(plain, &mut self.scratch)?;
        Ok(())
    }
}

/// What has been encoded, in pieces that are not moved again.
#[derive(Debug, Default)]
struct Pieces {
    done: Vec<Piece>,
    open: Vec<u8>,
    /// The bytes to send.
    length: usize,
    /// The bytes of [`Self::done`].
    kept: usize,
}

impl Pieces {
    /// What a piece has at least, unless it is the last of its kind. Each scope has one that is not full.
    const PIECE_BYTES: usize = 64 << 10;

    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.open.len();
        write(&mut self.open);
        self.length += self.open.len().saturating_sub(before);
    }

    /// Compresses what was written, if it is a piece.
    fn pack(&mut self, packer: &mut Packer) {
        if self.open.len() >= Self::PIECE_BYTES {
            let piece = packer.pack(std::mem::take(&mut self.open));
            self.kept += piece.kept();
            self.done.push(piece);
        }
    }

    /// About what it takes in memory.
    fn memory(&self) -> usize {
        self.kept + self.open.capacity()
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            let open = std::mem::take(&mut self.open);
            self.done.push(Piece::Plain(open.into()));
        }
    }

    fn append(&mut self, other: Self) {
        self.length += other.length;
        self.close();
        self.done.extend(other.done);
        self.open = other.open;
    }

    fn finish(mut self) -> Vec<Piece> {
        self.close();
        self.done
    }
}

/// The spans of a resource.
#[derive(Debug)]
struct OfResource {
    resource: Vec<u8>,
    schema_url: String,
    scopes: Vec<OfScope>,
    /// Kept, so that its address is of no other.
    _of: Arc<span::Resource>,
}

/// The spans of a scope.
#[derive(Debug)]
struct OfScope {
    scope: Vec<u8>,
    schema_url: String,
    spans: Pieces,
    _of: Arc<span::Scope>,
}

/// A trace, encoded.
pub struct Encoded {
    format: Format,
    trace_id: [u8; 16],
    resources: Vec<OfResource>,
    /// The places of resources, and of their scopes, by the addresses of what is known of them.
    places: HashMap<usize, (usize, HashMap<usize, usize>)>,
    converter: Converter,
    packer: Packer,
    spans: usize,
    bytes: usize,
}

impl Encoded {
    /// Of a trace without spans.
    pub fn new(format: Format, trace_id: [u8; 16]) -> Self {
        Self {
            format,
            trace_id,
            resources: Vec::new(),
            places: HashMap::new(),
            converter: Converter::default(),
            packer: Packer::default(),
            spans: 0,
            bytes: 0,
        }
    }

    /// How many spans it has.
    pub fn spans(&self) -> usize {
        self.spans
    }

    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the span of a row.
    pub fn add(&mut self, row: SpanRow) {
        let resource = self.converter.resource(&row).0;
        let scope = self.converter.scope(&row).0;
        let format = self.format;
        let (at, scopes) = self
            .places
            .entry(Arc::as_ptr(&resource).addr())
            .or_insert_with(|| (self.resources.len(), HashMap::new()));
        if *at == self.resources.len() {
            let made = otlp::resource_of(&resource, row.service());
            let bytes = format.head(&made);
            self.bytes += COPIES * bytes.len();
            self.resources.push(OfResource {
                resource: bytes,
                schema_url: resource.schema_url.clone(),
                scopes: Vec::new(),
                _of: resource,
            });
        }
        let Some(group) = self.resources.get_mut(*at) else {
            return;
        };
        let next = group.scopes.len();
        let at = *scopes.entry(Arc::as_ptr(&scope).addr()).or_insert(next);
        if at == next {
            let made = otlp::scope_of(&scope);
            let bytes = format.head(&made);
            self.bytes += COPIES * bytes.len();
            group.scopes.push(OfScope {
                scope: bytes,
                schema_url: scope.schema_url.clone(),
                spans: Pieces::default(),
                _of: scope,
            });
        }
        let Some(group) = group.scopes.get_mut(at) else {
            return;
        };
        let made = otlp::span_of(self.trace_id, row);
        let before = group.spans.memory();
        let is_first = group.spans.length == 0;
        group.spans.write(|bytes| match format {
            Format::Protobuf => message::encode(2, &made, bytes),
            Format::Json => {
                if !is_first {
                    bytes.push(b',');
                }
                json::write(&made, bytes);
            }
        });
        group.spans.pack(&mut self.packer);
        self.spans += 1;
        self.bytes = (self.bytes + group.spans.memory()).saturating_sub(before);
    }

    /// All of it, in pieces: in protobuf the fields of a `Trace`, in JSON the list of `resourceSpans`.
    pub fn finish(self) -> (usize, Vec<Piece>) {
        let mut all = Pieces::default();
        let format = self.format;
        if format == Format::Json {
            all.write(|bytes| bytes.push(b'['));
        }
        for (place, group) in self.resources.into_iter().enumerate() {
            match format {
                Format::Protobuf => group.protobuf(&mut all),
                Format::Json => {
                    if place > 0 {
                        all.write(|bytes| bytes.push(b','));
                    }
                    group.json(&mut all);
                }
            }
        }
        if format == Format::Json {
            all.write(|bytes| bytes.push(b']'));
        }
        (all.length, all.finish())
    }
}

/// A field of bytes that are written next.
fn begin(tag: u32, length: usize, bytes: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, bytes);
    encode_varint(length as u64, bytes);
}

/// The length of a field of bytes, with its tag.
fn field_length(tag: u32, length: usize) -> usize {
    let mut head = Vec::new();
    begin(tag, length, &mut head);
    head.len() + length
}

/// The field of a schema URL.
fn schema_url(url: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !url.is_empty() {
        string::encode(3, &url.to_owned(), &mut bytes);
    }
    bytes
}

impl OfResource {
    /// As an element of `Trace.resource_spans`.
    fn protobuf(self, all: &mut Pieces) {
        let url = schema_url(&self.schema_url);
        let scopes: Vec<_> = self
            .scopes
            .into_iter()
            .map(|group| {
                let url = schema_url(&group.schema_url);
                let length = group.scope.len() + group.spans.length + url.len();
                (group, url, length)
            })
            .collect();
        let of_scopes = scopes.iter().map(|(.., length)| field_length(2, *length));
        let length = self.resource.len() + of_scopes.sum::<usize>() + url.len();
        all.write(|bytes| {
            begin(1, length, bytes);
            bytes.extend_from_slice(&self.resource);
        });
        for (group, url, length) in scopes {
            all.write(|bytes| {
                begin(2, length, bytes);
                bytes.extend_from_slice(&group.scope);
            });
            all.append(group.spans);
            all.write(|bytes| bytes.extend_from_slice(&url));
        }
        all.write(|bytes| bytes.extend_from_slice(&url));
    }

    fn json(self, all: &mut Pieces) {
        let url = |url: &str| match url {
            "" => String::new(),
            url => format!(",\"schemaUrl\":{}", serde_json::Value::from(url)),
        };
        all.write(|bytes| {
            bytes.extend_from_slice(b"{\"resource\":");
            bytes.extend_from_slice(&self.resource);
            bytes.extend_from_slice(b",\"scopeSpans\":[");
        });
        for (place, group) in self.scopes.into_iter().enumerate() {
            all.write(|bytes| {
                bytes.extend_from_slice(if place > 0 { b"," } else { b"" });
                bytes.extend_from_slice(b"{\"scope\":");
                bytes.extend_from_slice(&group.scope);
                bytes.extend_from_slice(b",\"spans\":[");
            });
            all.append(group.spans);
            all.write(|bytes| {
                bytes.push(b']');
                bytes.extend_from_slice(url(&group.schema_url).as_bytes());
                bytes.push(b'}');
            });
        }
        all.write(|bytes| {
            bytes.push(b']');
            bytes.extend_from_slice(url(&self.schema_url).as_bytes());
            bytes.push(b'}');
        });
    }
}
