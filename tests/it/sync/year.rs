//! A year of nights on the paused clock: what is sent is what has changed, whoever is missing is counted and deleted in time, and exports
//! that went wrong are stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

use chatlift::domain::command::Command;
use chatlift::domain::guard::{Bound, Percent, Tripped};
use chatlift::domain::tag::{Tag, TagValue};
use chatlift::io::state::RunTotals;

use super::export_model::Accounts;
use super::joined::{CANARY, JoinedFixture, MISSING_RUNS, Tags};

const PEOPLE: u32 = 2_000;
const DAYS: u32 = 365;
const DAY: Duration = Duration::from_secs(86_400);
/// Nobody leaves in the last days, so that whoever left is gone by the end.
const QUIET: u32 = 4;

/// People who come, go, come back and change their names.
struct Register {
    chance: fastrand::Rng,
    people: Accounts,
    /// A level and a word of those who have them, also of those who are gone.
    tags: Tags,
    gone: Vec<(String, (String, String))>,
    named: u32,
}

impl Register {
    fn new(seed: u64) -> Self {
        let mut register =
            Self { chance: fastrand::Rng::with_seed(seed), people: Accounts::new(), tags: Tags::new(), gone: Vec::new(), named: 0 };
        for _ in 0..PEOPLE {
            register.somebody_comes();
        }
        register
    }

    fn somebody_comes(&mut self) {
        self.named += 1;
        let face = if self.named.is_multiple_of(3) { String::new() } else { format!("https://faces/{}", self.named) };
        let id = format!("u{:04}", self.named);
        self.people.insert(id.clone(), (format!("Nick {}", self.named), face));
        if !self.named.is_multiple_of(4) {
            let vip = (Tag::Custom("Vip".into()), TagValue::Text(format!("vip {}", self.named % 5).into()));
            self.tags.insert(id, BTreeMap::from([(Tag::Level, TagValue::Number(self.named % 7)), vip]));
        }
    }

    fn anybody(&mut self) -> String {
        let at = self.chance.usize(1..self.people.len());
        self.people.keys().nth(at).unwrap().clone()
    }

    fn drift(&mut self, leavers: usize) {
        for _ in 0..self.chance.usize(..20) {
            let id = self.anybody();
            let number = self.chance.u8(..);
            if number < 100 && self.tags.contains_key(&id) {
                self.tags.get_mut(&id).unwrap().insert(Tag::Level, TagValue::Number(number.into()));
                continue;
            }
            let (nick, face) = self.people.get_mut(&id).unwrap();
            if number.is_multiple_of(4) && !face.is_empty() {
                *face = format!("https://faces/{number}");
            } else {
                *nick = format!("Nick {number}");
            }
        }
        for _ in 0..leavers {
            let id = self.anybody();
            let was = self.people.remove(&id).unwrap();
            self.gone.push((id, was));
        }
        for _ in 0..self.chance.usize(..4) {
            self.somebody_comes();
            if self.chance.bool() && !self.gone.is_empty() {
                let at = self.chance.usize(..self.gone.len());
                let (id, was) = self.gone.swap_remove(at);
                self.people.insert(id, was);
            }
        }
    }
}

/// The day from which on the file has tags.
const TAGS_FROM: u32 = 50;

fn csv(people: &Accounts, tags: Option<&Tags>) -> String {
    let names = if tags.is_some() { ",Tag_Profile_Custom_Vip,Tag_Profile_IM_Level" } else { "" };
    people.iter().fold(format!("UserID,Nick,FaceUrl{names}\n"), |text, (id, (nick, face))| {
        let cell = |tag: &Tag| match tags?.get(id)?.get(tag)? {
            TagValue::Text(text) => Some(text.to_string()),
            TagValue::Number(number) => Some(number.to_string()),
        };
        let [vip, level] = [Tag::Custom("Vip".into()), Tag::Level].map(|tag| cell(&tag).unwrap_or_default());
        let cells = if tags.is_some() { format!(",{vip},{level}") } else { String::new() };
        text + &format!("{id},{nick},{face}{cells}\n")
    })
}

/// What a night must do, from the file and what the service holds alone.
struct Expected {
    /// Whose account is imported.
    sent: BTreeSet<String>,
    /// Which tags are set.
    carried: Tags,
    deleted: BTreeSet<String>,
    missing_runs: BTreeMap<String, u32>,
}

fn expected(people: &Accounts, tags: &Tags, fixture: &JoinedFixture) -> Expected {
    let (held, held_tags, before) = (&fixture.fake.accounts(), fixture.fake.tags(), &fixture.missing_runs());
    let differing = |(id, tags): (&String, &BTreeMap<Tag, TagValue>)| {
        let is_held = |tag: &Tag, value: &TagValue| held_tags.get(id).is_some_and(|held| held.get(tag) == Some(value));
        let other = tags.iter().filter(|(tag, value)| !is_held(tag, value)).map(|(tag, value)| (tag.clone(), value.clone()));
        (id.clone(), other.collect::<BTreeMap<_, _>>())
    };
    let carried = tags.iter().filter(|(id, _)| people.contains_key(*id)).map(differing).filter(|(_, tags)| !tags.is_empty()).collect();
    let sent = people.iter().filter(|(id, wanted)| held.get(*id) != Some(wanted)).map(|(id, _)| id.clone()).collect();
    let runs = |id: &String| if people.contains_key(id) { 0 } else { before.get(id).copied().unwrap_or_default() + 1 };
    let all: BTreeMap<String, u32> = held.keys().chain(people.keys()).map(|id| (id.clone(), runs(id))).collect();
    let (deleted, stay): (BTreeMap<_, _>, BTreeMap<_, _>) = all.into_iter().partition(|(_, runs)| *runs >= MISSING_RUNS);
    Expected { sent, carried, deleted: deleted.into_keys().collect(), missing_runs: stay }
}

