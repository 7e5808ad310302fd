//! A small night, killed at each of its system calls: those that make things last, and those that send. A random kill rarely hits between
//! the plan and the journal's opening, between an answer and its record, or between the missing file, the state and the checkpoint.
//!
//! Where strace is not to be had, a line on stderr says so. `CHATLIFT_NIGHTS` above its default tries every way out after every call.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicU32, Ordering};

use chatlift::domain::command::Command as Api;
use chatlift::sandbox::{CustomFields, Sandbox, SandboxSettings};

use super::kept::kept;
use super::night::{settings, sync};
use crate::support::ports::is_connected_to;
use crate::support::tools::{skipped, strace};
use crate::support::{CliFixture, Run, eventually};

/// Most calls of a set that are tried; a night has fewer. Chosen.
const CALLS_MAX: u32 = 200;
const LASTING: &str = "fsync,fdatasync,rename,unlink,ftruncate";
const SENDING: &str = "sendto,writev";
const FLAGS: [&str; 6] = ["--missing", "delete", "--missing-runs", "1", "--max-delete", "100%"];

/// Of three files each has three updates, two new ids, and lacks two of the one before; one record is invalid. Of the updates one is about a
/// nickname, one about tags, one about both. One of the three files lacks the second column of tags.
fn file(number: u32, written: u32) -> String {
    let number = number % 3;
    let vip = |value: &str| if number == 2 { String::new() } else { format!(",{value}") };
    let mut text = format!("UserID,Nick,Tag_Profile_IM_Level{},{written}\n", vip("Tag_Profile_Custom_Vip"));
    for id in 0..5 {
        let nick = if id < 2 { format!("{id} in {number}") } else { format!("always {id}") };
        let level = if id == 1 || id == 2 { number + 1 } else { 9 };
        writeln!(text, "u{id},{nick},{level}{},", vip(if id == 2 { ["a", "b", "c"][number as usize] } else { "" })).unwrap();
    }
    let none = vip("");
    text + &format!("@TIM#bad,x,{none},\nx{number},new,5{},\ny{number},new,{none},\n", vip("new"))
}

fn ids(file: &str) -> BTreeSet<String> {
    file.lines().skip(1).filter_map(|line| line.split(',').next()).map(str::to_owned).collect()
}

/// Nicknames and tags by id.
type Accounts = BTreeMap<String, (String, BTreeMap<String, String>)>;

fn accounts_of(file: &str) -> Accounts {
    let mut csv = csv::Reader::from_reader(file.as_bytes());
    let header = csv.headers().unwrap().clone();
    let records = csv.records().map(Result::unwrap).filter(|record| !record[0].starts_with("@TIM#"));
    let account = |record: csv::StringRecord| {
        let tags = header.iter().zip(&record).filter(|(name, cell)| name.starts_with("Tag_") && !cell.is_empty());
        (record[0].to_owned(), (record[1].to_owned(), tags.map(|(name, cell)| (name.to_owned(), cell.to_owned())).collect()))
    };
    records.map(account).collect()
}

/// What the service holds, but for tags that the file says nothing of.
fn held(sandbox: &Sandbox, file: &Accounts) -> Accounts {
    let accounts = sandbox.accounts().into_iter().map(|(id, account)| {
        let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let is_said = |tag: &str| file.get(&id).is_some_and(|(_, tags)| tags.contains_key(tag));
        let tags = account.tags.iter().filter(|(tag, _)| is_said(tag)).map(|(tag, value)| (tag.to_string(), text(value))).collect();
        (id.clone(), (account.nick.unwrap_or_default().into(), tags))
    });
    accounts.collect()
}

/// What the struck process finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Earlier {
    Finished,
    /// A run with another file that has settled some rows.
    Unfinished,
}

/// What the process after the kill is given.
#[derive(Debug, Clone, Copy)]
enum Then {
    TheSame,
    Another,
    /// Yesterday's: all values taken back.
    TheOneBefore,
}

const WAYS: [Then; 3] = [Then::TheSame, Then::Another, Then::TheOneBefore];

struct Place {
    bench: CliFixture,
    sandbox: Sandbox,
    /// Which file the last finished night had.
    at: u32,
    lane: &'static [&'static str],
    earlier: Earlier,
    /// Goes into every file, so that none comes again within its night.
    written: u32,
}

