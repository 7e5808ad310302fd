//! A night: a file, the command, and what it has left.

use std::cell::Cell;
use std::fmt::Write;

use chatlift::domain::command::Command as Api;
use chatlift::sandbox::{Sandbox, SandboxSettings};

use crate::support::{Call, CliFixture, KEY, Run, SDKAPPID};

/// Touches of users that the stand-in keeps; no test here comes near.
const TOUCHES: usize = 100_000;

/// The command of every night.
pub(super) fn sync<'a>(bench: &'a CliFixture, endpoint: &str, flags: &[&str]) -> Call<'a> {
    let key = bench.key();
    let call = bench.call(&["sync", "users.csv", "--state", "users.state", "--endpoint", endpoint, "--sdkappid", SDKAPPID]);
    let call = call.args(&["--secret-key-file", key.to_str().unwrap(), "--summary", "summary.json", "--no-progress"]);
    // Nights are moments here: each of them counts, unless a test says otherwise.
    call.args(&["--in-flight", "16", "--rate", "0", "--profile-rate", "0"]).usually(&["--missing-apart=0s"]).args(flags)
}

/// A stand-in without limits that remembers whom it was asked for.
pub(super) fn settings(faults: &[&str]) -> SandboxSettings {
    let faults = faults.iter().map(|text| text.parse().unwrap()).collect();
    SandboxSettings { faults, limit_per_s: None, call_log_kept: TOUCHES, ..SandboxSettings::with_key(KEY.into()) }
}

/// A line of the missing file, less the time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) id: String,
    pub(super) last_imported: String,
    pub(super) runs: u32,
    pub(super) action: String,
    pub(super) error_code: String,
    pub(super) error_info: String,
}

/// A file, a state and a stand-in, night after night.
pub(super) struct SyncFixture {
    pub(super) bench: CliFixture,
    pub(super) sandbox: Sandbox,
    nights: Cell<u32>,
}

impl SyncFixture {
    pub(super) fn new(settings: SandboxSettings) -> Self {
        Self { bench: CliFixture::new(), sandbox: Sandbox::start(settings).unwrap(), nights: Cell::new(0) }
    }

    /// A night whose file has these accounts, `id` or `id=Nick`. No two of its files are the same bytes.
    pub(super) fn night(&self, accounts: &[&str], flags: &[&str]) -> Run {
        self.write_night(accounts);
        self.again(flags)
    }

    /// The file of such a night.
    pub(super) fn write_night(&self, accounts: &[&str]) {
        self.nights.set(self.nights.get() + 1);
        let mut text = "UserID,Nick,night\n".to_owned();
        for account in accounts {
            let (id, nick) =
                account.split_once('=').map_or_else(|| (*account, format!("Nick of {account}")), |(id, nick)| (id, nick.to_owned()));
            writeln!(text, "{id},{nick},{}", self.nights.get()).unwrap();
        }
        self.bench.write("users.csv", text);
    }

    /// Lets so many minutes pass, as far as the state can tell.
    pub(super) fn passes(&self, minutes: i64) {
        let earlier = "UPDATE runs SET began_at = began_at - ?1 * 60000, finished_at = finished_at - ?1 * 60000";
        assert!(self.database().execute(earlier, [minutes]).unwrap() > 0);
        self.database().execute("UPDATE accounts SET raised_at = raised_at - ?1 * 60000", [minutes]).unwrap();
    }

    /// The command once more, with the file as it is.
    pub(super) fn again(&self, flags: &[&str]) -> Run {
        sync(&self.bench, &self.sandbox.endpoint(), flags).run()
    }

    /// The lines of the missing file; none if there is no file.
    pub(super) fn missing(&self) -> Vec<Missing> {
        if !self.bench.names().contains("users.missing.csv") {
            return Vec::new();
        }
        let text = self.bench.read("users.missing.csv");
        assert!(text.starts_with("UserID,last_imported,missing_runs,action,error_code,error_info\n"), "{text}");
        let mut csv = csv::Reader::from_reader(text.as_bytes());
        let lines = csv.records().map(|record| {
            let record = record.unwrap();
            let cell = |column: usize| record[column].to_owned();
            let runs = record[2].parse().unwrap();
            Missing { id: cell(0), last_imported: cell(1), runs, action: cell(3), error_code: cell(4), error_info: cell(5) }
        });
        let lines: Vec<Missing> = lines.collect();
        assert!(!lines.is_empty(), "no file is written where none are missing");
        lines
    }

    /// Who is missing, in how many runs, and what was done about it.
    pub(super) fn actions(&self) -> Vec<(String, u32, String)> {
        self.missing().into_iter().map(|missing| (missing.id, missing.runs, missing.action)).collect()
    }

    /// Whom this command has touched, in order.
    pub(super) fn touched(&self, command: Api) -> Vec<String> {
        self.sandbox.call_log().into_iter().filter(|touch| touch.command == command).map(|touch| touch.user_id).collect()
    }

    /// The state's file, to be looked into or changed behind the tool's back.
    pub(super) fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.bench.path("users.state")).unwrap()
    }

    /// The ids that the state holds.
    pub(super) fn held(&self) -> Vec<String> {
        let database = self.database();
        let mut query = database.prepare("SELECT id FROM accounts ORDER BY id").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }
}
