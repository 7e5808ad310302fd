//! Whose fault it is: the record's or the service's.
//!
//! Charges passing faults, feeds the breaker, opens and closes it, and lets records that are out of attempts fail once it is shown that
//! the service is well.

use std::collections::BTreeSet;
use std::time::SystemTime;

use tokio::time::Instant;

use super::parcel::{ParcelId, Stage};
use super::window::{Fault, Open};
use super::{Aftermath, Ailment, At, Choice, Deliveries, Feed, Lane};
use crate::retry::{Sign, UNKNOWN_RECORDS_IN_A_ROW};
use crate::verdict::{Refusal, Verdict};

impl Deliveries {
    pub(super) fn halt_if_unknown_everywhere(&mut self, id: ParcelId) -> Result<(), Aftermath> {
        if self.unknown.len() < UNKNOWN_RECORDS_IN_A_ROW {
            return Ok(());
        }
        let (code, says) = self.parcels[id].last.clone();
        Err(Aftermath::Halt { refusal: Refusal::UnknownCodes, code, says })
    }

    /// Closes the breaker, or sets the time of the next probe.
    pub(super) fn probed(&mut self, verdict: &Verdict, was_probe: bool, at: At) -> Aftermath {
        if !was_probe {
            return Aftermath::Nothing;
        }
        match verdict {
            Verdict::Retry | Verdict::Unreached | Verdict::Unknown => {
                self.breaker.probe_failed(at.now);
                Aftermath::Nothing
            }
            Verdict::Taken | Verdict::Row | Verdict::Throttle(_) | Verdict::Sign | Verdict::Halt(_) => {
                self.breaker.close();
                match verdict {
                    Verdict::Throttle(scope) => Aftermath::Throttled(*scope),
                    Verdict::Sign => Aftermath::SignatureRefused,
                    _ => Aftermath::Back,
                }
            }
        }
    }

    /// Feeds the breaker and lets condemned records fail if the service is well.
    pub(super) fn judged(&mut self, (origin, ailment): (u64, Ailment), verdict: &Verdict, left: Instant, at: At) -> Aftermath {
        let (sign, aftermath) = match verdict {
            Verdict::Taken | Verdict::Row => (Sign::Healthy, Aftermath::Accepted),
            Verdict::Retry => (self.sick(ailment), Aftermath::Nothing),
            Verdict::Unreached => (Sign::Unreached, Aftermath::Nothing),
            Verdict::Throttle(scope) => (Sign::Neutral, Aftermath::Throttled(*scope)),
            Verdict::Sign => (Sign::Neutral, Aftermath::SignatureRefused),
            Verdict::Unknown | Verdict::Halt(_) => (Sign::Neutral, Aftermath::Nothing),
        };
        self.breaker.note(origin, sign);
        if self.breaker.trips(self.in_flight == 0) {
            self.go_down(at.now);
            return Aftermath::Down;
        }
        if sign == Sign::Healthy {
            self.alive_at = self.alive_at.max(Some(left));
            self.fail_condemned(Some(left), at.wall);
        }
        aftermath
    }

    pub(super) fn sick(&mut self, ailment: Ailment) -> Sign {
        match ailment {
            Ailment::Call => Sign::Sick,
            Ailment::Record { row, is_batch_sick, is_lone } => {
                if is_lone {
                    self.breaker.note_alone(row);
                }
                if is_batch_sick { Sign::Sick } else { Sign::Neutral }
            }
        }
    }

    /// Opens the breaker: what passing faults were charged in its window is given back, the condemned live again.
    pub(super) fn go_down(&mut self, now: Instant) {
        let tried = self.breaker.open(now);
        self.probe = None;
        for (_, parcel) in self.parcels.iter_mut().filter(|(_, parcel)| parcel.siblings > 0 || tried.contains(&parcel.origin)) {
            parcel.attempts = 0;
            parcel.ailing_since = None;
            for row in &parcel.rows {
                self.window.open_mut(*row).map(Open::give_back);
            }
        }
        for id in std::mem::take(&mut self.condemned) {
            self.parcels.make_due(id);
        }
    }

