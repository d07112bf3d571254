//! `Content-Encoding`: what bodies are wrapped in on their way in and out.

use std::io::{self, Read, Write};

use super::spool::Spool;

/// A coding that both directions know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, as HTTP means the name.
    Deflate,
    /// Zstandard frames.
    Zstd,
    /// LZ4 frames.
    Lz4,
}

impl Coding {
    /// By its name in a header.
    pub(crate) fn named(name: &str) -> Option<Coding> {
        Some(match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Coding::Gzip,
            "deflate" => Coding::Deflate,
            "zstd" => Coding::Zstd,
            "lz4" => Coding::Lz4,
            _ => return None,
        })
    }

    /// Its name in a header.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
            Coding::Zstd => "zstd",
            Coding::Lz4 => "lz4",
        }
    }

    /// The first of a client's accepted ones in our order of liking.
    pub(crate) fn accepted(header: &str) -> Option<Coding> {
        let offered: Vec<Coding> = header
            .split(',')
            .filter(|part| !part.replace(' ', "").contains(";q=0,") && !refuses(part))
            .filter_map(|part| Coding::named(part.split(';').next().unwrap_or_default()))
            .collect();
        [Coding::Lz4, Coding::Zstd, Coding::Gzip, Coding::Deflate]
            .into_iter()
            .find(|coding| offered.contains(coding))
    }
}

/// `name;q=0`
fn refuses(part: &str) -> bool {
    let quality = part
        .split(';')
        .skip(1)
        .find_map(|p| p.trim().strip_prefix("q="));
    quality.and_then(|q| q.trim().parse::<f32>().ok()) == Some(0.0)
}

/// Undoes the coding and ClickHouse's own blocks, in this order, into another spool.
pub(crate) fn decode(
    mut spool: Spool,
    coding: Option<Coding>,
    blocks: bool,
    mut into: Spool,
) -> io::Result<Spool> {
    if coding.is_none() && !blocks {
        return Ok(spool);
    }
    let source = io::BufReader::with_capacity(256 << 10, spool.reader()?);
    let plain: Box<dyn Read + '_> = match coding {
        None => Box::new(source),
        Some(Coding::Gzip) => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Some(Coding::Deflate) => Box::new(flate2::bufread::ZlibDecoder::new(source)),
        Some(Coding::Zstd) => Box::new(zstd::stream::read::Decoder::with_buffer(source)?),
        Some(Coding::Lz4) => Box::new(lz4_flex::frame::FrameDecoder::new(source)),
    };
    let plain: Box<dyn Read + '_> = if blocks {
        Box::new(super::blocks::BlockReader::new(plain))
    } else {
        plain
    };
    copy(plain, &mut into)?;
    Ok(into)
}

/// Copies in large pieces; what the source says is an error of the data, what the target says
/// stays as it is.
fn copy(mut source: Box<dyn Read + '_>, into: &mut Spool) -> io::Result<()> {
    let mut buffer = vec![0_u8; 256 << 10];
    loop {
        let n = match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(io::Error::new(io::ErrorKind::InvalidData, e.to_string())),
        };
        into.write_all(buffer.get(..n).unwrap_or_default())?;
    }
}

/// Wraps a response as it streams.
pub(crate) enum Encoder {
    /// As it is.
    Plain(Vec<u8>),
    /// gzip.
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    /// zlib.
    Deflate(flate2::write::ZlibEncoder<Vec<u8>>),
    /// Zstandard.
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    /// LZ4 frames.
    Lz4(lz4_flex::frame::FrameEncoder<Vec<u8>>),
}

impl Encoder {
    /// One for a response.
    pub(crate) fn new(coding: Option<Coding>) -> io::Result<Encoder> {
        let fast = flate2::Compression::new(3);
        Ok(match coding {
            None => Encoder::Plain(Vec::new()),
            Some(Coding::Gzip) => Encoder::Gzip(flate2::write::GzEncoder::new(Vec::new(), fast)),
            Some(Coding::Deflate) => {
                Encoder::Deflate(flate2::write::ZlibEncoder::new(Vec::new(), fast))
            }
            Some(Coding::Zstd) => Encoder::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 1)?),
            Some(Coding::Lz4) => Encoder::Lz4(lz4_flex::frame::FrameEncoder::new(Vec::new())),
        })
    }

    /// Takes bytes of the response in.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Encoder::Plain(out) => out.write_all(bytes),
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
            Encoder::Deflate(encoder) => encoder.write_all(bytes),
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
            Encoder::Lz4(encoder) => encoder.write_all(bytes),
        }
    }

    /// What there is to send so far; with `flush`, all that came in.
    pub(crate) fn take(&mut self, flush: bool) -> io::Result<Vec<u8>> {
        if flush {
            match self {
                Encoder::Plain(_) => {}
                Encoder::Gzip(encoder) => encoder.flush()?,
                Encoder::Deflate(encoder) => encoder.flush()?,
                Encoder::Zstd(encoder) => encoder.flush()?,
                Encoder::Lz4(encoder) => encoder.flush()?,
            }
        }
        Ok(std::mem::take(match self {
            Encoder::Plain(out) => out,
            Encoder::Gzip(encoder) => encoder.get_mut(),
            Encoder::Deflate(encoder) => encoder.get_mut(),
            Encoder::Zstd(encoder) => encoder.get_mut(),
            Encoder::Lz4(encoder) => encoder.get_mut(),
        }))
    }

    /// Ends the response: its last bytes.
    pub(crate) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Encoder::Plain(out) => Ok(out),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Deflate(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
            Encoder::Lz4(encoder) => encoder.finish().map_err(io::Error::other),
        }
    }
}
