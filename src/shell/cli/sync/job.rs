//! A sync that is ready to run: what was typed, checked and resolved in one pass.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::SystemTime;

use crate::domain::account::UserId;
use crate::domain::guard::{Bound, Guard, GuardLimits};
use crate::domain::uuid;
use crate::flow::sync::{Intent, MissingPolicy, MissingRules, MissingTrust};
use crate::io::journal::Restart;
use crate::io::journal::paths::RunPaths;
use crate::io::state;
use crate::shell::cli::client::target;
use crate::shell::cli::command_end::EndSteps;
use crate::shell::cli::command_line::CommandLine;
use crate::shell::cli::environment;
use crate::shell::cli::fd_limit::{self, Keeps};
use crate::shell::cli::flags::{AllowFlag, MissingFlag, RunFlags, SyncFlags};
use crate::shell::cli::lanes::Lanes;
use crate::shell::cli::output_paths::paths;
use crate::shell::cli::outputs::used_for;
use crate::shell::cli::page::PageWatch;
use crate::shell::cli::settings::Connection;
use crate::shell::cli::state_file::ensure_state_file;
use crate::shell::exit::ExitMessage;

/// A sync as it is to be done.
pub(super) struct SyncJob<'a> {
    /// As typed, for the commands in hints and for what is shown.
    pub(super) typed: &'a RunFlags,
    pub(super) connection: Connection,
    pub(super) lanes: Lanes,
    pub(super) paths: RunPaths,
    pub(super) state: PathBuf,
    /// Where the plan is to be written.
    pub(super) plan: Option<PathBuf>,
    pub(super) missing: MissingRules,
    pub(super) canaries: Vec<UserId>,
    pub(super) guard_limits: GuardLimits,
    pub(super) intent: Intent,
    pub(super) restart: Restart,
    pub(super) began_at: SystemTime,
    pub(super) page: PageWatch,
}

impl<'a> SyncJob<'a> {
    /// # Errors
    /// What is wrong with the flags, the settings or the names of files (exit code 2).
    pub(super) fn of(flags: &'a SyncFlags, steps: &EndSteps) -> Result<Self, ExitMessage> {
        let (began_at, typed) = (SystemTime::now(), &flags.run);
        ensure_state_file(Some(&flags.state))?;
        let mut connection = Connection::resolve(&typed.connection, &environment)?;
        if typed.dry_run {
            steps.page().update(|page, _| page.is_dry_run());
            steps.announce_page();
        } else {
            steps.announce(&connection);
        }
        fd_limit::make_room(&mut connection, Keeps::State)?;
        let lanes = Lanes::new(typed, &connection)?;
        let paths = paths(typed, &state::names(&flags.state), &used_for(&typed.connection, &typed.ending))?;
        let page = steps.page();
        page.goes_to(&target(&connection.service));
        Ok(Self {
            typed,
            missing: missing_rules(flags, connection.identifier()),
            connection,
            lanes,
            paths,
            state: flags.state.clone(),
            plan: flags.plan.clone(),
            canaries: flags.canary.clone(),
            guard_limits: guard_limits(flags),
            intent: if typed.dry_run { Intent::DryRun } else { Intent::Run },
            restart: if typed.restart { Restart::Asked } else { Restart::No },
            began_at,
            page,
        })
    }

    /// The verification that brings an older state up to date.
    pub(super) fn verify_command(&self) -> CommandLine {
        let command = CommandLine::new("verify").file(&self.typed.input.file).plain("--profiles").with("state", &self.state);
        command.reading(&self.typed.input).connection(&self.typed.connection)
    }
}

fn missing_rules(flags: &SyncFlags, identifier: &str) -> MissingRules {
    let trust = |allow| if flags.allow.contains(&allow) { MissingTrust::Allowed } else { MissingTrust::No };
    let (identifier, globs) = (identifier.to_owned(), flags.protect.clone());
    // A UUID is named in either form.
    let matches = move |id: &str| globs.iter().any(|glob| glob.matches(id));
    let is_any = !flags.protect.is_empty();
    let is_named = move |id: &str| matches(id) || (is_any && uuid::hyphenated(id).is_some_and(|id| matches(&id)));
    MissingRules {
        policy: match flags.missing {
            MissingFlag::Report => MissingPolicy::Report,
            MissingFlag::Kick => MissingPolicy::Kick,
            MissingFlag::Delete => MissingPolicy::Delete,
        },
        runs_until_due: flags.missing_runs,
        missing_apart: i64::try_from(flags.missing_apart.as_millis()).unwrap_or(i64::MAX),
        skip_online: flags.skip_online,
        malformed: trust(AllowFlag::Malformed),
        lookalikes: trust(AllowFlag::Lookalikes),
        is_protected: Rc::new(move |id| id == identifier || is_named(id)),
    }
}

fn guard_limits(flags: &SyncFlags) -> GuardLimits {
    let allowed = flags.allow.iter().filter_map(|flag| guard(*flag)).collect();
    GuardLimits { allowed, max_update: flags.max_update, max_delete: flags.max_delete.unwrap_or(Bound::Kicks) }
}

/// The guard that a flag switches off.
const fn guard(flag: AllowFlag) -> Option<Guard> {
    match flag {
        AllowFlag::Empty => Some(Guard::Empty),
        AllowFlag::Shrunk => Some(Guard::Shrunk),
        AllowFlag::Blanked => Some(Guard::Blanked),
        AllowFlag::Cut => Some(Guard::Cut),
        AllowFlag::Malformed | AllowFlag::Lookalikes => None,
    }
}
