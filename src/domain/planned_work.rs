//! How much of a plan is done, and how much it is in all: in records, and for each of the APIs that they need.

use std::rc::Rc;

use super::op::{Op, Ops};
use super::tag::Tag;

/// Records of a plan that get a result, and those of them that need an API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlannedWork {
    pub records: u64,
    /// Records whose account is imported.
    pub imports: u64,
    /// Records whose tags are set. A record that is created counts if the run reads tags, whether it has some or not.
    pub profiles: u64,
}

/// How far a process is with the part of a plan that it handles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlanProgress {
    pub done: PlannedWork,
    pub all: PlannedWork,
}

/// Goes through a plan as its records get their outcomes. They get them in the order of the file, and unchanged ones get none.
#[derive(Debug)]
pub struct PlanWalk {
    ops: Rc<Ops>,
    /// The last row that is counted as done.
    row: u64,
    reads_tags: bool,
    progress: PlanProgress,
}

impl PlanWalk {
    /// From behind this row on, for at most `limit` records; `tags` are those that the run reads.
    #[must_use]
    pub fn new((ops, row): (Rc<Ops>, u64), tags: &[Tag], limit: Option<u64>) -> Self {
        let mut walk = Self { ops, row, reads_tags: !tags.is_empty(), progress: PlanProgress::default() };
        let mut all = PlannedWork::default();
        let is_wanted = |all: PlannedWork| limit.is_none_or(|limit| all.records < limit);
        for row in row + 1..=walk.ops.rows() {
            if !is_wanted(all) {
                break;
            }
            walk.count(&mut all, row);
        }
        walk.progress.all = all;
        walk
    }

    /// How far it is once so many records have their outcome.
    pub fn after(&mut self, outcomes: u64) -> PlanProgress {
        let mut done = self.progress.done;
        while done.records < outcomes.min(self.progress.all.records) {
            self.row += 1;
            self.count(&mut done, self.row);
        }
        self.progress.done = done;
        self.progress
    }

    fn count(&self, work: &mut PlannedWork, row: u64) {
        let op = self.ops.get(row);
        let sets_tags = if op == Op::Create { self.reads_tags } else { !op.tags().is_empty() };
        work.records += u64::from(op != Op::Unchanged);
        work.imports += u64::from(op.imports());
        work.profiles += u64::from(sets_tags);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::change::{AccountCall, Update};
    use crate::domain::known_tags::TagSet;
    use crate::domain::profile::FieldSet;

    const IMPORTED: Op = Op::Update(Update::of_fields(FieldSet::NONE));

    fn walk(ops: &[Op], row: u64, limit: Option<u64>) -> PlanWalk {
        let mut list = Ops::default();
        for op in ops {
            list.push(*op);
        }
        PlanWalk::new((Rc::new(list), row), &[], limit)
    }

    #[test]
    fn unchanged_records_are_no_work_wherever_they_stand() {
        let tags_alone = Update { tags: TagSet::from_bits(1), account: AccountCall::Left, ..Update::of_fields(FieldSet::NONE) };
        let ops = [Op::Unchanged, IMPORTED, Op::Unchanged, Op::Unchanged, Op::Update(tags_alone), Op::Invalid, Op::Create, Op::Unchanged];
        let mut walk = walk(&ops, 0, None);
        let all = PlannedWork { records: 4, imports: 2, profiles: 1 };
        let done = |records, imports, profiles| PlanProgress { done: PlannedWork { records, imports, profiles }, all };
        assert_eq!(walk.after(0), done(0, 0, 0));
        assert_eq!(walk.after(1), done(1, 1, 0));
        assert_eq!(walk.after(3), done(3, 1, 1));
        assert_eq!(walk.after(99), done(4, 2, 1));
    }

    #[test]
    fn a_process_handles_what_is_behind_the_settled_rows_and_within_the_limit() {
        let ops = [IMPORTED, IMPORTED, Op::Unchanged, IMPORTED, Op::Superseded, Op::Create];
        let all = |row, limit| walk(&ops, row, limit).after(0).all;
        assert_eq!(all(2, None), PlannedWork { records: 3, imports: 2, profiles: 0 });
        assert_eq!(all(1, Some(2)), PlannedWork { records: 2, imports: 2, profiles: 0 });
        assert_eq!(all(6, None), PlannedWork::default());
    }
}
