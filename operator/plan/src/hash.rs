//! Short names for contents: equal contents have equal hashes.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Sixteen hexadecimal digits that name `content`. Keys of maps count in order, whatever order they
/// are kept in.
pub fn hash_of<T: Serialize>(content: &T) -> String {
    let value = serde_json::to_value(content).unwrap_or_default();
    let mut hasher = Sha256::new();
    feed(&value, &mut hasher);
    let digest = hasher.finalize();
    digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

fn feed(value: &Value, hasher: &mut Sha256) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort();
            hasher.update(b"{");
            for key in keys {
                hasher.update(key.len().to_le_bytes());
                hasher.update(key.as_bytes());
                if let Some(value) = map.get(key) {
                    feed(value, hasher);
                }
            }
            hasher.update(b"}");
        }
        Value::Array(list) => {
            hasher.update(b"[");
            list.iter().for_each(|value| feed(value, hasher));
            hasher.update(b"]");
        }
        scalar => {
            let text = scalar.to_string();
            hasher.update(text.len().to_le_bytes());
            hasher.update(text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_equal_has_the_same_name_and_nothing_else() {
        let hash = hash_of(&json!({"a": 1, "b": [1, 2]}));
        assert_eq!(hash.len(), 16);
        assert_eq!(hash, hash_of(&json!({"b": [1, 2], "a": 1})));
        for other in [
            json!({"a": 1, "b": [2, 1]}),
            json!({"a": 1, "b": [12]}),
            json!({"a": "1", "b": [1, 2]}),
            json!({"a": 1}),
        ] {
            assert_ne!(hash, hash_of(&other), "{other}");
        }
    }
}
