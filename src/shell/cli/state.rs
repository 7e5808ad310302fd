//! `chatlift state`: shows a state, exports it, and makes the few changes that are allowed by hand.

use std::fs::File;
use std::io::{self, Seek};
use std::{env, fmt};

use super::flags::{StateCommand, StateFlags};
use super::settings::Connection;
use super::state_file::{LockedState, state_error};
use super::stdout::{self, print};
use super::{client, environment};
use crate::domain::change::{KnownAccount, rfc3339};
use crate::domain::known_tags::{TagKey, TagNumber, TagsDigest};
use crate::domain::tag::Tag;
use crate::domain::{figures, uuid};
use crate::io::csv_out;
use crate::io::state::{AccountCounts, RunRecord, StateDb, StateError, StateInfo};
use crate::shell::exit::{Exit, ExitMessage};

/// The most runs that are shown. Chosen: about a week of nights.
const RUNS_SHOWN: u32 = 8;

pub(super) fn run(flags: &StateFlags) -> ExitMessage {
    let done = match &flags.what {
        None => show(flags),
        Some(StateCommand::Export) => export(flags),
        Some(StateCommand::Forget { ids }) => forget(flags, ids),
        Some(StateCommand::Retarget { connection }) => Connection::resolve(connection, &environment).and_then(|to| retarget(flags, &to)),
    };
    done.unwrap_or_else(|word| word)
}

fn find(flags: &StateFlags) -> Result<StateDb, ExitMessage> {
    let state = StateDb::find(&flags.state).map_err(|error| state_error(&error))?;
    state.ok_or_else(|| {
        ExitMessage::yours(
            format!("there is no state at {}", flags.state.display()),
            "correct the path; sync and import make one with --state",
        )
    })
}

/// Opens the state before it takes the lock, because locking would create a missing one.
fn take(flags: &StateFlags) -> Result<(LockedState, StateDb), ExitMessage> {
    find(flags)?;
    let locked = LockedState::take(&flags.state)?;
    let state = locked.open()?;
    Ok((locked, state))
}

fn show(flags: &StateFlags) -> Result<ExitMessage, ExitMessage> {
    let state = find(flags)?;
    let report = || {
        let (about, counts, unrecorded) = (state.about()?, state.counts()?, state.unrecorded_rows()?);
        Ok(StateReport { about, counts, unrecorded, runs: state.runs(RUNS_SHOWN)?, tags: state.known_tags()? })
    };
    print(&report().map_err(|error| state_error(&error))?)?;
    Ok(ExitMessage::done(""))
}

fn export(flags: &StateFlags) -> Result<ExitMessage, ExitMessage> {
    // The reader of the output may be slow, and nobody could change the state while it is being read. So a copy is exported.
    let copy = copied(&find(flags)?)?;
    stdout::write(|out| io::copy(&mut &copy, out))?;
    Ok(ExitMessage::done(""))
}

/// The export as an unnamed file.
fn copied(state: &StateDb) -> Result<File, ExitMessage> {
    let cannot = |error: &io::Error| {
        ExitMessage::new(
            Exit::Fatal,
            format!("cannot write a temporary file in {}: {error}", env::temp_dir().display()),
            "free some space there (about 80 bytes an account), or set TMPDIR to another folder",
        )
    };
    let file = tempfile::tempfile().map_err(|error| cannot(&error))?;
    let mut csv = csv_out::writer(b',', io::BufWriter::new(file));
    let header = csv.write_record(["UserID", "fingerprint", "last_imported", "missing_runs"]);
    let keys: Vec<(TagNumber, TagKey)> =
        state.known_tags().map_err(|error| state_error(&error))?.iter().map(|(number, tag)| (*number, TagKey::of(tag))).collect();
    let visited = header.map_err(|error| StateError::Source(error.into())).and_then(|()| {
        state.each_account(|id, held| {
            let fingerprint = fingerprint(held, &keys);
            let last_imported = held.last_imported.map(rfc3339).unwrap_or_default();
            let runs = held.missing_runs.to_string();
            csv.write_record([id, fingerprint.as_bytes(), last_imported.as_bytes(), runs.as_bytes()]).map_err(Into::into)
        })
    });
    match visited {
        Err(StateError::Source(error)) => return Err(cannot(&error)),
        visited => visited.map_err(|error| state_error(&error))?,
    }
    let whole = || -> io::Result<File> {
        let written = csv.into_inner().map_err(csv::IntoInnerError::into_error)?;
        let mut file = written.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(file)
    };
    whole().map_err(|error| cannot(&error))
}

