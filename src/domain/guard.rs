//! The guards (safety checks) of a sync: a plan that looks wrong is refused before the first request.
//!
//! They decide with whole numbers, so no percentage is rounded. `bound` has shares and limits, `figures` what is compared with them. The
//! shell has the hints for them.

mod bound;
mod figures;

pub use bound::{Bound, Percent};
pub use figures::{Filled, GuardInput, LATELY_MS, NewColumns, PastRun, most_held};

use crate::domain::figures::count;
use crate::domain::profile::ProfileField;
use crate::domain::tag::Tag;

/// Shares of the known accounts are checked only if there are this many. Source: the contract of the guards.
const HELD_MIN: u64 = 100;
/// Shares of the valid records are checked only if there are this many. Source: the contract of the guards.
const RECORDS_MIN: u64 = 100;
/// Below the first number of known accounts a loss is not checked; from the second number the ordinary bound applies. Source: the contract
/// of the guards.
const SHRUNK_MIN: u64 = 20;
const SHRUNK_FEW: u64 = 100;
/// The share that must be left, of many accounts and of few. Source: the contract of the guards.
const SHRUNK: Percent = Percent::whole(85);
const SHRUNK_OF_FEW: Percent = Percent::whole(50);
/// Percentage points by which the share of filled cells may fall. Source: the contract of the guards.
const BLANKED_POINTS: u64 = 5;

/// The guards in the order in which they are checked and reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guard {
    Empty,
    Shrunk,
    Blanked,
    Updates,
    Cut,
    Deletes,
    Canary,
    Target,
}

impl Guard {
    /// All guards.
    pub const ALL: [Guard; 8] =
        [Guard::Empty, Guard::Shrunk, Guard::Blanked, Guard::Updates, Guard::Cut, Guard::Deletes, Guard::Canary, Guard::Target];

    /// The word in the summary and on stderr.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Guard::Empty => "empty",
            Guard::Shrunk => "shrunk",
            Guard::Blanked => "blanked",
            Guard::Updates => "updates",
            Guard::Cut => "cut",
            Guard::Deletes => "deletes",
            Guard::Canary => "canary",
            Guard::Target => "target",
        }
    }
}

/// The settings for the guards.
#[derive(Debug, Clone)]
pub struct GuardLimits {
    /// Guards that are switched off (`--allow`).
    pub allowed: Vec<Guard>,
    pub max_update: Bound,
    pub max_delete: Bound,
}

/// A guard that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tripped {
    pub guard: Guard,
    /// The numbers that it found.
    pub why: String,
    /// The flags that let the run through.
    pub override_hint: String,
}

/// A guard with what it found, for whoever wants to see all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    pub guard: Guard,
    /// What must hold.
    pub bound: String,
    /// The numbers that were compared with it. They name no UserID.
    pub found: String,
    pub verdict: GuardVerdict,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardVerdict {
    Passed,
    /// It is switched off with `--allow`; without that it would have failed.
    Allowed,
    /// With the flags that let the run through.
    Tripped {
        override_hint: String,
    },
}

/// All guards with what they found, in order.
#[must_use]
pub fn guard_report(figures: &GuardInput, limits: &GuardLimits) -> Vec<Judged> {
    let tripped = tripped_guards(figures, limits);
    let would_trip = tripped_guards(figures, &GuardLimits { allowed: Vec::new(), ..limits.clone() });
    let verdict = |guard: Guard| match tripped.iter().find(|tripped| tripped.guard == guard) {
        Some(tripped) => GuardVerdict::Tripped { override_hint: tripped.override_hint.clone() },
        None if would_trip.iter().any(|tripped| tripped.guard == guard) => GuardVerdict::Allowed,
        None => GuardVerdict::Passed,
    };
    let judged = |guard| Judged { guard, bound: bound(guard, limits), found: found(guard, figures), verdict: verdict(guard) };
    Guard::ALL.map(judged).into()
}

fn bound(guard: Guard, limits: &GuardLimits) -> String {
    match guard {
        Guard::Empty => "at least one valid row".to_owned(),
        Guard::Shrunk => format!(
            "at least {SHRUNK} of the known accounts have a valid row, and of the most that were known lately ({SHRUNK_OF_FEW} if fewer than \
             {SHRUNK_FEW} are known, not judged below {SHRUNK_MIN})"
        ),
        Guard::Blanked => {
            format!("the share of rows with a cell falls by at most {BLANKED_POINTS} points (not judged below {RECORDS_MIN} rows)")
        }
        Guard::Updates => format!("at most {} (not judged if fewer than {HELD_MIN} are known)", limits.max_update),
        Guard::Cut => "the file ends with a line end if the last run's did".to_owned(),
        Guard::Deletes => format!("at most {}", limits.max_delete),
        Guard::Canary => "each canary has a valid row".to_owned(),
        Guard::Target => "the state belongs to this app".to_owned(),
    }
}

