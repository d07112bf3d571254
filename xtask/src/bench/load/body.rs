//! Bodies that are compressed once and still differ in every request.
//!
//! Spanloom recognises a repeated body and does not store it again, so a pool of prepared bodies cannot be
//! sent as it is; compressing anew would make the generator the slowest part. Each compressed form
//! therefore gets a few stored bytes in front, valid in its own format: a protobuf field that no receiver
//! knows, with a counter in it.

use anyhow::{Context, bail};
use bytes::Bytes;
use serde::Serialize;
use std::io::Write;

/// How requests are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, as most SDKs can.
    Gzip,
    /// zstd, as Go and Arrow senders can.
    Zstd,
}

impl Compression {
    /// gRPC's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Field 2047, wire type 64-bit: the tag is two bytes, the counter eight.
const FIELD: [u8; 2] = [0xf9, 0x7f];
const FIELD_LEN: usize = 10;

fn counter_field(counter: u64) -> [u8; FIELD_LEN] {
    let mut field = [0; FIELD_LEN];
    let (tag, value) = field.split_at_mut(FIELD.len());
    tag.copy_from_slice(&FIELD);
    value.copy_from_slice(&counter.to_le_bytes());
    field
}

/// A prepared body: everything but the counter.
#[derive(Debug, Clone)]
pub struct Body {
    compression: Compression,
    /// The compressed content, without its format's header.
    content: Bytes,
    /// Bytes of the message before compression.
    raw_len: usize,
    raw_crc: u32,
    /// zstd's window descriptor.
    window: u8,
    /// Spans inside.
    pub spans: u64,
}

impl Body {
    /// Prepares `raw`, an encoded request of `spans` spans.
    pub fn new(raw: Vec<u8>, spans: u64, compression: Compression) -> anyhow::Result<Self> {
        let raw_len = raw.len();
        let raw_crc = crc32fast::hash(&raw);
        let mut window = 0;
        let content = match compression {
            Compression::None => raw,
            Compression::Gzip => {
                let level = flate2::Compression::new(6);
                let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), level);
                deflate.write_all(&raw)?;
                deflate.finish()?
            }
            Compression::Zstd => {
                window = window_descriptor(raw_len);
                blocks_of(&zstd::bulk::compress(&raw, 3)?)?
            }
        };
        Ok(Self {
            compression,
            content: content.into(),
            raw_len,
            raw_crc,
            window,
            spans,
        })
    }

    /// The message with `counter` in it, as the gRPC frame's pieces: what stands before the shared
    /// content, the content, and what follows it.
    pub fn frame(&self, counter: u64) -> [Bytes; 3] {
        let field = counter_field(counter);
        let mut front = Vec::with_capacity(64);
        let mut back = Vec::new();
        match self.compression {
            Compression::None => front.extend_from_slice(&field),
            Compression::Gzip => {
                front.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
                let len = FIELD_LEN as u16;
                front.push(0); // a stored block, not the last
                front.extend_from_slice(&len.to_le_bytes());
                front.extend_from_slice(&(!len).to_le_bytes());
                front.extend_from_slice(&field);
                let mut crc = crc32fast::Hasher::new();
                crc.update(&field);
                let body =
                    crc32fast::Hasher::new_with_initial_len(self.raw_crc, self.raw_len as u64);
                crc.combine(&body);
                back.extend_from_slice(&crc.finalize().to_le_bytes());
                let size = (self.raw_len + FIELD_LEN) as u32;
                back.extend_from_slice(&size.to_le_bytes());
            }
            Compression::Zstd => {
                front.extend_from_slice(&ZSTD_MAGIC);
                front.push(0); // no content size, no checksum, no dictionary
                front.push(self.window);
                let header = (FIELD_LEN as u32) << 3; // a raw block, not the last
                front.extend(header.to_le_bytes().into_iter().take(3));
                front.extend_from_slice(&field);
            }
        }
        let len = (front.len() + self.content.len() + back.len()) as u32;
        let mut prefix = Vec::with_capacity(5 + front.len());
        prefix.push(u8::from(self.compression != Compression::None));
        prefix.extend_from_slice(&len.to_be_bytes());
        prefix.extend_from_slice(&front);
        [prefix.into(), self.content.clone(), back.into()]
    }
}

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The descriptor of a window of at least `len` bytes: 2^(10 + exponent).
fn window_descriptor(len: usize) -> u8 {
    let log = usize::BITS - len.max(1024).leading_zeros();
    (log.saturating_sub(10) as u8) << 3
}

/// The blocks of a zstd frame: what lies behind its header (RFC 8878, section 3.1.1.1).
fn blocks_of(frame: &[u8]) -> anyhow::Result<Vec<u8>> {
    let rest = frame
        .strip_prefix(&ZSTD_MAGIC[..])
        .context("not a zstd frame")?;
    let (&descriptor, rest) = rest
        .split_first()
        .context("a zstd frame without a descriptor")?;
    if descriptor & 0b111 != 0 {
        bail!("a zstd frame with a checksum or a dictionary: {descriptor:#010b}");
    }
    let single_segment = descriptor >> 5 & 1 == 1;
    let content_size = match descriptor >> 6 {
        0 => usize::from(single_segment),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    let header = content_size + usize::from(!single_segment);
    Ok(rest
        .get(header..)
        .context("a zstd frame cut in its header")?
        .to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn check(compression: Compression, inflate: impl Fn(&[u8]) -> Vec<u8>) {
        let raw: Vec<u8> = (0..200_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        let body = Body::new(raw.clone(), 3, compression).unwrap();
        for counter in [0, 1, u64::MAX] {
            let frame = body.frame(counter).concat();
            let (prefix, message) = frame.split_at(5);
            assert_eq!(prefix[0] == 1, compression != Compression::None);
            assert_eq!(prefix[1..], (message.len() as u32).to_be_bytes());
            let expected = [&counter_field(counter)[..], &raw].concat();
            assert_eq!(inflate(message), expected, "{compression:?} {counter}");
        }
    }

    #[test]
    fn any_inflater_reads_them() {
        check(Compression::None, <[u8]>::to_vec);
        check(Compression::Gzip, |bytes| {
            let mut out = Vec::new();
            flate2::read::GzDecoder::new(bytes)
                .read_to_end(&mut out)
                .unwrap();
            out
        });
        check(Compression::Zstd, |bytes| {
            zstd::stream::decode_all(bytes).unwrap()
        });
    }
}
