//! `probe --write`: which accounts it may make, whether that is wanted, and what its questions are called.

use std::cell::Cell;
use std::io::{self, BufRead, IsTerminal};

use futures_util::StreamExt;

use super::Steps;
use crate::domain::account::{TwinKind, UserId};
use crate::domain::figures::counted;
use crate::flow::probe::{Cleanup, Halted, ProbeFinding, Question, ServiceRefusal, WriteEnd, WriteProbe, WriteReport};
use crate::shell::cli::columns::PUSHED;
use crate::shell::cli::flags::ProbeFlags;
use crate::shell::cli::run::real_service;
use crate::shell::cli::settings::Connection;
use crate::shell::cli::signals;
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::screen::probed::{Check, OpenQuestion, Probed, Written};
use crate::shell::terminal::{print_stderr, quoted};

/// What the check is called that a probe ends with early.
const NAME: &str = "write";
/// The name of the question whether deleting is switched on.
const DELETION_ON: &str = "deletion_on";
/// Answers that mean yes.
const YES: [&str; 2] = ["y", "yes"];

/// What is to be written, if anything is.
///
/// # Errors
/// The [`ExitMessage`] for a UserID that is none, and where nobody can be asked.
pub(super) fn planned(flags: &ProbeFlags) -> Result<Option<WriteProbe>, ExitMessage> {
    let Some(id) = &flags.write else { return Ok(None) };
    let id = UserId::parse(id.as_bytes()).map_err(|why| {
        let hint = "give one of letters, digits, _ and - that nobody has, such as --write chatlift-probe-1";
        ExitMessage::yours(format!("--write: {why}"), hint)
    })?;
    let may_ask = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !(flags.yes || may_ask) {
        let why = "--write makes accounts, and there is no terminal on which it could ask";
        return Err(ExitMessage::yours(why, "add --yes"));
    }
    let cleanup = if flags.delete { Cleanup::Delete } else { Cleanup::Leave };
    Ok(Some(WriteProbe { id, tags: flags.profile.clone(), cleanup, rate: None, quota: None }))
}

/// The same once somebody has agreed to it, or need not be asked.
///
/// # Errors
/// The [`ExitMessage`] of who does not agree, or for names of which one may be the administrator's.
pub(super) fn agreed(probe: &WriteProbe, flags: &ProbeFlags, connection: &Connection) -> Result<WriteProbe, ExitMessage> {
    spares_administrator(probe, connection.identifier())?;
    if let Some(words) = real_service(connection) {
        print_stderr(&words);
    }
    let names: Vec<String> = probe.names().iter().map(|name| quoted(name.as_str().as_bytes())).collect();
    print_stderr(&format_args!("it creates these accounts; the service may refuse some: {}", names.join(", ")));
    print_stderr(&match probe.cleanup {
        Cleanup::Leave => "they stay in the app: --delete would delete them",
        Cleanup::Delete => "it deletes them at the end; on paid plans these UserIDs can then not be imported for three months",
    });
    if !probe.tags.is_empty() {
        print_stderr(&PUSHED);
    }
    if !flags.yes && !says_yes() {
        return Err(ExitMessage::yours("nothing is written", "answer with y, or add --yes"));
    }
    Ok(WriteProbe { rate: connection.rate, ..probe.clone() })
}

/// Nothing is written to the account as which the calls are made. A service may take upper and lower case for one, and spaces at an end for
/// none.
fn spares_administrator(probe: &WriteProbe, identifier: &str) -> Result<(), ExitMessage> {
    let plain = |name: &str| name.trim().to_lowercase();
    let Some(name) = probe.names().into_iter().find(|name| plain(name.as_str()) == plain(identifier)) else { return Ok(()) };
    let (name, identifier) = (quoted(name.as_str().as_bytes()), quoted(identifier.as_bytes()));
    let why = format!("--write: {name} may be {identifier}, the administrator as which requests are made; nothing is sent");
    Err(ExitMessage::yours(why, "give an id that nobody has, such as --write chatlift-probe-1"))
}

/// Asks on the terminal.
fn says_yes() -> bool {
    eprint!("go on? [y/N] ");
    let mut answer = String::new();
    // Who closes the terminal does not agree.
    let _ = io::stdin().lock().read_line(&mut answer);
    YES.contains(&answer.trim().to_ascii_lowercase().as_str())
}

