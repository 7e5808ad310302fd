//! UserIDs that look much like another one: whether the service tells them apart is not documented.

use super::{USER_ID_MAX_BYTES, UserId};

/// How a UserID differs from the one that it is built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TwinKind {
    /// Upper and lower case are swapped.
    OtherCase,
    SpaceInside,
    SpaceBefore,
    SpaceBehind,
}

impl TwinKind {
    pub const ALL: [TwinKind; 4] = [TwinKind::OtherCase, TwinKind::SpaceInside, TwinKind::SpaceBefore, TwinKind::SpaceBehind];
}

impl UserId {
    /// The UserID that differs from this one in `kind`; `None` if it would be the same, or too long. White space at an end makes one that
    /// is sent in no run: only a probe does, to learn what the service makes of it.
    #[must_use]
    pub fn twin(&self, kind: TwinKind) -> Option<Self> {
        let text = self.as_str();
        let (first, rest) = text.split_at_checked(1)?;
        let twin = match kind {
            TwinKind::OtherCase => text.chars().map(swapped).collect(),
            TwinKind::SpaceInside => format!("{first} {rest}"),
            TwinKind::SpaceBefore => format!(" {text}"),
            TwinKind::SpaceBehind => format!("{text} "),
        };
        // Of an id of one letter, a space inside is one at its end.
        let is_new = twin != text && (kind != TwinKind::SpaceInside || !rest.is_empty());
        (is_new && twin.len() <= USER_ID_MAX_BYTES).then(|| Self::unchecked(&twin))
    }
}

const fn swapped(char: char) -> char {
    if char.is_ascii_uppercase() { char.to_ascii_lowercase() } else { char.to_ascii_uppercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twin_differs_in_one_way_and_is_never_too_long() {
        let check = |id: &str, expected: [Option<&str>; 4]| {
            let id = UserId::parse(id.as_bytes()).unwrap();
            let twins = TwinKind::ALL.map(|kind| id.twin(kind));
            assert_eq!(twins.each_ref().map(|twin| twin.as_ref().map(UserId::as_str)), expected);
        };
        check("probe-Ab1", [Some("PROBE-aB1"), Some("p robe-Ab1"), Some(" probe-Ab1"), Some("probe-Ab1 ")]);
        check("12-3", [None, Some("1 2-3"), Some(" 12-3"), Some("12-3 ")]);
        check("a", [Some("A"), None, Some(" a"), Some("a ")]);
        let longest = "a".repeat(32);
        check(&longest, [Some(&"A".repeat(32)), None, None, None]);
    }
}
