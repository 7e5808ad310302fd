//! What a file may look like, and what is said of one that is no CSV.

use std::fs;
use std::process::Command;

use chatlift::sandbox::{Sandbox, SandboxSettings};

use crate::support::packed::{encoded, gzip, zstd};
use crate::support::{CliFixture, KEY, SDKAPPID, side_by_side};

/// A text, the flag that it needs, and how it is told.
struct Form {
    name: &'static str,
    /// Behind the name `users`.
    ending: &'static str,
    bytes: Vec<u8>,
    flags: &'static [&'static str],
    /// The same records in UTF-8.
    text: String,
}

/// Everybody has a signature of the same letters, and two of them another tag each.
fn users(nicks: [&str; 3]) -> String {
    let header = "UserID,Nick,Tag_Profile_IM_SelfSignature,Tag_Profile_IM_Gender,Tag_Profile_IM_Level\n".to_owned();
    let others = ["male,", ",7", ","];
    let rows = nicks.iter().zip(others).zip(1..);
    rows.fold(header, |text, ((nick, others), row)| format!("{text}user{row},\"{nick}\",\"{nick}, {nick}\",{others}\n"))
}

fn forms() -> Vec<Form> {
    let (chinese, western) = (users(["张三丰", "李四，四", "王, 五"]), users(["Müller", "façade", "Zoë, née Ω-less"].map(|nick| nick)));
    let western = western.replace('Ω', "O");
    let japanese = users(["山田太郎", "ソフト表", "鈴木"]);
    let traditional = users(["陳大文", "許功蓋", "黃小明"]);
    let form = |name, ending, bytes: Vec<u8>, flags, text: &str| Form { name, ending, bytes, flags, text: text.to_owned() };
    let half = chinese.find("user2").unwrap();
    let marked = |mark: &[u8], bytes: Vec<u8>| [mark, &bytes].concat();
    vec![
        form("UTF-8", ".csv", chinese.clone().into(), &[], &chinese),
        form("UTF-8 with its mark", ".csv", marked(b"\xef\xbb\xbf", chinese.clone().into()), &[], &chinese),
        form(
            "UTF-8 with its mark, whatever is said",
            ".csv",
            marked(b"\xef\xbb\xbf", chinese.clone().into()),
            &["--encoding", "big5"],
            &chinese,
        ),
        form("UTF-16LE", ".csv", marked(b"\xff\xfe", encoded(&chinese, "utf-16le")), &[], &chinese),
        form("UTF-16BE", ".csv", marked(b"\xfe\xff", encoded(&chinese, "utf-16be")), &[], &chinese),
        form("UTF-16LE without its mark", ".csv", encoded(&chinese, "utf-16le"), &["--encoding", "UTF-16LE"], &chinese),
        form("GB18030", ".csv", encoded(&chinese, "gb18030"), &["--encoding", "gb18030"], &chinese),
        form("GBK", ".csv", encoded(&chinese, "gbk"), &["--encoding", "GB2312"], &chinese),
        form("Big5", ".csv", encoded(&traditional, "big5"), &["--encoding", "big5"], &traditional),
        form("Shift_JIS", ".csv", encoded(&japanese, "shift_jis"), &["--encoding", "sjis"], &japanese),
        form("windows-1252", ".csv", encoded(&western, "windows-1252"), &["--encoding", "latin1"], &western),
        form("gzip", ".csv.gz", gzip(chinese.as_bytes()), &[], &chinese),
        form("gzip under another name", ".csv", gzip(chinese.as_bytes()), &[], &chinese),
        form(
            "concatenated gzip",
            ".csv.gz",
            [gzip(&chinese.as_bytes()[..half]), gzip(b""), gzip(&chinese.as_bytes()[half..])].concat(),
            &[],
            &chinese,
        ),
        form("gzip with zeros at its end", ".csv.gz", [gzip(chinese.as_bytes()), vec![0; 700]].concat(), &[], &chinese),
        form("zstd", ".csv.zst", zstd(chinese.as_bytes()), &[], &chinese),
        form("zstd of frames", ".csv.zst", [zstd(&chinese.as_bytes()[..half]), zstd(&chinese.as_bytes()[half..])].concat(), &[], &chinese),
        form("gzip of UTF-16", ".csv.gz", gzip(&marked(b"\xff\xfe", encoded(&chinese, "utf-16le"))), &[], &chinese),
        form("zstd of GB18030", ".csv.zst", zstd(&encoded(&chinese, "gb18030")), &["--encoding", "gb18030"], &chinese),
    ]
}

