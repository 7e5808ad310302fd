//! The first pass over the input: which record of each id is its last, and which of these are asked about.
//!
//! Memory is three bits a row and what the sort takes.

use std::io;

use thiserror::Error;

use crate::domain::position::InputPosition;
use crate::domain::shared_reason::SharedReason;
use crate::io::extsort::{ExternalSorter, OpenSpill, SIGHTING, Sighting};
use crate::io::roster::{Record, RosterError};

/// Records that are read before somebody else may do something. Chosen: some milliseconds' work.
const READ_AT_ONCE: usize = 10_000;

/// Why a survey cannot go on.
#[derive(Debug, Error)]
pub enum SurveyError {
    #[error(transparent)]
    Input(#[from] RosterError),
    #[error("cannot sort the UserIDs in a temporary file in {}", std::env::temp_dir().display())]
    Sort(#[source] io::Error),
}

/// Whether there is more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadProgress {
    GoesOn,
    IsDone,
}

/// So many valid ids, drawn at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomSample {
    pub ids: u64,
    pub seed: u64,
}

/// A yes or no for each row.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn place(row: u64) -> (usize, u64) {
        (usize::try_from(row / 64).unwrap_or(usize::MAX), 1 << (row % 64))
    }

    fn set(&mut self, row: u64) {
        let (word, bit) = Self::place(row);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= bit;
    }

    fn has(&self, row: u64) -> bool {
        let (word, bit) = Self::place(row);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }
}

/// A survey in the making.
#[expect(missing_debug_implementations, reason = "the sorter holds a closure")]
pub struct Survey<I> {
    records: I,
    sorter: ExternalSorter<SIGHTING>,
    invalid: Bits,
    profiles: u64,
    shared: SharedReason,
    end: InputPosition,
}

/// Which rows a verification looks at.
#[derive(Debug)]
pub struct SurveyPlan {
    /// Last records of their ids that are invalid, or asked about.
    listed: Bits,
    /// Where the input ended.
    pub end: InputPosition,
    /// Distinct valid ids.
    pub ids: u64,
    /// Those of them that are asked about.
    pub to_ask: u64,
    /// Ids, or records without one, that are invalid.
    pub invalid: u64,
    /// Records that a later one of the same id supersedes.
    pub superseded: u64,
    /// Valid records with a Nick, a FaceUrl or a tag, superseded ones included.
    pub profiles: u64,
    /// What the invalid records have in common.
    pub shared: SharedReason,
}

impl SurveyPlan {
    pub(super) fn lists(&self, row: u64) -> bool {
        self.listed.has(row)
    }

    /// Records of the input.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.end.rows
    }
}

impl<I: Iterator<Item = Result<Record, RosterError>>> Survey<I> {
    pub fn new(records: I, open_spill: OpenSpill) -> Self {
        Self {
            records,
            sorter: ExternalSorter::new(open_spill),
            invalid: Bits::default(),
            profiles: 0,
            shared: SharedReason::default(),
            end: InputPosition::START,
        }
    }

    /// Where it has come to.
    pub const fn at(&self) -> InputPosition {
        self.end
    }

    /// Reads some more.
    ///
    /// # Errors
    /// [`SurveyError`] for an input that is not what it claims, and a full disk.
    pub fn read_some(&mut self) -> Result<ReadProgress, SurveyError> {
        for _ in 0..READ_AT_ONCE {
            let Some(record) = self.records.next().transpose()? else { return Ok(ReadProgress::IsDone) };
            self.shared.see(record.account.as_ref().err());
            match &record.account {
                Ok(account) => self.profiles += u64::from(account.is_compared()),
                Err(_) => self.invalid.set(record.row),
            }
            // A record without a UserID is nobody's: it supersedes nothing, and nothing supersedes it.
            if !record.id().is_empty() {
                self.sorter.push(Sighting::of(record.id(), record.row).to_bytes()).map_err(SurveyError::Sort)?;
            }
            self.end = record.end;
        }
        Ok(ReadProgress::GoesOn)
    }

