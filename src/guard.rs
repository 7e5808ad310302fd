//! The guards of a sync: what looks wrong about a plan is refused before the first call.
//!
//! Pure decisions on whole numbers: no percentage is rounded. What is said about them is the shell's business.

use std::fmt;

/// Accounts that must be held before shares of them are judged. Source: the contract of the guards.
const HELD_MIN: u64 = 100;
/// Valid records that there must be before shares of them are judged. Source: as above.
const RECORDS_MIN: u64 = 100;
/// Distinct valid ids must be at least this share of what is held. Source: as above.
const SHRUNK: Percent = Percent::whole(85);
/// Points by which a share of filled cells may fall. Source: as above.
const BLANKED_POINTS: u64 = 5;

/// The guards, in the order in which they are judged and told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guard {
    Empty,
    Shrunk,
    Blanked,
    Updates,
    Deletes,
    Canary,
    Target,
}

impl Guard {
    /// The word in the summary and on stderr.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Guard::Empty => "empty",
            Guard::Shrunk => "shrunk",
            Guard::Blanked => "blanked",
            Guard::Updates => "updates",
            Guard::Deletes => "deletes",
            Guard::Canary => "canary",
            Guard::Target => "target",
        }
    }
}

/// A share in hundredths of a per cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u64);

impl Percent {
    #[must_use]
    pub const fn whole(percent: u64) -> Self {
        Self(percent * 100)
    }

    /// Whether `part` is more than this share of `whole`.
    const fn is_exceeded(self, part: u64, whole: u64) -> bool {
        part as u128 * 10_000 > self.0 as u128 * whole as u128
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 100 {
            0 => write!(f, "{} %", self.0 / 100),
            hundredths => write!(f, "{}.{hundredths:02} %", self.0 / 100),
        }
    }
}

/// A number of accounts, or a share of what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    Count(u64),
    Share(Percent),
}

impl Bound {
    /// Reads `N` or `N%`, a share with two decimals at most.
    ///
    /// # Errors
    /// A text for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither a number (N) nor a share (N%, two decimals at most)");
        let Some(share) = text.strip_suffix('%') else { return text.parse().map(Bound::Count).map_err(|_| wrong()) };
        let (whole, decimals) = share.trim_end().split_once('.').unwrap_or((share.trim_end(), ""));
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
        let hundredths = match decimals.len() {
            0 => Some(0),
            1 => number(decimals).map(|tenths| tenths * 10),
            2 => number(decimals),
            _ => None,
        };
        let whole = number(whole).filter(|whole| *whole <= 1_000_000);
        whole.zip(hundredths).map(|(whole, hundredths)| Bound::Share(Percent(whole * 100 + hundredths))).ok_or_else(wrong)
    }

    const fn is_exceeded(self, count: u64, held: u64) -> bool {
        match self {
            Bound::Count(bound) => count > bound,
            Bound::Share(share) => share.is_exceeded(count, held),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Count(count) => count.fmt(f),
            Bound::Share(share) => write!(f, "{share} of held"),
        }
    }
}

/// Valid records, and how many of them have their cells filled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filled {
    pub valid: u64,
    pub with_nick: u64,
    pub with_face_url: u64,
}

impl Filled {
    /// Takes a valid record.
    pub const fn count(&mut self, has_nick: bool, has_face_url: bool) {
        self.valid += 1;
        self.with_nick += has_nick as u64;
        self.with_face_url += has_face_url as u64;
    }
}

/// What is judged.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub filled: Filled,
    /// The last finished run's, if there was one.
    pub before: Option<Filled>,
    /// Distinct UserIDs with a valid record.
    pub distinct: u64,
    /// Accounts in the state that weren't missing in the last finished run.
    pub held: u64,
    pub updates: u64,
    /// Ids that are due for a kick or deletion.
    pub due: u64,
    /// Canaries without a valid record.
    pub dead_canaries: Vec<String>,
    /// What the state belongs to, if it is not what is called: as words.
    pub other_target: Option<String>,
}

