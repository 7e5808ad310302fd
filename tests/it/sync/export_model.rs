//! A town that changes from day to day, and the exports of its register: some rows twice, some invalid, some days spoilt.

use std::collections::{BTreeMap, BTreeSet};

/// Accounts by id: nickname and face.
pub(super) type Accounts = BTreeMap<String, (String, String)>;

/// Nickname and face that each id is to have; none where its last record is invalid.
pub(super) type Wanted<'a> = BTreeMap<&'a str, Option<(&'a str, &'a str)>>;

/// People at the start. Chosen: enough for the guards that judge shares.
const PEOPLE: u32 = 240;
/// What an edit changes at most, of each kind. Chosen: well under what the guards stop.
const CHANGES_MAX: usize = 12;
const LEAVERS_MAX: usize = 4;

pub(super) struct Town {
    pub(super) chance: fastrand::Rng,
    people: Accounts,
    /// Whoever left, as they were: some come back.
    gone: Accounts,
    /// What was before the last edit.
    before: Accounts,
    named: u32,
}

/// Why an export must be stopped.
#[derive(Debug, Clone, Copy)]
pub(super) enum Flaw {
    Truncated,
    Blanked,
    Renamed,
    Thinned,
}

impl Flaw {
    pub(super) const ALL: [Flaw; 4] = [Flaw::Truncated, Flaw::Blanked, Flaw::Renamed, Flaw::Thinned];

    /// The guard that stops it.
    pub(super) const fn guard(self) -> &'static str {
        match self {
            Flaw::Truncated => "shrunk",
            Flaw::Blanked => "blanked",
            Flaw::Renamed => "updates",
            Flaw::Thinned => "deletes",
        }
    }
}

/// A file: records of UserID, Nick and FaceUrl as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Export(Vec<[String; 3]>);

impl Town {
    pub(super) fn new(seed: u64) -> Self {
        let chance = fastrand::Rng::with_seed(seed);
        let mut town = Self { chance, people: Accounts::new(), gone: Accounts::new(), before: Accounts::new(), named: 0 };
        for _ in 0..PEOPLE {
            town.somebody_comes();
        }
        town
    }

    fn somebody_comes(&mut self) {
        self.named += 1;
        let id = format!("u{:04}", self.named);
        // Whether somebody has a face never changes: an emptied cell clears nothing.
        let face = if self.named.is_multiple_of(2) { format!("https://faces/{}", self.named) } else { String::new() };
        self.people.insert(id, (format!("Nick, {}", self.named), face));
    }

    fn anybody(&mut self) -> String {
        let at = self.chance.usize(..self.people.len());
        self.people.keys().nth(at).unwrap().clone()
    }

    /// Another day.
    pub(super) fn edit(&mut self) {
        let before = self.people.clone();
        for _ in 0..self.chance.usize(1..CHANGES_MAX) {
            let id = self.anybody();
            let number = self.chance.u16(..);
            let taken_back = self.before.get(&id).cloned().filter(|_| self.chance.bool());
            let (nick, face) = self.people.get_mut(&id).unwrap();
            if let Some(old) = taken_back {
                (*nick, *face) = old;
            } else if number.is_multiple_of(3) && !face.is_empty() {
                *face = format!("https://faces/{number}");
            } else {
                *nick = format!("Nick \"{number}\"");
            }
        }
        for _ in 0..self.chance.usize(..LEAVERS_MAX) {
            let id = self.anybody();
            let was = self.people.remove(&id).unwrap();
            self.gone.insert(id, was);
        }
        for _ in 0..self.chance.usize(..LEAVERS_MAX) {
            self.somebody_comes();
            if self.chance.bool() {
                self.people.extend(self.gone.pop_first());
            }
        }
        self.before = before;
    }

    /// All that the last day has brought is taken back.
    pub(super) fn take_back(&mut self) {
        std::mem::swap(&mut self.people, &mut self.before);
    }

    /// As it stands, in any order.
    pub(super) fn export(&mut self) -> Export {
        let mut records: Vec<[String; 3]> = self.people.iter().map(|(id, (nick, face))| [id.clone(), nick.clone(), face.clone()]).collect();
        self.chance.shuffle(&mut records);
        for _ in 0..self.chance.usize(..4) {
            let at = self.chance.usize(..records.len());
            let mut other = records[at].clone();
            match self.chance.u8(..4) {
                // An earlier record of the same id says something else, or is invalid: the last one counts.
                0 => other[1] = format!("superseded {}", self.chance.u8(..)),
                1 => other[1] = "x".repeat(501),
                // The last one is invalid, whatever the earlier one says.
                2 => {
                    records[at][1] = "x".repeat(501);
                    other[1] = format!("superseded {}", self.chance.u8(..));
                }
                _ => other[0] = format!("bad id {at} "),
            }
            records.insert(self.chance.usize(..=at), other);
        }
        Export(records)
    }

    /// As an export job that went wrong would have it.
    pub(super) fn spoilt(&mut self, flaw: Flaw) -> Export {
        let Export(mut records) = self.export();
        match flaw {
            Flaw::Truncated => records.truncate(records.len() / 2),
            Flaw::Blanked => records = records.into_iter().map(|[id, _, face]| [id, String::new(), face]).collect(),
            Flaw::Renamed => records = records.into_iter().map(|[id, _, face]| [id.clone(), format!("renamed {id}"), face]).collect(),
            Flaw::Thinned => {
                let ids: BTreeSet<String> = self.people.keys().step_by(10).cloned().collect();
                records.retain(|record| !ids.contains(&record[0]));
            }
        }
        Export(records)
    }
}

impl Export {
    pub(super) fn csv(&self) -> String {
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(["UserID", "Nick", "FaceUrl"]).unwrap();
        for record in &self.0 {
            csv.write_record(record).unwrap();
        }
        String::from_utf8(csv.into_inner().unwrap()).unwrap()
    }

    /// What the last record of each id asks for: nothing, if it is invalid.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        let valid = |nick: &str| nick.len() <= 500;
        let ids = self.0.iter().filter(|[id, ..]| !id.contains(' '));
        ids.map(|[id, nick, face]| (id.as_str(), valid(nick).then_some((nick.as_str(), face.as_str())))).collect()
    }

    /// Whether a record is rejected; a superseded one is told as that, whatever else is wrong with it.
    pub(super) fn has_rejects(&self) -> bool {
        self.0.iter().any(|[id, ..]| id.contains(' ')) || self.wanted().values().any(Option::is_none)
    }
}
