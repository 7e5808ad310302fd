//! What becomes of each file of `fixtures/odd` in every command, and that what a hint says leads on.

use std::fs;
use std::path::{Path, PathBuf};

use chatlift::sandbox::{Sandbox, SandboxSettings};

use crate::support::packed::{encoded, gzip, zstd};
use crate::support::{CliFixture, KEY, Run};
use crate::sync::connection;

/// A file, what it shows, and the flags that help, as the hints name them; none where the file itself must be mended or nothing is wrong.
pub(crate) const FILES: [(&str, &str, &[&str]); 47] = [
    ("blank-lines.csv", "lines that are no rows", &[]),
    ("case-twins.csv", "UserIDs that differ only in case", &[]),
    ("control-characters.csv", "a line break and a control character in Nick", &[]),
    ("direction.csv", "a mark that changes the direction of text", &["--map", "Nick="]),
    ("duplicates.csv", "a UserID twice: the last row wins", &[]),
    ("empty-ids.csv", "a row without a UserID", &[]),
    ("escaped-quotes.csv", "`\\\"` instead of `\"\"`, and `\\N`", &["--escape", "\\"]),
    ("field-count.csv", "a comma in a field without quotes", &[]),
    ("gb18030.csv", "Chinese in GB18030", &["--encoding", "gb18030"]),
    ("gb18030.csv.gz", "the same, compressed with gzip", &["--encoding", "gb18030"]),
    ("gender-numbers.csv", "a column of the profile whose words are numbers", &["--value", "Gender:1=male", "--value", "Gender:2=female"]),
    ("gzip-cut.csv.gz", "the second half of gzip data is missing", &[]),
    ("gzip-in-gzip.csv.gz.gz", "compressed twice", &[]),
    ("gzip-members.csv.gz", "two files of gzip data, one behind the other", &[]),
    ("gzip-trailing.csv.gz", "something else behind gzip data", &[]),
    ("gzip.csv.gz", "compressed with gzip", &[]),
    ("header-again.csv", "two files put one behind the other", &[]),
    ("invisible.csv", "a Nick that nobody can see", &["--map", "Nick="]),
    ("long-location.csv", "a Location that may be too long", &["--profile", "Location="]),
    ("lost-characters.csv", "U+FFFD: characters that were lost before", &[]),
    ("near-names.csv", "`NickName` and `head_url` are not read by themselves", &["--map", "Nick=NickName", "--map", "FaceUrl=head_url"]),
    (
        "near-profile-names.csv",
        "`sex` and `birthday` are not read by themselves",
        &["--profile", "Gender=sex", "--profile", "BirthDay=birthday"],
    ),
    ("no-bytes.csv", "a file of 0 bytes", &[]),
    ("no-line-end.csv", "the last line has no end", &[]),
    ("no-records.csv", "a header alone", &[]),
    ("no-urls.csv", "a FaceUrl that is no http(s) URL", &["--map", "FaceUrl="]),
    ("nul.csv", "a NUL character in Nick", &[]),
    ("null-words.csv", "`NULL` in a third of the rows", &["--null", "NULL"]),
    ("open-quote.csv", "a quote that is never closed", &[]),
    ("other-names.csv", "columns of other names", &["--map", "UserID=uid", "--map", "Nick=NickName", "--map", "FaceUrl=avatar"]),
    ("reserved-ids.csv", "a UserID with a prefix of the service's own", &[]),
    ("semicolons.csv", "`;` between the columns", &["--delimiter", ";"]),
    ("sep-line.csv", "a first line `sep=;`", &[]),
    ("spreadsheet-ids.csv", "UserIDs as a spreadsheet writes numbers", &[]),
    ("swallowed-lines.csv", "a quote that runs over whole rows", &["--multiline"]),
    ("text-behind-quotes.csv", "text behind a closing quote", &[]),
    ("two-columns.csv", "two columns for UserID", &["--map", "UserID=UserID"]),
    ("unicode-ids.csv", "a UserID outside of ASCII", &["--user-ids", "any"]),
    ("unusual-ids.csv", "UserIDs with `@` and `.`", &[]),
    ("utf-16be-mark.csv", "UTF-16BE with a byte order mark", &[]),
    ("utf-16be.csv", "UTF-16BE without a byte order mark", &["--encoding", "utf-16be"]),
    ("utf-16le-mark.csv", "UTF-16LE with a byte order mark", &[]),
    ("utf-16le.csv", "UTF-16LE without a byte order mark", &["--encoding", "utf-16le"]),
    ("uuids.csv", "UserIDs that are UUIDs of 36 characters", &["--compact-uuid"]),
    ("white-space.csv", "white space at the ends of a UserID", &["--trim"]),
    ("zstd-cut.csv.zst", "the second half of zstd data is missing", &[]),
    ("zstd.csv.zst", "compressed with zstd", &[]),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/odd")
}

