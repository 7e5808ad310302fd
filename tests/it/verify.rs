//! The verification through the real binary and the stand-in: what it finds, what it writes, how it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::time::Duration;

use chatlift::domain::command::Command as Api;
use chatlift::sandbox::{CustomFields, Sandbox, SandboxSettings};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Call, CliFixture, KEY, Run, SDKAPPID, eventually, side_by_side};

fn settings(faults: &[&str]) -> SandboxSettings {
    let faults = faults.iter().map(|text| text.parse().unwrap()).collect();
    SandboxSettings { faults, limit_per_s: None, ..SandboxSettings::with_key(KEY.into()) }
}

/// However slow the machine is, no call is made again for want of an answer.
fn verify<'a>(bench: &'a CliFixture, sandbox: &Sandbox, flags: &[&str]) -> Call<'a> {
    let key = bench.key();
    let call = bench.call(&["verify", "users.csv", "--endpoint", &sandbox.endpoint(), "--sdkappid", SDKAPPID, "--timeout", "100"]);
    call.args(&["--secret-key-file", key.to_str().unwrap(), "--no-progress", "--rate", "0"]).args(flags)
}

/// Imports another file than the one that is verified.
fn import(bench: &CliFixture, sandbox: &Sandbox, text: &str) {
    bench.write("imported.csv", text);
    bench.import_into("imported.csv", &sandbox.endpoint()).at_any_rate().run();
    for name in bench.names().iter().filter(|name| name.starts_with("imported") || name.starts_with("summary")) {
        fs::remove_file(bench.path(name)).unwrap();
    }
}

/// The results without their header, as `row line id state detail`.
fn found(bench: &CliFixture) -> Vec<String> {
    let text = bench.read("users.verify.csv");
    assert!(text.starts_with("row,line,UserID,state,detail\n"), "{text}");
    text.lines().skip(1).map(str::to_owned).collect()
}

fn figures(bench: &CliFixture) -> [u64; 6] {
    let summary: Value = serde_json::from_str(&bench.read("summary.json")).unwrap();
    ["same", "missing", "differs", "unknown", "invalid", "not_asked"].map(|name| summary[name].as_u64().unwrap())
}

#[track_caller]
fn is_well_behaved(sandbox: &Sandbox) {
    let audit = sandbox.audit();
    assert_eq!(
        (audit.violations, audit.of(Api::AccountDelete).calls, audit.of(Api::Kick).calls),
        (0, 0, 0),
        "{:?}",
        audit.first_violations
    );
}

const SUMMARY: [&str; 2] = ["--summary", "summary.json"];

#[test]
fn every_state_is_found_and_what_can_be_repaired_is() {
    let bench = CliFixture::new();
    let sandbox = Sandbox::start(settings(&[])).unwrap();
    import(&bench, &sandbox, "UserID,Nick,FaceUrl\nsame,S,f\nother,Old,old\nface,F,old\nempty,E,e\nlast,1,\ngone bad,,\n");
    let text = "city,UserID,Nick,FaceUrl\nA,same,S,f\nB,other,\"N, \"\"w\",new\nC,face,F,new\nD,empty,,\nE,last,2,\nF,missing,M,\nG, xy,,\n\
                H,last,1,\nI,same,S,f,more\nJ,same,S,f\nK,other2,1,\nK,other2,\0,\n";
    bench.write("users.csv", text);
    let run = verify(&bench, &sandbox, &["--profiles"]).args(&SUMMARY).run().exits(3);
    assert!(run.why().contains("3 of 8 UserIDs are the same, 1 missing, 2 different, 0 unknown, 2 invalid"), "{}", run.why());
    let expected = [
        "2,3,other,differs,Nick FaceUrl",
        "3,4,face,differs,FaceUrl",
        "4,5,empty,same,",
        "6,7,missing,missing,",
        "7,8, xy,invalid,UserID starts or ends with white space (U+0020)",
        "8,9,last,same,",
        "10,11,same,same,",
        "12,13,other2,invalid,Nick holds a NUL character (U+0000)",
    ];
    assert_eq!(found(&bench), expected);
    assert_eq!(figures(&bench), [3, 1, 2, 0, 2, 0]);
    let repair = "city,UserID,Nick,FaceUrl\nB,other,\"N, \"\"w\",new\nC,face,F,new\nF,missing,M,\n";
    assert_eq!(bench.read("users.repair.csv"), repair);
    assert_eq!((bench.mode("users.verify.csv"), bench.mode("users.repair.csv")), (0o600, 0o600));
    is_well_behaved(&sandbox);
    // Importing the repair file puts all right that can be.
    import(&bench, &sandbox, &bench.read("users.repair.csv"));
    bench.write(
        "users.csv",
        text.lines().filter(|line| !line.contains(" xy") && !line.contains("other2")).fold(String::new(), |all, line| all + line + "\n"),
    );
    let run = verify(&bench, &sandbox, &["--profiles"]).args(&SUMMARY).run().exits(0);
    assert!(run.why().contains("all 6 UserIDs are the same"), "{}", run.why());
    assert_eq!(bench.names().into_iter().collect::<Vec<_>>(), ["summary.json", "users.csv", "users.verify.csv"], "no repair file is left");
}

