//! Why a record is never sent: the service would refuse it, or nobody knows what it says.

use thiserror::Error;

use super::user_id::USER_ID_MAX_BYTES;
use super::{FIELD_MAX_BYTES, Field};
use crate::domain::tag::InvalidTagValue;

/// Why a record is never sent. The texts go into `error_info` of the results.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidAccount {
    #[error("UserID is empty")]
    EmptyUserId,
    #[error("UserID has {bytes} bytes, at most {USER_ID_MAX_BYTES} are allowed")]
    LongUserId { bytes: usize, is_uuid: bool },
    #[error("UserID starts or ends with white space (U+{code_point:04X})")]
    SpaceAtEnd { code_point: u32 },
    #[error("UserID holds the character U+{code_point:04X}; only printable ASCII is allowed")]
    UserIdCharacter { code_point: u32 },
    #[error("UserID starts with {prefix}, which the service keeps for itself")]
    ReservedPrefix { prefix: &'static str },
    #[error("{field} has {bytes} bytes, at most {FIELD_MAX_BYTES} are allowed")]
    LongField { field: Field, bytes: usize },
    #[error("{field} is not valid UTF-8")]
    NotUtf8 { field: Field },
    #[error("UserID holds a byte order mark (U+FEFF)")]
    ByteOrderMark,
    #[error("UserID holds the control character U+{code_point:04X}")]
    ControlCharacter { code_point: u32 },
    #[error("{field} holds a NUL character (U+0000)")]
    Nul { field: Field },
    #[error(transparent)]
    Tag(Box<InvalidTagValue>),
    #[error("the row has {}, the header has {expected}", fields(*found))]
    FieldCount { expected: usize, found: usize },
    #[error("the row is the header again")]
    HeaderAgain,
    #[error("text follows the closing quote at line {line}, column {column}")]
    TextAfterQuote { line: u64, column: u64 },
    /// A quote that opens on line `quote` and closes on line `last` holds what look like records of their own.
    #[error("the quote at line {quote} swallowed {}", lines(*quote + 1, *last))]
    SwallowedLines { quote: u64, last: u64 },
}

impl InvalidAccount {
    /// Whether a text says of a record that it has another number of fields than the header.
    #[must_use]
    pub fn is_told_of_fields(text: &[u8]) -> bool {
        // Rejects of earlier versions have the first words.
        let starts = [&b"the record has "[..], b"the row has "].into_iter().any(|start| text.starts_with(start));
        starts && memchr::memmem::find(text, b", the header has ").is_some()
    }

    /// Whether both break the same rule, whatever their figures.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let is_uuid = |why: &Self| matches!(why, Self::LongUserId { is_uuid: true, .. });
        match (self, other) {
            (Self::Tag(one), Self::Tag(other)) => one.tag == other.tag,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other) && is_uuid(self) == is_uuid(other),
        }
    }
}

fn fields(found: usize) -> String {
    if found == 1 { "1 field".to_owned() } else { format!("{found} fields") }
}

fn lines(first: u64, last: u64) -> String {
    if first == last { format!("line {first}") } else { format!("lines {first} to {last}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_that_tells_of_fields_is_known_again() {
        for found in [1, 7] {
            let told = InvalidAccount::FieldCount { expected: 3, found }.to_string();
            assert!(InvalidAccount::is_told_of_fields(format!("{told}; surplus fields: x").as_bytes()), "{told}");
        }
        assert!(InvalidAccount::is_told_of_fields(b"the record has 4 fields, the header has 3"));
        assert!(!InvalidAccount::is_told_of_fields(InvalidAccount::EmptyUserId.to_string().as_bytes()));
    }
}
