//! What a state says after a kill, read from a copy: a look at the file itself would roll a cut-off transaction back.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use crate::support::CliFixture;

/// Names of tags, by id.
pub(super) type TagNames = BTreeMap<String, BTreeSet<String>>;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// Accounts that are there or in doubt.
    pub(super) ids: Vec<String>,
    /// Ids that a planning now would take for in doubt, whatever their tags are.
    pub(super) in_doubt: BTreeSet<String>,
    /// The tags that it would, by id.
    pub(super) tags_in_doubt: TagNames,
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
    let mut in_doubt: BTreeSet<String> = ids("SELECT id FROM accounts WHERE in_doubt & 31 > 0").into_iter().collect();
    let mut tags_in_doubt = tags_in_doubt(&state);
    if open > 0 {
        let run = number("SELECT number FROM runs WHERE finished_at IS NULL");
        let settled = settled(bench, run);
        let announced = "SELECT id FROM planned WHERE sent AND row <= (SELECT sent_up_to FROM runs WHERE finished_at IS NULL) AND row > ";
        in_doubt.extend(ids(&format!("{announced}{settled}")));
        // What has settled is known by now, since nothing here fails.
        for id in ids(&format!("SELECT id FROM planned WHERE sent = 1 AND row <= {settled}")) {
            in_doubt.remove(&id);
        }
        let planned =
            |which: &str| tag_names(&state, &format!("SELECT id, tags FROM planned WHERE tags IS NOT NULL AND {which}"), |_| true);
        for (id, tags) in planned(&format!("row > {settled} AND row <= (SELECT sent_up_to FROM runs WHERE finished_at IS NULL)")) {
            tags_in_doubt.entry(id).or_default().extend(tags);
        }
        for (id, tags) in planned(&format!("row <= {settled}")) {
            tags_in_doubt.entry(id).or_default().retain(|tag| !tags.contains(tag));
        }
        tags_in_doubt.retain(|_, tags| !tags.is_empty());
    }
    let runs_finished = number("SELECT count(*) FROM runs WHERE finished_at IS NOT NULL");
    Kept { ids: ids("SELECT id FROM accounts ORDER BY id"), in_doubt, tags_in_doubt, is_finished: open == 0 && left == 0, runs_finished }
}

fn tags_in_doubt(state: &Connection) -> TagNames {
    let is_new: i64 = state.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'tags'", [], |row| row.get(0)).unwrap();
    if is_new == 0 {
        return TagNames::new();
    }
    // 32 is doubt about all of them, whatever their own flags say.
    let all = tag_names(state, "SELECT id, tags FROM accounts WHERE tags IS NOT NULL AND in_doubt & 32", |_| true);
    let mut some = tag_names(state, "SELECT id, tags FROM accounts WHERE tags IS NOT NULL AND in_doubt & 64", |flags| flags & 0x80 != 0);
    for (id, tags) in all {
        some.entry(id).or_default().extend(tags);
    }
    some
}

/// Those tags of each row, ten bytes each, whose first byte is wanted; two flags and the number are in front.
fn tag_names(state: &Connection, query: &str, is_wanted: impl Fn(u8) -> bool) -> TagNames {
    let mut names = state.prepare("SELECT number, name FROM tags").unwrap();
    let names: BTreeMap<u16, String> = names.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    let mut query = state.prepare(query).unwrap();
    let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?))).unwrap().map(Result::unwrap);
    let wanted = rows.map(|(id, tags)| {
        let wanted = tags.chunks(10).filter(|tag| is_wanted(tag[0]));
        (id, wanted.map(|tag| names[&(u16::from_be_bytes([tag[0], tag[1]]) & 0x3fff)].clone()).collect())
    });
    wanted.filter(|(_, tags): &(String, BTreeSet<String>)| !tags.is_empty()).collect()
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
