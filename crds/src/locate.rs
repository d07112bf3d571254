//! Line and column of a path in YAML: the text is read again, and stopped where the path ends; the
//! parser's error then knows the place.

use serde::Deserialize as _;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::errors::{Path, Step};

/// The line and column, from 1, of the value at `path`, or of its key.
pub(crate) fn locate(yaml: &str, path: &Path, at_key: bool) -> Option<(usize, usize)> {
    for document in serde_yaml::Deserializer::from_str(yaml) {
        match (Seek {
            path: &path.0,
            at_key,
        })
        .deserialize(document)
        {
            Ok(()) => {} // not in this document
            Err(e) => return e.location().map(|at| (at.line(), at.column())),
        }
    }
    None
}

/// Goes on along a path, and fails where it ends.
struct Seek<'p> {
    path: &'p [Step],
    at_key: bool,
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Seek<'_> {
    fn stop<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.path.is_empty() {
            Err(E::custom("here"))
        } else {
            Ok(())
        }
    }
}

macro_rules! stop_at_scalars {
    ($($visit:ident($ty:ty))*) => {
        $(fn $visit<E: serde::de::Error>(self, _: $ty) -> Result<(), E> { self.stop() })*
    };
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    stop_at_scalars! {
        visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_i128(i128) visit_u128(u128)
        visit_f64(f64) visit_str(&str)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.stop()
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        self.stop()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.stop()?;
        let mut index = 0;
        loop {
            let found = match self.path.split_first() {
                Some((Step::Index(wanted), rest)) if *wanted == index => {
                    seq.next_element_seed(Seek {
                        path: rest,
                        at_key: self.at_key,
                    })?
                }
                _ => seq.next_element::<IgnoredAny>()?.map(|_| ()),
            };
            if found.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.stop()?;
        let (wanted, rest) = match self.path.split_first() {
            Some((Step::Key(key), rest)) => (Some(key.as_str()), rest),
            _ => (None, self.path),
        };
        let stop = self.at_key && rest.is_empty();
        while let Some(is_wanted) = map.next_key_seed(Key { wanted, stop })? {
            if is_wanted {
                map.next_value_seed(Seek {
                    path: rest,
                    at_key: self.at_key,
                })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_enum<A: serde::de::EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom("a tagged value"))
    }
}

/// Reads a key: whether it is the wanted one; fails there if that is the place.
struct Key<'p> {
    wanted: Option<&'p str>,
    stop: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        let is_wanted = self.wanted == Some(key);
        if is_wanted && self.stop {
            Err(E::custom("here"))
        } else {
            Ok(is_wanted)
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<bool, A::Error> {
        IgnoredAny::deserialize(serde::de::value::SeqAccessDeserializer::new(seq)).map(|_| false)
    }
}