/// A column of the random files, with cells and what they become.
type RandomColumn = (&'static str, fn(u8) -> String);

const RANDOM_COLUMNS: [RandomColumn; 6] = [
    ("Nick", |value| format!("Nick, {value}")),
    ("Tag_Profile_IM_Gender", |value| ["male", "female", "unknown"][usize::from(value % 3)].to_owned()),
    ("Tag_Profile_IM_BirthDay", |value| format!("2001-{:02}-{:02}", 1 + value % 12, 1 + value % 28)),
    ("Tag_Profile_IM_Level", |value| value.to_string()),
    ("Tag_Profile_IM_SelfSignature", |value| format!("行到水穷处 \"{value}\"")),
    ("Tag_Profile_Custom_Vip", |value| format!("v{value}")),
];

/// What the finding says of a column.
fn short_name(column: &str) -> String {
    column.replace("Tag_Profile_IM_", "").replace("Tag_Profile_Custom_", "Custom.")
}

/// A file of random ids and cells, one column fewer or more each time; some ids come twice.
fn random_rows(random: &mut fastrand::Rng, columns: &[RandomColumn]) -> Vec<(u32, Vec<String>)> {
    let mut row = |id: u32| {
        let cell = |(_, cell): &RandomColumn| if random.u8(..4) == 0 { String::new() } else { cell(random.u8(..4)) };
        (id, columns.iter().map(cell).collect())
    };
    let mut rows: Vec<(u32, Vec<String>)> = (1..=250).map(&mut row).collect();
    rows.extend((1..=250).filter(|id| id % 9 == 0).map(&mut row));
    rows
}

fn random_file(columns: &[RandomColumn], rows: &[(u32, Vec<String>)]) -> String {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(["UserID"].into_iter().chain(columns.iter().map(|(name, _)| *name))).unwrap();
    for (id, cells) in rows {
        csv.write_record([format!("u{id}")].iter().chain(cells)).unwrap();
    }
    String::from_utf8(csv.into_inner().unwrap()).unwrap()
}

#[test]
fn of_random_profiles_exactly_the_fields_that_differ_are_found_doubted_and_sent() {
    let seed = std::env::var("CHATLIFT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("CHATLIFT_SEED={seed}");
    side_by_side(0..8, |case| {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(case));
        let columns: Vec<RandomColumn> = RANDOM_COLUMNS.into_iter().filter(|(name, _)| *name == "Nick" || random.u8(..4) > 0).collect();
        let (bench, settings) = (CliFixture::new(), SandboxSettings { custom_fields: CustomFields::Any, ..settings(&[]) });
        let sandbox = Sandbox::start(SandboxSettings { portrait_set_per_s: None, call_log_kept: 10_000, ..settings }).unwrap();
        let key = bench.key().to_str().unwrap().to_owned();
        let connection =
            ["--endpoint", &sandbox.endpoint(), "--sdkappid", SDKAPPID, "--secret-key-file", &key, "--rate", "0", "--profile-rate", "0"];
        let sync = |name: &str| {
            bench
                .call(&["sync", "users.csv", "--state", name, "--results", "night.csv", "--max-update", "100%"])
                .args(&connection)
                .run()
                .exits(0)
        };
        // The state knows this file; then the service is told another one behind its back.
        let rows = random_rows(&mut random, &columns);
        bench.write("users.csv", random_file(&columns, &rows));
        sync("users.state");
        let others = random_rows(&mut random, &columns);
        bench.write("users.csv", random_file(&columns, &others));
        sync("other.state");
        bench.write("users.csv", random_file(&columns, &rows));
        let differing = differing(&columns, &rows, &others);
        verify(&bench, &sandbox, &["--profiles", "--state", "users.state"]).args(&SUMMARY).run().exits(3);
        assert_eq!(told_to_differ(&bench), differing, "case {case}");
        // The state was wrong about these alone, and sends just them.
        let before = sandbox.call_log().len();
        sync("users.state").because(&format!("{} updated", differing.len()));
        let call_log = sandbox.call_log();
        let called = |api| -> BTreeSet<u32> {
            call_log[before..].iter().filter(|entry| entry.command == api).map(|entry| entry.user_id[1..].parse().unwrap()).collect()
        };
        let due = |is_due: fn(&String) -> bool| -> BTreeSet<u32> {
            differing.iter().filter(|(_, fields)| fields.iter().any(is_due)).map(|(id, _)| *id).collect()
        };
        assert_eq!(called(Api::AccountImport), due(|field| field == "Nick"), "case {case}");
        assert_eq!(called(Api::PortraitSet), due(|field| field != "Nick"), "case {case}");
        verify(&bench, &sandbox, &["--profiles"]).run().exits(0);
    });
}

fn last_of_each(rows: &[(u32, Vec<String>)]) -> BTreeMap<u32, Vec<String>> {
    rows.iter().cloned().collect()
}

/// The fields of each id that the service has otherwise than `rows` ask for, once it was told them and then `others`. An empty cell clears
/// nothing.
fn differing(columns: &[RandomColumn], rows: &[(u32, Vec<String>)], others: &[(u32, Vec<String>)]) -> BTreeMap<u32, BTreeSet<String>> {
    let mut held: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (id, cells) in last_of_each(rows).into_iter().chain(last_of_each(others)) {
        let held = held.entry(id).or_insert_with(|| vec![String::new(); columns.len()]);
        held.iter_mut().zip(cells).filter(|(_, cell)| !cell.is_empty()).for_each(|(held, cell)| held.clone_from(&cell));
    }
    let of_id = |(id, cells): (u32, Vec<String>)| {
        let differs = columns.iter().zip(&cells).zip(&held[&id]).filter(|((_, cell), held)| !cell.is_empty() && cell != held);
        (id, differs.map(|(((name, _), _), _)| short_name(name)).collect())
    };
    last_of_each(rows).into_iter().map(of_id).filter(|(_, fields): &(u32, BTreeSet<String>)| !fields.is_empty()).collect()
}

/// The ids that the verification found to differ, with their fields.
fn told_to_differ(bench: &CliFixture) -> BTreeMap<u32, BTreeSet<String>> {
    let found = bench.read("users.verify.csv");
    let mut found = csv::Reader::from_reader(found.as_bytes());
    let differing = found.records().map(Result::unwrap).filter(|record| &record[3] == "differs");
    differing.map(|record| (record[2][1..].parse().unwrap(), record[4].split(' ').map(str::to_owned).collect())).collect()
}

#[test]
fn without_profiles_only_accounts_are_compared() {
    let bench = CliFixture::with_users(950);
    let sandbox = Sandbox::start(settings(&[])).unwrap();
    import(&bench, &sandbox, &bench.read("users.csv").replace(",Nick", ",Other").replacen("UserID,Other", "UserID,Nick", 1));
    verify(&bench, &sandbox, &[]).args(&SUMMARY).run().exits(0);
    assert_eq!(figures(&bench), [950, 0, 0, 0, 0, 0]);
    assert_eq!((sandbox.audit().of(Api::AccountCheck).calls, sandbox.audit().of(Api::PortraitGet).calls), (10, 0));
    verify(&bench, &sandbox, &["--profiles"]).args(&SUMMARY).run().exits(3);
    assert_eq!(figures(&bench), [0, 0, 950, 0, 0, 0]);
    assert_eq!((sandbox.audit().of(Api::AccountCheck).calls, sandbox.audit().of(Api::PortraitGet).calls), (20, 10));
    is_well_behaved(&sandbox);
}

#[test]
fn an_id_that_cannot_be_asked_is_unknown_and_its_neighbours_are_not() {
    let bench = CliFixture::with_users(350);
    let faults =
        ["whole=40003,id=user7,api=account_check", "whole=70402,id=user250,api=portrait_get", "whole=70500,id=user120,api=portrait_get"];
    let sandbox = Sandbox::start(settings(&faults)).unwrap();
    import(&bench, &sandbox, &bench.read("users.csv"));
    let run = verify(&bench, &sandbox, &["--profiles", "--max-attempts", "2"]).args(&SUMMARY).run().exits(3);
    assert!(run.why().contains("347 of 350 UserIDs are the same, 0 missing, 0 different, 3 unknown"), "{}", run.why());
    let unknown: Vec<_> = found(&bench).into_iter().filter(|line| !line.ends_with(",same,")).collect();
    assert_eq!(
        unknown,
        [
            "7,8,user7,unknown,account_check: code 40003: a fault on request",
            "120,121,user120,unknown,out of attempts; portrait_get: code 70500: a fault on request",
            "250,251,user250,unknown,portrait_get: code 70402: a fault on request",
        ]
    );
    assert!(!bench.names().contains("users.repair.csv"), "nobody is imported anew because he couldn't be asked");
}

#[test]
fn an_outage_stops_the_run_and_makes_no_id_missing_or_unknown() {
    // One API alone that is down while account_check is well is no outage to the test of a suspicion: its ids become unknown after two minutes.
    side_by_side(["http=502", "reset=before,after=5"], |fault| {
        let bench = CliFixture::with_users(2_000);
        let sandbox = Sandbox::start(settings(&[])).unwrap();
        import(&bench, &sandbox, &bench.read("users.csv"));
        let accounts: Vec<_> = sandbox.accounts();
        let down = Sandbox::start(settings(&[fault])).unwrap();
        assert_eq!(accounts.len(), 2_000);
        let run = verify(&bench, &down, &["--profiles", "--max-outage", "1s", "--in-flight", "4"]).args(&SUMMARY).run().exits(4);
        assert!(run.why().contains("--max-outage"), "{fault}: {}", run.why());
        let [same, missing, differs, unknown, invalid, not_asked] = figures(&bench);
        // The one that is down holds no accounts: what it answered before is missing there.
        assert_eq!((same + differs + unknown + invalid, missing + not_asked), (0, 2_000), "{fault}");
        assert_eq!(found(&bench).len() as u64, missing);
    });
}

#[test]
fn a_sample_of_nobody_is_refused() {
    let bench = CliFixture::with_users(3);
    let run = bench.call(&["verify", "users.csv", "--sandbox", "--sample", "0"]).run().exits(2);
    assert!(run.stderr.contains("--sample"), "{}", run.stderr);
    assert_eq!(bench.names().len(), 1, "{:?}", bench.names());
}

#[test]
fn a_sample_is_drawn_again_with_its_seed() {
    let bench = CliFixture::with_users(1_000);
    bench.write("users.csv", bench.read("users.csv") + " xy,\n");
    let sandbox = Sandbox::start(settings(&[])).unwrap();
    import(&bench, &sandbox, &bench.read("users.csv"));
    let draw = |flags: &[&str]| {
        verify(&bench, &sandbox, &["--sample", "50"]).args(flags).args(&SUMMARY).run().exits(3);
        assert_eq!(figures(&bench), [50, 0, 0, 0, 1, 950]);
        let summary: Value = serde_json::from_str(&bench.read("summary.json")).unwrap();
        (found(&bench), summary["seed"].as_u64().unwrap())
    };
    let (first, seed) = draw(&[]);
    let (again, same_seed) = draw(&["--seed", &seed.to_string()]);
    assert_eq!((&first, seed), (&again, same_seed));
    let (other, _) = draw(&["--seed", &(seed ^ 1).to_string()]);
    assert_ne!(first, other);
    assert_eq!(verify(&bench, &sandbox, &["--seed", "1"]).run().code, Some(2));
}

#[test]
fn both_apis_keep_their_limits_and_a_rate_lowers_them() {
    let cases: [(&[&str], _, _, _); 3] =
        [(&[], 100, 200, 20_000), (&["--rate", "150"], 100, 150, 20_000), (&["--rate", "60", "--sample", "10000"], 60, 60, 10_000)];
    side_by_side(cases, |(flags, check_max, read_max, asked)| {
        let bench = CliFixture::with_users(20_000);
        let sandbox = Sandbox::start(SandboxSettings::with_key(KEY.into())).unwrap();
        let key = bench.key();
        let call =
            bench.call(&["verify", "users.csv", "--endpoint", &sandbox.endpoint(), "--sdkappid", SDKAPPID, "--no-progress", "--profiles"]);
        call.args(&["--secret-key-file", key.to_str().unwrap()]).args(&SUMMARY).args(flags).run().exits(3);
        let summary: Value = serde_json::from_str(&bench.read("summary.json")).unwrap();
        let [check, read] = ["account_check", "portrait_get"].map(|api| summary["apis"][api]["max_calls_in_1s"].as_u64().unwrap());
        assert!(check <= check_max && read <= read_max, "{flags:?}: {check} {read}");
        assert_eq!(figures(&bench), [0, asked, 0, 0, 0, 20_000 - asked], "{flags:?}");
    });
}

#[test]
fn a_signal_stops_it_and_the_results_hold_what_was_found() {
    let bench = CliFixture::with_users(5_000);
    let sandbox = Sandbox::start(SandboxSettings { latency: Duration::from_millis(100), ..settings(&[]) }).unwrap();
    let running = verify(&bench, &sandbox, &["--in-flight", "1"]).args(&SUMMARY).start();
    eventually("some calls", || sandbox.audit().calls >= 5);
    running.signal(Signal::TERM);
    let run = running.wait().exits(4);
    let [_, missing, _, unknown, _, not_asked] = figures(&bench);
    assert_eq!((missing + not_asked, unknown, missing), (5_000, 0, sandbox.audit().calls * 100), "{}", run.stderr);
    assert_eq!((found(&bench).len() as u64, bench.read("users.repair.csv").lines().count() as u64), (missing, missing + 1));
}

/// They would write the same files. The first one goes on as if nothing had happened.
#[test]
fn one_verification_at_a_time_writes_a_file_of_results() {
    let bench = CliFixture::with_users(3_000);
    let sandbox = Sandbox::start(SandboxSettings { latency: Duration::from_millis(300), ..settings(&[]) }).unwrap();
    let running = verify(&bench, &sandbox, &["--in-flight", "1"]).start();
    eventually("a request", || sandbox.audit().calls >= 1);
    let pid = format!("process {} is at work", running.id());
    for shared in [&[][..], &["--repair", "other.csv"]] {
        verify(&bench, &sandbox, shared).run().exits(4).because("another process is writing it").hints(&pid);
    }
    running.signal(Signal::TERM);
    running.wait().exits(4).because("a signal came");
    assert!(found(&bench).len() >= 100, "the results have what was found by then");
    assert!(!bench.names().iter().any(|name| name.contains(".tmp")), "{:?}", bench.names());
}

#[test]
fn what_is_wrong_is_said_before_a_call() {
    let bench = CliFixture::with_users(3);
    let sandbox = Sandbox::start(settings(&[])).unwrap();
    let refused = |flags: &[&str], why: &str| {
        let run = verify(&bench, &sandbox, flags).run().exits(2);
        assert!(run.stderr.contains(why), "{}", run.stderr);
    };
    refused(&["--results", "users.csv"], "named for two files at once");
    refused(&["--results", "x.csv", "--repair", "x.csv"], "named for two files at once");
    refused(&["--results", "/dev/null"], "is a device, not a file");
    refused(&["--summary", "nowhere/x.json"], "no folder");
    refused(&["--results", "nowhere/x.csv"], "cannot write");
    bench.write("users.csv", "id\na\n");
    refused(&[], "no column");
    bench.write("users.csv", "UserID\na\n\"b\n");
    refused(&[], "is not closed");
    bench.write("users.csv", "UserID,NickName\na,Ann\n");
    refused(&["--profiles"], "--profiles has nothing to compare");
    bench.write("users.csv", "UserID,Nick,FaceUrl\na,,\nb,,\n");
    refused(&["--profiles"], "--profiles has nothing to compare");
    assert_eq!(sandbox.audit().calls, 0);
    assert_eq!(bench.names().into_iter().collect::<Vec<_>>(), ["users.csv"], "nothing is left behind");
    bench.call(&["verify", "-", "--sandbox"]).run().exits(2);
}

#[test]
fn a_refusal_of_the_service_is_exit_5_and_a_full_disk_1() {
    let bench = CliFixture::with_users(300);
    let sandbox = Sandbox::start(settings(&["whole=70403"])).unwrap();
    verify(&bench, &sandbox, &[]).args(&SUMMARY).run().exits(5);
    assert_eq!(figures(&bench), [0, 0, 0, 0, 0, 300]);
    // A verification never resumes, whatever an import would do after the same.
    let sandbox = Sandbox::start(settings(&["whole=77777"])).unwrap();
    let unknown = verify(&bench, &sandbox, &["--max-attempts", "3"]).run().exits(5).hints("begins anew");
    assert!(!unknown.stderr.contains("resumes"), "{}", unknown.stderr);
    let sandbox = Sandbox::start(settings(&[])).unwrap();
    let limited = verify(&bench, &sandbox, &["--results", "full.csv"]).through_shell("ulimit -f 1; trap '' XFSZ").run();
    assert!(limited.code == Some(1) && !limited.stderr.contains("resumes"), "{:?} {}", limited.code, limited.stderr);
    assert!(!bench.names().contains("full.csv"));
}

#[test]
fn a_sandbox_without_accounts_misses_all_and_nothing_to_ask_is_refused() {
    let bench = CliFixture::with_users(250);
    bench.call(&["verify", "users.csv", "--sandbox", "--profiles", "--no-progress"]).args(&SUMMARY).run().exits(3);
    assert_eq!(figures(&bench), [0, 250, 0, 0, 0, 0]);
    assert_eq!(bench.read("users.repair.csv"), bench.read("users.csv"));
    bench.write("users.csv", "UserID\n");
    bench.call(&["verify", "users.csv", "--sandbox", "--no-progress"]).run().exits(2).because("no rows");
}

/// Nothing is asked about ids that a later record supersedes, and memory doesn't grow with the file.
#[test]
fn three_hundred_thousand_rows_are_verified_in_flat_memory() {
    const MEMORY_MAX_KIB: u64 = 128 * 1024;
    let bench = CliFixture::new();
    let mut text = "UserID,Nick,FaceUrl\n".to_owned();
    for row in 0..300_000 {
        writeln!(text, "a_rather_long_user_id_{},Nickname {row},https://example.com/{row}.png", row % 200_000).unwrap();
    }
    bench.write("users.csv", text);
    let sandbox = Sandbox::start(settings(&[])).unwrap();
    let (run, peak_kib) = verify(&bench, &sandbox, &["--profiles"]).args(&SUMMARY).start().wait_with_peak();
    let run: Run = run.exits(3);
    assert_eq!(figures(&bench), [0, 200_000, 0, 0, 0, 0], "{}", run.stderr);
    assert_eq!(found(&bench)[0], "100001,100002,a_rather_long_user_id_100000,missing,");
    assert_eq!(sandbox.audit().of(Api::AccountCheck).calls, 2_000, "{}", run.stderr);
    println!("{peak_kib} KiB");
    assert!((1_000..=MEMORY_MAX_KIB).contains(&peak_kib), "{peak_kib} KiB");
}
