//! `import --profile-only` as a run of its own: what it is not taken for, what its hints keep, what it needs, and what a state learns of it.

use chatlift::domain::command::Command as Api;
use chatlift::sandbox::{CustomFields, Sandbox, SandboxSettings};

use crate::support::{Call, CliFixture, KEY, Run};

const ROWS: u64 = 12;

fn sandbox(faults: &[&str]) -> Sandbox {
    let faults = faults.iter().map(|text| text.parse().unwrap()).collect();
    Sandbox::start(SandboxSettings { faults, custom_fields: CustomFields::Any, ..SandboxSettings::with_key(KEY.into()) }).unwrap()
}

fn bench() -> CliFixture {
    let bench = CliFixture::new();
    let rows = (1..=ROWS).map(|row| format!("user{row},nick{row},{row}\n"));
    bench.write("users.csv", "UserID,Nick,Tag_Profile_IM_Level\n".to_owned() + &rows.collect::<String>());
    bench
}

fn import<'a>(bench: &'a CliFixture, sandbox: &Sandbox, flags: &[&str]) -> Call<'a> {
    bench.import_into("users.csv", &sandbox.endpoint()).args(flags)
}

/// Calls of each API so far.
fn calls(sandbox: &Sandbox) -> [u64; 2] {
    let audit = sandbox.audit();
    [Api::AccountImport, Api::PortraitSet].map(|api| audit.of(api).calls)
}

#[test]
fn an_unfinished_run_goes_on_with_its_own_scope_alone() {
    for (first, then, words) in [
        (&["--profile-only"][..], &[][..], "--profile-only was given, now it is not given"),
        (&[], &["--profile-only"], "--profile-only was not given, now it is given"),
    ] {
        let (bench, sandbox) = (bench(), sandbox(&[]));
        bench.write("before.csv", bench.read("users.csv").replace(",nick", ",old"));
        bench.import_into("before.csv", &sandbox.endpoint()).stem("before").run().exits(0);
        import(&bench, &sandbox, &[first, &["--limit", "10"]].concat()).run().exits(0).settles(10);
        let before = calls(&sandbox);
        import(&bench, &sandbox, then).run().exits(2).because(words).hints("--profile-only").settles(10);
        assert_eq!(calls(&sandbox), before, "nothing is sent");
        import(&bench, &sandbox, first).run().exits(0).imports_all(ROWS);
    }
}

#[test]
fn a_finished_run_of_another_scope_stands_for_none() {
    for (first, then, brings) in [(&["--profile-only"][..], &[][..], [ROWS, ROWS]), (&[], &["--profile-only"], [0, ROWS])] {
        let (bench, sandbox) = (bench(), sandbox(&[]));
        import(&bench, &sandbox, first).run().exits(0).imports_all(ROWS);
        let before = calls(&sandbox);
        import(&bench, &sandbox, then).run().exits(0).imports_all(ROWS);
        let after = calls(&sandbox);
        assert_eq!([after[0] - before[0], after[1] - before[1]], brings, "{first:?}, then {then:?}");
        let again = import(&bench, &sandbox, then).run().exits(0).because("finished earlier");
        again.imports_all(ROWS);
        assert_eq!(calls(&sandbox), after);
    }
}

#[test]
fn a_finished_run_from_a_pipe_stands_for_its_own_scope_alone() {
    let (bench, sandbox) = (bench(), sandbox(&[]));
    let text = bench.read("users.csv");
    let from_pipe = |flags: &[&str], text: &str| {
        let call = bench.import_into("-", &sandbox.endpoint()).args(&["--results", "piped.results.csv"]).stem("piped");
        call.args(flags).stdin(text).run()
    };
    from_pipe(&[], &text).exits(0).imports_all(ROWS);
    let before = calls(&sandbox);
    from_pipe(&["--profile-only"], &text).exits(0).imports_all(ROWS);
    assert_eq!(calls(&sandbox), [before[0], before[1] + ROWS]);
}

