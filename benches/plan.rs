//! What planning a sync costs, part by part: `cargo bench --bench plan`.
//!
//! Fills a state from a file, changes 5,000 of its rows, and plans the file against the state, once with ids in random order and once in order;
//! then once more with three tags in each row, of which 5,000 rows change one.
//! `BENCH_PLAN_ROWS` says how many rows (default 1,000,000), `BENCH_PLAN_FOLDER` where they stand (some 250 bytes a row for a while).

#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up ends with a place")]

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use chatlift::domain::figures::count;

use chatlift::domain::target::Target;
use chatlift::flow::import::SendOutcomes;
use chatlift::flow::sync::{MissingRules, PlanDraft, Policy, Scratch, build_plan, compare, scan};
use chatlift::io::extsort::ExternalSorter;
use chatlift::io::roster::{self, Format, Roster};
use chatlift::io::state::{Finish, NewRun, SendOutcome, Sent, StateDb};

const ROWS: u64 = 1_000_000;
const CHANGED: u64 = 5_000;
/// A tick of the CPU times in /proc; the kernel's ABI, whatever it ticks at inside.
const TICK: Duration = Duration::from_millis(10);

fn main() {
    if !std::env::args().any(|word| word == "--bench") {
        eprintln!("this measures; run it with cargo bench --bench plan");
        return;
    }
    let rows = std::env::var("BENCH_PLAN_ROWS").map_or(ROWS, |text| text.parse().expect("BENCH_PLAN_ROWS must be a number of rows"));
    let folder = std::env::var_os("BENCH_PLAN_FOLDER").map_or_else(std::env::temp_dir, Into::into);
    for (name, id) in [("random", scattered as fn(u64) -> String), ("in order", |row| format!("u{row:015}"))] {
        let place = tempfile::tempdir_in(&folder).unwrap();
        println!("{} rows, ids {name}", count(rows));
        let cells = Cells { id, tags: false };
        let plain = measure(place.path(), rows, cells);
        drop(place);
        let place = tempfile::tempdir_in(&folder).unwrap();
        println!("{} rows, ids {name}, three tags", count(rows));
        let tagged = measure(place.path(), rows, Cells { tags: true, ..cells });
        let [wall, cpu] = [0, 1].map(|which| tagged[which].div_duration_f64(plain[which]));
        println!("planning with tags: {wall:.2} times the time, {cpu:.2} times the CPU of planning without");
    }
}

/// What is in each row.
#[derive(Clone, Copy)]
struct Cells {
    id: fn(u64) -> String,
    /// Three more columns, of which the last one changes; else the Nick does.
    tags: bool,
}

/// Ids as they come from nowhere in particular; no two are the same.
fn scattered(row: u64) -> String {
    let mixed = (row ^ row >> 13).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("u{:015x}", (mixed ^ mixed >> 29) & ((1 << 60) - 1))
}

/// Time and CPU of the planning.
fn measure(folder: &Path, rows: u64, cells: Cells) -> [Duration; 2] {
    let (before, after) = (folder.join("before.csv"), folder.join("after.csv"));
    write_input(&before, rows, u64::MAX, cells);
    write_input(&after, rows, (rows / CHANGED).max(1), cells);
    let path = folder.join("state.sqlite");
    fill(&path, &before);
    fs::remove_file(before).unwrap();
    let bare = timed("bare csv read", rows, || bare_read(&after));
    timed("views alone", rows, || views(&after));
    timed("framing alone", rows, || framing(&after));
    timed("sorting alone: digests in", rows, || sort(folder, rows));
    let state = StateDb::find(&path).unwrap().unwrap();
    let look_up = timed("state look-ups", rows, || state.each_account(|_, _| Ok(())).unwrap());
    let mut took = [Duration::ZERO; 2];
    let peak = peak_of(|| {
        let planned = timed("planning", rows, || plan(&after, Some(&state)));
        took = planned.1;
        println!("    {:?}", planned.0.counts);
        let [wall, cpu] = [0, 1].map(|which| (planned.1[which].saturating_sub(look_up.1[which])).div_duration_f64(bare.1[which]));
        println!("    less the look-ups, of the bare read: {wall:.2} times the time, {cpu:.2} times the CPU");
    });
    println!("    peak memory while planning: {:.1} MiB", peak as f64 / 1024.0);
    lacking(folder, rows, cells, &state);
    drop(state);
    let (draft, _) = timed("planning again", rows, || plan(&after, Some(&StateDb::find(&path).unwrap().unwrap())));
    finish(&path, draft, rows);
    took
}

/// Every tenth account is missing, and each of them is compared with each record.
fn lacking(folder: &Path, rows: u64, cells: Cells, state: &StateDb) {
    let fewer = folder.join("fewer.csv");
    write_rows(&fewer, (0..rows).filter(|row| !row.is_multiple_of(10)), u64::MAX, cells);
    let mut draft = plan(&fewer, Some(state));
    let mut reading = Scratch { folder: folder.to_owned(), tell: &mut |_| ControlFlow::Continue(()) };
    let mut roster = Roster::open(&fewer, &Format::default()).unwrap();
    let peak = peak_of(|| {
        timed("comparing with a tenth missing", rows, || compare(&mut draft, &mut roster, &policy(), &mut reading).unwrap());
    });
    println!("    {} missing; peak memory while comparing: {:.1} MiB", count(draft.counts.missing), peak as f64 / 1024.0);
    fs::remove_file(fewer).unwrap();
}

/// About 70 bytes a row, with tags 25 more.
fn write_input(path: &Path, rows: u64, changed_every: u64, cells: Cells) {
    write_rows(path, 0..rows, changed_every, cells);
}