fn connection(bench: &CliFixture, sandbox: &Sandbox) -> Vec<String> {
    let key = bench.key().to_str().unwrap().to_owned();
    ["--endpoint", &sandbox.endpoint(), "--sdkappid", SDKAPPID, "--rate", "0", "--secret-key-file", &key].map(str::to_owned).into()
}

/// How a command is given its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Named,
    Piped,
}

/// Every command on the input, in the order in which people give them.
fn every_command(form: &Form, given: Given) {
    let bench = CliFixture::new();
    let sandbox = Sandbox::start(SandboxSettings { limit_per_s: None, ..SandboxSettings::with_key(KEY.into()) }).unwrap();
    let connection = connection(&bench, &sandbox);
    let connection: Vec<&str> = connection.iter().map(String::as_str).collect();
    let name = format!("users{}", form.ending);
    let file = if given == Given::Named { name.as_str() } else { "-" };
    bench.write(&name, &form.bytes);
    bench.write("text.csv", &form.text);
    let run = |words: &[&str]| {
        let call = bench.call(&[words[0], file]).args(&words[1..]).args(form.flags);
        let call = if given == Given::Piped { call.stdin(&form.bytes) } else { call };
        call.run().exits(0)
    };
    run(&["check"]);
    let own = |name| if given == Given::Named { Vec::new() } else { vec!["--results", name] };
    run(&[&["import"], &connection[..], &own("users.results.csv")].concat()).imports_all(3);
    run(&[&["verify", "--profiles"], &connection[..], &own("users.verify.csv")].concat());
    run(&["audit", "--results", "users.results.csv"]);
    let sync = run(&[&["sync", "--state", "users.state", "--results", "night.results.csv"], &connection[..]].concat());
    sync.because("3 created");
    let told = sandbox.account("user1").unwrap().tags;
    assert_eq!((told.len(), sandbox.account("user3").unwrap().tags.len()), (2, 1), "{}: {told:?}", form.name);
    // What the service holds now is what the text says.
    bench.call(&[&["verify", "text.csv", "--profiles"], &connection[..]].concat()).run().exits(0).because("all 3 UserIDs are the same");
    let left: Vec<_> = bench.names().into_iter().filter(|name| name.contains(".input.csv")).collect();
    assert!(left.is_empty(), "{}: {left:?}", form.name);
}

#[test]
fn every_command_reads_every_form() {
    let forms = forms();
    side_by_side(&forms, |form| every_command(form, Given::Named));
    side_by_side(&forms, |form| every_command(form, Given::Piped));
}

#[test]
fn a_mark_that_beats_the_flag_is_told() {
    let bench = CliFixture::new();
    bench.write("users.csv", [b"\xff\xfe", &*encoded("UserID\na\n", "utf-16le")].concat());
    let run = bench.call(&["import", "users.csv", "--sandbox", "--encoding", "gbk"]).run().exits(0);
    assert!(run.stderr.contains("byte order mark of UTF-16LE"), "{}", run.stderr);
    let run = bench.call(&["check", "users.csv", "--encoding", "gbk"]).run().exits(0);
    assert!(run.stderr.contains("byte order mark of UTF-16LE"), "{}", run.stderr);
}

#[test]
fn an_encoding_that_a_file_in_utf_8_does_not_need_is_told() {
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID,Nick\na,张伟\nb,王芳\n");
    let run = bench.call(&["check", "users.csv", "--encoding", "gb18030"]).run();
    assert!(run.stderr.contains("is valid UTF-8"), "{}", run.stderr);
    let run = bench.call(&["check", "users.csv", "--encoding", "utf-8"]).run().exits(0);
    assert!(!run.stderr.contains("is valid UTF-8"), "{}", run.stderr);
}

