//! A probe that writes: it makes an account that nobody has, and finds out what the documentation leaves open.
//!
//! Each question is a few requests. What a question takes for granted may turn out to be otherwise in this app; then its answer is not
//! known, and says why.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::requests::{Halted, IsStopped, Requests, Said, ServiceRefusal};
use crate::domain::account::{Account, TwinKind, UserId};
use crate::domain::answer::{AccountStatus, Answer, Profile};
use crate::domain::profile::ProfileField;
use crate::domain::tag::Tag;
use crate::domain::verdict::{self, CallOutcome, DELETION_OFF, NO_ACCOUNT, NO_PROFILE, NO_TAG, TAG_NOT_WRITABLE, VALUE_REFUSED};
use crate::io::api::usersig::Signer;
use crate::io::api::{Api, Request};
use crate::io::gate::Rate;
use crate::io::quota::QuotaSettings;

/// Longest time for all questions. Chosen: somebody waits for the answers.
const QUESTIONS_MAX: Duration = Duration::from_secs(120);
/// Longest time for deleting what was made. Chosen.
const CLEANUP_MAX: Duration = Duration::from_secs(15);
/// How often something is looked at again that may not show yet. Chosen: with the pause, most of a second for what is written to be read.
const LOOKS: u32 = 3;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(300);
/// The avatar of the account. Source: this name is reserved for examples (RFC 2606).
const FACE_URL: &str = "https://example.com/chatlift.png";

/// What is to be found out, and with which account.
#[derive(Debug, Clone)]
pub struct WriteProbe {
    pub id: UserId,
    pub tags: Vec<Tag>,
    pub cleanup: Cleanup,
    /// Requests a second of each API, if they are to be fewer than the documented ones.
    pub rate: Option<Rate>,
    /// The limits are shared with other processes.
    pub quota: Option<Arc<QuotaSettings>>,
}

/// What becomes of the accounts that were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    Delete,
    Leave,
}

/// What the documentation leaves open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Does a single import change the nickname of an account that exists?
    SingleUpdates,
    /// Does a field that a single import leaves out stay?
    SingleKeepsOmitted,
    BatchUpdates,
    BatchKeepsOmitted,
    /// Are this UserID and its twin two accounts?
    Twin(TwinKind),
    TagKnown(Tag),
    DeletionOn,
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeFinding {
    Yes(String),
    No(String),
    Unknown(String),
    NotAsked(String),
}

/// All that a probe has found out, as far as it came.
#[derive(Debug, Clone, Default)]
pub struct WriteReport {
    pub findings: Vec<(Question, ProbeFinding)>,
    /// Accounts that it has made, or may have.
    pub left_behind: Vec<UserId>,
    /// Those of them that may not exist: the answer that would tell got lost.
    pub perhaps_left_behind: Vec<UserId>,
    /// Whether an account was made, or perhaps was, even if it is deleted by now.
    pub may_have_made: bool,
    pub requests: u32,
    /// Why it ended early.
    pub ended: Option<WriteEnd>,
}

/// Why a probe ended before it had asked everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteEnd {
    Halted(Halted),
    /// One of the names has an account.
    Exists(UserId),
    /// The service doesn't take the UserID.
    IdRefused(ServiceRefusal),
}

impl From<Halted> for WriteEnd {
    fn from(halted: Halted) -> Self {
        Self::Halted(halted)
    }
}

impl WriteProbe {
    /// The UserIDs that it may make: the given one first.
    #[must_use]
    pub fn names(&self) -> Vec<UserId> {
        let twins = TwinKind::ALL.into_iter().filter_map(|kind| self.id.twin(kind));
        std::iter::once(self.id.clone()).chain(twins).collect()
    }

    /// Asks everything, and writes into `report` what it finds as soon as it does.
    pub async fn run<A: Api>(&self, (api, signer): (&A, Signer), is_stopped: IsStopped<'_>, report: &mut WriteReport) {
        let requests = Requests::new((api, signer), self.rate, self.quota.as_deref(), is_stopped, Instant::now() + QUESTIONS_MAX);
        let mut asking = RunningProbe { probe: self, requests, report, nicks: 0 };
        let ended = asking.ask_all().await.err();
        asking.report.ended = ended;
        asking.clean_up().await;
        asking.report.requests = asking.requests.made;
    }
}

/// A probe at work.
struct RunningProbe<'a, 'b, A> {
    probe: &'a WriteProbe,
    requests: Requests<'a, A>,
    report: &'b mut WriteReport,
    /// Nicknames so far; each import has one of its own.
    nicks: u32,
}

/// Nickname and avatar that a profile shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ShownProfile {
    nick: Option<Box<str>>,
    face_url: Option<Box<str>>,
}