fn found(guard: Guard, figures: &GuardInput) -> String {
    let GuardInput { filled, distinct, held, present, most_held, updates, due, .. } = figures;
    let [distinct, held, present, most_held, updates, due] =
        [distinct, held, present, most_held, updates, due].map(|number| count(*number));
    let valid = count(filled.valid);
    match guard {
        Guard::Empty => format!("{valid} valid rows"),
        Guard::Shrunk => format!("{present} of {held} known accounts; {distinct} distinct valid UserIDs, {most_held} known lately"),
        Guard::Blanked => {
            let [nick, face_url] = [ProfileField::Nick, ProfileField::FaceUrl].map(|field| count(filled.with[field]));
            format!("{nick} of {valid} valid rows have a nickname, {face_url} an avatar")
        }
        Guard::Updates => format!("{updates} updates, {held} known accounts"),
        Guard::Cut => if figures.ends_with_newline { "it does" } else { "it does not" }.to_owned(),
        Guard::Deletes => format!("{due} due for kick or deletion, {held} known accounts"),
        Guard::Canary if figures.dead_canaries.is_empty() => "none is absent".to_owned(),
        Guard::Canary => format!("{} absent", figures.dead_canaries.len()),
        Guard::Target => if figures.other_target.is_some() { "it belongs to another" } else { "it does" }.to_owned(),
    }
}

/// Whether so many accounts are lost that [`Guard::Shrunk`] fails.
#[must_use]
pub fn has_shrunk(figures: &GuardInput) -> bool {
    shrunk(figures).is_some()
}

/// All guards that fail, in order.
#[must_use]
pub fn tripped_guards(figures: &GuardInput, limits: &GuardLimits) -> Vec<Tripped> {
    let all = [
        (Guard::Empty, empty(figures)),
        (Guard::Shrunk, shrunk(figures)),
        (Guard::Blanked, blanked(figures)),
        (Guard::Updates, updates(figures, limits)),
        (Guard::Cut, cut(figures)),
        (Guard::Deletes, deletes(figures, limits)),
        (Guard::Canary, canary(figures)),
        (Guard::Target, target(figures)),
    ];
    let tripped = all.into_iter().filter(|(guard, _)| !limits.allowed.contains(guard));
    tripped.filter_map(|(guard, found)| found.map(|why| Tripped { guard, why, override_hint: override_hint(guard, figures) })).collect()
}

fn empty(figures: &GuardInput) -> Option<String> {
    (figures.filled.valid == 0).then(|| "the file has no valid row".to_owned())
}

