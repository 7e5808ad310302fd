//! The needs of a run from the machine: open files, permissions, kinds of files, names, a network.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::ports::unused_port;
use crate::support::server::{Server, imported};
use crate::support::{Call, CliFixture, KEY, SDKAPPID, eventually, side_by_side, users, write_a_minute_ago};

/// A command without the fixture's own limit of requests in flight.
fn many_in_flight<'a>(bench: &'a CliFixture, server: &'a Server) -> Call<'a> {
    bench.import(server).at_any_rate().usually(&["--in-flight=256", "--timeout=5"])
}

/// The number of files that processes inherit from this test (such as a lock of its parent) and that count below the limits of these tests.
fn inherited() -> usize {
    let listed = Command::new("ls").arg("/proc/self/fd").output().unwrap();
    let numbers = String::from_utf8(listed.stdout).unwrap();
    // Standard input, output, error, and the list itself are not counted.
    numbers.lines().filter(|number| number.parse::<u32>().unwrap() < 20).count() - 4
}

#[test]
fn files_that_were_open_before_are_counted() {
    for more in [0, 1, 4] {
        let bench = CliFixture::with_users(300);
        let server = Server::new(|_| imported());
        let opened = (3..10).rev().take(more).fold(String::new(), |text, number| text + &format!("exec {number}</dev/null; "));
        let call = |limit: usize| many_in_flight(&bench, &server).through_shell(&format!("{opened}ulimit -n {}", limit + inherited()));
        call(20 + more - 1).run().exits(2).because("may open").hints("ulimit -n");
        assert_eq!((bench.contents_but_summary().len(), server.connections()), (1, 0), "{more}: nothing is begun");
        call(20 + more).run().exits(0).imports_all(300);
    }
}

#[test]
fn few_open_files_make_few_calls_in_flight_and_are_no_outage() {
    let least = format!("ulimit -n {}", 20 + inherited());
    side_by_side(["ulimit -n 64", "ulimit -Sn 64; ulimit -Hn 64", "ulimit -n 32", &least], |limits| {
        let bench = CliFixture::with_users(400);
        let server = Server::new(|_| imported().after(Duration::from_millis(5)));
        let run = many_in_flight(&bench, &server).args(&["--in-flight", "256"]).through_shell(limits).run().exits(0).imports_all(400);
        assert!(run.stderr.contains("in flight"), "{limits}: it is said: {}", run.stderr);
        assert!(!run.stderr.contains("the service is down"), "{limits}: {}", run.stderr);
        assert_eq!(run.attempts(), [1; 400], "{limits}");
    });
}

#[test]
fn a_limit_of_open_files_that_can_be_raised_is_raised() {
    let bench = CliFixture::with_users(600);
    let server = Server::new(|_| imported().after(Duration::from_millis(5)));
    let run = many_in_flight(&bench, &server).args(&["--in-flight", "256"]).through_shell("ulimit -Sn 32").run().exits(0).imports_all(600);
    assert!(!run.stderr.contains("may open"), "{}", run.stderr);
}

#[test]
fn a_sync_and_a_verification_get_on_with_few_open_files_too() {
    let least = format!("ulimit -n {}", 32 + inherited());
    for limits in ["ulimit -n 64", &least] {
        let bench = CliFixture::with_users(300);
        let args = ["--sandbox", "--rate", "0", "--state", "s.db"];
        bench.call(&["sync", "users.csv"]).args(&args).through_shell(limits).run().exits(0);
        let verify = bench.call(&["verify", "users.csv", "--sandbox", "--rate", "0"]).through_shell(limits).run().exits(3);
        assert!(verify.why().contains("300 missing"), "{limits}: {}", verify.stderr);
    }
}

#[test]
fn too_few_open_files_for_any_request_are_reported() {
    let server = Server::new(|_| imported());
    let mut reported = 0;
    for limit in 5..20 {
        let bench = CliFixture::with_users(3);
        let run = many_in_flight(&bench, &server).through_shell(&format!("ulimit -n {limit}")).run();
        match run.code {
            Some(0) => {}
            Some(2) => {
                let run = run.exits(2).hints("ulimit -n");
                assert!(!run.stderr.contains("make room"), "{}", run.stderr);
                reported += 1;
            }
            // The dynamic linker can't open its libraries.
            _ => assert!(run.code == Some(127), "{limit}: {run:?}"),
        }
    }
    println!("{reported} limits were reported");
}