impl<A: Api> RunningProbe<'_, '_, A> {
    async fn ask_all(&mut self) -> Result<(), WriteEnd> {
        for name in self.probe.names() {
            if self.exists(&name).await? {
                return Err(WriteEnd::Exists(name));
            }
        }
        let first = self.next_account(&self.probe.id.clone(), Some(FACE_URL));
        if let Err(refusal) = self.import(&first).await? {
            return Err(WriteEnd::IdRefused(refusal));
        }
        let shown = self.look(&first.user_id, |shown| shown.nick == first.nick).await?;
        self.ask_of_import(|account| Request::AccountImport(account), [Question::SingleUpdates, Question::SingleKeepsOmitted], shown)
            .await?;
        let shown = self.with_avatar().await?;
        self.ask_of_import(
            |account| Request::MultiaccountImport(vec![account]),
            [Question::BatchUpdates, Question::BatchKeepsOmitted],
            shown,
        )
        .await?;
        for kind in TwinKind::ALL {
            let finding = self.ask_of_twin(kind).await?;
            self.found(Question::Twin(kind), finding);
        }
        for tag in &self.probe.tags {
            let finding = self.ask_of_tag(tag).await?;
            self.found(Question::TagKnown(tag.clone()), finding);
        }
        Ok(())
    }

    fn found(&mut self, question: Question, finding: ProbeFinding) {
        self.report.findings.push((question, finding));
    }

    /// An account of this name with a nickname that no account has yet.
    fn next_account(&mut self, id: &UserId, face_url: Option<&str>) -> Account {
        self.nicks += 1;
        let nick = format!("chatlift probe {}", self.nicks);
        Account { nick: Some(nick.into()), face_url: face_url.map(Into::into), ..Account::bare(id.clone()) }
    }

    async fn exists(&mut self, id: &UserId) -> Result<bool, Halted> {
        let said = self.requests.send(Request::AccountCheck(vec![id])).await?;
        // Nobody has a name that the service refuses.
        Ok(matches!(said, Ok(Answer::Statuses(items)) if items.iter().any(|item| item.said == Ok(AccountStatus::Imported))))
    }

    /// Imports an account; it is left behind unless it is certain that there is none.
    async fn import(&mut self, account: &Account) -> Result<Said, Halted> {
        let id = &account.user_id;
        if self.report.left_behind.contains(id) {
            return self.requests.send(Request::AccountImport(account)).await;
        }
        let before = (self.requests.made, self.requests.lost);
        // The request may be cut short, and then nobody knows.
        let (had_made, report) = (self.report.may_have_made, &mut *self.report);
        report.left_behind.push(id.clone());
        report.perhaps_left_behind.push(id.clone());
        report.may_have_made = true;
        let said = self.requests.send(Request::AccountImport(account)).await;
        let is_unknown = self.requests.lost > before.1;
        if matches!(said, Ok(Ok(_))) {
            self.report.perhaps_left_behind.pop();
        } else if self.requests.made == before.0 || (is_refused(&said) && !is_unknown) {
            self.report.left_behind.pop();
            self.report.perhaps_left_behind.pop();
            self.report.may_have_made = had_made;
        }
        said
    }

    /// Forgets an account that is gone, or is no other one.
    fn forget_account(&mut self, id: &UserId) {
        self.report.left_behind.retain(|made| made != id);
        self.report.perhaps_left_behind.retain(|made| made != id);
    }

    /// What the profile shows: at once, or after a moment, if it is not yet as it is hoped for.
    async fn look(&mut self, id: &UserId, is_hoped_for: impl Fn(&ShownProfile) -> bool) -> Result<Option<ShownProfile>, Halted> {
        let (account, mut shown) = (Account::bare(id.clone()), None);
        for look in 0..LOOKS {
            if look > 0 {
                self.requests.pause(LOOK_AGAIN_AFTER).await?;
            }
            let said = self.requests.send(Request::PortraitGet(vec![&account])).await?;
            shown = profile(said);
            if shown.as_ref().is_some_and(&is_hoped_for) {
                break;
            }
        }
        Ok(shown)
    }

    /// Both questions about an import of an account that exists: one request with a new nickname and without the avatar answers them.
    async fn ask_of_import(
        &mut self,
        import: fn(&Account) -> Request<'_>,
        questions: [Question; 2],
        before: Option<ShownProfile>,
    ) -> Result<(), Halted> {
        let account = self.next_account(&self.probe.id.clone(), None);
        let said = self.requests.send(import(&account)).await?;
        let [updates, keeps] = match (refused_in(said), before) {
            (Some(why), _) => [ProbeFinding::Unknown(why.clone()), ProbeFinding::Unknown(why)],
            (None, None) => {
                let why = "portrait_get does not show the account";
                [ProbeFinding::Unknown(why.to_owned()), ProbeFinding::Unknown(why.to_owned())]
            }
            (None, Some(before)) => {
                let after = self.look(&account.user_id, |shown| shown.nick == account.nick).await?;
                [updated(&account, &before, after.as_ref()), kept(&account, &before, after.as_ref())]
            }
        };
        let [first, second] = questions;
        self.found(first, updates);
        self.found(second, keeps);
        Ok(())
    }

