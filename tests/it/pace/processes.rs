//! The limit holds from one process to the next on the same files, as the sandbox counts it.

use std::fs::File;
use std::time::{Duration, Instant, SystemTime};

use chatlift::domain::command::Command as Api;
use chatlift::sandbox::{Sandbox, SandboxSettings};
use rustix::process::Signal;

use crate::support::{CliFixture, KEY, eventually, side_by_side};

/// More rows than all processes together can import.
const ROWS: u64 = 20_000;

/// Attempts at a measurement. Chosen.
const ATTEMPTS: usize = 3;

/// The length of a second when a busy machine's server reads some requests late, by up to a tenth of one. Chosen.
const SECOND_SEEN: Duration = Duration::from_millis(900);

/// How long a process waits after a request of another one. Source: the contract of the pace.
const QUIET: Duration = Duration::from_millis(1_050);

/// The most requests of a killed process that are read only after its end. Chosen: those in flight.
const UNREAD: usize = 32;

fn sandbox() -> Sandbox {
    let settings = SandboxSettings { limit_per_s: None, arrivals_kept: 20_000, ..SandboxSettings::with_key(KEY.to_owned().into()) };
    Sandbox::start(settings).unwrap()
}

/// The arrival times of requests, and how many had arrived when each process ended.
struct Seen {
    arrivals: Vec<Duration>,
    ends: Vec<usize>,
}

/// Starts one process after the other; each is ended by its signal once so many of its calls have arrived.
fn one_after_the_other(flags: &[&str], command: Api, signals: &[(Signal, usize)]) -> Seen {
    let (bench, sandbox) = (CliFixture::with_users(ROWS), sandbox());
    let ends = signals.iter().map(|(signal, calls)| {
        let enough = sandbox.audit().of(command).arrivals.len() + calls;
        let running = bench.import_into("users.csv", &sandbox.endpoint()).soon_after().args(flags).start();
        eventually("enough calls", || sandbox.audit().of(command).arrivals.len() >= enough);
        running.signal(*signal);
        running.wait();
        sandbox.audit().of(command).arrivals.len()
    });
    let ends = ends.collect();
    Seen { arrivals: sandbox.audit().of(command).arrivals.clone(), ends }
}

/// Each process must wait for its second, and none may exceed the limit.
#[track_caller]
fn check(flags: &[&str], command: Api, signals: &[(Signal, usize)], limit: usize) {
    let Seen { arrivals, ends } = one_after_the_other(flags, command, signals);
    let case = format!("{flags:?}, {signals:?}, after each process {ends:?} calls");
    assert!(ends.last().is_some_and(|calls| *calls > limit), "{case}: that is too few to judge");
    for end in ends.iter().copied().filter(|end| *end > 0 && *end < arrivals.len()) {
        let around = &arrivals[end - 1..arrivals.len().min(end + UNREAD)];
        let quiet = around.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap();
        assert!(quiet >= SECOND_SEEN, "{case}: only {quiet:?} without a call at call {end}");
    }
    let too_many = arrivals.windows(limit + 1).find(|calls| calls[limit] < calls[0] + SECOND_SEEN);
    assert!(too_many.is_none(), "{case}: one more than {limit} from {:?} on", too_many.map(|calls| calls[0]));
}

#[test]
fn the_limit_holds_over_kills_and_stops() {
    // In hundredths of what the limit allows in a second.
    let kills = [(Signal::KILL, 110), (Signal::KILL, 5), (Signal::KILL, 60), (Signal::KILL, 25)];
    let mixed = [(Signal::KILL, 25), (Signal::TERM, 110), (Signal::INT, 15), (Signal::KILL, 60)];
    let single = (&["--rate", "200"][..], Api::AccountImport, 200);
    let batches = (&["--rate", "20", "--batch=strict"][..], Api::MultiaccountImport, 20);
    side_by_side([(single, kills), (single, mixed), (batches, mixed)], |((flags, command, limit), signals)| {
        check(flags, command, &signals.map(|(signal, hundredths)| (signal, limit * hundredths / 100)), limit);
    });
}

/// Makes the lock file say at any time that a request leaves just now: a time in the future counts as now.
fn let_calls_leave_now(bench: &CliFixture) {
    let lock = File::options().write(true).open(bench.path("users.checkpoint.json.lock")).unwrap();
    lock.set_modified(SystemTime::now() + Duration::from_secs(3_600)).unwrap();
}

#[test]
fn a_finished_run_does_not_wait() {
    let (bench, sandbox) = (CliFixture::with_users(3), sandbox());
    let import = || bench.import_into("users.csv", &sandbox.endpoint()).soon_after();
    import().run().exits(0);
    // A busy machine may take a second to start a process, but not each time. A process that waits takes it each time, as the last one
    // shows.
    let took = [(); ATTEMPTS].map(|()| {
        let_calls_leave_now(&bench);
        let began = Instant::now();
        let run = import().run().exits(0);
        assert!(run.stderr.contains("finished earlier"), "{}", run.stderr);
        began.elapsed()
    });
    assert!(took.iter().any(|took| *took < SECOND_SEEN), "{took:?}");
    assert_eq!(sandbox.audit().of(Api::AccountImport).arrivals.len(), 3, "a finished run calls nobody");
    let_calls_leave_now(&bench);
    let began = Instant::now();
    import().args(&["--restart"]).run().exits(0);
    let took = began.elapsed();
    assert!(took >= QUIET, "a run that has something to call for waits: {took:?}");
}

#[test]
fn the_lock_file_has_the_time_of_the_last_request() {
    let (bench, sandbox) = (CliFixture::with_users(150), sandbox());
    bench.import_into("users.csv", &sandbox.endpoint()).args(&["--rate", "100"]).run().exits(0);
    let results = std::fs::metadata(bench.path("users.results.csv")).unwrap().modified().unwrap();
    let lock = std::fs::metadata(bench.path("users.checkpoint.json.lock")).unwrap().modified().unwrap();
    let apart = results.duration_since(lock).unwrap_or_else(|error| error.duration());
    assert!(apart < Duration::from_millis(900), "the last call left {apart:?} before the last line was written");
}