fn write_rows(path: &Path, rows: impl Iterator<Item = u64>, changed_every: u64, Cells { id, tags }: Cells) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let names = if tags { ",Tag_Profile_IM_Gender,Tag_Profile_IM_BirthDay,Tag_Profile_Custom_Vip" } else { "" };
    writeln!(file, "UserID,Nick,FaceUrl{names}").unwrap();
    for row in rows {
        let night = if row % changed_every == 0 { "tonight" } else { "earlier" };
        let (of_nick, of_tag) = if tags { ("earlier", night) } else { (night, "") };
        write!(file, "{},Nick {row} {of_nick},https://img.example.com/a/{row}.png", id(row)).unwrap();
        if tags {
            let (gender, day) = (["male", "female", "unknown"][(row % 3) as usize], 1 + row % 28);
            write!(file, ",{gender},199001{day:02},{of_tag}").unwrap();
        }
        writeln!(file).unwrap();
    }
    file.flush().unwrap();
}

fn bare_read(path: &Path) -> u64 {
    let mut reader = csv::ReaderBuilder::new().buffer_capacity(1 << 17).from_path(path).unwrap();
    let mut record = csv::ByteRecord::new();
    while reader.read_byte_record(&mut record).unwrap() {}
    reader.position().record()
}

fn views(path: &Path) -> u64 {
    let mut roster = Roster::open(path, &Format::default()).unwrap();
    let mut valid = 0;
    while let Some(view) = roster.next_view() {
        valid += u64::from(view.unwrap().account.is_ok());
    }
    valid
}

fn framing(path: &Path) -> u64 {
    Roster::open(path, &Format::default()).unwrap().count_rest().unwrap()
}

fn sort(folder: &Path, rows: u64) {
    let mut sorter = ExternalSorter::<57>::in_folder(folder);
    for row in 0..rows {
        let mut entry = [0; 57];
        entry[1..9].copy_from_slice(&(row ^ row >> 13).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        sorter.push(entry).unwrap();
    }
    let (merged, _) = timed("sorting alone: to the first digest out", rows, || sorter.finish().unwrap());
    timed("sorting alone: digests out", rows, || merged.fold(0_u64, |sum, entry| sum + u64::from(entry.unwrap()[8])));
}

fn plan(input: &Path, state: Option<&StateDb>) -> PlanDraft {
    let mut roster = Roster::open(input, &Format::default()).unwrap();
    let stat = roster::fingerprint(input).unwrap();
    let rows = fs::metadata(input).unwrap().len() / 70;
    let mut reading = Scratch { folder: input.parent().unwrap().to_owned(), tell: &mut |_| ControlFlow::Continue(()) };
    let (scanned, _) = timed("planning: scan", rows, || scan(&mut roster, stat, &mut reading).unwrap());
    timed("planning: the rest", rows, || build_plan(scanned, state, SendOutcomes::none(), &policy(), &mut reading).unwrap()).0
}

fn policy() -> Policy {
    Policy { missing: MissingRules::report(), canaries: Vec::new(), now: 1 }
}

/// A state that holds what the file says.
fn fill(path: &Path, input: &Path) {
    let target = Target { endpoint: "https://chat.example.com".to_owned(), sdkappid: 1, api: "v4".to_owned() };
    drop(StateDb::open_or_create(path, &target, 1).unwrap());
    let draft = plan(input, None);
    let rows = draft.ops.rows();
    finish(path, draft, rows);
}

/// Carries a plan out, as far as the state goes.
fn finish(path: &Path, mut draft: PlanDraft, rows: u64) {
    let mut state = StateDb::find(path).unwrap().unwrap();
    let (input, counts, filled) = (draft.input, draft.counts, draft.filled.clone());
    let none = || std::iter::empty();
    let mut begin = |draft: &mut PlanDraft| {
        let (planned, missing, ops) = draft.lists().unwrap();
        let new = NewRun { counts, filled: filled.clone(), token: 1, ..NewRun::bare("sync", 1, input, ops) };
        let open = state.begin(new, planned, missing, none()).unwrap();
        state.record_send_intent(rows).unwrap();
        (open.number, open.token)
    };
    let (run, _) = timed("state: begin", rows, || begin(&mut draft));
    let taken =
        draft.lists().unwrap().0.map(|planned| planned.map(|planned| SendOutcome::new(planned.id, planned.row, Sent::Taken { at: 2 })));
    timed("state: finish", rows, || state.finish(taken, Finish { run, at: 3, ..Finish::default() }).unwrap());
}

/// What it yields, its time, and the CPU of all threads.
fn timed<T>(name: &str, rows: u64, work: impl FnOnce() -> T) -> (T, [Duration; 2]) {
    let (began, cpu_before) = (Instant::now(), cpu());
    let done = work();
    let (wall, cpu) = (began.elapsed(), cpu().saturating_sub(cpu_before));
    let a_row = |time: Duration| time.as_secs_f64() * 1e9 / rows as f64;
    println!(
        "  {name:<36} {:6.2} s {:6.0} ns a row, CPU {:6.2} s {:6.0} ns",
        wall.as_secs_f64(),
        a_row(wall),
        cpu.as_secs_f64(),
        a_row(cpu)
    );
    (done, [wall, cpu])
}

fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // The name in parentheses may hold anything; what follows the last one is state, then numbers.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    TICK * (fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap())
}

/// The most memory in KiB that the process has held meanwhile.
fn peak_of(work: impl FnOnce()) -> u64 {
    fs::write("/proc/self/clear_refs", "5").unwrap();
    work();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}
