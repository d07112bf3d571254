//! Bodies unpacked, in one piece and never beyond the limit.
//!
//! A gzip file says at its end, a zstd frame at its start, how much it unpacks to: then memory is
//! reserved for exactly that, and the quick whole-buffer decoders are used. Files of several parts,
//! or that do not say, are unpacked step by step.

use std::io::Read;

use thiserror::Error;
use zstd::zstd_safe;

use crate::admission::Refused;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    /// What HTTP calls so: zlib.
    Deflate,
    Zstd,
}

impl Encoding {
    pub(crate) const ALL: [Self; 4] = [Self::Identity, Self::Gzip, Self::Deflate, Self::Zstd];

    /// The encoding of this name in `Content-Encoding` and `grpc-encoding`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Self::Identity),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Why a body is not unpacked.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    #[error("the decompressed body is larger than the limit of {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the body is not valid {encoding}: {reason}")]
    Malformed {
        encoding: &'static str,
        reason: String,
    },
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Unpacks bodies; one per worker.
pub(crate) struct Decompressor {
    inflate: libdeflater::Decompressor,
    zstd: zstd::bulk::Decompressor<'static>,
    /// What was unpacked last. It keeps its length, so that it need not be cleared each time.
    buffer: Vec<u8>,
    limit: usize,
}

/// No deflate stream unpacks to more than this for each of its bytes.
const MAX_INFLATE_RATIO: usize = 1032;
/// What a gzip file begins with.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b, 0x08];
/// The buffer is given back to the system when a request left it larger than this.
const MAX_IDLE_BUFFER: usize = 4 << 20;
/// How much is unpacked before the reservation grows.
const STEP: usize = 256 << 10;

/// Asks for memory for so many unpacked bytes.
pub(crate) type Reserve<'a> = &'a mut dyn FnMut(usize) -> Result<(), Refused>;

impl Decompressor {
    pub(crate) fn new(limit: usize) -> std::io::Result<Self> {
        Ok(Self {
            inflate: libdeflater::Decompressor::new(),
            zstd: zstd::bulk::Decompressor::new()?,
            buffer: Vec::new(),
            limit,
        })
    }

    /// The unpacked body, at most `limit` bytes.
    pub(crate) fn decompress<'a>(
        &'a mut self,
        encoding: Encoding,
        body: &'a [u8],
        reserve: Reserve<'_>,
    ) -> Result<&'a [u8], Fault> {
        if self.buffer.len() > MAX_IDLE_BUFFER {
            self.buffer = Vec::new();
        }
        let len = match encoding {
            Encoding::Identity => return Ok(body),
            Encoding::Gzip => self.gzip(body, reserve)?,
            Encoding::Deflate => {
                self.stream("deflate", flate2::read::ZlibDecoder::new(body), reserve)?
            }
            Encoding::Zstd => self.zstd(body, reserve)?,
        };
        Ok(self.buffer.get(..len).unwrap_or_default())
    }

    fn gzip(&mut self, body: &[u8], reserve: Reserve<'_>) -> Result<usize, Fault> {
        let after_magic = body.get(GZIP_MAGIC.len()..).unwrap_or_default();
        let Some(size) = body
            .last_chunk::<4>()
            .map(|size| u32::from_le_bytes(*size) as usize)
        else {
            return Err(malformed("gzip", "it is truncated"));
        };
        // What looks like the start of another file may be chance; then this only takes longer.
        if memchr::memmem::find(after_magic, GZIP_MAGIC).is_some() {
            return self.stream("gzip", flate2::read::MultiGzDecoder::new(body), reserve);
        }
        if size > body.len().saturating_mul(MAX_INFLATE_RATIO) {
            return Err(malformed("gzip", "its length is invalid"));
        }
        self.make_room(size, reserve)?;
        let out = self.buffer.get_mut(..size).unwrap_or_default();
        match self.inflate.gzip_decompress(body, out) {
            Ok(len) => Ok(len),
            Err(_) => Err(malformed("gzip", "it is corrupt")),
        }
    }

    fn zstd(&mut self, body: &[u8], reserve: Reserve<'_>) -> Result<usize, Fault> {
        let one_frame = zstd_safe::find_frame_compressed_size(body) == Ok(body.len());
        let size = zstd_safe::get_frame_content_size(body).ok().flatten();
        let size = size.and_then(|size| usize::try_from(size).ok());
        let (Some(size), true) = (size, one_frame) else {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body)
                .map_err(|error| malformed("zstd", error))?;
            // A window of 8 MiB is what every decoder should allow; more helps only larger bodies.
            let window_log = self.limit.max(1).ilog2().clamp(23, 27);
            decoder
                .window_log_max(window_log)
                .map_err(|error| malformed("zstd", error))?;
            return self.stream("zstd", decoder, reserve);
        };
        self.make_room(size, reserve)?;
        let out = self.buffer.get_mut(..size).unwrap_or_default();
        self.zstd
            .decompress_to_buffer(body, out)
            .map_err(|error| malformed("zstd", error))
    }

    fn stream(
        &mut self,
        encoding: &'static str,
        mut decoder: impl Read,
        reserve: Reserve<'_>,
    ) -> Result<usize, Fault> {
        let mut len = 0;
        loop {
            if len == self.buffer.len() || len.is_multiple_of(STEP) {
                // One byte beyond the limit shows whether there is more.
                let room = (len + STEP).min(self.limit + 1);
                reserve(room)?;
                if self.buffer.len() < room {
                    self.buffer.resize(room, 0);
                }
            }
            // Up to the next step, where more is reserved.
            let end = ((len / STEP + 1) * STEP).min(self.buffer.len());
            let out = self.buffer.get_mut(len..end).unwrap_or_default();
            match decoder.read(out) {
                Ok(0) => return Ok(len),
                Ok(read) => len += read,
                Err(error) => return Err(malformed(encoding, error)),
            }
            if len > self.limit {
                return Err(Fault::TooLarge { limit: self.limit });
            }
        }
    }

    fn make_room(&mut self, size: usize, reserve: Reserve<'_>) -> Result<(), Fault> {
        if size > self.limit {
            return Err(Fault::TooLarge { limit: self.limit });
        }
        reserve(size)?;
        if self.buffer.len() < size {
            self.buffer.resize(size, 0);
        }
        Ok(())
    }
}