#[test]
fn another_encoding_is_refused_with_its_name_and_two_cells() {
    let many = |nick: &str| (1..=40).fold("UserID,Nick\n".to_owned(), |text, row| format!("{text}user{row},{nick}{row}\n"));
    let check = |label: &str, text: String, hint: &str, cells: &[&str]| {
        let bench = CliFixture::new();
        bench.write("users.csv", encoded(&text, label));
        for words in
            [&["check", "users.csv"][..], &["import", "users.csv", "--sandbox"], &["sync", "users.csv", "--sandbox", "--state", "s"]]
        {
            let run = bench.call(words).run().exits(2).hints(hint);
            for cell in cells {
                assert!(run.stderr.contains(cell), "{label}: {}", run.stderr);
            }
        }
        assert_eq!(bench.names().into_iter().collect::<Vec<_>>(), ["users.csv"], "nothing is left of it");
        let flag = hint.split_once(' ').unwrap().1;
        bench.call(&["check", "users.csv", "--encoding", flag]).run().exits(0);
    };
    let chinese = ["张伟", "王芳", "李娜", "刘洋", "陈静"].map(|name| many(name).split_once('\n').unwrap().1.to_owned()).concat();
    check("gb18030", format!("UserID,Nick\n{chinese}"), "--encoding gb18030", &["张伟1", "张伟2"]);
    check("gb18030", format!("UserID,昵称\n{chinese}"), "--encoding gb18030", &["昵称", "张伟1"]);
    check("big5", many("陳志明與黃淑芬的帳號"), "--encoding big5", &["陳志明與黃淑芬的帳號1"]);
    check("shift_jis", many("ヤマダの山田です"), "--encoding shift_jis", &["ヤマダの山田です1"]);
    check("windows-1252", many("Jürgen Müßiggang, née Zoë").replace(", ", " "), "--encoding windows-1252", &["Jürgen"]);
    check("utf-16le", many("张伟"), "--encoding utf-16le", &["UserID", "Nick"]);
    check("utf-16be", many("张伟"), "--encoding utf-16be", &["UserID", "Nick"]);
}

#[test]
fn a_wrong_encoding_is_refused_too() {
    let bench = CliFixture::new();
    let text = (1..=40).fold("UserID,Nick\n".to_owned(), |text, row| format!("{text}user{row},张伟的昵称\n"));
    bench.write("users.csv", encoded(&text, "gb18030"));
    bench.call(&["check", "users.csv", "--encoding", "utf-16le"]).run().exits(2);
    bench.call(&["check", "users.csv", "--encoding", "utf8"]).run().exits(2).hints("--encoding gb18030");
    let run = bench.call(&["check", "users.csv", "--encoding", "klingon"]).run().exits(2);
    assert!(run.stderr.contains("no name of an encoding"), "{}", run.stderr);
}

#[test]
fn a_few_bad_bytes_cost_their_rows() {
    let text = |bad: &[u64]| {
        let nick = |row: u64| if bad.contains(&row) { &b"bad\xff\xfe"[..] } else { b"good" };
        (1..=1_200).fold(b"UserID,Nick\n".to_vec(), |text, row| [&text, format!("user{row},").as_bytes(), nick(row), b"\n"].concat())
    };
    let bench = CliFixture::new();
    let check = |bad: &[u64], encoding: &[&str], exit: i32| {
        bench.write("users.csv", text(bad));
        let run = bench.call(&["import", "users.csv", "--sandbox", "--rate", "0", "--restart"]).args(encoding).run().exits(exit);
        let invalid: Vec<u64> = run.rows.iter().filter(|row| row.status == "invalid").map(|row| row.number).collect();
        if exit == 3 {
            assert_eq!(invalid, bad);
            let rejects = fs::read(bench.path("users.rejects.csv")).unwrap();
            assert!(memchr::memmem::find(&rejects, b"bad\xff").is_some(), "undecodable bytes are as they were");
        }
    };
    check(&[7, 500, 999], &[], 3);
    check(&[7, 500, 999, 1_100, 1_101, 1_102], &[], 3);
    check(&[7, 500, 999, 1_000], &[], 2);
    // 0xff begins nothing in these either.
    check(&[7, 500, 999], &["--encoding", "gb18030"], 3);
    check(&[7, 500, 999, 1_000], &["--encoding", "gb18030"], 2);
    check(&[7, 500, 999], &["--encoding", "euc-kr"], 3);
}

#[test]
fn bytes_that_cannot_be_decoded_are_never_sent() {
    // Each of them is undefined where it stands, and both together would be a letter in UTF-8 (U+04AA).
    let rows = (1..=20).fold(String::new(), |text, row| format!("{text}user{row},x\n"));
    let bench = CliFixture::new();
    bench.write("users.csv", [b"UserID,Nick\nodd,\xd2\xaa\n", rows.as_bytes()].concat());
    let run = bench.call(&["import", "users.csv", "--sandbox", "--encoding", "windows-1253"]).run().exits(3);
    let row = &run.rows[0];
    assert_eq!((&*row.user_id, &*row.status), ("odd", "invalid"), "{row:?}");
}