    /// What the profile shows, with the avatar that an import may have cleared.
    async fn with_avatar(&mut self) -> Result<Option<ShownProfile>, Halted> {
        let id = self.probe.id.clone();
        let shown = self.look(&id, |_| true).await?;
        if shown.as_ref().is_none_or(|shown| shown.face_url.is_some()) {
            return Ok(shown);
        }
        let again = self.next_account(&id, Some(FACE_URL));
        // Whether it was taken is seen.
        let _ = self.import(&again).await?;
        self.look(&id, |shown| shown.face_url.is_some()).await
    }

    /// Whether a UserID that is much like the first one is another account.
    async fn ask_of_twin(&mut self, kind: TwinKind) -> Result<ProbeFinding, Halted> {
        let first = self.probe.id.clone();
        let Some(twin) = first.twin(kind) else { return Ok(ProbeFinding::NotAsked(no_twin(kind).to_owned())) };
        let same = || ProbeFinding::No(format!("the service takes \"{}\" for \"{}\"", twin.as_str(), first.as_str()));
        // Its account exists though nobody has made it.
        if self.exists(&twin).await? {
            return Ok(same());
        }
        let account = self.next_account(&twin, None);
        if let Err(refusal) = self.import(&account).await? {
            return Ok(ProbeFinding::No(refused(&refusal)));
        }
        let of_twin = self.look(&twin, |shown| shown.nick == account.nick).await?.unwrap_or_default().nick;
        let of_first = self.look(&first, |_| true).await?.unwrap_or_default().nick;
        let is_one = of_first == account.nick || (of_twin.is_some() && of_twin == of_first);
        if is_one {
            self.forget_account(&twin);
            return Ok(same());
        }
        let is_two = of_twin == account.nick;
        Ok(if is_two { ProbeFinding::Yes(String::new()) } else { ProbeFinding::Unknown("it is taken, but no profile shows it".to_owned()) })
    }

    async fn ask_of_tag(&mut self, tag: &Tag) -> Result<ProbeFinding, Halted> {
        let account = Account { tags: [tag.sample()].into(), ..Account::bare(self.probe.id.clone()) };
        for look in 0..LOOKS {
            if look > 0 {
                self.requests.pause(LOOK_AGAIN_AFTER).await?;
            }
            match self.requests.send(Request::PortraitSet(&account)).await? {
                // The account may not be known everywhere yet.
                Err(ServiceRefusal { code: NO_PROFILE, .. }) => {}
                said => return Ok(known(said)),
            }
        }
        Ok(ProbeFinding::Unknown("portrait_set does not find the account".to_owned()))
    }

    /// Deletes what was made, if that is wanted: the first account last, since twins may turn out to be the same.
    async fn clean_up(&mut self) {
        let finding = match self.probe.cleanup {
            Cleanup::Leave => ProbeFinding::NotAsked("--delete finds out".to_owned()),
            Cleanup::Delete if self.report.left_behind.is_empty() => ProbeFinding::NotAsked("no account was made".to_owned()),
            Cleanup::Delete => {
                self.requests.put_away(Instant::now() + CLEANUP_MAX);
                self.delete_all().await
            }
        };
        self.found(Question::DeletionOn, finding);
    }

    async fn delete_all(&mut self) -> ProbeFinding {
        let mut finding = ProbeFinding::Yes(String::new());
        for id in self.report.left_behind.clone().into_iter().rev() {
            let (lost, was_known) = (self.requests.lost, !self.report.perhaps_left_behind.contains(&id));
            if was_known {
                self.report.perhaps_left_behind.push(id.clone());
            }
            let deleted = self.delete(&id).await;
            if was_known && self.requests.lost == lost {
                self.report.perhaps_left_behind.retain(|made| *made != id);
            }
            match deleted {
                Ok(()) => self.forget_account(&id),
                Err(other @ ProbeFinding::No(_)) => return other,
                Err(other) => finding = other,
            }
        }
        finding
    }

