//! A user base that changes from day to day, and its exports: some rows twice, some invalid, some days spoilt; columns of tags come and go.

use std::collections::{BTreeMap, BTreeSet};

/// Accounts by id: nickname and face.
pub(super) type Accounts = BTreeMap<String, (String, String)>;

/// What each id is to have; none where its last record is invalid.
pub(super) type Wanted<'a> = BTreeMap<&'a str, Option<WantedAccount<'a>>>;

/// What a record asks for; an empty text says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedAccount<'a> {
    pub(super) nick: &'a str,
    pub(super) face: &'a str,
    /// By the columns of tags, as the service keeps them.
    pub(super) tags: BTreeMap<&'static str, String>,
}

/// Cells by the columns of tags.
type TagCells = BTreeMap<&'static str, String>;

/// The columns of tags that an export may have.
const TAG_COLUMNS: [&str; 4] = ["Tag_Profile_IM_Gender", "Tag_Profile_IM_Level", "Tag_Profile_IM_BirthDay", "Tag_Profile_Custom_Vip"];
/// What is no value of any column but the last one.
const NO_VALUE: &str = "no value";

/// Somebody's cell in the column at this place, if there is one; that never changes. A fifth of all have one: so that a column that comes
/// updates fewer than a guard stops.
fn tag_cell(number: u32, place: usize, value: u16) -> Option<String> {
    let place = u32::try_from(place).unwrap();
    (number % 7 == place || number % 11 == place).then(|| match place {
        0 => ["male", "Female", "GENDER_TYPE_UNKNOWN"][usize::from(value % 3)].to_owned(),
        1 => value.to_string(),
        2 => format!("{}-{:02}-{:02}", 1950 + value % 60, 1 + value % 12, 1 + value % 28),
        _ => format!("Vip \"{value}\", 级"),
    })
}

/// What the service keeps of a cell; none of one that is no value.
fn kept_tag(column: &str, cell: &str) -> Option<String> {
    if column == TAG_COLUMNS[3] {
        return Some(cell.to_owned());
    }
    match cell {
        NO_VALUE => None,
        "male" => Some("Gender_Type_Male".to_owned()),
        "Female" => Some("Gender_Type_Female".to_owned()),
        "GENDER_TYPE_UNKNOWN" => Some("Gender_Type_Unknown".to_owned()),
        number_or_day => Some(number_or_day.replace('-', "")),
    }
}

/// People at the start. Chosen: enough for the guards that judge shares.
const PEOPLE: u32 = 240;
/// What an edit changes at most, of each kind. Chosen: well under what the guards stop.
const CHANGES_MAX: usize = 12;
const LEAVERS_MAX: usize = 4;

pub(super) struct UserBase {
    pub(super) chance: fastrand::Rng,
    people: Accounts,
    /// The tags of everybody who was ever there.
    tags: BTreeMap<String, TagCells>,
    /// The columns of tags that exports have today.
    columns: BTreeSet<&'static str>,
    /// Whoever left, as they were: some come back.
    gone: Accounts,
    /// What was before the last edit.
    before: Accounts,
    tags_before: BTreeMap<String, TagCells>,
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

/// A file as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Export {
    columns: Vec<&'static str>,
    records: Vec<ExportRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ExportRecord {
    id: String,
    nick: String,
    face: String,
    /// A cell for each column of tags.
    tags: Vec<String>,
}

impl UserBase {
    pub(super) fn new(seed: u64) -> Self {
        let chance = fastrand::Rng::with_seed(seed);
        let mut users = Self {
            chance,
            people: Accounts::new(),
            tags: BTreeMap::new(),
            columns: [TAG_COLUMNS[1]].into(),
            gone: Accounts::new(),
            before: Accounts::new(),
            tags_before: BTreeMap::new(),
            named: 0,
        };
        for _ in 0..PEOPLE {
            users.somebody_comes();
        }
        users
    }

    fn somebody_comes(&mut self) {
        self.named += 1;
        let id = format!("u{:04}", self.named);
        // Whether somebody has a face never changes: an emptied cell clears nothing.
        let face = if self.named.is_multiple_of(2) { format!("https://faces/{}", self.named) } else { String::new() };
        self.people.insert(id.clone(), (format!("Nick, {}", self.named), face));
        let value = self.chance.u16(..);
        let tags = TAG_COLUMNS.iter().enumerate().filter_map(|(place, column)| Some((*column, tag_cell(self.named, place, value)?)));
        self.tags.insert(id, tags.collect());
    }

    fn anybody(&mut self) -> String {
        let at = self.chance.usize(..self.people.len());
        self.people.keys().nth(at).unwrap().clone()
    }

    /// A column of tags comes or goes.
    pub(super) fn change_columns(&mut self) {
        let column = TAG_COLUMNS[self.chance.usize(..TAG_COLUMNS.len())];
        if !self.columns.remove(column) {
            self.columns.insert(column);
        }
    }

    /// Somebody has another value of a tag, perhaps of one that exports don't have.
    fn change_a_tag(&mut self, id: &str) {
        let value = self.chance.u16(..);
        let taken_back = self.tags_before.get(id).cloned().filter(|_| self.chance.bool());
        let number: u32 = id[1..].parse().unwrap();
        let tags = self.tags.get_mut(id).unwrap();
        if let Some(old) = taken_back {
            *tags = old;
        } else if let Some((place, cell)) =
            (0..TAG_COLUMNS.len()).filter_map(|place| Some((place, tag_cell(number, place, value)?))).nth(usize::from(value % 2))
        {
            tags.insert(TAG_COLUMNS[place], cell);
        }
    }

