//! Jobs that are out of attempts: their failure is withheld until a later call has shown that the service was well.

use std::time::Duration;

use tokio::time::Instant;

use super::{CallTimes, Health};

/// Exhausted jobs that nothing can judge are tried again after this time up to twice as much. Source: the contract.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// They fail this long after their last charged call. Source: the contract.
const PATIENCE: Duration = Duration::from_secs(120);

/// A job that is out of attempts; whether it fails is withheld.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exhausted {
    /// When its last call ended.
    since: Instant,
    by: ExhaustedBy,
    overtime: Overtime,
}

/// What a job has used up its attempts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExhaustedBy {
    TemporaryErrors,
    UnknownCodes,
}

/// What a job that is exhausted has been through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// All its attempts, charged from this moment on.
    Charged { since: Instant },
    /// More than that.
    Beyond(Overtime),
}

/// The tries of a job beyond its attempts, which nobody charges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overtime {
    /// When its last charged call ended, as [`Patience`] counts.
    charged_at: Instant,
    tries: Tries,
}

impl Overtime {
    /// Whether something has gone well since its attempts ran out: that the service is not at fault is known.
    #[must_use]
    pub fn is_judged(self) -> bool {
        self.tries == Tries::Last
    }

    /// The overtime after one more try.
    fn again(self) -> Self {
        let tries = if self.tries == Tries::NoneNeeded { Tries::Unjudged } else { self.tries };
        Self { tries, ..self }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tries {
    /// No further try is needed: a call went well between its attempts, so the service was well then.
    NoneNeeded,
    /// Nothing could show whose fault it is while it was tried.
    Unjudged,
    /// The last one: something has shown meanwhile that the service is well.
    Last,
}

/// What becomes of exhausted jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledExhausted<J> {
    pub fail: Vec<J>,
    /// These are tried once more.
    pub try_again: Vec<(J, Overtime)>,
}

impl<J> Default for SettledExhausted<J> {
    fn default() -> Self {
        Self { fail: Vec::new(), try_again: Vec::new() }
    }
}

impl<J: Copy + Ord> Health<J> {
    /// Withholds the failure of a job that is out of attempts.
    pub fn exhaust(&mut self, job: J, by: ExhaustedBy, history: Tried, now: Instant) {
        let overtime = match history {
            Tried::Beyond(overtime) => overtime,
            Tried::Charged { since } => {
                let is_judged = by == ExhaustedBy::UnknownCodes || self.good_at.is_some_and(|good_at| good_at >= since);
                let tries = if is_judged { Tries::NoneNeeded } else { Tries::Unjudged };
                Overtime { charged_at: self.patience.reading(now), tries }
            }
        };
        self.exhausted.insert(job, Exhausted { since: now, by, overtime });
    }

    #[must_use]
    pub fn has_exhausted(&self) -> bool {
        !self.exhausted.is_empty()
    }

    /// A call went well, so every job fails whose last call had ended when it left: the service was well. One that was only tried while
    /// nothing went well is tried a last time: the service may just have come back.
    pub fn settle_exhausted(&mut self, times: CallTimes) -> SettledExhausted<J> {
        let CallTimes { left, ended } = times;
        self.good_at = Some(ended);
        let mut settled = SettledExhausted::default();
        if self.exhausted.is_empty() {
            return settled;
        }
        self.exhausted.retain(|job, exhausted| {
            if exhausted.since > left {
                return true;
            }
            match exhausted.overtime.tries {
                Tries::Unjudged => settled.try_again.push((*job, Overtime { tries: Tries::Last, ..exhausted.overtime })),
                Tries::NoneNeeded | Tries::Last => settled.fail.push(*job),
            }
            false
        });
        settled
    }

    /// Nothing is left that could show whose fault it is, and so exhausted jobs are tried again later.
    pub fn try_again_later(&mut self, now: Instant, jitter: f64) {
        let round_at = now + TRY_AGAIN.mul_f64(1.0 + jitter.clamp(0.0, 1.0));
        self.round_at = Some(round_at);
        self.look_again_by(round_at, now);
    }

    fn look_again_by(&mut self, round_at: Instant, now: Instant) {
        let charged_at = self.exhausted.values().map(|exhausted| exhausted.overtime.charged_at).min();
        let over = charged_at.and_then(|charged_at| self.patience.reaches(charged_at + PATIENCE));
        self.retry_at = Some(over.map_or(round_at, |over| round_at.min(over.max(now))));
    }

    /// When exhausted jobs are tried again or fail.
    #[must_use]
    pub const fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// The exhausted jobs that are to be tried again now, and those whose time is over.
    pub fn take_retries(&mut self, now: Instant) -> SettledExhausted<J> {
        let mut settled = SettledExhausted::default();
        if self.retry_at.take_if(|at| *at <= now).is_none() {
            return settled;
        }
        let reading = self.patience.reading(now);
        settled.fail = self.take_all(|exhausted| reading >= exhausted.overtime.charged_at + PATIENCE);
        match self.round_at {
            Some(round_at) if now < round_at => {
                if !self.exhausted.is_empty() {
                    self.look_again_by(round_at, now);
                }
            }
            Some(_) | None => {
                self.round_at = None;
                settled.try_again =
                    std::mem::take(&mut self.exhausted).into_iter().map(|(job, exhausted)| (job, exhausted.overtime.again())).collect();
            }
        }
        settled
    }

    /// Those that unknown codes have exhausted: they don't wait for anything to show that the service is well.
    pub fn take_unknown(&mut self) -> Vec<J> {
        self.take_all(|exhausted| exhausted.by == ExhaustedBy::UnknownCodes)
    }

    /// All exhausted jobs: they live again.
    pub fn revive(&mut self) -> Vec<J> {
        self.take_all(|_| true)
    }

    fn take_all(&mut self, is_wanted: impl Fn(&Exhausted) -> bool) -> Vec<J> {
        let mut taken = Vec::new();
        self.exhausted.retain(|job, exhausted| {
            let is_wanted = is_wanted(exhausted);
            if is_wanted {
                taken.push(*job);
            }
            !is_wanted
        });
        taken
    }

    /// What an exhausted job has been through beyond its attempts.
    #[must_use]
    pub fn overtime_of(&self, job: J) -> Option<Overtime> {
        self.exhausted.get(&job).map(|exhausted| exhausted.overtime)
    }

    /// Takes a job out without a decision: it is dealt with otherwise. If it was there, what it has been through.
    pub fn forget(&mut self, job: J) -> Option<Overtime> {
        self.exhausted.remove(&job).map(|exhausted| exhausted.overtime)
    }

    /// The exhausted jobs.
    pub fn exhausted(&self) -> impl Iterator<Item = J> {
        self.exhausted.keys().copied()
    }
}

/// A clock that stands still while the service is down or throttles. It shows an instant in the past: now, less the time that it stood.
#[derive(Debug, Default)]
pub(super) struct Patience {
    stood: Duration,
    stands_since: Option<Instant>,
}

impl Patience {
    pub(super) fn pause(&mut self, now: Instant) {
        self.stands_since.get_or_insert(now);
    }

    pub(super) fn go_on(&mut self, now: Instant) {
        if let Some(since) = self.stands_since.take() {
            self.stood += now - since;
        }
    }

    fn reading(&self, now: Instant) -> Instant {
        self.stands_since.unwrap_or(now) - self.stood
    }

    /// When it will show this, if it goes.
    fn reaches(&self, reading: Instant) -> Option<Instant> {
        self.stands_since.is_none().then(|| reading + self.stood)
    }
}