    pub(super) fn charge(&mut self, id: ParcelId, last: Fault, allowed: u32, at: At) {
        if self.charge_passing(id, at.now) >= allowed {
            let parcel = &mut self.parcels[id];
            parcel.last = last;
            parcel.stage = Stage::Condemned { since: at.now };
            self.condemned.insert(id);
        } else {
            self.wait(id, last, at);
        }
    }

    /// Charges a passing fault to a parcel and its rows, unless the service is down: the parcel's attempts.
    pub(super) fn charge_passing(&mut self, id: ParcelId, now: Instant) -> u32 {
        if self.is_down() {
            return 0;
        }
        let parcel = &mut self.parcels[id];
        parcel.attempts += 1;
        parcel.ailing_since.get_or_insert(now);
        for row in &parcel.rows {
            if let Some(open) = self.window.open_mut(*row) {
                open.attempts += 1;
                open.passing += 1;
            }
        }
        parcel.attempts
    }

    pub(super) fn note_unknown(&mut self, origin: u64, verdict: &Verdict) {
        match verdict {
            Verdict::Unknown => {
                self.unknown.insert(origin);
            }
            Verdict::Taken | Verdict::Row | Verdict::Retry => self.unknown.clear(),
            Verdict::Unreached | Verdict::Throttle(_) | Verdict::Sign | Verdict::Halt(_) => {}
        }
    }

    /// Fails the condemned that a call which left after their last one exonerates the service from; all of them when `left` is `None`.
    pub(super) fn fail_condemned(&mut self, left: Option<Instant>, wall: SystemTime) {
        let is_due = |id: &ParcelId| match (self.parcels[*id].stage, left) {
            (Stage::Condemned { since }, Some(left)) => since < left,
            (Stage::Condemned { .. } | Stage::Ready | Stage::InFlight | Stage::Waiting, _) => true,
        };
        let due: Vec<ParcelId> = self.condemned.iter().copied().filter(is_due).collect();
        for id in due {
            self.condemned.remove(&id);
            let parcel = self.parcels.remove(id);
            self.finish(parcel.rows[0], Some(parcel.last), wall);
            self.is_cured(parcel.origin, parcel.rows[0]);
            self.forget_origin(parcel.origin);
        }
    }

    /// When nothing is left that could bear witness, the condemned fail without one; but for those that met nothing but silence while
    /// nobody heard the service: then it is down, however small the file.
    pub fn settle_without_witness(&mut self, at: At) -> Aftermath {
        if self.condemned.is_empty() || self.in_flight > 0 || !self.parcels.are_idle() || self.feed == Feed::Stopped || self.is_down() {
            return Aftermath::Nothing;
        }
        // While the first batch's records are all condemned, the next batch waits for what they show.
        let is_blocked = matches!(self.lane, Lane::Batch(_)) && !self.may_batch(Choice::Fresh);
        if !is_blocked && (self.can_have_more() || !self.fresh.is_empty()) {
            return Aftermath::Nothing;
        }
        let silent: BTreeSet<ParcelId> = self.condemned.iter().copied().filter(|id| self.parcels[*id].last.0.is_none()).collect();
        if !self.silence_is_an_outage(&silent) {
            self.fail_condemned(None, at.wall);
            return Aftermath::Nothing;
        }
        self.condemned.retain(|id| !silent.contains(id));
        self.fail_condemned(None, at.wall);
        self.condemned = silent;
        self.go_down(at.now);
        Aftermath::Down
    }

    /// Whether records that met nothing but silence tell of a dead service: two of them with no sign of life since, or most of all.
    pub(super) fn silence_is_an_outage(&self, silent: &BTreeSet<ParcelId>) -> bool {
        let is_unexplained = |id: &&ParcelId| match (self.parcels[**id].ailing_since, self.alive_at) {
            (Some(since), Some(alive_at)) => alive_at <= since,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let unexplained = silent.iter().filter(is_unexplained).count();
        unexplained >= 2 || (!silent.is_empty() && self.breaker.half_is_sick())
    }
}
