//! What a state says after a kill, read from a copy: a look at the file itself would roll a cut-off transaction back.

use std::collections::BTreeSet;

use rusqlite::Connection;

use crate::support::CliFixture;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// Accounts that are there or in doubt.
    pub(super) ids: Vec<String>,
    /// Ids that a planning now would take for in doubt.
    pub(super) in_doubt: BTreeSet<String>,
    /// No run is open, and nothing of one is left.
    pub(super) is_finished: bool,
    pub(super) runs_finished: i64,
}

pub(super) fn kept(bench: &CliFixture) -> Kept {
    if !bench.names().contains("users.state") {
        return Kept::default();
    }
    for name in ["users.state", "users.state-journal"] {
        let copy = bench.outside(name);
        let _ = std::fs::remove_file(&copy);
        if bench.names().contains(name) {
            std::fs::copy(bench.path(name), copy).unwrap();
        }
    }
    let state = Connection::open(bench.outside("users.state")).unwrap();
    let tables: i64 = state.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
    if tables == 0 {
        return Kept::default();
    }
    let ids = |query: &str| -> Vec<String> {
        state.prepare(query).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let number = |query: &str| state.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
    let left = number("SELECT (SELECT count(*) FROM planned) + (SELECT count(*) FROM missing) + (SELECT count(*) FROM ops)");
    let open = number("SELECT count(*) FROM runs WHERE finished_at IS NULL");
    let mut in_doubt: BTreeSet<String> = ids("SELECT id FROM accounts WHERE in_doubt > 0").into_iter().collect();
    if open > 0 {
        let run = number("SELECT number FROM runs WHERE finished_at IS NULL");
        let settled = settled(bench, run);
        let announced = "SELECT id FROM planned WHERE sent AND row <= (SELECT sent_up_to FROM runs WHERE finished_at IS NULL) AND row > ";
        in_doubt.extend(ids(&format!("{announced}{settled}")));
        // What has settled is known by now, since nothing here fails.
        for id in ids(&format!("SELECT id FROM planned WHERE sent AND row <= {settled}")) {
            in_doubt.remove(&id);
        }
    }
    let runs_finished = number("SELECT count(*) FROM runs WHERE finished_at IS NOT NULL");
    Kept { ids: ids("SELECT id FROM accounts ORDER BY id"), in_doubt, is_finished: open == 0 && left == 0, runs_finished }
}

/// Rows of the run that the checkpoint vouches for.
fn settled(bench: &CliFixture, run: i64) -> u64 {
    if !bench.names().contains("users.checkpoint.json") {
        return 0;
    }
    let checkpoint: serde_json::Value = serde_json::from_str(&bench.read("users.checkpoint.json")).expect("it is whole");
    let checkpoint = &checkpoint["run"];
    if checkpoint["work"]["sync"]["run"] != run {
        return 0;
    }
    checkpoint["settled"]["rows"].as_u64().expect("it has the number")
}