#[cold]
fn malformed(encoding: &'static str, reason: impl ToString) -> Fault {
    Fault::Malformed {
        encoding,
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 600_000;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(text, 1).unwrap()
    }

    /// A frame that does not say how long it is.
    fn zstd_stream(text: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(text, 1).unwrap()
    }

    /// What comes out, and the most that was reserved.
    fn unpack(encoding: Encoding, body: &[u8]) -> (Result<Vec<u8>, Fault>, usize) {
        let mut reserved = 0;
        let mut reserve = |bytes| {
            reserved = bytes;
            Ok(())
        };
        let mut decompressor = Decompressor::new(LIMIT).unwrap();
        let result = decompressor
            .decompress(encoding, body, &mut reserve)
            .map(<[u8]>::to_vec);
        (result, reserved)
    }

    #[test]
    fn several_parts_are_one_body() {
        let check = |encoding, parts: &[Vec<u8>], expect: &[u8]| {
            assert_eq!(unpack(encoding, &parts.concat()).0.unwrap(), expect);
        };
        check(
            Encoding::Gzip,
            &[gzip(b"ab"), gzip(b""), gzip(b"ab")],
            b"abab",
        );
        check(Encoding::Zstd, &[zstd(b"ab"), zstd(b"cd")], b"abcd");
        check(Encoding::Zstd, &[zstd(b"ab"), zstd_stream(b"cd")], b"abcd");
        check(
            Encoding::Identity,
            &[b"ab".to_vec(), b"cd".to_vec()],
            b"abcd",
        );
    }

    #[test]
    fn bombs_stop_at_the_limit() {
        let bomb = vec![0; LIMIT + 1];
        for (encoding, body) in [
            (Encoding::Gzip, gzip(&bomb)),
            (Encoding::Gzip, [gzip(b""), gzip(&bomb)].concat()),
            (Encoding::Deflate, zlib(&bomb)),
            (Encoding::Zstd, zstd(&bomb)),
            (Encoding::Zstd, zstd_stream(&bomb)),
        ] {
            let (result, reserved) = unpack(encoding, &body);
            assert!(
                matches!(result, Err(Fault::TooLarge { limit: LIMIT })),
                "{encoding:?}"
            );
            assert!(reserved <= LIMIT + 1, "{encoding:?}: {reserved}");
        }
        let full = vec![7; LIMIT];
        for (encoding, body) in [
            (Encoding::Gzip, gzip(&full)),
            (Encoding::Deflate, zlib(&full)),
            (Encoding::Zstd, zstd_stream(&full)),
        ] {
            assert_eq!(unpack(encoding, &body).0.unwrap(), full, "{encoding:?}");
        }
    }

    #[test]
    fn a_lie_about_the_length_is_malformed() {
        let mut short = gzip(&[1; 1000]);
        let at = short.len() - 4;
        short[at..].copy_from_slice(&10u32.to_le_bytes());
        let mut long = gzip(b"x");
        let at = long.len() - 4;
        long[at..].copy_from_slice(&(LIMIT as u32).to_le_bytes());
        for body in [short, long, b"no gzip".to_vec(), b"".to_vec()] {
            let (result, reserved) = unpack(Encoding::Gzip, &body);
            assert!(matches!(result, Err(Fault::Malformed { .. })), "{result:?}");
            assert_eq!(
                reserved % 10,
                0,
                "nothing was reserved for an impossible length"
            );
        }
    }

    #[test]
    fn refused_memory_is_not_used() {
        let body = gzip(&[1; 1000]);
        let mut decompressor = Decompressor::new(LIMIT).unwrap();
        let result = decompressor.decompress(Encoding::Gzip, &body, &mut |_| Err(Refused::Full));
        assert!(matches!(result, Err(Fault::Refused(Refused::Full))));
        assert!(decompressor.buffer.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn everything_comes_back(text: Vec<u8>, repeat in 1usize..500) {
            let text = text.repeat(repeat);
            prop_assume!(text.len() <= LIMIT);
            for (encoding, body) in [
                (Encoding::Gzip, gzip(&text)),
                (Encoding::Deflate, zlib(&text)),
                (Encoding::Zstd, zstd(&text)),
                (Encoding::Zstd, zstd_stream(&text)),
            ] {
                prop_assert_eq!(unpack(encoding, &body).0.unwrap(), &*text);
            }
        }

        #[test]
        fn damage_never_panics(mut body: Vec<u8>, head in 0usize..3) {
            let starts: [&[u8]; 3] = [&[], GZIP_MAGIC, &[0x28, 0xb5, 0x2f, 0xfd]];
            body.splice(..0, starts[head].iter().copied());
            for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd] {
                let (result, reserved) = unpack(encoding, &body);
                prop_assert!(reserved <= LIMIT + 1);
                prop_assert!(result.map_or(0, |out| out.len()) <= LIMIT);
            }
        }
    }
}