impl Place {
    fn new(lane: &'static [&'static str], earlier: Earlier) -> Self {
        let settings = SandboxSettings { custom_fields: CustomFields::Any, ..settings(&[]) };
        Self { bench: CliFixture::new(), sandbox: Sandbox::start(settings).unwrap(), at: 0, lane, earlier, written: 0 }
    }

    /// The number of the file that is struck.
    fn struck_file(&self) -> u32 {
        self.at + if self.earlier == Earlier::Unfinished { 2 } else { 1 }
    }

    fn is_begun_with_another_file(&mut self, what: &str) {
        self.written += 1;
        self.bench.write("users.csv", file(self.at + 1, self.written));
        let flags = [&FLAGS, self.lane, &["--limit", "4"]].concat();
        let run = sync(&self.bench, &self.sandbox.endpoint(), &flags).run();
        assert!(matches!(run.code, Some(0 | 3)) && run.stderr.contains("the limit is reached"), "{what}: {}", run.stderr);
    }

    /// A process with this file; nobody whom it names is deleted.
    fn process(&self, text: &str, through: Option<(&str, &[&str])>, what: &str) -> Run {
        self.bench.write("users.csv", text);
        let before = self.sandbox.call_log().len();
        let call = sync(&self.bench, &self.sandbox.endpoint(), &[&FLAGS, self.lane].concat());
        let run = if let Some((program, args)) = through { call.through(program, args) } else { call }.run();
        eventually("silence", || !is_connected_to(self.sandbox.address().port()) && self.sandbox.audit().in_flight == 0);
        let named = ids(text);
        for touch in self.sandbox.call_log().into_iter().skip(before) {
            assert!(touch.command != Api::AccountDelete || !named.contains(&touch.user_id), "{what}: {touch:?}");
        }
        run
    }

    fn finishes(&mut self, number: u32, what: &str) {
        let text = file(number, self.written);
        let run = self.process(&text, None, what);
        assert_eq!(run.code, Some(3), "{what}: {}", run.stderr);
        let wanted = accounts_of(&text);
        assert_eq!(held(&self.sandbox, &wanted), wanted, "{what}: {}", run.stderr);
        let kept = kept(&self.bench);
        assert_eq!((kept.is_finished, kept.in_doubt.len()), (true, 0), "{what}: {}", run.stderr);
        let is_said = |id: &String, tag: &String| wanted.get(id).is_some_and(|(_, tags)| tags.contains_key(tag));
        let undecided = kept.tags_in_doubt.iter().find(|(id, tags)| tags.iter().any(|tag| is_said(id, tag)));
        assert_eq!(undecided, None, "{what}: {}", run.stderr);
        assert!(kept.ids.iter().eq(wanted.keys()), "{what}: {kept:?}");
        assert!(self.bench.names().contains("users.rejects.csv"), "{what}");
        self.at = number;
    }

    /// Kills the next night at this call: whether there was one.
    fn struck(&mut self, strace: &str, calls: &str, nth: u32, what: &str) -> bool {
        let trace = self.bench.outside("trace");
        let inject = format!("inject={calls}:signal=SIGKILL:when={nth}");
        let args = ["-D", "-f", "-o", trace.to_str().unwrap(), "-e", &inject];
        if self.earlier == Earlier::Unfinished {
            self.is_begun_with_another_file(what);
        }
        self.written += 1;
        let run = self.process(&file(self.struck_file(), self.written), Some((strace, &args)), what);
        eventually("the end of the trace", || std::fs::read_to_string(&trace).unwrap_or_default().contains("+++ "));
        assert!(run.signal == Some(9) || run.code == Some(3), "{what}: {run:?}");
        run.signal == Some(9)
    }

    fn goes_on(&mut self, then: Then, what: &str) {
        let number = match then {
            Then::TheSame => self.struck_file(),
            Then::Another => 2 * self.at + 3 - self.struck_file(),
            Then::TheOneBefore => self.at,
        };
        self.written += u32::from(!matches!(then, Then::TheSame));
        self.finishes(number, what);
    }
}

/// System calls in strace's words, flags, and what was there before.
type Sweep = (&'static str, &'static [&'static str], Earlier);

/// How many calls of the set a night has.
fn every_call(strace: &str, (calls, lane, earlier): Sweep, is_thorough: bool) -> u32 {
    let (next, most) = (AtomicU32::new(1), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut place = Place::new(lane, earlier);
                place.finishes(0, "the first night");
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    assert!(nth < CALLS_MAX, "{calls} {lane:?}");
                    let ways = if is_thorough { &WAYS[..] } else { &WAYS[nth as usize % 3..=nth as usize % 3] };
                    for then in ways {
                        let what = format!("{calls} {lane:?} {earlier:?}, number {nth}, then {then:?}");
                        if !place.struck(strace, calls, nth, &what) {
                            return;
                        }
                        most.fetch_max(nth, Ordering::Relaxed);
                        place.goes_on(*then, &what);
                    }
                }
            });
        }
    });
    most.into_inner()
}

#[test]
fn a_night_may_be_killed_at_any_of_its_system_calls() {
    let Some(strace) = strace() else {
        return skipped("kills at each system call of a night", "strace is not installed, or may not trace here");
    };
    let strace = strace.to_str().unwrap().to_owned();
    let is_thorough = std::env::var("CHATLIFT_NIGHTS").is_ok();
    let batch: &[&str] = &["--batch", "--skip-online"];
    let usual: [Sweep; 4] = [
        (LASTING, &[], Earlier::Finished),
        (LASTING, &[], Earlier::Unfinished),
        (SENDING, &[], Earlier::Finished),
        (SENDING, batch, Earlier::Finished),
    ];
    let more = [(LASTING, batch, Earlier::Finished), (LASTING, batch, Earlier::Unfinished), (SENDING, batch, Earlier::Unfinished)];
    for sweep in usual.into_iter().chain(more.into_iter().filter(|_| is_thorough)) {
        let count = every_call(&strace, sweep, is_thorough);
        println!("{sweep:?}: {count} calls");
        assert!(count >= if sweep.0 == LASTING { 20 } else { 2 }, "{sweep:?}: {count} calls");
    }
}

#[test]
fn the_first_night_may_be_killed_at_any_of_its_system_calls() {
    let Some(strace) = strace() else {
        return skipped("kills at each system call of a first night", "strace is not installed, or may not trace here");
    };
    let strace = strace.to_str().unwrap().to_owned();
    let is_thorough = std::env::var("CHATLIFT_NIGHTS").is_ok();
    for nth in (1..CALLS_MAX).step_by(if is_thorough { 1 } else { 3 }) {
        let what = format!("first night, number {nth}");
        // The struck night has file 1.
        let mut place = Place::new(&[], Earlier::Finished);
        if !place.struck(&strace, LASTING, nth, &what) {
            assert!(nth > 20, "{nth}");
            return;
        }
        place.goes_on(WAYS[nth as usize / 3 % 3], &what);
    }
}
