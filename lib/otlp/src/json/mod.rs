//! OTLP/JSON to OTLP protobuf, so that everything after it knows one format.
//!
//! The rules are OTLP's: ids are hexadecimal of either case, enumerations are integers only, keys are
//! lowerCamelCase only, unknown fields are ignored (and noted where spans may be lost with them, [`Ignored`]). The rest is protobuf's JSON: 64-bit integers as
//! numbers or strings, doubles also as `"NaN"` and `"Infinity"`, other bytes in base64 (standard or
//! URL-safe, padded or not), `null` for a field that is not there. A `null` in a list is an empty
//! message. A field given twice is an error, and so is a second value in an `AnyValue`.

mod error;
mod number;
pub(crate) mod parser;
mod schema;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use error::JsonErrorKind as Problem;
pub use error::{JsonError, JsonErrorKind};
use parser::{Parser, Token};
use schema::{Field, Kind, Message};

use crate::ids::hex_digit;
use crate::write;

/// How deep messages may nest: room for values of
/// [`MAX_NESTING_DEPTH`](crate::nested::MAX_NESTING_DEPTH), each level of which is three messages.
pub const MAX_MESSAGE_DEPTH: usize = 208;

/// From this depth on, lengths are padded to [`PADDED`] bytes, which is legal, so that closing a
/// message does not move its content: else a large value would be moved once for each level around it.
const PADDED_FROM: usize = 12;
const PADDED: usize = 5;

/// Fields that were ignored, though something is lost with them: the name is a known one in another
/// spelling (`resource_spans`), or there is a list where spans would be (`instrumentationLibrarySpans`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignored {
    /// How many.
    pub fields: u64,
    /// The name of the first, at most [`Ignored::MAX_NAME`] bytes of it.
    pub first: Option<String>,
}

impl Ignored {
    /// How much of a name is kept.
    pub const MAX_NAME: usize = 64;

    #[cold]
    fn note(&mut self, name: &str) {
        self.fields += 1;
        self.first.get_or_insert_with(|| {
            let end = name.floor_char_boundary(Self::MAX_NAME);
            name.get(..end).unwrap_or_default().to_owned()
        });
    }
}

/// Reads an `ExportTraceServiceRequest` in JSON and returns it in protobuf, which may have at most
/// `max_output_bytes`. Apart from one string at a time, nothing else is kept in memory.
pub fn to_protobuf(json: &[u8], max_output_bytes: usize) -> Result<Vec<u8>, JsonError> {
    to_protobuf_noting(json, max_output_bytes, &mut Ignored::default())
}

/// The same, and notes what was ignored.
pub fn to_protobuf_noting(
    json: &[u8],
    max_output_bytes: usize,
    ignored: &mut Ignored,
) -> Result<Vec<u8>, JsonError> {
    let text =
        std::str::from_utf8(json).map_err(|e| JsonError::new(Problem::NotUtf8, e.valid_up_to()))?;
    let mut converter = Converter {
        parser: Parser::new(text),
        // Protobuf takes about half of the JSON's bytes.
        out: Vec::with_capacity((json.len() / 2).min(max_output_bytes)),
        limit: max_output_bytes,
        depth: 0,
        ignored,
    };
    match converter.parser.value()? {
        Token::Object => converter.fields(&schema::REQUEST)?,
        _ => return Err(JsonError::new(Problem::Expected("an object"), 0)),
    }
    converter.parser.end()?;
    Ok(converter.out)
}

struct Converter<'a, 'i> {
    parser: Parser<'a>,
    out: Vec<u8>,
    limit: usize,
    depth: usize,
    ignored: &'i mut Ignored,
}