/// Copies the binary to where every user may run it.
fn copy_binary(folder: &Path) {
    let program = folder.join("chatlift");
    // It is copied by a process of its own, because a program cannot be run while this process, or one that another test is just starting,
    // has it open for writing.
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_chatlift")).arg(&program).status().unwrap().success());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs the copy in the folder as a user without special rights: as nobody, if the test runs as root.
fn as_ordinary_user(folder: &Path, args: &[&str]) -> (i32, String) {
    const NOBODY: u32 = 65_534;
    let mut command = Command::new(folder.join("chatlift"));
    command.args(args).env_clear().current_dir(folder).stdin(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
}

/// A folder of which another user may read only some files, with a copy of the binary.
struct ForeignFolder {
    folder: TempDir,
    /// The test may make files of root's, or only take its own rights away.
    is_root: bool,
}

impl ForeignFolder {
    fn new() -> Self {
        let fixture = Self { folder: tempfile::tempdir().unwrap(), is_root: rustix::process::geteuid().is_root() };
        fixture.allow("", 0o777);
        copy_binary(fixture.folder.path());
        let shut = if fixture.is_root { 0o600 } else { 0 };
        fixture.make("users.csv", &users(2), 0o644);
        fixture.make("other.csv", &users(3), 0o644);
        fixture.make("secret.csv", &users(2), shut);
        fixture.make("key", KEY, shut);
        for name in ["ca.pem", "chatlift.toml", "state.db", "r.csv"] {
            fixture.make(name, "", shut);
        }
        fs::create_dir(fixture.path("closed")).unwrap();
        fixture.allow("closed", fixture.of_a_closed_folder());
        fixture.make("own", KEY, 0o600);
        if fixture.is_root {
            chown(fixture.path("own"), Some(65_534), Some(65_534)).unwrap();
        }
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn of_a_closed_folder(&self) -> u32 {
        if self.is_root { 0o755 } else { 0o555 }
    }

    fn allow(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn make(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        self.allow(name, mode);
    }

    /// The command must say whose the file of this name is.
    fn denies(&self, args: &[&str], name: &str) {
        let owner = if self.is_root { "belongs to root (0)" } else { "belongs to" };
        let (code, stderr) = as_ordinary_user(self.folder.path(), args);
        let is_reported = stderr.contains(owner) && stderr.contains("mode 0") && stderr.contains(name) && stderr.contains("\nhint: ");
        assert!(code == 2 && is_reported, "{args:?}: {code}: {stderr}");
    }
}

#[test]
fn a_denied_file_is_reported_with_its_owner() {
    let foreign = ForeignFolder::new();
    let denied = |more: &[&'static str], name: &str| {
        let usual = ["import", "users.csv", "--endpoint", "http://127.0.0.1:9", "--sdkappid", SDKAPPID, "--max-outage", "1s"];
        foreign.denies(&[&usual[..], more].concat(), name);
    };
    denied(&["--secret-key-file", "key"], "key");
    denied(&["--secret-key-file", "own", "--ca-file", "ca.pem"], "ca.pem");
    denied(&["--secret-key-file", "own", "--config", "chatlift.toml"], "chatlift.toml");
    denied(&["--secret-key-file", "own", "--results", "closed/r.csv"], "closed");
    denied(&["--secret-key-file", "own", "--summary", "closed/s.json"], "closed");
    for output in ["--metrics-file", "--report"] {
        denied(&["--secret-key-file", "own", output, "closed/o"], "closed");
        foreign.denies(&["verify", "users.csv", "--sandbox", output, "closed/o"], "closed");
        foreign.denies(&["sync", "users.csv", "--sandbox", "--state", "s.db", output, "closed/o"], "closed");
    }
    foreign.denies(&["sync", "users.csv", "--sandbox", "--state", "s.db", "--plan", "closed/p.csv"], "closed");
    foreign.denies(&["verify", "users.csv", "--sandbox", "--repair", "closed/r.csv"], "closed");
    if foreign.is_root {
        // As in /tmp: everybody may make files, but replaces only what is their own.
        fs::create_dir(foreign.path("shared")).unwrap();
        foreign.allow("shared", 0o1777);
        foreign.make("shared/m.prom", "", 0o644);
        foreign.denies(&["import", "users.csv", "--sandbox", "--metrics-file", "shared/m.prom"], "m.prom");
    }
    denied(&["--secret-key-file", "own", "--state", "closed/s.db"], "closed");
    denied(&["--secret-key-file", "own", "--state", "state.db"], "state.db");
    foreign.denies(&["sync", "users.csv", "--sandbox", "--state", "state.db"], "state.db");
    foreign.denies(&["state", "state.db"], "state.db");
    foreign.denies(&["check", "secret.csv"], "secret.csv");
    foreign.denies(&["import", "secret.csv", "--sandbox"], "secret.csv");
    foreign.denies(&["verify", "secret.csv", "--sandbox"], "secret.csv");
    foreign.denies(&["verify", "users.csv", "--sandbox", "--results", "closed/v.csv"], "closed");
    foreign.denies(&["audit", "users.csv", "--results", "r.csv"], "r.csv");
    foreign.denies(&["sandbox", "--accounts", "closed/a.csv"], "closed");
}

/// The state itself may be changed, but no file may be created beside it, which each change needs.
#[test]
fn a_state_in_a_denied_folder_is_reported_with_its_owner() {
    let foreign = ForeignFolder::new();
    fs::copy(foreign.path("users.csv"), foreign.path("night.csv")).unwrap();
    fs::create_dir(foreign.path("held")).unwrap();
    let mut filled = Command::new(env!("CARGO_BIN_EXE_chatlift"));
    let filled = filled.env_clear().current_dir(foreign.path("")).args(["sync", "night.csv", "--sandbox", "--state", "held/s.db"]);
    assert!(filled.output().unwrap().status.success());
    for (name, mode) in [("held/s.db", 0o666), ("held/s.db.lock", 0o666), ("held", foreign.of_a_closed_folder())] {
        foreign.allow(name, mode);
    }
    foreign.denies(&["sync", "other.csv", "--sandbox", "--state", "held/s.db"], "held");
    foreign.denies(&["state", "held/s.db", "forget", "user1"], "held");
    foreign.denies(&["verify", "other.csv", "--sandbox", "--state", "held/s.db"], "held");
}

#[test]
fn results_must_be_a_regular_file() {
    let bench = CliFixture::with_users(2);
    let server = Server::new(|_| imported());
    let pipe = bench.outside("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let pipe = pipe.to_str().unwrap();
    for flag in ["--results", "--rejects", "--checkpoint"] {
        bench.import(&server).args(&[flag, pipe]).run().exits(2).because("is a pipe");
        bench.import(&server).args(&[flag, "/dev/null"]).run().exits(2).because("is a device");
        bench.import(&server).args(&[flag, "."]).run().exits(2);
    }
    bench.call(&["verify", "users.csv", "--sandbox", "--results", pipe]).run().exits(2).because("is a pipe");
    let left: Vec<_> = bench.names().into_iter().collect();
    assert_eq!(left, ["summary.json", "users.csv"]);
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_summary_may_be_a_pipe_that_is_read() {
    let bench = CliFixture::with_users(2);
    let server = Server::new(|_| imported());
    let pipe = bench.outside("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let key = bench.key();
    let endpoint = server.endpoint();
    let args = ["import", "users.csv", "--endpoint", &endpoint, "--sdkappid", SDKAPPID, "--secret-key-file", key.to_str().unwrap()];
    let import = |summary: &str| bench.call(&args).args(&["--restart", "--summary", summary]).against(&server);
    let reader = {
        let pipe = pipe.clone();
        std::thread::spawn(move || fs::read_to_string(pipe).unwrap())
    };
    import(pipe.to_str().unwrap()).run().exits(0);
    let summary: serde_json::Value = serde_json::from_str(&reader.join().unwrap()).unwrap();
    assert_eq!(summary["imported"], 2);
    for stdout in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let run = import(stdout).run().exits(0);
        let summary: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(summary["imported"], 2, "{stdout}");
    }

    // Without a reader it is refused before the first request, and a signal need not wait for one.
    let calls = server.calls();
    let began = Instant::now();
    import(pipe.to_str().unwrap()).run().exits(2).because("nobody reads").hints("--summary");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let running = import(pipe.to_str().unwrap()).start();
    running.takes_signals();
    std::thread::park_timeout(Duration::from_millis(300));
    running.signal(Signal::TERM);
    running.wait().exits(4);
    assert_eq!(server.calls(), calls);
}

#[test]
fn a_reader_of_the_summary_that_closes_the_pipe_does_not_block_the_run() {
    let bench = CliFixture::with_users(40);
    let server = Server::new(|_| imported().after(Duration::from_millis(20)));
    let pipe = bench.outside("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let (key, endpoint) = (bench.key(), server.endpoint());
    let args = ["import", "users.csv", "--endpoint", &endpoint, "--sdkappid", SDKAPPID, "--secret-key-file", key.to_str().unwrap()];
    let running = bench.call(&args).args(&["--in-flight", "1", "--summary", pipe.to_str().unwrap()]).against(&server).start();
    eventually("calls", || server.calls() >= 3);
    running.signal(Signal::TERM);
    drop(reader);
    running.wait().exits(4);
}

#[test]
fn names_that_are_too_long_are_refused_before_the_first_request() {
    let server = Server::new(|_| imported());
    for long in [240, 244, 251] {
        let bench = CliFixture::new();
        let name = format!("{}.csv", "x".repeat(long - 4));
        bench.write(&name, users(1));
        bench.import_of(&name, &server).run().exits(2).because("too long").hints("--results");
        assert_eq!(bench.contents_but_summary().len(), 1, "{:?}", bench.names());
        bench.import_of(&name, &server).args(&["--results", "r.csv"]).stem("r").run().exits(0);
    }
    let bench = CliFixture::with_users(1);
    let long = "y".repeat(252);
    for flag in ["--results", "--rejects", "--checkpoint", "--state"] {
        let run = bench.import(&server).args(&[flag, &long]).run();
        if flag == "--rejects" {
            assert_eq!(run.code, Some(0), "252 bytes are a name: {}", run.stderr);
            continue;
        }
        run.exits(2).because("too long");
    }
    bench.import_of(&"z".repeat(300), &server).run().exits(2);
    bench.import(&server).args(&["--results", &format!("{}r.csv", "d/".repeat(2_500))]).run().exits(2);
}

/// The command in a hint, without the words behind it.
fn command_of(stderr: &str) -> &str {
    let hint = stderr.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap();
    let command = &hint[hint.find("chatlift ").unwrap_or_else(|| panic!("no command: {hint}"))..];
    [" proves it", " names them", " puts it right"].iter().find_map(|end| command.find(end)).map_or(command, |end| &command[..end])
}

/// Runs a command in a shell.
fn shell<'a>(bench: &'a CliFixture, server: &'a Server, command: &str) -> Call<'a> {
    let program = env!("CARGO_BIN_EXE_chatlift");
    let command = command.replacen("chatlift", program, 1);
    bench.call(&[]).through("/bin/sh", &["-c", &format!("exec {command} --rate 0")]).against(server)
}

#[test]
fn the_commands_of_hints_run_as_they_stand() {
    let bench = CliFixture::new();
    let server = Server::new(|request| if request.user_id == "bad" { crate::support::server::code(70402) } else { imported() });
    let key = bench.key();
    let key = key.to_str().unwrap();
    bench.write("my users.csv", "user id;name\nada;Ada\nbad;Bad\n");
    let endpoint = server.endpoint();
    let given = ["--endpoint", &endpoint, "--sdkappid", SDKAPPID, "--secret-key-file", key];
    let read = ["--map", "UserID=user id", "--map", "Nick=name", "--delimiter", ";"];
    let import = |flags: &[&str]| bench.call(&["import", "my users.csv"]).args(&given).args(&read).args(flags).against(&server).run();
    let run = import(&[]).exits(3);
    let rejects = bench.read("my users.rejects.csv").replace("bad;", "good;");
    bench.write("my users.rejects.csv", rejects);
    shell(&bench, &server, command_of(&run.stderr)).run().exits(0);
    assert_eq!(server.nick("good").as_deref(), Some("Bad"));

    bench.write("my users.csv", "user id;name\nada;Ada\n");
    let run = import(&[]).exits(0);
    let audit = command_of(&run.stderr).to_owned();
    let audited =
        bench.call(&[]).through("/bin/sh", &["-c", &format!("exec {}", audit.replacen("chatlift", env!("CARGO_BIN_EXE_chatlift"), 1))]);
    audited.run().exits(0);

    let many = (0..1_200).fold(String::new(), |text, row| text + &format!("@TIM#{row};x\n"));
    bench.write("my users.csv", format!("user id;name\n{many}"));
    let run = import(&["--restart"]).exits(2);
    let check = command_of(&run.stderr).replacen("chatlift", env!("CARGO_BIN_EXE_chatlift"), 1);
    bench.call(&[]).through("/bin/sh", &["-c", &format!("exec {check}")]).run().exits(2).because("are invalid");
}

#[test]
fn an_unreachable_service_is_reported_with_advice() {
    let bench = CliFixture::with_users(2);
    let host = format!("127.0.0.1:{}", unused_port());
    let call = || bench.import_into("users.csv", &format!("http://{host}")).args(&["--max-outage", "1s"]);
    let run = call().env("HTTPS_PROXY", "http://me:sesame@proxy.example.com:3128").run().exits(4);
    let run = run.hints("HTTPS_PROXY").hints(&host).hints("firewall");
    assert!(!run.stderr.contains("sesame"), "a proxy's password is nobody's business: {}", run.stderr);
    call().run().exits(4).hints("proxy").hints("endpoint");
}

/// Runs the command of a hint in a shell and a folder of its own, and returns its exit code.
fn run_hint(folder: &Path, stderr: &[u8], program: &Path) -> i32 {
    let stderr = String::from_utf8(stderr.to_vec()).expect("what is said is UTF-8");
    let hint = stderr.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap();
    let start = ["chatlift ", "jq ", "tr "].iter().find_map(|word| hint.find(word)).unwrap_or_else(|| panic!("no command: {hint}"));
    let command = &hint[start..];
    let command = [" proves it", ", then take"].iter().find_map(|end| command.find(end)).map_or(command, |end| &command[..end]);
    let command = command.replacen("chatlift", program.to_str().unwrap(), 1);
    let status = Command::new("/bin/sh").args(["-c", &command]).current_dir(folder).stdin(Stdio::null()).output().unwrap().status;
    println!("{command}: {status}");
    status.code().unwrap()
}

#[test]
fn the_commands_of_hints_run_whatever_the_names_of_the_files() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let program = Path::new(env!("CARGO_BIN_EXE_chatlift"));
    let names: [&[u8]; 5] = [b"-dash.csv", b"it's $HOME `x` \"y\".csv", b"caf\xe9.csv", b"new\nline.csv", b"~*?#.csv"];
    for name in names {
        let folder = tempfile::tempdir().unwrap();
        let import = |text: &[u8], code: i32| {
            write_a_minute_ago(&folder.path().join(OsStr::from_bytes(name)), text);
            let mut call = Command::new(program);
            call.env_clear().current_dir(folder.path()).args(["import", "--sandbox", "--rate=0", "--"]).arg(OsStr::from_bytes(name));
            let run = call.stdin(Stdio::null()).output().unwrap();
            assert_eq!(run.status.code(), Some(code), "{}", String::from_utf8_lossy(&run.stderr));
            run.stderr
        };
        let hinted = |stderr: &[u8]| run_hint(folder.path(), stderr, program);
        if Command::new("jq").arg("--version").output().is_ok_and(|run| run.status.success()) {
            assert_eq!(hinted(&import(b"[{\"UserID\":\"a\"}]", 2)), 0);
            let made = Path::new(OsStr::from_bytes(name)).with_extension("converted.csv");
            assert_eq!(fs::read(folder.path().join(made)).unwrap(), b"\"UserID\",\"Nick\",\"FaceUrl\"\n\"a\",,\n");
        } else {
            eprintln!("SKIPPED: jq is not installed, so the command that makes a CSV of JSON was not run");
        }
        assert_eq!(hinted(&import(b"UserID\ra\r", 2)), 0);
        let made = Path::new(OsStr::from_bytes(name)).with_extension("lines.csv");
        assert_eq!(fs::read(folder.path().join(made)).unwrap(), b"UserID\na\n");
        assert_eq!(hinted(&import(b"UserID\na\n", 0)), 0, "the audit");
        assert_eq!(hinted(&import(b"UserID\na\n@TIM#b\n", 3)), 3, "the rejects, as they are");
    }
}