#[test]
fn what_is_no_csv_is_refused_with_a_command_that_makes_one() {
    let bench = CliFixture::new();
    let check = |name: &str, bytes: &[u8], why: &str, hint: &str| {
        bench.write(name, bytes);
        for command in
            [&["check", name][..], &["audit", name, "--results", "r.csv"], &["import", name, "--sandbox"], &["verify", name, "--sandbox"]]
        {
            bench.call(command).run().exits(2).because(why).hints(hint);
        }
        bench.call(&["check", "-"]).stdin(bytes).run().exits(2).because(why);
        fs::remove_file(bench.path(name)).unwrap();
    };
    check("u.xlsx", b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0[Content_Types].xml", "Excel workbook", "libreoffice --headless");
    check("u.csv", b"PK\x03\x04\x14\0\0\0\x08\0\0\0!\0users.csv", "ZIP archive", "unzip -p u.csv > ");
    check("u.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0", "Excel workbook", "libreoffice");
    check("u.parquet", b"PAR1\x15\x04\x15\x10", "Parquet", "duckdb");
    check("u.db", b"SQLite format 3\0\x10\0", "SQLite", "sqlite3 -header -csv u.db");
    check("u.json", b" [\n {\"UserID\": \"a\"}]", "JSON", "jq -r");
    check("u.jsonl", b"{\"UserID\": \"a\"}\n{\"UserID\": \"b\"}\n", "JSON", "jq -r");
    check("u.json.gz", &gzip(b"{\"UserID\": \"a\"}"), "JSON", "jq -r");
    let wide = |text: &str, mark: &[u8], label: &str| [mark, &encoded(text, label)].concat();
    check("u.json", &wide("[{\"UserID\": \"a\"}]", b"\xff\xfe", "utf-16le"), "JSON", "iconv -f UTF-16 -t UTF-8 u.json | jq -r");
    check("u.json", &wide("{\"users\": []}", b"\xfe\xff", "utf-16be"), "JSON", "iconv -f UTF-16 -t UTF-8 u.json | jq -r");
    check("u.csv.bz2", b"BZh91AY&SY\0\0", "packed with bzip2", "bzip2 -dc u.csv.bz2 > u.csv");
    check("u.csv.xz", b"\xfd7zXZ\0\0\x04", "packed with xz", "xz -dc u.csv.xz > u.csv");
    check("u.csv.lz4", b"\x04\x22\x4d\x18\x64\x40", "packed with lz4", "lz4 -dc u.csv.lz4 > u.csv");
    check("u.7z", b"7z\xbc\xaf\x27\x1c\0\x04", "7z archive", "7z x -so u.7z > u.csv");
    check("u.csv.gz.gz", &gzip(&gzip(b"UserID\na\n")), "compressed twice", "unpack it once");
}

#[test]
fn the_command_of_a_hint_makes_a_csv() {
    let has = |tool: &str| Command::new(tool).arg("--version").output().is_ok_and(|run| run.status.success());
    let bench = CliFixture::new();
    let check = |name: &str, tool: &str| {
        if !has(tool) {
            eprintln!("SKIPPED: {tool} is not installed, so the command that makes a CSV of {name} was not tried");
            return String::new();
        }
        let run = bench.call(&["check", name]).run().exits(2);
        let command = run.stderr.lines().find_map(|line| line.strip_prefix("hint: make a CSV of it: ")).unwrap().to_owned();
        let made = Command::new("/bin/sh").args(["-c", &command]).current_dir(bench.path("")).status().unwrap();
        assert!(made.success(), "{command}");
        let made = command.rsplit_once("> ").unwrap().1.trim_matches('\'').to_owned();
        bench.call(&["check", &made]).run().exits(0).because("2 rows can be sent");
        fs::remove_file(bench.path(&made)).unwrap();
        made
    };
    let own = "somebody's";
    let spares = |name: &str, tool: &str| {
        bench.write("my users.csv", own);
        let made = check(name, tool);
        assert!(made.is_empty() || made != "my users.csv", "{made}");
        assert_eq!(bench.read("my users.csv"), own);
        fs::remove_file(bench.path("my users.csv")).unwrap();
    };
    bench.write("my users.json", "[{\"UserID\": \"a\", \"Nick\": \"A, \\\"B\\\"\"}, {\"UserID\": \"b\"}]");
    check("my users.json", "jq");
    bench.write("my users.jsonl", "{\"UserID\": \"a\", \"Nick\": \"A\"}\n{\"UserID\": \"b\"}\n");
    check("my users.jsonl", "jq");
    for text in [
        "{\"users\": [{\"userid\": \"a\", \"nick\": \"A\"}, {\"userid\": \"b\"}], \"total\": 2}",
        "{\"data\": {\"list\": [{\"User_ID\": \"a\"}, {\"user id\": \"b\", \"face_url\": null}]}}",
        "[[{\"userId\": 1}], [{\"userId\": 2}]]",
    ] {
        bench.write("my users.json", text);
        spares("my users.json", "jq");
        bench.write("my users.json", [b"\xff\xfe", &encoded(text, "utf-16le")[..]].concat());
        check("my users.json", "jq");
        bench.write("my users.json.gz", gzip(&[b"\xff\xfe", &encoded(text, "utf-16le")[..]].concat()));
        spares("my users.json.gz", "jq");
    }
    let database = rusqlite::Connection::open(bench.path("my users.db")).unwrap();
    let rows = "CREATE TABLE \"all users\" (UserID, Nick); INSERT INTO \"all users\" VALUES ('a', 'A, \"B\"'), ('b', NULL);";
    database.execute_batch(rows).unwrap();
    drop(database);
    check("my users.db", "sqlite3");
    bench.write("my users.db.gz", gzip(&fs::read(bench.path("my users.db")).unwrap()));
    spares("my users.db.gz", "sqlite3");
    fs::remove_file(bench.path("my users.db")).unwrap();
    let database = rusqlite::Connection::open(bench.path("my users.db")).unwrap();
    let rows = "CREATE TABLE log (id, said); INSERT INTO log VALUES (1, 'x'); CREATE TABLE \"all users\" (Nick, user_id); \
        INSERT INTO \"all users\" VALUES ('A', 'a'), (NULL, 'b'); CREATE TABLE zzz (id);";
    database.execute_batch(rows).unwrap();
    drop(database);
    check("my users.db", "sqlite3");
}

#[test]
fn carriage_returns_become_line_feeds_by_the_command_of_the_hint() {
    let bench = CliFixture::new();
    let text = "UserID,Nick\ra,张伟č\rb,王芳\r";
    let wide = [b"\xff\xfe", &encoded(text, "utf-16le")[..]].concat();
    let forms = [("lines.csv", text.into()), ("u.csv.gz", gzip(text.as_bytes())), ("u.csv", wide.clone()), ("w.csv.gz", gzip(&wide))];
    for (name, bytes) in forms {
        bench.write(name, &bytes);
        let run = bench.call(&["check", name]).run().exits(2).because("carriage returns");
        let (command, made) = run.stderr.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap().rsplit_once(", then take ").unwrap();
        assert!(!bench.names().contains(made), "{command}");
        assert!(Command::new("/bin/sh").args(["-c", command]).current_dir(bench.path("")).status().unwrap().success(), "{command}");
        assert_eq!(fs::read(bench.path(name)).unwrap(), bytes, "{command}");
        assert_eq!(bench.read(made), text.replace('\r', "\n"), "{command}");
        bench.call(&["check", made]).run().exits(0).because("2 rows can be sent");
    }
    let run = bench.call(&["check", "-"]).stdin(text).run().exits(2).hints("save it to a file");
    assert!(!run.stderr.contains("FILE"), "{}", run.stderr);
    bench.call(&["check", "-"]).stdin("[{\"UserID\": 1}]").run().exits(2).hints("save it to a file");
}

#[test]
fn a_mark_or_a_flag_that_is_wrong_has_a_way_out() {
    let bench = CliFixture::new();
    let rows = (1..=40).fold("UserID,Nick\n".to_owned(), |text, row| format!("{text}user{row},张伟和王芳的昵称\n"));
    let call = |flags: &[&str]| bench.call(&["check", "users.csv"]).args(flags).run();
    bench.write("users.csv", [b"\xef\xbb\xbf", &encoded(&rows, "gb18030")[..]].concat());
    let run = call(&[]).exits(2).hints("take it off").hints("--encoding gb18030");
    let hint = run.stderr.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap();
    let command = hint.split_once("take it off: ").unwrap().1.split_once(", then take ").unwrap().0;
    assert!(Command::new("/bin/sh").args(["-c", command]).current_dir(bench.path("")).status().unwrap().success(), "{command}");
    bench.call(&["check", "users.unmarked.csv", "--encoding", "gb18030"]).run().exits(0);
    // Surrogates that stand alone.
    let damaged = (1..=40).fold(encoded("UserID,Nick\n", "utf-16le"), |text, row| {
        [&text, &encoded(&format!("u{row},"), "utf-16le")[..], b"\x00\xd8", &encoded("\n", "utf-16le")].concat()
    });
    bench.write("users.csv", [b"\xff\xfe", &damaged[..]].concat());
    let run = call(&["--encoding", "utf-16le"]).exits(2).hints("export it again");
    assert!(!run.stderr.contains("say with --encoding"), "{}", run.stderr);
    // A flag that a file in UTF-8 doesn't need.
    bench.write("users.csv", rows.replace("的昵称", "的"));
    bench.write("plain.csv", "UserID,Nick\nu1,a\n");
    for text in ["UserID,Nick\nu1,a\n", "UserID,Nick\nu1,ab\n", "UserID,Nick\nu1,张伟\nu2,张伟1\n"] {
        bench.write("plain.csv", text);
        for encoding in ["utf-16le", "utf-16be"] {
            bench.call(&["check", "plain.csv", "--encoding", encoding]).run().exits(2).hints("leave --encoding out");
        }
    }
    call(&["--encoding", "big5"]).exits(2).hints("leave --encoding out").hints("张伟和王芳的");
    bench.write("users.csv", "UserID,Nick\na,张伟\nb,王芳\n");
    let run = call(&["--encoding", "gb18030"]);
    assert!(run.stderr.contains("\"张伟\" in it is read as ") && run.stderr.contains("leave --encoding gb18030 out"), "{}", run.stderr);
    // A damaged row is none of those that show the encoding.
    bench.write("users.csv", [&encoded(&rows, "gb18030")[..], b"v,\xff\xff\n"].concat());
    let run = call(&[]).exits(2).hints("--encoding gb18030 reads");
    assert!(!run.stderr.contains('\u{fffd}'), "{}", run.stderr);
    // Some rows in another encoding than the rest.
    let mixed = [rows.as_bytes(), &encoded(&"x,张伟\n".repeat(5), "gb18030")].concat();
    bench.write("users.csv", mixed);
    call(&[]).exits(2).hints("export it again, all in one");
}

#[test]
fn compressed_data_that_are_cut_off_or_damaged_are_refused() {
    let bench = CliFixture::new();
    let text = (1..=20_000).fold("UserID\n".to_owned(), |text, row| format!("{text}user{row}\n"));
    let check = |name: &str, bytes: &[u8], why: &str| {
        bench.write(name, bytes);
        for command in ["check", "import", "verify"] {
            let call = bench.call(&[command, name]);
            let call = if command == "check" { call } else { call.args(&["--sandbox"]) };
            call.run().exits(2).because(why).hints("get the whole file");
        }
        assert_eq!(bench.names().into_iter().collect::<Vec<_>>(), [name], "nothing is left half");
        fs::remove_file(bench.path(name)).unwrap();
    };
    let (gz, zst) = (gzip(text.as_bytes()), zstd(text.as_bytes()));
    check("u.csv.gz", &gz[..gz.len() / 2], "the gzip data are cut off");
    check("u.csv.gz", &gz[..gz.len() - 4], "the gzip data are cut off");
    let mut flipped = gz.clone();
    let crc = flipped.len() - 6;
    flipped[crc] ^= 1;
    check("u.csv.gz", &flipped, "the gzip data are damaged");
    check("u.csv.gz", &[&gz[..], b"more"].concat(), "something that is no gzip follows");
    check("u.csv.zst", &zst[..zst.len() / 2], "the zstd data are cut off");
    let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(28).unwrap();
    std::io::Write::write_all(&mut wide, text.as_bytes()).unwrap();
    bench.write("u.csv.zst", wide.finish().unwrap());
    bench.call(&["check", "u.csv.zst"]).run().exits(2).because("over 128 MiB").hints("--long=31");
}
