//! UUIDs as exports write them: 36 bytes with hyphens, which is 4 more than a UserID may have, or 32 bytes without.

/// The length of a UUID with hyphens in bytes, and the positions of the hyphens. Source: RFC 9562.
pub const HYPHENATED_BYTES: usize = 36;
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The length of a UUID without hyphens in bytes.
pub const COMPACT_BYTES: usize = 32;

/// Whether the cell is a UUID with hyphens, in any case.
#[must_use]
pub fn is_hyphenated(cell: &[u8]) -> bool {
    let is_right = |(at, byte): (usize, &u8)| if HYPHENS.contains(&at) { *byte == b'-' } else { byte.is_ascii_hexdigit() };
    cell.len() == HYPHENATED_BYTES && cell.iter().enumerate().all(is_right)
}

/// The UUID without its hyphens; `None` if the cell is not one with hyphens. Upper and lower case stay.
#[must_use]
pub fn compact(cell: &[u8]) -> Option<[u8; COMPACT_BYTES]> {
    if !is_hyphenated(cell) {
        return None;
    }
    let mut bytes = [0; COMPACT_BYTES];
    bytes.iter_mut().zip(cell.iter().filter(|byte| **byte != b'-')).for_each(|(to, from)| *to = *from);
    Some(bytes)
}

/// The UUID with hyphens; `None` if the text is not one without.
#[must_use]
pub fn hyphenated(id: &str) -> Option<String> {
    if id.len() != COMPACT_BYTES || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some([&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_loses_its_hyphens_and_gets_them_back() {
        let (with, without) = ("550E8400-e29b-41d4-a716-446655440000", "550E8400e29b41d4a716446655440000");
        assert_eq!(compact(with.as_bytes()).as_ref().map(<[u8; 32]>::as_slice), Some(without.as_bytes()));
        assert_eq!(hyphenated(without).as_deref(), Some(with));
        assert_eq!((compact(without.as_bytes()), hyphenated(with)), (None, None));
        for other in ["550e8400-e29b-41d4-a716-44665544000", "550e8400-e29b-41d4-a7164-46655440000", "550e8400-e29b-41d4-a716-44665544000g"]
        {
            assert!(!is_hyphenated(other.as_bytes()), "{other}");
        }
        assert_eq!(hyphenated("550e8400e29b41d4a71644665544000g"), None);
    }
}
