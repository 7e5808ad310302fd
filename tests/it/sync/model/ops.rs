//! What happens in a sequence, and how it is drawn.

use chatlift::domain::known_tags::{RecordTags, TagHash};
use chatlift::domain::tag::{Tag, TagValue};
use proptest::prelude::*;

use super::service::Lost;

/// Ids that there are. Chosen: few, so that they meet often.
pub(super) const IDS: u8 = 8;
/// Longest that a process is left alone before it is killed. Chosen: most end before.
pub(super) const KILLED_WITHIN_MS: u64 = 300;

/// A cell: empty, or one of a few names.
pub(super) type CellText = Option<u8>;

#[derive(Debug, Clone)]
pub(super) enum Op {
    /// The records of these ids are these, or gone.
    Edit(Vec<(u8, Option<Cells>)>),
    /// Every other record has no Nick or no FaceUrl any more.
    Empty(Emptied),
    /// The file is as it was before the last edit.
    TakeBack,
    /// From here on the file has these columns of tags.
    Columns(Columns),
    Sync(Process),
    /// `verify --profiles --state`.
    Verify,
    /// `import --state` of the file, or of the one whose import is unfinished: so many records more.
    Import(u8),
    /// From here on some ids are in this kind of trouble.
    Trouble(Option<Lost>),
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cells {
    pub(super) nick: CellText,
    pub(super) face: CellText,
    pub(super) level: CellText,
    pub(super) vip: CellText,
}

/// Which tags the file has, in the order of its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Columns {
    None,
    Level,
    LevelAndVip,
    VipAndLevel,
}

impl Columns {
    pub(super) fn tags(self) -> Vec<Tag> {
        let vip = Tag::Custom("Vip".into());
        match self {
            Columns::None => Vec::new(),
            Columns::Level => vec![Tag::Level],
            Columns::LevelAndVip => vec![Tag::Level, vip],
            Columns::VipAndLevel => vec![vip, Tag::Level],
        }
    }
}

impl Cells {
    pub(super) fn tag(self, tag: &Tag) -> Option<TagValue> {
        match tag {
            Tag::Level => self.level.map(|level| TagValue::Number(level.into())),
            _ => self.vip.map(|vip| TagValue::Text(format!("vip {vip}").into())),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Emptied {
    Nicks,
    Faces,
    Levels,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    pub(super) limit: Option<u8>,
    pub(super) killed: Killed,
    pub(super) in_batches: bool,
    /// Another program looks at the state meanwhile.
    pub(super) reader: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Killed {
    Never,
    /// Once the state has the plan.
    AfterBegin,
    /// So long after the first call may leave.
    After(u64),
    /// When all rows have settled, and once the state knows it.
    BeforeFinish,
    AfterFinish,
}

/// The tags of a record, as a run with these columns reads them.
pub(super) fn tags_of(cells: Cells, columns: Columns) -> RecordTags {
    columns.tags().iter().map(|tag| cells.tag(tag).map(|value| TagHash::of(value.as_ref()))).collect()
}

pub(super) fn cell() -> impl Strategy<Value = CellText> {
    prop_oneof![1 => Just(None), 3 => (0_u8..3).prop_map(Some)]
}

pub(super) fn process() -> impl Strategy<Value = Process> {
    let limit = prop_oneof![3 => Just(None), 1 => (1_u8..IDS).prop_map(Some)];
    let killed = prop_oneof![
        2 => Just(Killed::Never),
        1 => Just(Killed::AfterBegin),
        4 => (0..KILLED_WITHIN_MS).prop_map(Killed::After),
        1 => Just(Killed::BeforeFinish),
        1 => Just(Killed::AfterFinish),
    ];
    let reader = prop_oneof![4 => Just(false), 1 => Just(true)];
    (limit, killed, any::<bool>(), reader).prop_map(|(limit, killed, in_batches, reader)| Process { limit, killed, in_batches, reader })
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let cells = (cell(), cell(), cell(), cell()).prop_map(|(nick, face, level, vip)| Cells { nick, face, level, vip });
    let record = prop_oneof![1 => Just(None), 5 => cells.prop_map(Some)];
    let columns = prop_oneof![Just(Columns::None), Just(Columns::Level), Just(Columns::LevelAndVip), Just(Columns::VipAndLevel)];
    let edit = prop::collection::vec((0..IDS, record), 1..6);
    let lost = prop_oneof![Just(None), Just(Some(Lost::AndTaken)), Just(Some(Lost::AndGone))];
    prop_oneof![
        4 => edit.prop_map(Op::Edit),
        1 => prop_oneof![Just(Emptied::Nicks), Just(Emptied::Faces), Just(Emptied::Levels)].prop_map(Op::Empty),
        3 => columns.prop_map(Op::Columns),
        1 => Just(Op::TakeBack),
        6 => process().prop_map(Op::Sync),
        1 => Just(Op::Verify),
        1 => (1..IDS).prop_map(Op::Import),
        2 => lost.prop_map(Op::Trouble),
    ]
}