    async fn delete(&mut self, id: &UserId) -> Result<(), ProbeFinding> {
        match self.requests.send(Request::AccountDelete(vec![id])).await {
            Err(Halted::Call { outcome: CallOutcome::Refused { code: DELETION_OFF, .. }, .. }) => {
                Err(ProbeFinding::No("the console must switch it on".to_owned()))
            }
            Err(Halted::Call { outcome, .. } | Halted::Signature { outcome, .. }) => Err(ProbeFinding::Unknown(unanswered(outcome))),
            Err(Halted::OutOfTime | Halted::Stopped) => Err(ProbeFinding::Unknown("it took too long".to_owned())),
            Ok(Ok(Answer::Results(items))) => match items.into_iter().next().map(|item| item.said) {
                Some(Ok(())) => Ok(()),
                Some(Err(refusal)) if refusal.code == NO_ACCOUNT => Ok(()),
                Some(Err(item)) => Err(ProbeFinding::Unknown(refused(&ServiceRefusal { code: item.code, info: item.info.into() }))),
                None => Err(ProbeFinding::Unknown("the answer says nothing of the account".to_owned())),
            },
            Ok(said) => Err(ProbeFinding::Unknown(said.err().map_or_else(String::new, |refusal| refused(&refusal)))),
        }
    }
}

/// The first profile that an answer shows, whatever its name: the service may write a UserID in another way.
fn profile(said: Said) -> Option<ShownProfile> {
    let Ok(Answer::Profiles(profiles)) = said else { return None };
    let Profile { mut fields, .. } = profiles.into_iter().find(|profile| profile.refused.is_none())?;
    Some(ShownProfile { nick: fields[ProfileField::Nick].take(), face_url: fields[ProfileField::FaceUrl].take() })
}

/// Whether the service says that it has made no account.
const fn is_refused(said: &Result<Said, Halted>) -> bool {
    match said {
        Ok(said) => said.is_err(),
        Err(Halted::Call { outcome, .. }) => !matches!(outcome, CallOutcome::Lost { .. }),
        Err(Halted::Signature { .. }) => true,
        Err(Halted::OutOfTime | Halted::Stopped) => false,
    }
}

/// Why an import was refused, if it was.
fn refused_in(said: Said) -> Option<String> {
    match said {
        Ok(Answer::FailAccounts(failed)) if !failed.is_empty() => Some("the batch refuses the account".to_owned()),
        Ok(_) => None,
        Err(refusal) => Some(refused(&refusal)),
    }
}

fn refused(ServiceRefusal { code, info }: &ServiceRefusal) -> String {
    if info.is_empty() { format!("refused with code {code}") } else { format!("refused with code {code}: {info}") }
}

/// What came instead of an answer to the question.
fn unanswered(outcome: CallOutcome) -> String {
    match verdict::words(outcome) {
        (Some(code), info) => refused(&ServiceRefusal { code, info }),
        (None, why) => why,
    }
}

fn updated(sent: &Account, before: &ShownProfile, after: Option<&ShownProfile>) -> ProbeFinding {
    match after {
        Some(after) if after.nick == sent.nick => ProbeFinding::Yes(String::new()),
        Some(after) if after.nick == before.nick => ProbeFinding::No("the old nickname stays".to_owned()),
        Some(ShownProfile { nick: None, .. }) => ProbeFinding::No("the nickname is lost".to_owned()),
        Some(_) | None => ProbeFinding::Unknown("portrait_get shows another nickname".to_owned()),
    }
}

fn kept(sent: &Account, before: &ShownProfile, after: Option<&ShownProfile>) -> ProbeFinding {
    match after {
        _ if before.face_url.is_none() => ProbeFinding::Unknown("the account has no avatar that could stay".to_owned()),
        Some(after) if after.nick != sent.nick && after.nick == before.nick => {
            ProbeFinding::Unknown("such an import changes nothing".to_owned())
        }
        Some(after) if after.face_url == before.face_url => ProbeFinding::Yes(String::new()),
        Some(ShownProfile { face_url: None, .. }) => ProbeFinding::No("it is cleared".to_owned()),
        Some(_) | None => ProbeFinding::Unknown("portrait_get shows another avatar".to_owned()),
    }
}

fn known(said: Said) -> ProbeFinding {
    match said {
        Ok(_) => ProbeFinding::Yes(String::new()),
        Err(refusal) if refusal.code == NO_TAG => ProbeFinding::No("the app has no such field: create it in the console".to_owned()),
        Err(refusal) if refusal.code == TAG_NOT_WRITABLE => ProbeFinding::No("an administrator may not write it".to_owned()),
        Err(refusal) if VALUE_REFUSED.contains(&refusal.code) => ProbeFinding::Yes(format!("its value is {}", refused(&refusal))),
        Err(refusal) => ProbeFinding::Unknown(refused(&refusal)),
    }
}

const fn no_twin(kind: TwinKind) -> &'static str {
    match kind {
        TwinKind::OtherCase => "the UserID has no letter",
        TwinKind::SpaceInside => "the UserID is too short or too long for this test",
        TwinKind::SpaceBefore | TwinKind::SpaceBehind => "the UserID has 32 bytes already",
    }
}