impl Steps<'_> {
    /// Asks what only an account of its own can answer.
    pub(super) async fn write(&self, probe: &WriteProbe, probed: &mut Probed) {
        let (stops, is_stopped) = (signals::stops(), Cell::new(false));
        let mut report = WriteReport::default();
        let look = || is_stopped.get();
        let probe = WriteProbe { quota: self.client.quota.clone(), ..probe.clone() };
        let is_cut = tokio::select! {
            () = probe.run((&*self.client.api, self.client.signer()), &look, &mut report) => false,
            () = second(stops, &is_stopped) => true,
        };
        if is_cut {
            report.ended = Some(Halted::Stopped.into());
        }
        let ended = report.ended.take().map(|end| self.ended(end));
        probed.checks.extend(ended.map(|check| if report.may_have_made { for_another_id(check) } else { check }));
        let text = |ids: &[UserId]| ids.iter().map(|id| id.as_str().to_owned()).collect();
        let (left_behind, perhaps_left_behind) = (text(&report.left_behind), text(&report.perhaps_left_behind));
        let questions = report.findings.into_iter().map(open_question).collect();
        probed.written =
            Some(Written { id: probe.id.as_str().to_owned(), requests: report.requests, questions, left_behind, perhaps_left_behind });
    }

    /// The check that says why a probe ended early.
    fn ended(&self, end: WriteEnd) -> Check {
        match end {
            WriteEnd::Halted(Halted::Call { command, outcome }) => self.answer(command.name(), outcome),
            WriteEnd::Halted(Halted::Signature { command, reason, .. }) => {
                Check::bad(command.name(), reason.class().into(), reason.to_string(), reason.hint())
            }
            WriteEnd::Halted(Halted::OutOfTime) => {
                Check::bad(NAME, Exit::Stopped, "the questions took too long", "probe again with another UserID")
            }
            WriteEnd::Halted(Halted::Stopped) => Check::bad(NAME, Exit::Stopped, "a signal came", "probe again with another UserID"),
            WriteEnd::Exists(id) => {
                let found = format!("{} has an account already; nothing is written", quoted(id.as_str().as_bytes()));
                Check::bad(NAME, Exit::UserError, found, "choose a UserID that does not exist, in upper case or lower case")
            }
            WriteEnd::IdRefused(ServiceRefusal { code, info }) => {
                let found = format!("the service does not take this UserID (code {code}: {info})");
                Check::bad(NAME, Exit::UserError, found, "give another id; one that was deleted may be barred for three months")
            }
        }
    }
}

/// A check that ended a probe early, with a remedy that can be followed: this UserID may have an account by then, and a probe never resumes.
fn for_another_id(mut check: Check) -> Check {
    const ANOTHER: &str = "probe again with another UserID";
    let remedy = check.remedy.take().unwrap_or_default();
    let another =
        ["run the same command again", "the same command resumes", "the same command goes on after them", "probe again in a minute"]
            .into_iter()
            .fold(remedy, |remedy, words| remedy.replace(words, ANOTHER));
    let is_said = another.contains(ANOTHER);
    let another = if is_said { another } else { format!("{another}; then {ANOTHER}") };
    Check { remedy: Some(another.trim_start_matches("; then ").to_owned()), ..check }
}

/// Resolves at the second signal; says at the first what that does.
async fn second(mut stops: impl futures_util::Stream<Item = ()> + Unpin, is_stopped: &Cell<bool>) {
    stops.next().await;
    is_stopped.set(true);
    print_stderr(&"stopping: with --delete, the new accounts are deleted first; another signal (Ctrl-C) ends it at once");
    stops.next().await;
}

/// The last word of a probe that has asked everything.
pub(super) fn last_word(written: &Written) -> ExitMessage {
    let asked = written.questions.iter().filter(|question| question.answer != "not_asked").count();
    let answered = written.questions.iter().filter(|question| ["yes", "no"].contains(&question.answer)).count();
    let why = format!("everything is right for a run, and {answered} of {} are answered", counted(asked as u64, "open question"));
    let is_off = written.questions.iter().any(|question| question.question == DELETION_ON && question.answer == "no");
    let hint = match (written.left_behind.is_empty(), is_off) {
        (true, _) => "import with --limit 100 first, and look at the results",
        (false, false) => {
            "delete what is left behind with the REST API account_delete (the console must have deletion switched on), or leave it; then \
             import with --limit 100 first"
        }
        (false, true) => {
            "switch deletion on in the console first, then delete what is left behind with the REST API account_delete; or leave it; then \
             import with --limit 100 first"
        }
    };
    ExitMessage::new(Exit::Done, why, hint)
}

fn open_question((question, finding): (Question, ProbeFinding)) -> OpenQuestion {
    let (answer, detail) = match finding {
        ProbeFinding::Yes(detail) => ("yes", detail),
        ProbeFinding::No(detail) => ("no", detail),
        ProbeFinding::Unknown(detail) => ("unknown", detail),
        ProbeFinding::NotAsked(detail) => ("not_asked", detail),
    };
    let tag = if let Question::TagKnown(tag) = &question { Some(tag.to_string()) } else { None };
    let (key, words) = named(&question);
    OpenQuestion { question: key, tag, words, answer, detail }
}

/// A question's name for machines, and its words for people.
fn named(question: &Question) -> (&'static str, String) {
    let (key, words) = match question {
        Question::SingleUpdates => ("single_import_updates_nickname", "account_import changes the nickname of an account"),
        Question::SingleKeepsOmitted => ("single_import_keeps_omitted_field", "account_import keeps a field that is left out"),
        Question::BatchUpdates => ("batch_updates_nickname", "multiaccount_import changes the nickname of an account"),
        Question::BatchKeepsOmitted => ("batch_keeps_omitted_field", "multiaccount_import keeps a field that is left out"),
        Question::Twin(TwinKind::OtherCase) => ("case_differs", "UserIDs in upper and lower case are two accounts"),
        Question::Twin(TwinKind::SpaceInside) => ("space_inside_taken", "a UserID may have a space inside"),
        Question::Twin(TwinKind::SpaceBefore) => ("space_before_taken", "a UserID may begin with a space"),
        Question::Twin(TwinKind::SpaceBehind) => ("space_behind_taken", "a UserID may end with a space"),
        Question::TagKnown(tag) => return ("tag_known", format!("the app has the profile field {tag}")),
        Question::DeletionOn => (DELETION_ON, "deleting accounts is switched on"),
    };
    (key, words.to_owned())
}