fn shrunk(GuardInput { distinct, held, present, most_held, .. }: &GuardInput) -> Option<String> {
    let [lost, smaller] = [is_shrunk(*present, *held), is_shrunk(*distinct, *most_held)];
    let lost = lost.map(|bound| format!("{present} of the {held} known accounts have a valid row, less than {bound}"));
    let smaller =
        smaller.map(|bound| format!("{distinct} distinct valid UserIDs are less than {bound} of the {most_held} accounts known lately"));
    let told: Vec<String> = [lost, smaller].into_iter().flatten().collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// The bound, if `now` is below it.
const fn is_shrunk(now: u64, base: u64) -> Option<Percent> {
    let bound = if base < SHRUNK_FEW { SHRUNK_OF_FEW } else { SHRUNK };
    if base >= SHRUNK_MIN && bound.is_missed(now, base) { Some(bound) } else { None }
}

fn blanked(GuardInput { filled, before, .. }: &GuardInput) -> Option<String> {
    let before = before.as_ref().filter(|before| before.valid > 0 && filled.valid >= RECORDS_MIN)?;
    let columns = ProfileField::ALL.map(|field| (field.spec().name.to_owned(), filled.with[field], before.with[field]));
    let then = |tag: &Tag| before.tags.iter().find(|(read, _)| read == tag).map(|(_, then)| *then);
    let tags = filled.tags.iter().filter_map(|(tag, now)| Some((tag.to_string(), *now, then(tag)?)));
    let fallen = columns.into_iter().chain(tags).filter(|(_, now, then)| has_fallen((*now, filled.valid), (*then, before.valid)));
    let told: Vec<String> = fallen
        .map(|(name, now, then)| format!("{now} of {} valid rows have a {name}, {then} of {} had one before", filled.valid, before.valid))
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// Whether the first share is below the second by more than the allowed points.
fn has_fallen((now, of_now): (u64, u64), (then, of_then): (u64, u64)) -> bool {
    let [now, of_now, then, of_then] = [now, of_now, then, of_then].map(u128::from);
    // now / of_now < then / of_then - points / 100, multiplied by the common denominator.
    100 * now * of_then + u128::from(BLANKED_POINTS) * of_now * of_then < 100 * then * of_now
}

fn updates(GuardInput { updates, held, new_columns, .. }: &GuardInput, limits: &GuardLimits) -> Option<String> {
    let trips = *held >= HELD_MIN && limits.max_update.is_exceeded(*updates, *held);
    let updates = if *updates == 1 { "1 update is".to_owned() } else { format!("{updates} updates are") };
    trips.then(|| format!("{updates} more than --max-update ({}; {held} are known){}", limits.max_update, because_of(new_columns)))
}

/// How many of the updates are due to new columns.
fn because_of(NewColumns { updates, tags }: &NewColumns) -> String {
    let sent: Vec<&(Tag, u64)> = tags.iter().filter(|(_, sent)| *sent > 0).collect();
    let told = || sent.iter().map(|(tag, sent)| format!("{tag} ({sent})")).collect::<Vec<_>>().join(", ");
    match sent.as_slice() {
        [] => String::new(),
        [(tag, _)] => format!("; {updates} of them only because the column {tag} is new"),
        _ => format!("; {updates} of them only because columns are new: {}", told()),
    }
}

fn cut(GuardInput { ends_with_newline, ended_with_newline, .. }: &GuardInput) -> Option<String> {
    let trips = !ends_with_newline && *ended_with_newline == Some(true);
    trips.then(|| "the file has no line end at its end, the last run's had one: it may have been cut off".to_owned())
}

fn deletes(GuardInput { due, held, .. }: &GuardInput, limits: &GuardLimits) -> Option<String> {
    let trips = limits.max_delete.is_exceeded(*due, *held);
    let ids =
        if *due == 1 { "1 account due for kick or deletion is".to_owned() } else { format!("{due} accounts due for kick or deletion are") };
    trips.then(|| format!("{ids} more than --max-delete ({}; {held} are known)", limits.max_delete))
}

fn canary(GuardInput { dead_canaries, .. }: &GuardInput) -> Option<String> {
    (!dead_canaries.is_empty()).then(|| format!("no valid row of {}", dead_canaries.join(", ")))
}

fn target(GuardInput { other_target, .. }: &GuardInput) -> Option<String> {
    other_target.clone()
}

fn override_hint(guard: Guard, figures: &GuardInput) -> String {
    match guard {
        Guard::Empty | Guard::Shrunk | Guard::Blanked | Guard::Cut => format!("--allow {}", guard.name()),
        Guard::Updates => format!("--max-update {}", figures.updates),
        Guard::Deletes => format!("--max-delete {}", figures.due),
        Guard::Canary => figures.dead_canaries.iter().map(|id| format!("without --canary {id}")).collect::<Vec<_>>().join(", "),
        Guard::Target => "another --state, or chatlift state STATE retarget".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> GuardLimits {
        GuardLimits { allowed: Vec::new(), max_update: Bound::Share(Percent::whole(30)), max_delete: Bound::Count(500) }
    }

    /// A plan for which no guard fails.
    fn quiet() -> GuardInput {
        let filled = Filled { valid: 1_000, with: [900, 500].into(), tags: vec![(Tag::Gender, 700), (Tag::Level, 60)] };
        let (ends_with_newline, ended_with_newline) = (true, Some(true));
        let filled = GuardInput { before: Some(filled.clone()), filled, ends_with_newline, ended_with_newline, ..GuardInput::default() };
        GuardInput { distinct: 1_000, held: 1_000, present: 1_000, most_held: 1_000, ..filled }
    }

    fn names(figures: &GuardInput, limits: &GuardLimits) -> Vec<&'static str> {
        tripped_guards(figures, limits).iter().map(|tripped| tripped.guard.name()).collect()
    }

    #[test]
    fn each_guard_fails_beyond_its_bound_and_not_at_it() {
        let check = |change: &dyn Fn(&mut GuardInput), expected: &[&str]| {
            let mut figures = quiet();
            change(&mut figures);
            assert_eq!(names(&figures, &limits()), expected, "{figures:?}");
        };
        check(&|_| {}, &[]);
        check(&|f| f.filled = Filled::default(), &["empty"]);
        let held: fn(&mut GuardInput, u64, u64) = |f, base, now| (f.held, f.present) = (base, now);
        let file: fn(&mut GuardInput, u64, u64) = |f, base, now| (f.most_held, f.distinct) = (base, now);
        for shrink in [held, file] {
            check(&|f| shrink(f, 1_000, 850), &[]);
            check(&|f| shrink(f, 1_000, 849), &["shrunk"]);
            check(&|f| shrink(f, 100, 85), &[]);
            check(&|f| shrink(f, 100, 84), &["shrunk"]);
            check(&|f| shrink(f, 99, 50), &[]);
            check(&|f| shrink(f, 99, 49), &["shrunk"]);
            check(&|f| shrink(f, 20, 10), &[]);
            check(&|f| shrink(f, 20, 9), &["shrunk"]);
            check(&|f| shrink(f, 19, 0), &[]);
        }
        check(&|f| f.filled.with[ProfileField::Nick] = 850, &[]);
        check(&|f| f.filled.with[ProfileField::Nick] = 849, &["blanked"]);
        check(&|f| f.filled.with[ProfileField::FaceUrl] = 449, &["blanked"]);
        check(&|f| f.filled.tags[0].1 = 650, &[]);
        check(&|f| f.filled.tags[0].1 = 649, &["blanked"]);
        check(&|f| f.filled.tags[1].1 = 9, &["blanked"]);
        // Only what both runs have read is compared.
        check(&|f| f.filled.tags = vec![(Tag::Role, 0), (Tag::Level, 60)], &[]);
        check(&|f| f.filled = Filled { valid: 99, ..Filled::default() }, &[]);
        check(&|f| f.filled = Filled { valid: 100, with: [0, 50].into(), tags: Vec::new() }, &["blanked"]);
        check(&|f| (f.before, f.filled.with[ProfileField::Nick]) = (None, 0), &[]);
        check(&|f| f.updates = 300, &[]);
        check(&|f| f.updates = 301, &["updates"]);
        check(&|f| (f.held, f.updates) = (99, 99), &[]);
        check(&|f| f.due = 500, &[]);
        check(&|f| f.due = 501, &["deletes"]);
        check(&|f| f.ends_with_newline = false, &["cut"]);
        check(&|f| (f.ends_with_newline, f.ended_with_newline) = (false, Some(false)), &[]);
        check(&|f| (f.ends_with_newline, f.ended_with_newline) = (false, None), &[]);
        check(&|f| f.ended_with_newline = Some(false), &[]);
        check(&|f| f.dead_canaries = vec!["boss".to_owned()], &["canary"]);
        check(&|f| f.other_target = Some("elsewhere".to_owned()), &["target"]);
    }

    #[test]
    fn updates_for_a_new_column_are_told_as_such() {
        let check = |tags: &[(Tag, u64)], expected: &str| {
            let new_columns = NewColumns { updates: 300, tags: tags.to_vec() };
            let told = tripped_guards(&GuardInput { updates: 301, new_columns, ..quiet() }, &limits());
            assert_eq!(
                told[0].why,
                format!("301 updates are more than --max-update (30 % of the known accounts; 1000 are known){expected}")
            );
        };
        let vip = Tag::parse("Custom.Vip").unwrap();
        check(&[], "");
        check(&[(Tag::Gender, 0)], "");
        check(&[(Tag::Gender, 0), (Tag::Level, 300)], "; 300 of them only because the column Level is new");
        check(&[(Tag::Gender, 200), (vip, 120)], "; 300 of them only because columns are new: Gender (200), Custom.Vip (120)");
    }

    #[test]
    fn kicks_have_their_own_default() {
        let kicks = GuardLimits { max_delete: Bound::Kicks, ..limits() };
        for (held, most) in
            [(0, 10), (10, 10), (66, 10), (67, 10), (73, 10), (74, 11), (99, 14), (3_333, 499), (3_334, 500), (1_000_000, 500)]
        {
            let trips = |due| names(&GuardInput { held, present: held, due, ..quiet() }, &kicks) == ["deletes"];
            assert!(!trips(most) && trips(most + 1), "{most} of {held}");
        }
    }

    #[test]
    fn renaming_all_ids_is_a_loss_although_the_file_is_as_long() {
        let renamed = GuardInput { held: 400, present: 0, most_held: 400, distinct: 400, ..quiet() };
        assert_eq!(names(&renamed, &limits()), ["shrunk"]);
        assert!(tripped_guards(&renamed, &limits())[0].why.starts_with("0 of the 400 known accounts"));
    }

    #[test]
    fn all_failing_guards_are_reported_in_order_and_can_be_overridden() {
        let cut = GuardInput { filled: Filled::default(), ends_with_newline: false, ..quiet() };
        let figures = GuardInput { distinct: 0, updates: 999, due: 501, ..cut };
        assert_eq!(names(&figures, &limits()), ["empty", "shrunk", "updates", "cut", "deletes"]);
        let allowed = vec![Guard::Empty, Guard::Shrunk, Guard::Cut];
        let wide = GuardLimits { allowed, max_update: Bound::Count(999), max_delete: Bound::parse("50.1%").unwrap() };
        assert_eq!(names(&figures, &wide), [] as [&str; 0]);
        let told = tripped_guards(&figures, &limits());
        assert_eq!([2, 3, 4].map(|at| told[at].override_hint.as_str()), ["--max-update 999", "--allow cut", "--max-delete 501"]);
    }
}