/// What is known of the profile, in short: sixteen digits for each field, and sixteen for all tags, if there are any.
fn fingerprint(held: &KnownAccount, keys: &[(TagNumber, TagKey)]) -> String {
    let key = |number: TagNumber| keys.iter().find(|(known, _)| *known == number).map(|(_, key)| *key);
    let known = held.tags.iter().filter_map(|tag| Some((key(tag.number)?, tag.hash?)));
    let tags = known.fold(TagsDigest::default(), |sum, (key, hash)| sum.with(key, hash)).bits();
    let fields = held.profile.iter().map(|(_, hash)| hash.unwrap_or_default());
    let hashes: Vec<String> = fields.chain((tags != 0).then_some(tags)).map(|hash| format!("{hash:016x}")).collect();
    hashes.concat()
}

fn forget(flags: &StateFlags, ids: &[String]) -> Result<ExitMessage, ExitMessage> {
    let (_locked, mut state) = take(flags)?;
    // A UUID with hyphens is never a UserID; without them it may be one.
    let compact = |id: &String| uuid::compact(id.as_bytes()).and_then(|id| String::from_utf8(id.to_vec()).ok());
    let wanted: Vec<String> = ids.iter().map(|id| compact(id).unwrap_or_else(|| id.clone())).collect();
    let dropped = state.forget(wanted.iter().map(String::as_str)).map_err(|error| state_error(&error))?;
    let asked = figures::counted(ids.len() as u64, "UserID");
    let why = format!("{} of {asked} dropped from {}", figures::count(dropped), flags.state.display());
    Ok(ExitMessage::new(Exit::Done, why, "the next sync creates those that its file has"))
}

fn retarget(flags: &StateFlags, connection: &Connection) -> Result<ExitMessage, ExitMessage> {
    let (_locked, mut state) = take(flags)?;
    let target = client::target(&connection.service);
    if state.open_run().map_err(|error| state_error(&error))?.is_some() {
        return Err(ExitMessage::new(
            Exit::UserError,
            "a run with this state is unfinished",
            "finish it first: the same sync command resumes it",
        ));
    }
    state.retarget(&target).map_err(|error| state_error(&error))?;
    let why = format!("{} belongs to {target} now", flags.state.display());
    Ok(ExitMessage::new(Exit::Done, why, "the next sync there sends what differs from what it holds"))
}

struct StateReport {
    about: StateInfo,
    counts: AccountCounts,
    /// Rows of an unfinished run.
    unrecorded: Option<u64>,
    runs: Vec<RunRecord>,
    /// Those that were ever sent.
    tags: Vec<(TagNumber, Tag)>,
}

impl fmt::Display for StateReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AccountCounts { accounts, in_doubt, missing, kicked } = self.counts;
        let count = figures::count;
        writeln!(f, "target      {}", self.about.target)?;
        writeln!(f, "accounts    {}", count(accounts))?;
        writeln!(f, "in doubt    {}", count(in_doubt))?;
        if let Some(rows) = self.unrecorded {
            writeln!(f, "unrecorded  the result of {} of the unfinished run is not known here yet", figures::counted(rows, "row"))?;
        }
        writeln!(f, "missing     {} ({} of them kicked)", count(missing), count(kicked))?;
        if !self.tags.is_empty() {
            let names: Vec<String> = self.tags.iter().map(|(_, tag)| tag.to_string()).collect();
            writeln!(f, "tags        {}", names.join(", "))?;
        }
        if self.about.is_importing {
            writeln!(f, "import      started and not finished: all results are unknown until it is")?;
        }
        for run in &self.runs {
            writeln!(f, "run {:<7} {run}", run.number)?;
        }
        Ok(())
    }
}

impl fmt::Display for RunRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = figures::count;
        let finished = self.finished_at.map_or_else(|| "unfinished".to_owned(), rfc3339);
        write!(f, "{} {finished}", self.command)?;
        write!(
            f,
            ": {} to create, {} to update, {} unchanged",
            count(self.counts.create),
            count(self.counts.update),
            count(self.counts.unchanged)
        )?;
        if let Some(done) = self.done {
            write!(
                f,
                "; {} failed, {} missing, {} kicked, {} deleted",
                count(done.failed),
                count(self.counts.missing),
                count(done.kicked),
                count(done.deleted)
            )?;
        }
        Ok(())
    }
}