/// The command that the hint names.
fn hinted(run: &Run) -> String {
    let hint = run.stderr.lines().find(|line| line.starts_with("hint: ")).unwrap_or_default();
    hint.split_once("then ").unwrap_or_default().1.to_owned()
}

#[test]
fn the_command_for_the_rejects_sends_what_the_run_sent_at_its_pace() {
    let rejecting = ["code=40601,api=portrait_set,id=user3,times=1"];
    for flags in [
        &["--profile-only", "--profile-rate", "150"][..],
        &["--batch", "--single-rate", "50", "--profile-rate", "120", "--strict"],
        &["--batch=strict"],
    ] {
        let (bench, sandbox) = (bench(), sandbox(&rejecting));
        let run = import(&bench, &sandbox, flags).run().exits(3).settles(ROWS);
        let command = hinted(&run);
        for flag in flags.join(" ").split(" --").map(|flag| flag.trim_start_matches("--")) {
            assert!(command.contains(&format!(" --{flag}")), "{flag}: {command}");
        }
    }
    let (bench, sandbox) = (bench(), sandbox(&["code=40601,api=portrait_set,id=user3,times=1"]));
    let command = hinted(&import(&bench, &sandbox, &[]).run().exits(3));
    assert!(["profile-only", "batch", "rate ", "strict"].iter().all(|flag| !command.contains(flag)), "{command}");
}

#[test]
fn a_rehearsal_forecasts_the_profiles_and_no_import() {
    let bench = CliFixture::new();
    let rows: Vec<String> = (1..=500).map(|row| format!("user{row},nick{row},{}\n", if row % 2 == 0 { "1" } else { "" })).collect();
    bench.write("users.csv", "UserID,Nick,Tag_Profile_IM_Level\n".to_owned() + &rows.concat());
    for (flags, forecast) in [
        (&[][..], "\nforecast: 250 requests of portrait_set, 2s at 200 a second\n"),
        (&["--profile-rate", "50"], "\nforecast: 250 requests of portrait_set, 5s at 50 a second\n"),
        (&["--batch"], "\nforecast: 250 requests of portrait_set, 2s at 200 a second\n"),
    ] {
        let run = bench.call(&["import", "users.csv", "--profile-only", "--dry-run"]).args(flags).run().exits(0);
        let forecasts = run.stdout.matches("a second").count();
        assert!(run.stdout.contains(forecast) && forecasts == 1 && !run.stdout.contains("in batches"), "{}", run.stdout);
        assert!(run.stdout.contains("profile: 250 rows have cells of tags: Level in 250"), "{}", run.stdout);
    }
}

#[test]
fn profiles_alone_need_a_column_of_profiles() {
    let (bench, sandbox) = (CliFixture::new(), sandbox(&[]));
    for (header, hints) in [
        ("UserID,Nick,vip", &["--profile TAG=COLUMN"][..]),
        ("UserID,sex,tag_profile_im_level", &["--profile TAG=COLUMN", "--profile Gender=sex", "--profile Level=tag_profile_im_level"]),
    ] {
        bench.write("users.csv", format!("{header}\na,1,2\n"));
        let run = import(&bench, &sandbox, &["--profile-only"]).run().exits(2).because("no profile column is read");
        hints.iter().fold(run, |run, hint| run.hints(hint));
        let rehearsal = bench.call(&["import", "users.csv", "--profile-only", "--dry-run"]).run().exits(2);
        rehearsal.because("no profile column is read").hints("--profile TAG=COLUMN");
    }
    assert_eq!(calls(&sandbox), [0, 0]);
    assert!(!bench.path("users.results.csv").exists());
    bench.write("users.csv", "UserID,sex\na,male\n");
    import(&bench, &sandbox, &["--profile-only", "--profile", "Gender=sex"]).run().exits(0).because("done: 1 row imported");
}
