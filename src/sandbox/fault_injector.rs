//! Decides which fault a request meets: it counts requests and faults, and chooses users by hash.

use std::collections::HashMap;
use std::time::Duration;

use super::command::SandboxCommand;
use super::fault::{Fault, Ids, What};

/// A user of a call.
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

/// A fault that strikes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Strike {
    pub(super) what: What,
    /// The users (by hash) that it strikes.
    pub(super) users: Vec<u64>,
    pub(super) aim: Aim,
}

/// What a fault is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// Calls, whomever they carry.
    Calls,
    /// The users that it names.
    Users,
}

/// The faults of a sandbox and what they have done so far.
#[derive(Debug)]
pub(super) struct FaultInjector {
    faults: Vec<FaultCount>,
}

#[derive(Debug)]
struct FaultCount {
    fault: Fault,
    /// Makes the faults choose their users independently.
    salt: u64,
    /// Calls that it would have struck but for `after` and `every`.
    candidates: u64,
    strikes: u64,
    /// Strikes by the hash of the UserID; kept only for a fault with `times`.
    by_user: HashMap<u64, u32>,
}

impl FaultInjector {
    pub(super) fn new(faults: Vec<Fault>, seed: u64) -> Self {
        let tally = |(fault, position): (Fault, u64)| FaultCount {
            fault,
            salt: mixed(seed.wrapping_add(position)),
            candidates: 0,
            strikes: 0,
            by_user: HashMap::new(),
        };
        Self { faults: faults.into_iter().zip(1..).map(tally).collect() }
    }

    /// The fault that strikes this call, if one does.
    pub(super) fn strike(&mut self, since_start: Duration, command: Option<SandboxCommand>, users: &[TargetedUser<'_>]) -> Option<Strike> {
        self.faults.iter_mut().find_map(|tally| tally.strike(since_start, command, users))
    }

    /// How often each fault struck.
    pub(super) fn strikes(&self) -> Vec<u64> {
        self.faults.iter().map(|tally| tally.strikes).collect()
    }
}

impl FaultCount {
    fn strike(&mut self, since_start: Duration, command: Option<SandboxCommand>, users: &[TargetedUser<'_>]) -> Option<Strike> {
        let fault = &self.fault;
        let over = fault.count.is_some_and(|count| self.strikes >= count);
        let elsewhere = fault.api.is_some() && fault.api != command;
        let another_time = fault.period.as_ref().is_some_and(|period| !period.contains(&since_start));
        if over || elsewhere || another_time {
            return None;
        }
        let struck: Vec<u64> = users.iter().filter(|user| self.chooses(user)).map(|user| user.hash).collect();
        let anybody = fault.ids == Ids::All && fault.times.is_none();
        if struck.is_empty() && !anybody {
            return None;
        }
        self.candidates += 1;
        let past = self.candidates.saturating_sub(fault.after);
        if past == 0 || !past.is_multiple_of(fault.every) {
            return None;
        }
        self.strikes += 1;
        if fault.times.is_some() {
            for &user in &struck {
                *self.by_user.entry(user).or_default() += 1;
            }
        }
        let aim = match fault.ids {
            Ids::All => Aim::Calls,
            Ids::Share(_) | Ids::Exact(_) => Aim::Users,
        };
        Some(Strike { what: fault.what.clone(), users: struck, aim })
    }

    fn chooses(&self, user: &TargetedUser<'_>) -> bool {
        let chosen = match &self.fault.ids {
            Ids::All => true,
            Ids::Share(share) => (mixed(user.hash ^ self.salt) as f64) < share * (u64::MAX as f64),
            Ids::Exact(id) => id == user.id,
        };
        chosen && self.fault.times.is_none_or(|times| self.by_user.get(&user.hash).is_none_or(|&strikes| strikes < times))
    }
}

/// FNV-1a; the same in every process, so that a fault chooses the same users again.
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

    fn mischief(faults: &[&str]) -> FaultInjector {
        FaultInjector::new(faults.iter().map(|text| text.parse().unwrap()).collect(), 0)
    }

    /// Calls (by their number) of a row of calls of one user each that a fault strikes.
    fn struck(fault: &str, ids: &[&str]) -> Vec<usize> {
        let mut mischief = mischief(&[fault]);
        let strikes = |id: &str| mischief.strike(Duration::ZERO, Some(SandboxCommand::AccountImport), &[TargetedUser::new(id)]).is_some();
        ids.iter().copied().map(strikes).enumerate().filter_map(|(call, struck)| struck.then_some(call)).collect()
    }

    #[test]
    fn a_fault_strikes_the_calls_that_it_names() {
        let check = |fault: &str, ids: &[&str], expected: &[usize]| assert_eq!(struck(fault, ids), expected, "{fault}");
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
    fn a_share_of_ids_is_what_it_says_and_stays_the_same() {
        let ids: Vec<String> = (0..10_000).map(|number| format!("user-{number}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let chosen = struck("html,ids=10%", &ids);
        assert!((900..1_100).contains(&chosen.len()), "{}", chosen.len());
        assert_eq!(chosen, struck("stall,ids=10%", &ids));
    }

    #[test]
    fn the_first_fault_that_applies_is_applied() {
        let mut mischief = mischief(&["code=1,count=1", "code=2"]);
        let mut code = || mischief.strike(Duration::ZERO, None, &[]).map(|strike| strike.what);
        assert_eq!([code(), code()], [Some(What::Code(1)), Some(What::Code(2))]);
        assert_eq!(mischief.strikes(), [1, 1]);
    }

    #[test]
    fn of_a_batch_only_the_chosen_are_struck() {
        let batch = [TargetedUser::new("a"), TargetedUser::new("b")];
        let strike = mischief(&["code=1,id=b"]).strike(Duration::ZERO, Some(SandboxCommand::MultiaccountImport), &batch).unwrap();
        assert_eq!(strike.users, [batch[1].hash]);
    }
}