fn sandbox() -> Sandbox {
    Sandbox::start(SandboxSettings { limit_per_s: None, ..SandboxSettings::with_key(KEY.into()) }).unwrap()
}

/// A folder with the file as `users.csv`.
pub(crate) fn bench_with(name: &str) -> CliFixture {
    let bench = CliFixture::new();
    bench.write("users.csv", fs::read(folder().join(name)).unwrap());
    bench
}

/// The files that no editor makes.
fn packed_or_recoded() -> Vec<(&'static str, Vec<u8>)> {
    let text = "UserID,Nick\nuser1,张三丰\nuser2,李四\nuser3,王芳\n";
    let marked = |mark: &[u8], label| [mark, &encoded(text, label)].concat();
    let (gz, zst) = (gzip(text.as_bytes()), zstd(text.as_bytes()));
    vec![
        ("gb18030.csv", encoded(text, "gb18030")),
        ("gb18030.csv.gz", gzip(&encoded(text, "gb18030"))),
        ("gzip-cut.csv.gz", gz[..gz.len() / 2].to_vec()),
        ("gzip-in-gzip.csv.gz.gz", gzip(&gz)),
        ("gzip-members.csv.gz", [&gz[..], &gzip("user4,赵敏\n".as_bytes())].concat()),
        ("gzip-trailing.csv.gz", [&gz[..], b"more"].concat()),
        ("gzip.csv.gz", gz.clone()),
        ("utf-16be-mark.csv", marked(b"\xfe\xff", "utf-16be")),
        ("utf-16be.csv", encoded(text, "utf-16be")),
        ("utf-16le-mark.csv", marked(b"\xff\xfe", "utf-16le")),
        ("utf-16le.csv", encoded(text, "utf-16le")),
        ("zstd-cut.csv.zst", zst[..zst.len() / 2].to_vec()),
        ("zstd.csv.zst", zst),
    ]
}

fn call(bench: &CliFixture, sandbox: &Sandbox, words: &[&str], flags: &[&str]) -> Run {
    let connection = connection(bench, &sandbox.endpoint());
    let connection: Vec<&str> = if words[0] == "check" || words[0] == "audit" {
        Vec::new()
    } else {
        ["--rate", "0"].into_iter().chain(connection.iter().map(String::as_str)).collect()
    };
    bench.call(words).args(flags).args(&connection).run()
}

/// The exit code, and for people what was counted.
fn end_of(run: &Run, counted: &str) -> String {
    let code = run.code.unwrap();
    if counted.is_empty() { code.to_string() } else { format!("{code}: {counted}") }
}