/// Whom the calls of a night were for; nobody twice.
fn touched(fixture: &JoinedFixture) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut sent, mut deleted) = (BTreeSet::new(), BTreeSet::new());
    for (command, id) in fixture.fake.touched() {
        match command {
            Command::AccountImport | Command::MultiaccountImport => assert!(sent.insert(id.clone()), "{id} is sent twice"),
            Command::AccountDelete => assert!(deleted.insert(id.clone()), "{id} is deleted twice"),
            Command::PortraitGet | Command::PortraitSet => {}
            Command::Kick | Command::AccountCheck | Command::QueryOnlineStatus => panic!("{command:?} of {id}"),
        }
    }
    (sent, deleted)
}

/// A day's export job goes wrong: a guard stops it, and nothing happens.
async fn stopped(fixture: &JoinedFixture, csv: &str, guards: &[&str]) {
    let before = (fixture.fake.accounts(), fixture.missing_runs());
    let tripped: Vec<Tripped> = fixture.night(csv).await.expect_err(guards[0]);
    assert_eq!(tripped.iter().map(|tripped| tripped.guard.name()).collect::<Vec<_>>(), guards);
    assert_eq!((fixture.fake.accounts(), fixture.missing_runs()), before);
    assert_eq!(fixture.fake.touched(), [], "{guards:?}: nothing is sent");
}

#[tokio::test(start_paused = true)]
async fn a_year_of_nights_sends_what_has_changed_and_ends_as_the_last_good_file() {
    let seed = std::env::var("CHATLIFT_YEAR_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    println!("CHATLIFT_YEAR_SEED={seed}");
    let mut register = Register::new(seed);
    let start = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut fixture = JoinedFixture::new(start);
    let mut sum = RunTotals::default();
    for day in 0..DAYS {
        fixture.now.set(start + DAY * day);
        fixture.is_in_batches = register.chance.bool();
        if day > 0 {
            let leavers = if day + QUIET >= DAYS { 0 } else { register.chance.usize(..4) };
            register.drift(leavers);
        }
        let tags = (day >= TAGS_FROM).then_some(&register.tags);
        let text = csv(&register.people, tags);
        match day {
            // Everybody who has a tag would be updated, until that is allowed.
            TAGS_FROM => {
                stopped(&fixture, &text, &["updates"]).await;
                fixture.max_update = Bound::Share(Percent::whole(100));
                night(&fixture, &register.people, &register.tags, &text).await;
                fixture.max_update = Bound::Share(Percent::whole(30));
            }
            100 => stopped(&fixture, text[..text.len() * 4 / 5].trim_end(), &["shrunk", "cut"]).await,
            200 => stopped(&fixture, &csv(&blanked(&register.people), tags), &["blanked"]).await,
            250 => stopped(&fixture, &csv(&register.people, Some(&Tags::new())), &["blanked"]).await,
            // As many accounts, and none of them is known.
            300 => stopped(&fixture, &text.replace("\nu", "\nother_"), &["shrunk", "canary"]).await,
            _ => {
                let none = Tags::new();
                let done = night(&fixture, &register.people, tags.unwrap_or(&none), &text).await;
                sum = RunTotals {
                    created: sum.created + done.created,
                    updated: sum.updated + done.updated,
                    deleted: sum.deleted + done.deleted,
                    ..sum
                };
            }
        }
        // The scheduler starts it twice: the same file on the same day.
        if day % 50 == 7 {
            fixture.now.set(start + DAY * day + Duration::from_secs(3_600));
            let before = fixture.missing_runs();
            assert_eq!(fixture.night(&text).await.unwrap(), RunTotals::default());
            assert_eq!((fixture.fake.touched(), fixture.missing_runs()), (Vec::new(), before));
        }
    }
    let tags = register.tags.into_iter().filter(|(id, _)| register.people.contains_key(id)).collect();
    assert_eq!((fixture.fake.accounts(), fixture.fake.tags()), (register.people, tags), "seed {seed}");
    println!("{sum:?}");
    assert!(sum.created > u64::from(PEOPLE) && sum.updated > 1_000 && sum.deleted > 100, "{sum:?}");
}

fn blanked(people: &Accounts) -> Accounts {
    people.iter().map(|(id, (nick, _))| (id.clone(), (nick.clone(), String::new()))).collect()
}

async fn night(fixture: &JoinedFixture, people: &Accounts, tags: &Tags, text: &str) -> RunTotals {
    let expected = expected(people, tags, fixture);
    assert!(people.contains_key(CANARY));
    let done = fixture.night(text).await.unwrap();
    let (sent, deleted) = touched(fixture);
    assert_eq!((&sent, &deleted), (&expected.sent, &expected.deleted), "calls are exactly the changes");
    let carried = fixture.fake.carried();
    assert_eq!(carried, expected.carried, "only tags that differ are carried");
    let rows: BTreeSet<&String> = sent.iter().chain(carried.keys()).collect();
    assert_eq!((done.created + done.updated, done.deleted), (rows.len() as u64, deleted.len() as u64));
    assert_eq!(fixture.missing_runs(), expected.missing_runs);
    done
}
