//! Whether all invalid records are so for one reason: then one flag may help all of them.

use super::account::InvalidAccount;
use super::tag::InvalidTagValue;

/// Words of tags that are kept. Chosen: as many as most lists of words have, and few enough to read.
const TAG_WORDS_MAX: usize = 6;

/// The reason that the invalid records have in common, in memory that doesn't grow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedReason {
    first: Option<InvalidAccount>,
    is_mixed: bool,
    records: u64,
    uuids: Option<InvalidAccount>,
    uuid_count: u64,
    swallowed: Option<InvalidAccount>,
    tag_words: Vec<InvalidTagValue>,
}

impl SharedReason {
    /// Takes a record, and why it is invalid, if it is.
    #[inline]
    pub fn see(&mut self, why: Option<&InvalidAccount>) {
        self.records += 1;
        if let Some(why) = why {
            self.see_invalid(why);
        }
    }

    #[cold]
    fn see_invalid(&mut self, why: &InvalidAccount) {
        let first = self.first.get_or_insert_with(|| why.clone());
        self.is_mixed |= !first.is_like(why);
        if matches!(why, InvalidAccount::SwallowedLines { .. }) {
            self.swallowed.get_or_insert_with(|| why.clone());
        }
        if let InvalidAccount::Tag(invalid) = why {
            self.see_word(invalid);
        }
        if matches!(why, InvalidAccount::LongUserId { is_uuid: true, .. }) {
            self.uuid_count += 1;
            self.uuids.get_or_insert_with(|| why.clone());
        }
    }

    fn see_word(&mut self, invalid: &InvalidTagValue) {
        let is_new = |known: &InvalidTagValue| known.tag != invalid.tag || known.word != invalid.word;
        if invalid.word.is_some() && self.tag_words.len() < TAG_WORDS_MAX && self.tag_words.iter().all(is_new) {
            self.tag_words.push(invalid.clone());
        }
    }

    /// The first words of the file that are no values of their tags.
    #[must_use]
    pub fn tag_words(&self) -> &[InvalidTagValue] {
        &self.tag_words
    }

    /// The first of the records whose quotes swallowed lines, where that is not the reason of all: it takes others with it.
    #[must_use]
    pub fn swallowed(&self) -> Option<&InvalidAccount> {
        self.swallowed.as_ref().filter(|_| !matches!(self.found(), Some(InvalidAccount::SwallowedLines { .. })))
    }

    /// The reason of all that are invalid, or, where most records have a UUID for an id that is too long, that.
    #[must_use]
    pub fn found(&self) -> Option<&InvalidAccount> {
        if 2 * self.uuid_count > self.records { self.uuids.as_ref() } else { self.first.as_ref().filter(|_| !self.is_mixed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_shared_by_all_that_are_invalid_or_by_most_that_are_uuids() {
        let long = |is_uuid| InvalidAccount::LongUserId { bytes: 36, is_uuid };
        let check = |records: &[Option<InvalidAccount>], expected: Option<InvalidAccount>| {
            let mut shared = SharedReason::default();
            for why in records {
                shared.see(why.as_ref());
            }
            assert_eq!(shared.found(), expected.as_ref(), "{records:?}");
        };
        let space = |code_point| Some(InvalidAccount::SpaceAtEnd { code_point });
        check(&[None], None);
        check(&[None, space(32), space(160)], space(32));
        check(&[space(32), Some(InvalidAccount::EmptyUserId)], None);
        check(&[Some(long(true)), Some(long(false))], None);
        check(&[space(32), Some(long(true)), Some(long(true))], Some(long(true)));
        check(&[None, None, Some(long(true))], Some(long(true)));
    }

    #[test]
    fn lines_that_were_swallowed_are_told_besides_other_reasons() {
        let (swallowed, empty) = (InvalidAccount::SwallowedLines { quote: 2, last: 3 }, InvalidAccount::EmptyUserId);
        let check = |records: &[&InvalidAccount], expected: Option<&InvalidAccount>| {
            let mut shared = SharedReason::default();
            for why in records {
                shared.see(Some(why));
            }
            assert_eq!(shared.swallowed(), expected, "{records:?}");
        };
        check(&[&empty], None);
        check(&[&swallowed], None);
        check(&[&empty, &swallowed, &empty], Some(&swallowed));
    }
}