impl<'a> Converter<'a, '_> {
    /// The rest of an object, as the fields of `message`.
    fn fields(&mut self, message: &Message) -> Result<(), JsonError> {
        let mut first = true;
        let mut seen = 0u32;
        while let Some(key) = self.parser.next_key(&mut first)? {
            let Some(field) = message.fields.iter().find(|field| field.name == key) else {
                self.unknown(message, &key)?;
                continue;
            };
            let token = self.parser.value().map_err(|e| e.inside(field.name))?;
            if token == Token::Null {
                continue;
            }
            let bit = 1u32 << field.number;
            if seen & bit != 0 || (message.oneof && seen != 0) {
                return Err(self.parser.fail(Problem::Repeated).inside(field.name));
            }
            seen |= bit;
            self.field(field, token).map_err(|e| e.inside(field.name))?;
        }
        Ok(())
    }

    /// A field that is not known.
    #[cold]
    fn unknown(&mut self, message: &Message, name: &str) -> Result<(), JsonError> {
        let value = self.parser.skipped_value()?;
        let is_list = value.starts_with(['[', '{']) && value.contains(['"', '{']);
        let same = |field: &Field| field.name != name && is_same_word(field.name, name);
        if value != "null"
            && (message.fields.iter().any(same) || (message.leads_to_spans && is_list))
        {
            self.ignored.note(name);
        }
        Ok(())
    }

    /// One field, whose value begins with `token`.
    fn field(&mut self, field: &Field, token: Token<'a>) -> Result<(), JsonError> {
        match (field.kind, token) {
            (Kind::One(message), Token::Object) => self.message(field.number, message),
            (Kind::One(_), _) => Err(self.expected("an object")),
            (Kind::Many(_) | Kind::Strings, Token::Array) => self.list(field),
            (Kind::Many(_) | Kind::Strings, _) => Err(self.expected("an array")),
            (_, token) => self.scalar(field, token),
        }
    }

    fn list(&mut self, field: &Field) -> Result<(), JsonError> {
        let mut first = true;
        let mut index = 0usize;
        while self
            .parser
            .next_item(&mut first)
            .map_err(|e| e.inside(&format!("[{index}]")))?
        {
            self.item(field)
                .map_err(|e| e.inside(&format!("[{index}]")))?;
            index += 1;
        }
        Ok(())
    }

    fn item(&mut self, field: &Field) -> Result<(), JsonError> {
        match (field.kind, self.parser.value()?) {
            (Kind::Many(message), Token::Object) => self.message(field.number, message),
            (Kind::Many(_), Token::Null) => {
                self.room(0)?;
                write::bytes(&mut self.out, field.number, &[]);
                Ok(())
            }
            (Kind::Many(_), _) => Err(self.expected("an object")),
            (_, token) => self.scalar(field, token),
        }
    }

    fn message(&mut self, number: u32, message: &Message) -> Result<(), JsonError> {
        if self.depth >= MAX_MESSAGE_DEPTH {
            return Err(self.parser.fail(Problem::TooDeep(MAX_MESSAGE_DEPTH)));
        }
        self.room(PADDED)?;
        self.depth += 1;
        if self.depth < PADDED_FROM {
            let mark = write::open(&mut self.out, number);
            self.fields(message)?;
            write::close(&mut self.out, mark);
        } else {
            let mark = write::open_with::<PADDED>(&mut self.out, number);
            self.fields(message)?;
            write::close_padded(&mut self.out, mark);
        }
        self.depth -= 1;
        Ok(())
    }

    fn scalar(&mut self, field: &Field, token: Token<'a>) -> Result<(), JsonError> {
        let number = field.number;
        match field.kind {
            Kind::String | Kind::Strings => match token {
                Token::String(text) => {
                    self.room(text.len())?;
                    write::bytes(&mut self.out, number, text.as_bytes());
                }
                _ => return Err(self.expected("a string")),
            },
            Kind::Hex => return self.hex(number, token),
            Kind::Base64 => return self.base64(number, token),
            Kind::Int64 if let Some(value) = number::beyond_int64(&token) => {
                self.room(0)?;
                write::fixed64(&mut self.out, schema::DOUBLE_VALUE, value.to_bits());
            }
            kind => {
                self.room(0)?;
                match encode(kind, &token).map_err(|problem| self.parser.fail(problem))? {
                    Encoded::Varint(n) => write::uint(&mut self.out, number, n),
                    Encoded::Fixed32(n) => write::fixed32(&mut self.out, number, n),
                    Encoded::Fixed64(n) => write::fixed64(&mut self.out, number, n),
                }
            }
        }
        Ok(())
    }

    fn hex(&mut self, number: u32, token: Token<'a>) -> Result<(), JsonError> {
        const PROBLEM: &str = "an id: an even number of hexadecimal digits in a string";
        let Token::String(text) = token else {
            return Err(self.expected(PROBLEM));
        };
        let (pairs, odd) = text.as_bytes().as_chunks::<2>();
        self.room(pairs.len())?;
        let mark = write::open(&mut self.out, number);
        for &[high, low] in pairs {
            match (hex_digit(high), hex_digit(low)) {
                (Some(high), Some(low)) => self.out.push(high << 4 | low),
                _ => return Err(self.expected(PROBLEM)),
            }
        }
        write::close(&mut self.out, mark);
        if odd.is_empty() {
            Ok(())
        } else {
            Err(self.expected(PROBLEM))
        }
    }

    fn base64(&mut self, number: u32, token: Token<'a>) -> Result<(), JsonError> {
        const PROBLEM: &str = "bytes: base64 in a string";
        let Token::String(text) = token else {
            return Err(self.expected(PROBLEM));
        };
        self.room(text.len() / 4 * 3)?;
        let url_safe = memchr::memchr2(b'-', b'_', text.as_bytes()).is_some();
        let engine = if url_safe { &URL_SAFE } else { &STANDARD };
        let Ok(raw) = engine.decode(text.as_bytes()) else {
            return Err(self.expected(PROBLEM));
        };
        write::bytes(&mut self.out, number, &raw);
        Ok(())
    }

    #[cold]
    fn expected(&self, what: &'static str) -> JsonError {
        self.parser.fail(Problem::Expected(what))
    }

    /// Makes sure that a field with `len` bytes more than its head may follow.
    fn room(&self, len: usize) -> Result<(), JsonError> {
        if self.out.len().saturating_add(len) > self.limit {
            return Err(self.parser.fail(Problem::TooLarge(self.limit)));
        }
        Ok(())
    }
}

