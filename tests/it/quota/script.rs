//! The script alone, as the protocol's page describes it.

use std::time::Duration;

use chatlift::io::quota::SCRIPT;
use redis::{Connection, Value};

use crate::support::passes;
use crate::support::redis_server::RedisServer;

const KEY: &str = "chatlift:{1400000000}:account_import";

/// A call of a process.
#[derive(Clone)]
struct Call<'a> {
    version: &'a str,
    rate: u64,
    process: &'a str,
    number: u64,
    /// The entry that the process has heard of; by default the one that there is.
    entry: Option<&'a str>,
    kept: u64,
    wanted: u64,
    within_ms: u64,
    /// Tenths of requests a second that left, and those that were refused; and how long ago the newest refused one left.
    sent: (u64, u64, i64),
    headroom: u64,
    waits_ms: Vec<u64>,
}

impl Default for Call<'_> {
    fn default() -> Self {
        Self {
            version: "2",
            rate: 6,
            process: "a",
            number: 1,
            entry: None,
            kept: 0,
            wanted: 6,
            within_ms: 2_000,
            sent: (0, 0, -1),
            headroom: 5,
            waits_ms: Vec::new(),
        }
    }
}

/// The answer as text.
fn say(connection: &mut Connection, call: &Call) -> Vec<String> {
    let there: Option<String> = redis::cmd("HGET").arg(KEY).arg(format!("run:{}", call.process)).query(connection).unwrap();
    let entry = there.as_deref().and_then(|run| run.split(' ').nth(4)).unwrap_or("0");
    let mut command = redis::cmd("EVAL");
    command
        .arg(SCRIPT)
        .arg(1)
        .arg(KEY)
        .arg(call.version)
        .arg(call.rate)
        .arg(call.process)
        .arg(call.number)
        .arg(call.entry.unwrap_or(entry));
    let (left, refused, ago_ms) = call.sent;
    command.arg(call.kept).arg(call.wanted).arg(call.within_ms).arg(left).arg(refused).arg(ago_ms).arg(call.headroom).arg(&call.waits_ms);
    let Value::Array(items) = command.query(connection).unwrap() else { panic!("it answers with a list") };
    let text = |item| match item {
        Value::Int(number) => number.to_string(),
        Value::BulkString(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    };
    items.into_iter().map(text).collect()
}

/// Slots kept, granted, the fair share, and the waits of an answer.
fn slots(answer: &[String]) -> (u64, u64, u64, Vec<u64>) {
    assert_eq!(answer[0], "ok", "{answer:?}");
    let number = |text: &String| text.parse().unwrap();
    (number(&answer[2]), number(&answer[3]), number(&answer[4]), answer[11..].iter().map(number).collect())
}

/// A hash whose slots are all free, without the wait for it.
fn open(connection: &mut Connection) {
    say(connection, &Call { process: "opener", wanted: 0, ..Call::default() });
    let now: (u64, u64) = redis::cmd("TIME").query(connection).unwrap();
    let free = vec![(now.0 * 1_000_000 + now.1).to_string(); 6].join(" ");
    redis::cmd("HSET").arg(KEY).arg("free").arg(free).exec(connection).unwrap();
}

#[test]
fn an_unknown_hash_is_closed_for_a_second_and_a_half_and_does_not_stay_for_ever() {
    let Some(server) = RedisServer::start("the script of the quota") else { return };
    let mut connection = server.connection();
    let answer = say(&mut connection, &Call::default());
    let (kept, granted, share, waits) = slots(&answer);
    assert_eq!((kept, granted, share, &answer[7]), (0, 6, 6, &"1500".to_owned()));
    assert_eq!(waits, vec![1_500; 6]);
    let left: i64 = redis::cmd("PTTL").arg(KEY).query(&mut connection).unwrap();
    assert!(left > 0 && left <= 3_600_000, "{left}");
    // After a flush, or with the data of another server, it is the same.
    for trouble in ["flush", "server"] {
        if trouble == "flush" {
            server.flush();
        } else {
            redis::cmd("HSET").arg(KEY).arg("server").arg("another").exec(&mut connection).unwrap();
        }
        let answer = say(&mut connection, &Call { number: 2, kept: 6, ..Call::default() });
        let (kept, granted, _, waits) = slots(&answer);
        assert_eq!((kept, granted, waits), (0, 6, vec![1_500; 6]), "{trouble}");
    }
}

#[test]
fn slots_change_hands_one_second_after_their_use() {
    let Some(server) = RedisServer::start("the script of the quota") else { return };
    let mut connection = server.connection();
    open(&mut connection);
    let (_, granted, share, waits) = slots(&say(&mut connection, &Call::default()));
    assert_eq!((granted, share, waits), (6, 6, vec![0; 6]));
    // A second process finds nothing, and what it wants is known from then on.
    let second = |number, kept| Call { process: "b", number, kept, ..Call::default() };
    assert_eq!(slots(&say(&mut connection, &second(1, 0))).1, 0);
    // Two slots are given back with their waits; of a third one nothing is heard: it counts as used just now.
    let answer = say(&mut connection, &Call { number: 2, kept: 3, waits_ms: vec![400, 0], ..Call::default() });
    assert_eq!(slots(&answer), (3, 0, 3, vec![]));
    // In a cluster of one, the waits of another machine never go below what was said.
    let (_, granted, _, waits) = slots(&say(&mut connection, &second(2, 0)));
    assert_eq!((granted, waits[0]), (3, 0));
    assert!((300..=400).contains(&waits[1]) && (900..=1_008).contains(&waits[2]), "{waits:?}");
    // An earlier call that arrives late changes nothing.
    assert_eq!(say(&mut connection, &Call { number: 1, kept: 6, ..Call::default() }), ["stale"]);
    assert_eq!(slots(&say(&mut connection, &second(3, 3))), (3, 0, 3, vec![]));
    // Only slots that are free soon enough are granted.
    let third = Call { process: "c", within_ms: 100, ..Call::default() };
    assert_eq!(slots(&say(&mut connection, &third)).1, 0);
}

#[test]
fn what_a_process_keeps_from_before_its_entry_is_none_of_the_slots_that_it_has_there() {
    let Some(server) = RedisServer::start("the script of the quota") else { return };
    let mut connection = server.connection();
    let first = say(&mut connection, &Call::default())[1].clone();
    server.flush();
    // The answer that grants six slots of the new hash is lost, and the process still believes in those of the old one.
    let answer = say(&mut connection, &Call { number: 2, entry: Some(&first), kept: 6, ..Call::default() });
    assert_eq!(slots(&answer), (0, 6, 6, vec![1_500; 6]));
    let answer = say(&mut connection, &Call { number: 3, entry: Some(&first), kept: 6, ..Call::default() });
    assert_eq!(slots(&answer).0, 0);
    let second = answer[1].clone();
    assert_ne!(first, second);
    assert_eq!(slots(&say(&mut connection, &Call { number: 4, entry: Some(&second), kept: 6, ..Call::default() })).0, 6);
}

#[test]
fn a_silent_process_loses_its_slots_a_second_and_a_half_after_its_last_word() {
    let Some(server) = RedisServer::start("the script of the quota") else { return };
    let mut connection = server.connection();
    open(&mut connection);
    assert_eq!(slots(&say(&mut connection, &Call::default())).1, 6);
    passes(Duration::from_millis(510));
    let (_, granted, share, waits) = slots(&say(&mut connection, &Call { process: "b", ..Call::default() }));
    assert_eq!((granted, share), (6, 6));
    assert!(waits.iter().all(|wait| (600..=1_000).contains(wait)), "half a second of lease and a second, less what has passed: {waits:?}");
    // It holds nothing any more, whatever it says.
    assert_eq!(slots(&say(&mut connection, &Call { number: 2, kept: 6, ..Call::default() })).0, 0);
}

/// The hash as if the server's clock had been set forward by so much.
fn set_forward(connection: &mut Connection, micros: u64) {
    let mut field = |name: &str, change: &dyn Fn(&str) -> String| {
        let value: String = redis::cmd("HGET").arg(KEY).arg(name).query(connection).unwrap();
        redis::cmd("HSET").arg(KEY).arg(name).arg(change(&value)).exec(connection).unwrap();
    };
    let earlier = |value: &str| (value.parse::<u64>().unwrap() - micros).to_string();
    field("seen_at", &earlier);
    field("run:a", &|run| {
        let words: Vec<&str> = run.split(' ').collect();
        [&[words[0], &earlier(words[1])], &words[2..]].concat().join(" ")
    });
}

#[test]
fn a_clock_that_is_set_forward_frees_nothing_that_another_may_still_use() {
    let Some(server) = RedisServer::start("the script of the quota") else { return };
    let mut connection = server.connection();
    open(&mut connection);
    assert_eq!(slots(&say(&mut connection, &Call::default())).1, 6);
    set_forward(&mut connection, 5_000_000);
    // Who holds slots itself knows when it used them.
    assert_eq!(slots(&say(&mut connection, &Call { number: 2, kept: 6, ..Call::default() })), (6, 0, 6, vec![]));
    set_forward(&mut connection, 1_100_000);
    let answer = say(&mut connection, &Call { process: "b", ..Call::default() });
    assert_eq!((slots(&answer), &answer[7]), ((0, 6, 6, vec![1_500; 6]), &"1500".to_owned()));
}

#[test]
fn a_server_that_is_out_of_memory_grants_nothing_even_if_a_lease_has_ended() {
    let Some(server) = RedisServer::start("the script of the quota") else { return };
    let mut connection = server.connection();
    open(&mut connection);
    say(&mut connection, &Call::default());
    passes(Duration::from_millis(510));
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1").exec(&mut connection).unwrap();
    let before: Vec<String> = redis::cmd("HGETALL").arg(KEY).query(&mut connection).unwrap();
    let words = ["2", "6", "b", "1", "0", "0", "6", "2000", "0", "0", "-1", "5"];
    let refused = redis::cmd("EVAL").arg(SCRIPT).arg(1).arg(KEY).arg(&words).exec(&mut connection).unwrap_err();
    assert!(refused.to_string().contains("OOM"), "{refused}");
    let after: Vec<String> = redis::cmd("HGETALL").arg(KEY).query(&mut connection).unwrap();
    assert_eq!(before.len(), after.len(), "{after:?}");
}

#[test]
fn shares_are_fair_and_what_one_leaves_goes_to_the_others() {
    let Some(server) = RedisServer::start("the script of the quota") else { return };
    let mut connection = server.connection();
    open(&mut connection);
    let mut share = |process, number, wanted| slots(&say(&mut connection, &Call { process, number, wanted, ..Call::default() })).2;
    assert_eq!(share("a", 1, 6), 6);
    assert_eq!(share("b", 1, 1), 1);
    assert_eq!(share("a", 2, 6), 5);
    assert_eq!(share("c", 1, 6), 3);
    assert_eq!((share("a", 3, 6), share("b", 2, 1), share("b", 3, 0)), (2, 1, 0));
    assert_eq!(share("a", 4, 6), 3);
}

#[test]
fn other_versions_and_other_limits_are_refused_with_both_while_anyone_is_at_work() {
    let Some(server) = RedisServer::start("the script of the quota") else { return };
    let mut connection = server.connection();
    open(&mut connection);
    say(&mut connection, &Call::default());
    assert_eq!(say(&mut connection, &Call { version: "3", ..Call::default() }), ["version", "2", "3"]);
    assert_eq!(say(&mut connection, &Call { rate: 7, ..Call::default() }), ["rate", "6", "7"]);
    // Once all have ended, and the last second is over, the hash is anyone's.
    say(&mut connection, &Call { number: 2, wanted: 0, waits_ms: vec![100; 6], ..Call::default() });
    passes(Duration::from_millis(110));
    let (_, granted, _, waits) = slots(&say(&mut connection, &Call { rate: 7, wanted: 7, process: "b", ..Call::default() }));
    assert_eq!((granted, waits), (7, vec![0; 7]));
}

#[test]
fn a_refusal_of_one_caps_the_sum_of_all_and_nobody_below_it() {
    let Some(server) = RedisServer::start("the script of the quota") else { return };
    let mut connection = server.connection();
    let call = |process, number| Call { process, number, rate: 200, wanted: 200, ..Call::default() };
    let told = |answer: &[String]| (answer[8].clone(), answer[9].clone(), answer[10].clone());
    let nothing = ("1008".to_owned(), "0".to_owned(), "0".to_owned());
    assert_eq!(told(&say(&mut connection, &call("a", 1))), nothing);
    // Three have sent 100, 90 and 10 requests in the last second. Of the second one's 80 were refused: 120 got through.
    say(&mut connection, &Call { sent: (1_000, 0, -1), ..call("a", 2) });
    say(&mut connection, &Call { wanted: 10, sent: (100, 0, -1), ..call("small", 1) });
    let answer = say(&mut connection, &Call { sent: (900, 800, 20), ..call("b", 1) });
    assert_eq!(told(&answer), ("1014".to_owned(), "1200".to_owned(), "1152".to_owned()), "96 % of it, by 117 slots");
    // The small one keeps what it wants, and the others share the rest.
    let shares = [say(&mut connection, &call("a", 3)), say(&mut connection, &Call { wanted: 10, ..call("small", 2) }), answer];
    assert_eq!(shares.map(|answer| answer[4].clone()), ["53", "10", "54"]);
    // What left before all had heard of it, and was refused, is the same event.
    let pace = |answer: &[String]| answer[10].clone();
    assert_eq!(pace(&say(&mut connection, &Call { sent: (900, 800, 10), ..call("b", 2) })), "1152");
    // Whoever asks for most headroom gets it at the next one.
    passes(Duration::from_millis(1_300));
    say(&mut connection, &Call { headroom: 20, sent: (400, 0, -1), ..call("a", 4) });
    let answer = say(&mut connection, &Call { sent: (1_000, 300, 10), ..call("b", 3) });
    assert_eq!((answer[9].clone(), pace(&answer)), ("1100".to_owned(), "891".to_owned()), "81 % of 110");
}

#[test]
fn a_pace_that_was_found_is_held_rises_and_is_forgotten() {
    let Some(server) = RedisServer::start("the script of the quota") else { return };
    let mut connection = server.connection();
    let call = |number| Call { number, rate: 200, wanted: 200, ..Call::default() };
    say(&mut connection, &Call { sent: (2_000, 1_000, 10), ..call(1) });
    let mut number = 1;
    let mut after = |connection: &mut Connection, micros: u64| {
        let pace: String = redis::cmd("HGET").arg(KEY).arg("pace").query(connection).unwrap();
        let earlier = |figure: &str| {
            figure.parse::<u64>().ok().filter(|at| *at > 1_000_000_000).map_or(figure.to_owned(), |at| (at - micros).to_string())
        };
        let pace: Vec<String> = pace.split(' ').map(earlier).collect();
        redis::cmd("HSET").arg(KEY).arg("pace").arg(pace.join(" ")).exec(connection).unwrap();
        number += 1;
        say(connection, &call(number))[10].parse::<u64>().unwrap()
    };
    let paces = [0, 4_000_000, 3_300_000, 3_000_000, 5_500_000, 11_000_000].map(|micros| after(&mut connection, micros));
    assert!(paces[0] == 960 && paces[1] == 960, "it is held: {paces:?}");
    assert!((980..1_040).contains(&paces[2]) && (1_080..1_240).contains(&paces[3]), "it rises, and ever faster: {paces:?}");
    assert_eq!(paces[4..], [2_000, 0], "after ten seconds at the limit it is forgotten");
}

#[test]
fn a_call_costs_the_server_well_under_a_millisecond() {
    let Some(server) = RedisServer::start("the script of the quota") else { return };
    let mut connection = server.connection();
    let processes: Vec<String> = (0..10).map(|number| format!("process-{number}")).collect();
    let mut call = |process, number, kept| say(&mut connection, &Call { process, number, kept, rate: 200, wanted: 200, ..Call::default() });
    let mut kept = [0; 10];
    for round in 0..50 {
        for (process, kept) in processes.iter().zip(&mut kept) {
            let (has, granted, share, _) = slots(&call(process, round, *kept));
            *kept = (has + granted).min(share);
        }
    }
    assert_eq!(kept.iter().sum::<u64>(), 200);
    let text: String = redis::cmd("INFO").arg("commandstats").query(&mut server.connection()).unwrap();
    let line = text.lines().find(|line| line.starts_with("cmdstat_eval:")).unwrap();
    let usec: f64 = line.split("usec_per_call=").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    eprintln!("a call costs {usec} µs");
    assert!(usec < 500.0, "{line}");
}