/// The row of the table for a file.
fn row(name: &str, shows: &str, helps: &[&str]) -> String {
    let (bench, sandbox) = (bench_with(name), sandbox());
    let check = call(&bench, &sandbox, &["check", "users.csv"], &[]);
    let sync = call(&bench, &sandbox, &["sync", "users.csv", "--state", "users.state", "--dry-run", "--summary", "s.json"], &[]);
    let import = call(&bench, &sandbox, &["import", "users.csv"], &[]);
    let count = |status: &str| import.rows.iter().filter(|row| row.status == status).count();
    let imported =
        if import.rows.is_empty() { String::new() } else { format!("{} imported, {} invalid", count("imported"), count("invalid")) };
    let audit = if import.rows.is_empty() {
        "–".to_owned()
    } else {
        end_of(&call(&bench, &sandbox, &["audit", "users.csv", "--results", "users.results.csv"], &[]), "")
    };
    let verify = call(&bench, &sandbox, &["verify", "users.csv"], &[]);
    let odd = check.stdout.lines().filter(|line| line.starts_with("odd: ")).count();
    let odd = if odd == 0 { String::new() } else { format!("{odd} odd") };
    let helps: Vec<String> = helps.iter().map(|flag| format!("`{flag}`")).collect();
    let cells = [end_of(&check, &odd), end_of(&import, &imported), end_of(&sync, ""), audit, end_of(&verify, "")];
    format!("| `{name}` | {shows} | {} | {} |\n", cells.join(" | "), helps.join(" "))
}

/// With `INSTA_UPDATE=always` the table is written anew.
#[test]
fn what_becomes_of_each_file_is_as_the_table_says() {
    let head = "# Odd files\n\nOne small file for each kind of trouble, and what becomes of it: the exit code of each command, and what it counts. \
                `import` is into the sandbox,\n`verify` comes after it. Each file stands as `users.csv`: its content alone says what it is. The \
                last column has the flags that the\nhints name. Made by a test (`odd_fixtures`), which writes the table and the packed and \
                recoded files anew with `INSTA_UPDATE=always`.\n\n\
                | file | what it shows | check | import | sync --dry-run | audit | verify | what helps |\n|---|---|---|---|---|---|---|---|\n";
    let is_written = std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always");
    if is_written {
        for (name, bytes) in packed_or_recoded() {
            fs::write(folder().join(name), bytes).unwrap();
        }
    }
    let table: String = FILES.iter().map(|(name, shows, helps)| row(name, shows, helps)).collect();
    let (path, text) = (folder().join("README.md"), head.to_owned() + &table);
    if is_written {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), text, "INSTA_UPDATE=always writes it anew; read it then");
    let mut names: Vec<_> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "README.md");
    names.sort_unstable();
    assert_eq!(names, FILES.map(|(name, ..)| name), "each file has its row");
}

#[test]
fn what_a_hint_says_leads_on() {
    for (name, _, helps) in FILES.iter().filter(|(_, _, helps)| !helps.is_empty()) {
        let (bench, sandbox) = (bench_with(name), sandbox());
        let before = call(&bench, &sandbox, &["check", "users.csv"], &[]);
        let told = before.stdout.clone() + &before.stderr;
        assert!(told.contains(helps[0]), "{name}: {told}");
        let after = call(&bench, &sandbox, &["check", "users.csv"], helps);
        // A field of several lines that is taken as it is stays odd, and so does an id of other characters.
        let is_odd = ["swallowed-lines.csv", "unicode-ids.csv"].contains(name);
        assert!(after.code == Some(0) && after.stdout.contains("\nodd: ") == is_odd, "{name}: {}{}", after.stdout, after.stderr);
        let strict = call(&bench, &sandbox, &["check", "users.csv", "--strict"], helps);
        assert_eq!(strict.code, Some(if is_odd { 2 } else { 0 }), "{name}: {}", strict.stderr);
        if *name != "unicode-ids.csv" {
            // The sandbox takes ids of ASCII alone.
            let import = call(&bench, &sandbox, &["import", "users.csv"], helps);
            assert_eq!(import.code, Some(0), "{name}: {}", import.stderr);
        }
    }
}