/// How far the guards give way.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Guards that are switched off.
    pub allowed: Vec<Guard>,
    pub max_update: Bound,
    pub max_delete: Bound,
}

/// A guard that tripped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tripped {
    pub guard: Guard,
    /// What it saw.
    pub why: String,
    /// What lets the run through.
    pub way_out: String,
}

/// All guards that trip, in their order.
#[must_use]
pub fn judge(figures: &Figures, limits: &Limits) -> Vec<Tripped> {
    let all = [
        (Guard::Empty, empty(figures)),
        (Guard::Shrunk, shrunk(figures)),
        (Guard::Blanked, blanked(figures)),
        (Guard::Updates, updates(figures, limits)),
        (Guard::Deletes, deletes(figures, limits)),
        (Guard::Canary, canary(figures)),
        (Guard::Target, target(figures)),
    ];
    let tripped = all.into_iter().filter(|(guard, _)| !limits.allowed.contains(guard));
    tripped.filter_map(|(guard, found)| found.map(|why| Tripped { guard, why, way_out: way_out(guard, figures) })).collect()
}

fn empty(figures: &Figures) -> Option<String> {
    (figures.filled.valid == 0).then(|| "the file has no valid record".to_owned())
}

fn shrunk(Figures { distinct, held, .. }: &Figures) -> Option<String> {
    let is_small = u128::from(*distinct) * 10_000 < u128::from(SHRUNK.0) * u128::from(*held);
    (*held >= HELD_MIN && is_small).then(|| format!("{distinct} distinct valid ids are less than {SHRUNK} of the {held} held"))
}

