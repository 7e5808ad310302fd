//! Detects refusals one after the other that are too many to be the records' own fault.
//!
//! It counts requests as they end, for each API and process. It only decides; its caller acts.

/// Records that are each refused from the first one on, after which the run stops. Source: the contract.
const FIRST_RECORDS: u32 = 100;
/// Records in a row that are refused with the same code, after which it stops. Source: the contract.
const SAME_IN_A_ROW: u32 = 1_000;
/// Codes that say something of the record that was looked at: deleted lately, a field too long or of a wrong value. Source: the contract.
const RECORDS_OWN: [i64; 6] = [70399, 40601, 40605, 40610, 80001, 80004];

/// Whether the refusals so far are the records' own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    Plausible,
    /// Each of the first records, or one after the other with the same code.
    All,
}

/// The records that an API has refused in a row.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Something else than a refusal has been seen.
    is_mixed: bool,
    /// Records refused from the first one on.
    first: u32,
    /// The code of the latest, and how many records in a row had it.
    same: Option<(i64, u32)>,
}

impl Refusals {
    /// A record was refused with a code that makes it the record's own fault.
    pub fn refused(&mut self, code: i64) -> Pattern {
        if RECORDS_OWN.contains(&code) {
            self.accepted();
            return Pattern::Plausible;
        }
        let in_a_row = match self.same {
            Some((same, count)) if same == code => count + 1,
            Some(_) | None => 1,
        };
        self.same = Some((code, in_a_row));
        self.first = self.first.saturating_add(1);
        let are_all_refused = !self.is_mixed && self.first >= FIRST_RECORDS;
        if are_all_refused || in_a_row >= SAME_IN_A_ROW { Pattern::All } else { Pattern::Plausible }
    }

    /// A record was accepted, or refused for what it holds.
    pub fn accepted(&mut self) {
        self.is_mixed = true;
        self.same = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many of these (0 is accepted) the pattern is seen.
    fn check(codes: impl IntoIterator<Item = i64>, expected: Option<usize>) {
        let mut refusals = Refusals::default();
        let seen = codes.into_iter().position(|code| match code {
            0 => {
                refusals.accepted();
                false
            }
            code => refusals.refused(code) == Pattern::All,
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
    fn codes_that_speak_of_the_record_never_count() {
        for code in RECORDS_OWN {
            check(std::iter::repeat_n(code, 5_000), None);
            check([70402; 99].into_iter().chain([code]).chain([70402; 999]), None);
        }
    }
}
