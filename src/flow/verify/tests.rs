use std::convert::Infallible;
use std::io::Cursor;

use super::*;
use crate::domain::account::Field;
use crate::domain::comparison::{Comparison, Differing, Finding};
use crate::io::roster::{Format, Roster};

/// Findings in memory.
#[derive(Debug, Default)]
struct Heard(Vec<(u64, Comparison)>);

impl Findings for Heard {
    type Error = Infallible;

    fn take(&mut self, finding: Finding) -> Result<(), Infallible> {
        assert_eq!(finding.original.is_some(), finding.state.is_repairable());
        self.0.push((finding.row, finding.state));
        Ok(())
    }
}

type VerificationHarness = Verification<Roster<Cursor<String>>, Heard>;

fn verification(text: &str) -> VerificationHarness {
    let roster = |text: &str| Roster::new(Cursor::new(text.to_owned()), &Format::default()).unwrap();
    let mut survey = Survey::new(roster(text), Box::new(tempfile::tempfile));
    while survey.read_some().unwrap() == ReadProgress::GoesOn {}
    Verification::new(roster(text), survey.finish(None).unwrap(), ProfileComparison::Compared, Heard::default())
}

fn next(verification: &mut VerificationHarness, command: Command) -> Option<RequestJob<Account, Page>> {
    loop {
        match verification.next(command).unwrap() {
            NextJob::Job(job) => return Some(job),
            NextJob::Pending => {}
            NextJob::Nothing => return None,
        }
    }
}

fn statuses(job: &RequestJob<Account, Page>, status: AccountStatus) -> JobOutcome {
    let item = |account: &Account| Item { user_id: account.user_id.as_str().into(), said: Ok(status) };
    JobOutcome::Answered(Answer::Statuses(job.items.iter().map(item).collect()))
}

/// What is found of one id `a` whose account exists, with the nickname `n`, if this is said of its profile.
#[track_caller]
fn check(said: JobOutcome, expected: Comparison) {
    let mut verification = verification("UserID,Nick,FaceUrl\na,n,\n");
    let account = next(&mut verification, Command::AccountCheck).unwrap();
    let profile = next(&mut verification, Command::PortraitGet).unwrap();
    let found = statuses(&account, AccountStatus::Imported);
    verification.ended(account, found).unwrap();
    assert!(verification.findings.0.is_empty(), "nothing is found before all is answered");
    verification.ended(profile, said).unwrap();
    assert_eq!(verification.findings.0, [(1, expected)]);
}

#[test]
fn a_profile_is_what_was_asked_for_and_nothing_else() {
    let profile = |user_id: &str, nick: Option<&str>| Profile {
        user_id: user_id.into(),
        fields: [nick.map(Into::into), None].into(),
        ..Profile::default()
    };
    let profiles = |all: Vec<Profile>| JobOutcome::Answered(Answer::Profiles(all));
    let differs = |fields: &[Field]| Comparison::Differs(Differing { fields: fields.to_vec(), tags: Vec::new() });
    let unknown = |why: &str| Comparison::Unknown(why.to_owned());
    let face = Profile { fields: [Some("n".into()), Some("whatever".into())].into(), ..profile("a", None) };
    check(profiles(vec![face]), Comparison::Same);
    check(profiles(vec![profile("b", Some("x")), profile("a", Some("n"))]), Comparison::Same);
    check(profiles(vec![profile("a", Some("N"))]), differs(&[Field::Nick]));
    check(profiles(vec![profile("a", None)]), differs(&[Field::Nick]));
    check(profiles(vec![]), unknown("portrait_get says nothing of it"));
    let refused = ItemRefusal { code: 40003, info: "no such account".into() };
    let not_found = Profile { refused: Some(refused.clone()), ..profile("@TLS#NOT_FOUND", None) };
    check(profiles(vec![not_found]), unknown("portrait_get says nothing of it"));
    let own = Profile { refused: Some(refused), ..profile("a", None) };
    check(profiles(vec![own]), unknown("portrait_get: code 40003: no such account"));
    check(
        JobOutcome::AttemptsExhausted((None, "no answer in time".to_owned())),
        unknown("out of attempts; portrait_get: no answer in time"),
    );
}

#[test]
fn missing_accounts_do_not_run_ahead_of_the_other_api() {
    let text = (0..100_000).fold("UserID,Nick\n".to_owned(), |text, row| text + &format!("u{row},n\n"));
    let mut verification = verification(&text);
    let mut pages = 0;
    while let Some(job) = next(&mut verification, Command::AccountCheck) {
        let outcome = statuses(&job, AccountStatus::NotImported);
        verification.ended(job, outcome).unwrap();
        pages += 1;
    }
    assert_eq!(pages, CALLS_AHEAD);
    assert!(next(&mut verification, Command::PortraitGet).is_some());
    assert!(next(&mut verification, Command::AccountCheck).is_some(), "and it goes on as the other does");
}

#[test]
fn ids_wait_from_their_answer_until_every_earlier_one_has_one() {
    let text = (0..250).fold("UserID\n".to_owned(), |text, row| text + &format!("u{row}\n")) + "\u{e9}\n";
    let mut verification = verification(&text);
    let pages: Vec<_> = std::iter::from_fn(|| next(&mut verification, Command::AccountCheck)).collect();
    assert_eq!(pages.iter().map(|page| page.items.len()).collect::<Vec<_>>(), [100, 100, 50]);
    for (page, waiting) in pages.into_iter().rev().zip([50, 150, 0]) {
        let outcome = statuses(&page, AccountStatus::Imported);
        verification.ended(page, outcome).unwrap();
        assert_eq!(verification.waiting(), waiting, "an invalid id is not asked about");
    }
    assert_eq!(verification.counts().asked(), 250);
}

#[test]
fn an_input_that_changes_between_the_readings_is_noticed() {
    let mut verification = verification("UserID\na\nb\n");
    verification.records = Roster::new(Cursor::new("UserID\na\nc\n".to_owned()), &Format::default()).unwrap();
    assert!(matches!(verification.next(Command::AccountCheck), Err(Failed::InputChanged)));
}