/// Whether two names differ in nothing but how their words are joined.
fn is_same_word(known: &str, name: &str) -> bool {
    let letters = |text: &'_ str| {
        let letters = text
            .bytes()
            .filter(|byte| !matches!(byte, b'_' | b'-' | b' ' | b'.'));
        letters
            .map(|byte| byte.to_ascii_lowercase())
            .collect::<Vec<_>>()
    };
    letters(known) == letters(name)
}

/// A scalar of fixed or variable length, as it goes on the wire.
enum Encoded {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
}

fn encode(kind: Kind, token: &Token<'_>) -> Result<Encoded, Problem> {
    const UINT32: &str = "an integer from 0 to 4294967295";
    let (encoded, expected) = match (kind, token) {
        (Kind::Bool, Token::Bool(b)) => (Some(Encoded::Varint(u64::from(*b))), ""),
        (Kind::Bool, _) => (None, "true or false"),
        (Kind::Int64, token) => (
            number::signed(token).map(|n| Encoded::Varint(n.cast_unsigned())),
            "a 64-bit integer, as a number or in a string",
        ),
        (Kind::UInt32, token) => (
            number::unsigned32(token).map(|n| Encoded::Varint(u64::from(n))),
            UINT32,
        ),
        (Kind::Fixed32, token) => (number::unsigned32(token).map(Encoded::Fixed32), UINT32),
        (Kind::Fixed64, token) => (
            number::unsigned(token).map(Encoded::Fixed64),
            "an unsigned 64-bit integer, as a number or in a string",
        ),
        (Kind::Double, token) => (
            number::double(token).map(|x| Encoded::Fixed64(x.to_bits())),
            "a number, \"NaN\", \"Infinity\" or \"-Infinity\"",
        ),
        // What is left is Enum: the other kinds are not scalars of these lengths.
        (_, Token::String(_)) => return Err(Problem::EnumName),
        (_, token) => (
            number::signed(token)
                .and_then(|n| i32::try_from(n).ok())
                .map(|n| Encoded::Varint(i64::from(n).cast_unsigned())),
            "a 32-bit integer",
        ),
    };
    encoded.ok_or(Problem::Expected(expected))
}

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