    /// Another day.
    pub(super) fn edit(&mut self) {
        let (before, tags_before) = (self.people.clone(), self.tags.clone());
        for _ in 0..self.chance.usize(1..CHANGES_MAX) {
            let id = self.anybody();
            if self.chance.bool() {
                self.change_a_tag(&id);
                continue;
            }
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
        (self.before, self.tags_before) = (before, tags_before);
    }

    /// All that the last day has brought is taken back.
    pub(super) fn take_back(&mut self) {
        std::mem::swap(&mut self.people, &mut self.before);
        // Whoever came in that day keeps his tags for the day on which he comes again.
        let mut tags = self.tags.clone();
        tags.extend(std::mem::take(&mut self.tags_before));
        self.tags_before = std::mem::replace(&mut self.tags, tags);
    }

    /// As it stands, in any order.
    pub(super) fn export(&mut self) -> Export {
        let columns: Vec<&'static str> = self.columns.iter().copied().collect();
        let record = |(id, (nick, face)): (&String, &(String, String))| {
            let tags = columns.iter().map(|column| self.tags[id].get(column).cloned().unwrap_or_default()).collect();
            ExportRecord { id: id.clone(), nick: nick.clone(), face: face.clone(), tags }
        };
        let mut records: Vec<ExportRecord> = self.people.iter().map(record).collect();
        self.chance.shuffle(&mut records);
        for _ in 0..self.chance.usize(..4) {
            let at = self.chance.usize(..records.len());
            let mut other = records[at].clone();
            match self.chance.u8(..5) {
                // An earlier record of the same id says something else, or is invalid: the last one counts.
                0 => other.nick = format!("superseded {}", self.chance.u8(..)),
                1 => other.nick = "x".repeat(501),
                2 if !columns.is_empty() => NO_VALUE.clone_into(other.tags.last_mut().unwrap()),
                // The last one is invalid, whatever the earlier one says.
                2 | 3 => {
                    records[at].nick = "x".repeat(501);
                    other.nick = format!("superseded {}", self.chance.u8(..));
                }
                _ => other.id = format!("bad id {at} "),
            }
            records.insert(self.chance.usize(..=at), other);
        }
        Export { columns, records }
    }

    /// As an export job that went wrong would have it.
    pub(super) fn spoilt(&mut self, flaw: Flaw) -> Export {
        let Export { columns, mut records } = self.export();
        match flaw {
            Flaw::Truncated => records.truncate(records.len() / 2),
            Flaw::Blanked => records.iter_mut().for_each(|record| record.nick = String::new()),
            Flaw::Renamed => records.iter_mut().for_each(|record| record.nick = format!("renamed {}", record.id)),
            Flaw::Thinned => {
                let ids: BTreeSet<String> = self.people.keys().step_by(10).cloned().collect();
                records.retain(|record| !ids.contains(&record.id));
            }
        }
        Export { columns, records }
    }
}

impl Export {
    pub(super) fn csv(&self) -> String {
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(["UserID", "Nick", "FaceUrl"].iter().chain(&self.columns)).unwrap();
        for ExportRecord { id, nick, face, tags } in &self.records {
            csv.write_record([id, nick, face].into_iter().chain(tags)).unwrap();
        }
        String::from_utf8(csv.into_inner().unwrap()).unwrap()
    }

    /// What the last record of each id asks for: nothing, if it is invalid.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        let ids = self.records.iter().filter(|record| !record.id.contains(' '));
        ids.map(|record| (record.id.as_str(), self.wanted_of(record))).collect()
    }

    /// What each valid record asks for, in the order of the file.
    pub(super) fn valid_records(&self) -> impl Iterator<Item = (&str, WantedAccount<'_>)> {
        let records = self.records.iter().filter(|record| !record.id.contains(' '));
        records.filter_map(|record| Some((record.id.as_str(), self.wanted_of(record)?)))
    }

    fn wanted_of<'a>(&'a self, ExportRecord { nick, face, tags, .. }: &'a ExportRecord) -> Option<WantedAccount<'a>> {
        let said = self.columns.iter().zip(tags).filter(|(_, cell)| !cell.is_empty());
        let tags: Option<BTreeMap<_, _>> = said.map(|(column, cell)| Some((*column, kept_tag(column, cell)?))).collect();
        tags.filter(|_| nick.len() <= 500).map(|tags| WantedAccount { nick, face, tags })
    }

    /// Whether a record is rejected; a superseded one is told as that, whatever else is wrong with it.
    pub(super) fn has_rejects(&self) -> bool {
        self.records.iter().any(|record| record.id.contains(' ')) || self.wanted().values().any(Option::is_none)
    }

    /// Whether a record is rejected where nothing is superseded.
    pub(super) fn has_invalid(&self) -> bool {
        self.records.iter().any(|record| record.id.contains(' ') || self.wanted_of(record).is_none())
    }

    /// Whether any column of tags is read.
    pub(super) fn has_tags(&self) -> bool {
        !self.columns.is_empty()
    }
}
