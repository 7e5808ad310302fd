//! An import that is ready to run: what was typed, checked and resolved in one pass.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::SystemTime;

use super::OpenInput;
use crate::domain::outcome::OutcomeCounts;
use crate::domain::position::ColumnLayout;
use crate::domain::target::Target;
use crate::flow::check::Rates;
use crate::flow::import::{ImportScope, ImportedRows, StateFilling};
use crate::io::api::wire::{ACCOUNT_IMPORT_CALLS_PER_S, BATCH_CALLS_PER_S, PROFILE_CALLS_PER_S};
use crate::io::journal::Restart;
use crate::io::journal::paths::RunPaths;
use crate::io::state;
use crate::shell::cli::client::target;
use crate::shell::cli::command_end::EndSteps;
use crate::shell::cli::environment;
use crate::shell::cli::exit_messages::EndedRun;
use crate::shell::cli::fd_limit::{self, Keeps};
use crate::shell::cli::flags::{ImportFlags, RunFlags};
use crate::shell::cli::lanes::Lanes;
use crate::shell::cli::output_paths::paths;
use crate::shell::cli::outputs::used_for;
use crate::shell::cli::page::PageWatch;
use crate::shell::cli::preflight::{Admission, ColumnsNeeded, EmptyFile, OddFile};
use crate::shell::cli::quota::{self, ForecastQuota, GivenForForecast};
use crate::shell::cli::settings::{self, Connection};
use crate::shell::cli::state_file::{LockedState, fill_error, new_identity};
use crate::shell::exit::ExitMessage;

/// An import as it is to be done.
pub(super) struct ImportJob<'a> {
    /// As typed, for the commands in hints and for what is shown.
    pub(super) typed: &'a RunFlags,
    /// Which files are let in.
    pub(super) admission: Admission,
    /// The state that is to be filled.
    pub(super) state: Option<&'a Path>,
    pub(super) connection: Connection,
    pub(super) target: Target,
    pub(super) lanes: Lanes,
    pub(super) paths: RunPaths,
    pub(super) restart: Restart,
    pub(super) page: PageWatch,
}

impl<'a> ImportJob<'a> {
    /// # Errors
    /// What is wrong with the flags, the settings or the names of files (exit code 2).
    pub(super) fn of(flags: &'a ImportFlags, steps: &EndSteps) -> Result<Self, ExitMessage> {
        let (typed, state) = (&flags.run, flags.state.as_deref());
        let mut connection = Connection::resolve(&typed.connection, &environment)?;
        steps.announce(&connection);
        fd_limit::make_room(&mut connection, if state.is_some() { Keeps::State } else { Keeps::Nothing })?;
        let lanes = Lanes::new(typed, &connection)?.sending(scope(flags));
        let of_state: Vec<_> = state.into_iter().flat_map(state::names).collect();
        let paths = paths(typed, &of_state, &used_for(&typed.connection, &typed.ending))?;
        let restart = if typed.restart { Restart::Asked } else { Restart::No };
        let (admission, target) = (admission(flags), target(&connection.service));
        let page = steps.page();
        page.goes_to(&target);
        Ok(Self { typed, admission, state, connection, target, lanes, paths, restart, page })
    }

    /// How it fills a state.
    pub(super) fn filling<'s>(&'s self, state: &'s LockedState) -> StateFilling<'s> {
        StateFilling {
            lock: state.lock(),
            target: &self.target,
            paths: &self.paths,
            scope: self.lanes.scope,
            imported_rows: None,
            draw: new_identity,
        }
    }

    /// Fills the state from a finished run; its last process knows which rows it has imported.
    pub(super) fn fill(
        &self,
        state: &LockedState,
        input: &OpenInput,
        counts: OutcomeCounts,
        imported_rows: Option<&ImportedRows>,
    ) -> Result<(), ExitMessage> {
        let filling = StateFilling { imported_rows, ..self.filling(state) };
        let filled = filling.finish((&input.file, &input.format), counts, SystemTime::now());
        filled.map_err(|error| fill_error(&error))?;
        tracing::info!("the state {} holds what was imported", state.lock().path().display());
        Ok(())
    }

    /// For the last word on the run; `delimiter` separates the fields of the input and of the rejects.
    pub(super) fn ended<'w>(&'w self, delimiter: u8, reach: Option<&'w str>) -> EndedRun<'w> {
        EndedRun { flags: self.typed, scope: self.lanes.scope, paths: &self.paths, delimiter, state: self.state, reach }
    }

    /// What a run records of how it reads and sends; one that sends everything records what it always did.
    pub(super) fn recorded(&self, reading: ColumnLayout) -> ColumnLayout {
        match self.lanes.scope {
            ImportScope::Everything => reading,
            ImportScope::ProfilesOnly => reading.of_profiles_alone(),
        }
    }

    /// Whether a run that recorded this sends as much of each record as this one.
    pub(super) fn has_scope_of(&self, recorded: &ColumnLayout) -> bool {
        recorded.is_of_profiles_alone() == (self.lanes.scope == ImportScope::ProfilesOnly)
    }
}

/// How much of each record the flags send.
const fn scope(flags: &ImportFlags) -> ImportScope {
    if flags.profile_only { ImportScope::ProfilesOnly } else { ImportScope::Everything }
}

/// Which files the flags let in.
pub(super) const fn admission(flags: &ImportFlags) -> Admission {
    let empty = if flags.allow.is_some() { EmptyFile::Allowed } else { EmptyFile::Refused };
    let columns = match scope(flags) {
        ImportScope::Everything => ColumnsNeeded::OfIds,
        ImportScope::ProfilesOnly => ColumnsNeeded::OfTagsToo,
    };
    Admission { max_invalid: flags.run.max_invalid, empty, odd: OddFile::of(&flags.run), columns }
}

/// `--rate` is the lane's own, `--single-rate` the other one's; a rate without limit forecasts nothing, so the documented one stands in.
///
/// # Errors
/// What is wrong with a rate in the environment (exit code 2).
pub(super) fn forecast_rates(flags: &RunFlags) -> Result<Rates, ExitMessage> {
    let or = |rate: Option<u32>, documented| rate.and_then(NonZeroU32::new).unwrap_or(documented);
    let rate = settings::given_rate(&flags.connection, &environment)?;
    let (single, batch) = if flags.batch.is_some() { (flags.single_rate, rate) } else { (rate, None) };
    Ok(Rates {
        single: or(single, ACCOUNT_IMPORT_CALLS_PER_S),
        batch: or(batch, BATCH_CALLS_PER_S),
        profile: or(flags.profile_rate, PROFILE_CALLS_PER_S),
    })
}

/// The limit that the run would share. A rehearsal in this process shares none.
pub(super) fn forecast_quota(flags: &RunFlags) -> Result<Option<ForecastQuota>, ExitMessage> {
    let (given, config) = (&flags.connection.quota, &flags.connection.defaults);
    if flags.connection.sandbox {
        return Ok(None);
    }
    let rates = quota::rates(&given.quota_rate, &config.quota_rate)?;
    quota::for_forecast(GivenForForecast { flag: given.quota.as_ref(), config: config.quota.as_ref(), rates }, &environment)
}
