//! Chooses a run's mode (one account per request, or batches), its rates, and how many records it may hold.

use std::num::NonZeroU32;
use std::time::Duration;

use super::client::SandboxLimits;
use super::flags::{BatchFlag, RunFlags};
use super::quota::{self, QuotaChoice};
use super::settings::Connection;
use crate::domain::account::UserId;
use crate::domain::command::{Command, PerCommand};
use crate::domain::verdict::SuccessSeen;
use crate::flow::dispatch::{DispatchSettings, Known, SchedulerLimits};
use crate::flow::import::{ImportScope, ImportSettings, Lane, OnBatchFailure, WindowLimits};
use crate::io::api::wire;
use crate::io::gate::{GateSettings, Rate};
use crate::shell::exit::ExitMessage;

/// The longest time between two commits. Source: the journal's contract.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How often progress is reported. Chosen: a person sees it move.
pub(super) const TELL_EVERY: Duration = Duration::from_millis(250);

/// The limits of a mode. Source of the numbers: the contracts of the modes. Bytes are chosen so that more than half of the memory bound
/// stays free.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    window: WindowLimits,
    commit_rows: u64,
}

const SINGLE: Bounds = Bounds { window: WindowLimits { records: 65_536, bytes: 24 << 20 }, commit_rows: 1_000 };
const BATCH: Bounds = Bounds { window: WindowLimits { records: 131_072, bytes: 40 << 20 }, commit_rows: 65_536 };

/// The mode that the flags ask for.
pub(super) const fn asked_lane(flags: &RunFlags) -> Lane {
    match flags.batch {
        None => Lane::Single,
        Some(BatchFlag::Trust) => Lane::Batch(OnBatchFailure::FallBack),
        Some(BatchFlag::Strict) => Lane::Batch(OnBatchFailure::Stop),
    }
}

/// The mode of a run with its rates.
#[derive(Debug, Clone)]
pub(super) struct Lanes {
    pub(super) lane: Lane,
    pub(super) scope: ImportScope,
    pub(super) rates: PerCommand<Rate>,
    /// The limits that other processes share. They bound what is foreseen; the rates are this process's own.
    shared: Option<PerCommand<NonZeroU32>>,
}

impl Lanes {
    /// # Errors
    /// An [`ExitMessage`] with exit code 2 for an unlimited rate on a service that is not on loopback.
    pub(super) fn new(flags: &RunFlags, connection: &Connection) -> Result<Self, ExitMessage> {
        let lane = asked_lane(flags);
        let single = single_rate(flags, connection, lane)?;
        let profiles = own_rate(flags.profile_rate, ("--profile-rate", Command::PortraitSet), connection)?;
        let rates = PerCommand::new(|command| match command {
            Command::AccountImport => single,
            Command::MultiaccountImport => connection.rate.unwrap_or(Rate::PerSecond(wire::BATCH_CALLS_PER_S)),
            Command::PortraitSet => profiles,
            other => Rate::PerSecond(other.spec().calls_per_s),
        });
        let shared = connection.quota.as_ref().map(QuotaChoice::limits);
        Ok(Self { lane, scope: ImportScope::Everything, rates, shared })
    }

    /// The same for a run that sends profiles alone, if that is wanted.
    pub(super) fn sending(self, scope: ImportScope) -> Self {
        Self { scope, ..self }
    }

    /// The limits of a sandbox that is served for the run alone.
    pub(super) fn sandbox_limits(&self) -> SandboxLimits {
        SandboxLimits { imports: self.lane_rate(), profiles: self.rates[Command::PortraitSet] }
    }

    /// The rate for new records in requests per second.
    pub(super) fn main_rate(&self) -> Rate {
        self.rates[self.main_command()]
    }

    /// The rate for new records that can be foreseen: no more than all processes share.
    pub(super) fn foreseen_main_rate(&self) -> Rate {
        self.foreseen_rate(self.main_command())
    }

    /// The same of `portrait_set`, which sets the tags.
    pub(super) fn foreseen_profile_rate(&self) -> Rate {
        self.foreseen_rate(Command::PortraitSet)
    }

    fn foreseen_rate(&self, command: Command) -> Rate {
        match (self.rates[command], &self.shared) {
            (own, None) => own,
            (Rate::PerSecond(own), Some(shared)) => Rate::PerSecond(own.min(shared[command])),
            (Rate::Unlimited, Some(shared)) => Rate::PerSecond(shared[command]),
        }
    }

    /// The API of which a run makes most requests.
    pub(super) const fn main_command(&self) -> Command {
        match self.scope {
            ImportScope::Everything => self.lane_command(),
            ImportScope::ProfilesOnly => Command::PortraitSet,
        }
    }

    fn lane_rate(&self) -> Rate {
        self.rates[self.lane_command()]
    }

    const fn lane_command(&self) -> Command {
        match self.lane {
            Lane::Single | Lane::FellBack => Command::AccountImport,
            Lane::Batch(_) => Command::MultiaccountImport,
        }
    }

    /// The settings of a run from its start. The flow fills in the part that is done already.
    pub(super) fn settings(&self, connection: &Connection, gates: GateSettings, identifier: UserId) -> ImportSettings {
        let Bounds { window, commit_rows } = self.bounds();
        let dispatch = dispatch_settings(connection, self.rates.clone(), gates, identifier);
        ImportSettings {
            dispatch,
            lane: self.lane,
            scope: self.scope,
            window,
            limit: None,
            rows_done: 0,
            commit_every: COMMIT_EVERY,
            commit_rows,
        }
    }

    fn bounds(&self) -> Bounds {
        match self.lane {
            Lane::Single | Lane::FellBack => SINGLE,
            Lane::Batch(_) => BATCH,
        }
    }
}

/// The settings of the engine that are the same for every flow.
pub(super) fn dispatch_settings(
    connection: &Connection,
    rates: PerCommand<Rate>,
    gates: GateSettings,
    identifier: UserId,
) -> DispatchSettings {
    let Connection { max_attempts, in_flight, max_outage, .. } = *connection;
    let known = Known { identifier, seen: SuccessSeen::NotYet };
    DispatchSettings { rates, gates, limits: SchedulerLimits { max_attempts, in_flight }, known, max_outage, progress_every: TELL_EVERY }
}

/// The rate of `account_import`: `--rate` in its own mode, `--single-rate` beside batches.
fn single_rate(flags: &RunFlags, connection: &Connection, lane: Lane) -> Result<Rate, ExitMessage> {
    let documented = Rate::PerSecond(wire::ACCOUNT_IMPORT_CALLS_PER_S);
    if !matches!(lane, Lane::Batch(_)) {
        return Ok(connection.rate.unwrap_or(documented));
    }
    own_rate(flags.single_rate, ("--single-rate", Command::AccountImport), connection)
}

/// The rate of an API that has a flag of its own.
fn own_rate(given: Option<u32>, (flag, command): (&str, Command), connection: &Connection) -> Result<Rate, ExitMessage> {
    match given.map(NonZeroU32::new) {
        None => Ok(Rate::PerSecond(command.spec().calls_per_s)),
        Some(Some(rate)) => Ok(Rate::PerSecond(rate)),
        Some(None) if connection.quota.is_some() => quota::allows(flag, Some(Rate::Unlimited)).map(|()| Rate::Unlimited),
        Some(None) if connection.is_loopback() => Ok(Rate::Unlimited),
        Some(None) => Err(ExitMessage::yours(
            format!("{flag} 0 (no limit) is for a loopback endpoint only"),
            format!("leave {flag} out: the default is the API's documented limit"),
        )),
    }
}
