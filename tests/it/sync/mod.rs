//! Nightly syncs with the real binary, held against their contract, and, for a year of nights, through the library.

mod doubt;
mod export_model;
mod guards;
mod importing;
mod instants;
mod joined;
mod kept;
mod lookalikes;
mod memory;
mod memory_service;
mod missing;
mod model;
mod night;
mod nights;
mod people;
mod plan;
mod presence;
mod results;
mod runs;
mod second_thoughts;
mod sharing;
mod state;
mod tags;
mod versions;
mod year;

use crate::support::server::Server;
use crate::support::{Call, CliFixture, SDKAPPID};

/// A sync of `users.csv` with `users.state` into the server, without a limit of the rate.
pub(crate) fn sync<'a>(bench: &'a CliFixture, server: &'a Server) -> Call<'a> {
    sync_of(bench, &["users.csv", "--state", "users.state"], &server.endpoint()).against(server)
}

/// A sync of whatever is named.
pub(crate) fn sync_of<'a>(bench: &'a CliFixture, what: &[&str], endpoint: &str) -> Call<'a> {
    let call = bench.call(&["sync", "--summary", "summary.json", "--rate", "0"]).usually(&["--timeout=20", "--in-flight=16"]);
    call.args(what).args(&connection(bench, endpoint).each_ref().map(String::as_str))
}

/// The flags that say where the service is and who calls.
pub(crate) fn connection(bench: &CliFixture, endpoint: &str) -> [String; 6] {
    let key = bench.key().to_str().unwrap().to_owned();
    ["--endpoint", endpoint, "--sdkappid", SDKAPPID, "--secret-key-file", &key].map(str::to_owned)
}

/// The state's bytes.
pub(crate) fn state_bytes(bench: &CliFixture) -> Vec<u8> {
    std::fs::read(bench.path("users.state")).unwrap()
}

/// What the state knows, less the times: `UserID,fingerprint,missing_runs`.
pub(crate) fn exported(bench: &CliFixture) -> Vec<String> {
    let export = bench.call(&["state", "users.state", "export"]).run();
    assert_eq!(export.code, Some(0), "{}", export.stderr);
    let line = |line: &str| {
        let fields: Vec<_> = line.split(',').collect();
        format!("{},{},{}", fields[0], fields[1], fields[3])
    };
    export.stdout.lines().skip(1).map(line).collect()
}

/// The ids that the state holds.
pub(crate) fn held(bench: &CliFixture) -> Vec<String> {
    exported(bench).iter().map(|line| line.split(',').next().unwrap().to_owned()).collect()
}