    /// Decides which rows are looked at.
    ///
    /// # Errors
    /// [`SurveyError::Sort`].
    pub fn finish(self, sample: Option<RandomSample>) -> Result<SurveyPlan, SurveyError> {
        let Self { sorter, invalid, profiles, shared, end, .. } = self;
        let (mut superseded, mut count) = (Bits::default(), 0);
        let mut last: Option<Sighting> = None;
        for entry in sorter.finish().map_err(SurveyError::Sort)? {
            let entry = Sighting::from_bytes(&entry.map_err(SurveyError::Sort)?);
            if let Some(earlier) = last.replace(entry).filter(|last| last.hash == entry.hash) {
                superseded.set(earlier.row);
                count += 1;
            }
        }
        let lasts = || (1..=end.rows).filter(|row| !superseded.has(*row));
        let invalid_ids = lasts().filter(|row| invalid.has(*row)).count() as u64;
        let ids = end.rows - count - invalid_ids;
        let mut draw = Draw::new(ids, sample);
        let mut listed = Bits::default();
        for row in lasts().filter(|row| invalid.has(*row) || draw.takes_next()) {
            listed.set(row);
        }
        Ok(SurveyPlan { listed, end, ids, to_ask: draw.taken, invalid: invalid_ids, superseded: count, profiles, shared })
    }
}

/// Draws as many of so many as are wanted, one after the other, each set of them as likely as any other (selection sampling: Knuth, The
/// Art of Computer Programming, 3.4.2, algorithm S).
struct Draw {
    left: u64,
    wanted: u64,
    taken: u64,
    random: fastrand::Rng,
}

impl Draw {
    fn new(ids: u64, sample: Option<RandomSample>) -> Self {
        let RandomSample { ids: wanted, seed } = sample.unwrap_or(RandomSample { ids, seed: 0 });
        Self { left: ids, wanted: wanted.min(ids), taken: 0, random: fastrand::Rng::with_seed(seed) }
    }

    fn takes_next(&mut self) -> bool {
        let takes = self.random.u64(..self.left.max(1)) < self.wanted - self.taken;
        self.left = self.left.saturating_sub(1);
        self.taken += u64::from(takes);
        takes
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::io::roster::{Format, Roster};

    fn plan(text: &str, sample: Option<RandomSample>) -> SurveyPlan {
        let roster = Roster::new(Cursor::new(text.to_owned()), &Format::default()).unwrap();
        let mut survey = Survey::new(roster, Box::new(tempfile::tempfile));
        while survey.read_some().unwrap() == ReadProgress::GoesOn {}
        survey.finish(sample).unwrap()
    }

    fn rows(plan: &SurveyPlan) -> Vec<u64> {
        (0..=plan.rows() + 1).filter(|row| plan.lists(*row)).collect()
    }

    #[test]
    fn the_last_record_of_each_id_counts_an_invalid_one_included() {
        let check = |text: &str, expected: &[u64], [ids, invalid, superseded]: [u64; 3]| {
            let plan = plan(text, None);
            assert_eq!(
                (rows(&plan).as_slice(), [plan.ids, plan.invalid, plan.superseded]),
                (expected, [ids, invalid, superseded]),
                "{text:?}"
            );
            assert_eq!(plan.to_ask, plan.ids);
        };
        check("UserID,Nick\n", &[], [0, 0, 0]);
        check("UserID,Nick\na,1\nb,2\na,3\n", &[2, 3], [2, 0, 1]);
        check("UserID,Nick\na,1\na,2,3\nb,1\n", &[2, 3], [1, 1, 1]);
        check("UserID,Nick\na,2,3\na,1\n", &[2], [1, 0, 1]);
        check("UserID,Nick\n xy,1\n xy,2\n,1\n,2\n", &[2, 3, 4], [0, 3, 1]);
    }

    #[test]
    fn a_sample_has_as_many_distinct_ids_and_is_the_same_for_the_same_seed() {
        let text = (1..=1_000).fold("UserID\n xy\n".to_owned(), |text, row| text + &format!("u{}\n", row % 800));
        for (wanted, expected) in [(0, 0), (1, 1), (100, 100), (800, 800), (5_000, 800)] {
            let draw = |seed: u64| plan(&text, Some(RandomSample { ids: wanted, seed }));
            let (one, same, other) = (draw(1), draw(1), draw(2));
            assert_eq!((one.to_ask, rows(&one).len() as u64, one.ids), (expected, expected + 1, 800));
            assert_eq!(rows(&one), rows(&same));
            assert!(rows(&one) != rows(&other) || [0, 800].contains(&expected) || wanted == 1);
        }
    }

    #[test]
    fn every_id_is_as_likely() {
        let text = (1..=20).fold("UserID\n".to_owned(), |text, row| text + &format!("u{row}\n"));
        let mut drawn = [0_u32; 21];
        for seed in 0..4_000 {
            for row in rows(&plan(&text, Some(RandomSample { ids: 5, seed }))) {
                drawn[usize::try_from(row).unwrap()] += 1;
            }
        }
        // A thousand each are expected; 27 is the standard deviation.
        assert!(drawn[1..].iter().all(|count| (850..1_150).contains(count)), "{drawn:?}");
    }
}
