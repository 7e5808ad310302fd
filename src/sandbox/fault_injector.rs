//! Decides which fault a request gets. It counts requests and faults, and chooses users by hash.

use std::collections::HashMap;
use std::time::Duration;

use super::fault::{Fault, Ids, What};
use crate::io::api::wire::Command;

/// A user in a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct TargetedUser<'a> {
    pub(super) id: &'a str,
    pub(super) hash: u64,
}

impl<'a> TargetedUser<'a> {
    pub(super) fn new(id: &'a str) -> Self {
        Self { id, hash: hash(id) }
    }
}

/// A fault that applies to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Injection {
    pub(super) what: What,
    /// The users (by hash) that it affects.
    pub(super) users: Vec<u64>,
    pub(super) aim: Aim,
}

/// Whether a fault was set for requests or for users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// Every request, whatever users it carries.
    Calls,
    /// Only the users that the fault names.
    Users,
}

/// The faults of a sandbox and how often each was injected.
#[derive(Debug)]
pub(super) struct FaultInjector {
    faults: Vec<FaultCount>,
}

#[derive(Debug)]
struct FaultCount {
    fault: Fault,
    /// Makes the faults choose their users independently of each other.
    salt: u64,
    /// Matching requests, counted before `after` and `every` are applied.
    candidates: u64,
    injections: u64,
    /// Injections by the hash of the UserID; kept only for a fault with `times`.
    by_user: HashMap<u64, u32>,
}

impl FaultInjector {
    pub(super) fn new(faults: Vec<Fault>, seed: u64) -> Self {
        let count = |(fault, position): (Fault, u64)| FaultCount {
            fault,
            salt: mixed(seed.wrapping_add(position)),
            candidates: 0,
            injections: 0,
            by_user: HashMap::new(),
        };
        Self { faults: faults.into_iter().zip(1..).map(count).collect() }
    }

    /// The first fault that applies to this request, if any.
    pub(super) fn inject(&mut self, since_start: Duration, command: Option<Command>, users: &[TargetedUser<'_>]) -> Option<Injection> {
        self.faults.iter_mut().find_map(|fault| fault.inject(since_start, command, users))
    }

    /// How often each fault was injected.
    pub(super) fn injections(&self) -> Vec<u64> {
        self.faults.iter().map(|fault| fault.injections).collect()
    }
}

impl FaultCount {
    fn inject(&mut self, since_start: Duration, command: Option<Command>, users: &[TargetedUser<'_>]) -> Option<Injection> {
        let fault = &self.fault;
        let over = fault.count.is_some_and(|count| self.injections >= count);
        let elsewhere = fault.api.is_some() && fault.api != command;
        let another_time = fault.period.as_ref().is_some_and(|period| !period.contains(&since_start));
        if over || elsewhere || another_time {
            return None;
        }
        let affected: Vec<u64> = users.iter().filter(|user| self.chooses(user)).map(|user| user.hash).collect();
        let anybody = fault.ids == Ids::All && fault.times.is_none();
        if affected.is_empty() && !anybody {
            return None;
        }
        self.candidates += 1;
        let past = self.candidates.saturating_sub(fault.after);
        if past == 0 || !past.is_multiple_of(fault.every) {
            return None;
        }
        self.injections += 1;
        if fault.times.is_some() {
            for &user in &affected {
                *self.by_user.entry(user).or_default() += 1;
            }
        }
        let aim = match fault.ids {
            Ids::All => Aim::Calls,
            Ids::Share(_) | Ids::Exact(_) => Aim::Users,
        };
        Some(Injection { what: fault.what.clone(), users: affected, aim })
    }

    fn chooses(&self, user: &TargetedUser<'_>) -> bool {
        let chosen = match &self.fault.ids {
            Ids::All => true,
            Ids::Share(share) => (mixed(user.hash ^ self.salt) as f64) < share * (u64::MAX as f64),
            Ids::Exact(id) => id == user.id,
        };
        chosen && self.fault.times.is_none_or(|times| self.by_user.get(&user.hash).is_none_or(|&injections| injections < times))
    }
}

/// FNV-1a. It is the same in every process, so that a fault always chooses the same users.
fn hash(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finaliser of SplitMix64: spreads a hash over all 64 bits.
const fn mixed(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injector(faults: &[&str]) -> FaultInjector {
        FaultInjector::new(faults.iter().map(|text| text.parse().unwrap()).collect(), 0)
    }

    /// The indexes of the requests, with one user each, that get the fault.
    fn requests_with_fault(fault: &str, ids: &[&str]) -> Vec<usize> {
        let mut injector = injector(&[fault]);
        let is_injected = |id: &str| injector.inject(Duration::ZERO, Some(Command::AccountImport), &[TargetedUser::new(id)]).is_some();
        ids.iter().copied().map(is_injected).enumerate().filter_map(|(call, affected)| affected.then_some(call)).collect()
    }

    #[test]
    fn a_fault_affects_the_requests_that_it_names() {
        let check = |fault: &str, ids: &[&str], expected: &[usize]| assert_eq!(requests_with_fault(fault, ids), expected, "{fault}");
        let five = ["a", "b", "a", "b", "a"];
        check("html", &five, &[0, 1, 2, 3, 4]);
        check("html,id=a", &five, &[0, 2, 4]);
        check("html,times=1", &five, &[0, 1]);
        check("html,id=a,times=2", &five, &[0, 2]);
        check("html,count=3", &five, &[0, 1, 2]);
        check("html,after=3", &five, &[3, 4]);
        check("html,every=2", &five, &[1, 3]);
        check("html,after=1,every=2", &five, &[2, 4]);
        check("html,id=a,after=1", &five, &[2, 4]);
        check("html,ids=100%", &five, &[0, 1, 2, 3, 4]);
        check("html,ids=0%", &five, &[]);
        check("html,api=kick", &five, &[]);
        check("html,period=1s..2s", &five, &[]);
        check("html,period=0s..1s", &five, &[0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_share_of_ids_has_that_size_and_stays_the_same() {
        let ids: Vec<String> = (0..10_000).map(|number| format!("user-{number}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let chosen = requests_with_fault("html,ids=10%", &ids);
        assert!((900..1_100).contains(&chosen.len()), "{}", chosen.len());
        assert_eq!(chosen, requests_with_fault("stall,ids=10%", &ids));
    }

    #[test]
    fn the_first_matching_fault_is_injected() {
        let mut injector = injector(&["code=1,count=1", "code=2"]);
        let mut code = || injector.inject(Duration::ZERO, None, &[]).map(|injection| injection.what);
        assert_eq!([code(), code()], [Some(What::Code(1)), Some(What::Code(2))]);
        assert_eq!(injector.injections(), [1, 1]);
    }

    #[test]
    fn in_a_batch_only_the_chosen_users_are_affected() {
        let batch = [TargetedUser::new("a"), TargetedUser::new("b")];
        let injection = injector(&["code=1,id=b"]).inject(Duration::ZERO, Some(Command::MultiaccountImport), &batch).unwrap();
        assert_eq!(injection.users, [batch[1].hash]);
    }
}