fn blanked(Figures { filled, before, .. }: &Figures) -> Option<String> {
    let before = before.filter(|before| before.valid > 0 && filled.valid >= RECORDS_MIN)?;
    let columns = [("Nick", filled.with_nick, before.with_nick), ("FaceUrl", filled.with_face_url, before.with_face_url)];
    let fallen = columns.into_iter().filter(|(_, now, then)| has_fallen((*now, filled.valid), (*then, before.valid)));
    let told: Vec<String> = fallen
        .map(|(name, now, then)| {
            format!("{now} of {} valid records have a {name}, {then} of {} had one before", filled.valid, before.valid)
        })
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// Whether the first share is more than the allowed points below the second.
fn has_fallen((now, of_now): (u64, u64), (then, of_then): (u64, u64)) -> bool {
    let [now, of_now, then, of_then] = [now, of_now, then, of_then].map(u128::from);
    // now / of_now < then / of_then - points / 100, over the common denominator.
    100 * now * of_then + u128::from(BLANKED_POINTS) * of_now * of_then < 100 * then * of_now
}

fn updates(Figures { updates, held, .. }: &Figures, limits: &Limits) -> Option<String> {
    let trips = *held >= HELD_MIN && limits.max_update.is_exceeded(*updates, *held);
    trips.then(|| format!("{updates} updates are more than --max-update ({}; {held} are held)", limits.max_update))
}

fn deletes(Figures { due, held, .. }: &Figures, limits: &Limits) -> Option<String> {
    let trips = limits.max_delete.is_exceeded(*due, *held);
    trips.then(|| format!("{due} ids due for kick or deletion are more than --max-delete ({}; {held} are held)", limits.max_delete))
}

fn canary(Figures { dead_canaries, .. }: &Figures) -> Option<String> {
    (!dead_canaries.is_empty()).then(|| format!("no valid record of {}", dead_canaries.join(", ")))
}

fn target(Figures { other_target, .. }: &Figures) -> Option<String> {
    other_target.clone()
}

fn way_out(guard: Guard, figures: &Figures) -> String {
    match guard {
        Guard::Empty | Guard::Shrunk | Guard::Blanked => format!("--allow {}", guard.name()),
        Guard::Updates => format!("--max-update {}", figures.updates),
        Guard::Deletes => format!("--max-delete {}", figures.due),
        Guard::Canary => figures.dead_canaries.iter().map(|id| format!("without --canary {id}")).collect::<Vec<_>>().join(", "),
        Guard::Target => "another --state, or chatlift state STATE retarget".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { allowed: Vec::new(), max_update: Bound::Share(Percent::whole(30)), max_delete: Bound::Count(500) }
    }

    /// A plan that no guard has anything against.
    fn quiet() -> Figures {
        let filled = Filled { valid: 1_000, with_nick: 900, with_face_url: 500 };
        Figures { filled, before: Some(filled), distinct: 1_000, held: 1_000, ..Figures::default() }
    }

    fn names(figures: &Figures, limits: &Limits) -> Vec<&'static str> {
        judge(figures, limits).iter().map(|tripped| tripped.guard.name()).collect()
    }

    #[test]
    fn each_guard_trips_behind_its_bound_and_not_at_it() {
        let check = |change: &dyn Fn(&mut Figures), expected: &[&str]| {
            let mut figures = quiet();
            change(&mut figures);
            assert_eq!(names(&figures, &limits()), expected, "{figures:?}");
        };
        check(&|_| {}, &[]);
        check(&|f| f.filled = Filled::default(), &["empty"]);
        check(&|f| f.distinct = 850, &[]);
        check(&|f| f.distinct = 849, &["shrunk"]);
        check(&|f| (f.held, f.distinct) = (99, 1), &[]);
        check(&|f| (f.held, f.distinct) = (100, 84), &["shrunk"]);
        check(&|f| f.filled.with_nick = 850, &[]);
        check(&|f| f.filled.with_nick = 849, &["blanked"]);
        check(&|f| f.filled.with_face_url = 449, &["blanked"]);
        check(&|f| f.filled = Filled { valid: 99, with_nick: 0, with_face_url: 0 }, &[]);
        check(&|f| f.filled = Filled { valid: 100, with_nick: 0, with_face_url: 50 }, &["blanked"]);
        check(&|f| (f.before, f.filled.with_nick) = (None, 0), &[]);
        check(&|f| f.updates = 300, &[]);
        check(&|f| f.updates = 301, &["updates"]);
        check(&|f| (f.held, f.updates) = (99, 99), &[]);
        check(&|f| f.due = 500, &[]);
        check(&|f| f.due = 501, &["deletes"]);
        check(&|f| f.dead_canaries = vec!["boss".to_owned()], &["canary"]);
        check(&|f| f.other_target = Some("elsewhere".to_owned()), &["target"]);
    }

    #[test]
    fn all_that_trip_are_told_in_order_and_an_override_lets_through() {
        let figures = Figures { filled: Filled::default(), distinct: 0, updates: 999, due: 501, ..quiet() };
        assert_eq!(names(&figures, &limits()), ["empty", "shrunk", "updates", "deletes"]);
        let allowed = vec![Guard::Empty, Guard::Shrunk];
        let wide = Limits { allowed, max_update: Bound::Count(999), max_delete: Bound::Share(Percent(5_010)) };
        assert_eq!(names(&figures, &wide), [] as [&str; 0]);
        let told = judge(&figures, &limits());
        assert_eq!((told[2].way_out.as_str(), told[3].way_out.as_str()), ("--max-update 999", "--max-delete 501"));
    }

    #[test]
    fn bounds_are_numbers_or_shares() {
        assert_eq!(Bound::parse("0"), Ok(Bound::Count(0)));
        assert_eq!(Bound::parse("30%"), Ok(Bound::Share(Percent(3_000))));
        assert_eq!(Bound::parse("0.5%"), Ok(Bound::Share(Percent(50))));
        assert_eq!(Bound::parse("12.34%").map(|bound| bound.to_string()), Ok("12.34 % of held".to_owned()));
        for wrong in ["", "%", "-1", "1.5", "1.234%", "x%", "1e3"] {
            assert!(Bound::parse(wrong).is_err(), "{wrong}");
        }
    }
}
