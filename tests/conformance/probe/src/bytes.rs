//! Bytes as a script or a case writes them, and as a trace shows them.
//!
//! | written                     | means                                                     |
//! | --------------------------- | --------------------------------------------------------- |
//! | `"abc"`                     | each character up to U+00FF is one byte: `"\u00e9"` is E9 |
//! | `{"repeat": ["ab", 3]}`     | `ababab`                                                  |
//!
//! A trace shows what is up to `SHOWN_BYTES_MAX` long with escapes, the rest as length and FNV-1a hash.

use serde::Deserialize;

/// Longer values are shown by length and hash: a line of the trace stays a line.
const SHOWN_BYTES_MAX: usize = 300;

/// Any bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Bytes(pub Vec<u8>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "bytes are a string, or {\"repeat\": [a string, how often]}")]
enum Written {
    Text(String),
    Repeated(Repeated),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Repeated {
    repeat: (String, usize),
}

impl TryFrom<Written> for Bytes {
    type Error = String;

    fn try_from(written: Written) -> Result<Bytes, String> {
        match written {
            Written::Text(text) => latin(&text).map(Bytes),
            Written::Repeated(Repeated { repeat: (text, count) }) => Ok(Bytes(latin(&text)?.repeat(count))),
        }
    }
}

fn latin(text: &str) -> Result<Vec<u8>, String> {
    text.chars()
        .map(|char| {
            u8::try_from(char).map_err(|_| format!("{char:?} is not one byte: write bytes as U+0000 to U+00FF"))
        })
        .collect()
}

/// Bytes as a trace shows them.
pub fn shown(bytes: &[u8]) -> String {
    if bytes.len() > SHOWN_BYTES_MAX {
        return format!("<{} bytes, hash {:016x}>", bytes.len(), hash(bytes));
    }
    // A number that the host serves as eight bytes is easier to compare with Envoy's tables as a number.
    match <[u8; 8]>::try_from(bytes) {
        Ok(eight) if !bytes.iter().all(|byte| matches!(byte, b' '..=b'~')) => {
            format!("le64 {:#x}", u64::from_le_bytes(eight))
        }
        Ok(_) | Err(_) => format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// FNV-1a, 64 bits: enough to tell two long values apart, and the same in every arm.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: &str, bytes: &[u8]) {
        assert_eq!(serde_json::from_str::<Bytes>(written).expect("bytes").0, bytes);
    }

    #[test]
    fn a_character_is_a_byte_and_a_repetition_is_many() {
        check(r#""a\u00ff\r\n""#, b"a\xff\r\n");
        check(r#"{"repeat": ["ab", 3]}"#, b"ababab");
        assert!(serde_json::from_str::<Bytes>(r#""\u20ac""#).is_err());
    }

    #[test]
    fn bytes_are_shown_in_one_line() {
        assert_eq!(shown(b"a\xff\n"), r#""a\xff\n""#);
        assert_eq!(shown(&200u64.to_le_bytes()), "le64 0xc8");
        assert_eq!(shown(b"response"), r#""response""#);
        assert_eq!(shown(&[b'a'; 301]), "<301 bytes, hash d5dbe56dd76986c0>");
    }
}
