//! Detects series of refusals that cannot be caused by the records themselves.
//!
//! It counts the results of requests per API and process. It only decides; its caller acts.

use super::verdict::NEVER_SYSTEMATIC;

/// The run stops if this many records from the start are all refused. Source: the contract.
const FIRST_RECORDS: u32 = 100;
/// The run stops if this many records in a row are refused with the same code. Source: the contract.
const SAME_IN_A_ROW: u32 = 1_000;

/// Whether the refusals so far may be caused by the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalPattern {
    Plausible,
    /// Every one of the first records was refused, or a long series has the same code.
    Systematic,
}

/// The records that an API has refused in a row.
#[derive(Debug, Default)]
pub struct Refusals {
    /// A result other than a refusal has occurred.
    is_mixed: bool,
    /// The number of records refused since the start.
    first: u32,
    /// The last code, and the number of records in a row that had it.
    same: Option<(i64, u32)>,
}

impl Refusals {
    /// Counts a record that was refused with a code that blames the record.
    pub fn refused(&mut self, code: i64) -> RefusalPattern {
        if NEVER_SYSTEMATIC.contains(&code) {
            self.accepted();
            return RefusalPattern::Plausible;
        }
        let in_a_row = match self.same {
            Some((same, count)) if same == code => count + 1,
            Some(_) | None => 1,
        };
        self.same = Some((code, in_a_row));
        self.first = self.first.saturating_add(1);
        let are_all_refused = !self.is_mixed && self.first >= FIRST_RECORDS;
        if are_all_refused || in_a_row >= SAME_IN_A_ROW { RefusalPattern::Systematic } else { RefusalPattern::Plausible }
    }

    /// Counts a record that was accepted, or refused because of its own content.
    pub fn accepted(&mut self) {
        self.is_mixed = true;
        self.same = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks after which of these codes (0 is a success) the pattern is found.
    fn check(codes: impl IntoIterator<Item = i64>, expected: Option<usize>) {
        let mut refusals = Refusals::default();
        let seen = codes.into_iter().position(|code| match code {
            0 => {
                refusals.accepted();
                false
            }
            code => refusals.refused(code) == RefusalPattern::Systematic,
        });
        assert_eq!(seen.map(|before| before + 1), expected);
    }

    #[test]
    fn each_of_the_first_hundred_or_the_same_a_thousand_times_is_a_pattern() {
        check([70402; 100], Some(100));
        check([70402, 60003].repeat(50), Some(100));
        check([70402; 99], None);
        check([0].into_iter().chain([70402; 1_000]), Some(1_001));
        check([0].into_iter().chain([70402; 999]).chain([40003]).chain([70402; 999]), None);
        check([0].into_iter().chain([70402; 999]).chain([0]).chain([70402; 999]), None);
    }

    #[test]
    fn codes_caused_by_single_records_never_count() {
        for code in NEVER_SYSTEMATIC {
            check(std::iter::repeat_n(code, 5_000), None);
            check([70402; 99].into_iter().chain([code]).chain([70402; 999]), None);
        }
    }
}
