//! The cost of the whole tool, run as a user runs it: `cargo bench --bench whole`.
//!
//! It starts the release binary as a child process against a sandbox in this process, and reports. It checks only that the runs finish. The
//! pace is what arrived at the sandbox; CPU and memory are the child's only. Words behind `--` select: `pace`, `throughput`, `memory`
//! (these three by default) and `resume`, which takes minutes and half a gigabyte. `BENCH_ROWS` sets the rows of throughput and memory
//! (default 200,000), `BENCH_RESUME_ROWS` those of the resumed file (default 10,000,000).

#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up ends with a place")]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;

use chatlift::domain::command::Command as Api;
use chatlift::domain::figures::count;
use chatlift::sandbox::{ApiAudit, CustomFields, Keep, Sandbox, SandboxSettings};

/// Rows at the default rate: 15 s, long enough that the start does not matter.
const PACED_ROWS: u64 = 3_000;
/// The same in batches: 30 s.
const BATCH_PACED_ROWS: u64 = 300_000;
const ROWS: u64 = 200_000;
const RESUME_ROWS: u64 = 10_000_000;
/// How often the child is measured; its memory and its end are noticed with this delay.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// A tick of the CPU times in /proc. Source: the kernel's ABI, independent of its internal tick.
const TICK: Duration = Duration::from_millis(10);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == "--bench") {
        eprintln!("this measures; run it with cargo bench --bench whole");
        return;
    }
    let named: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    let wants = |name: &str| if named.is_empty() { name != "resume" } else { named.contains(&name) };
    if wants("pace") {
        pace();
        batch_pace();
    }
    if wants("throughput") {
        throughput(rows("BENCH_ROWS", ROWS));
    }
    if wants("memory") {
        memory(rows("BENCH_ROWS", ROWS));
    }
    if wants("resume") {
        resume(rows("BENCH_RESUME_ROWS", RESUME_ROWS));
    }
}

fn rows(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} must be a number of rows")))
}

/// At the default rate: how much of the limit is used, and whether it is ever exceeded.
fn pace() {
    let mut table =
        Table::new(&["pace, 200 calls/s", "mean calls/s", "most in 1 s", "by the sender", "over limit", "CPU/1,000 rows", "peak memory"]);
    for (name, latency_ms, jitter_ms) in [("answers at once", 0, 0), ("80 ± 20 ms", 80, 20)] {
        let folder = BenchFolder::new(PACED_ROWS);
        let latency = (Duration::from_millis(latency_ms), Duration::from_millis(jitter_ms));
        let sandbox = folder.sandbox(|settings| (settings.latency, settings.jitter) = latency);
        let cost = folder.import(&sandbox, &["--summary", folder.summary().to_str().unwrap()]);
        let seen = imports(&sandbox);
        table.row([
            name.to_owned(),
            format!("{:.2}", seen.mean_calls_per_s),
            seen.max_calls_in_1s.to_string(),
            folder.most_sent_in_1s(),
            seen.over_limit.to_string(),
            format!("{:.1} ms", cost.cpu.as_secs_f64() * 1e6 / PACED_ROWS as f64),
            mib(cost.peak_kib),
        ]);
    }
    table.print();
}

/// The same as [`pace`], for batches at their limit.
fn batch_pace() {
    let mut table = Table::new(&["pace, 100 batches/s", "mean calls/s", "most in 1 s", "over limit", "CPU, of a core", "peak memory"]);
    let folder = BenchFolder::new(BATCH_PACED_ROWS);
    let sandbox = folder.sandbox(|settings| settings.keep = Keep::Accounts);
    let cost = folder.import(&sandbox, &["--batch=strict"]);
    let seen = sandbox.audit().of(Api::MultiaccountImport);
    table.row([
        format!("{} rows", count(BATCH_PACED_ROWS)),
        format!("{:.2}", seen.mean_calls_per_s),
        seen.max_calls_in_1s.to_string(),
        seen.over_limit.to_string(),
        format!("{:.1} %", 100.0 * cost.cpu.as_secs_f64() / cost.elapsed.as_secs_f64()),
        mib(cost.peak_kib),
    ]);
    table.print();
}

/// The cost of a row without a rate limit.
fn throughput(rows: u64) {
    let mut table = Table::new(&["throughput, --rate 0", "rows/s", "CPU a row", "one core is", "peak memory"]);
    let folder = BenchFolder::new(rows);
    for (lane, flags) in [("single", ["--rate", "0"].as_slice()), ("batches", &["--rate", "0", "--batch=strict", "--restart"])] {
        // The first batch is read back, so the accounts must be stored.
        let sandbox = folder.sandbox(|settings| (settings.limit_per_s, settings.keep) = (None, Keep::Accounts));
        let cost = folder.import(&sandbox, flags);
        table.row(throughput_row(&format!("{} rows, {lane}", count(rows)), rows, &cost));
    }
    // Two requests a row instead of one.
    let folder = BenchFolder::with_input(|path| write_tagged_input(path, rows));
    let sandbox = folder.sandbox(|settings| {
        (settings.limit_per_s, settings.keep, settings.custom_fields) = (None, Keep::Accounts, CustomFields::Any);
    });
    let cost = folder.import(&sandbox, &["--rate", "0", "--profile-rate", "0"]);
    table.row(throughput_row(&format!("{} rows, single, three tags", count(rows)), rows, &cost));
    table.print();
}

fn throughput_row(name: &str, rows: u64, cost: &Cost) -> [String; 5] {
    let cpu_us = cost.cpu.as_secs_f64() * 1e6 / rows as f64;
    [
        name.to_owned(),
        format!("{:.0}", rows as f64 / cost.elapsed.as_secs_f64()),
        format!("{cpu_us:.1} µs"),
        format!("{:.0} rows/s", 1e6 / cpu_us),
        mib(cost.peak_kib),
    ]
}

/// Ten times the rows must need the same memory.
fn memory(rows: u64) {
    let mut table = Table::new(&["memory", "file", "peak memory"]);
    for rows in [rows / 2, rows * 5] {
        let folder = BenchFolder::new(rows);
        let sandbox = folder.unlimited_sandbox(0);
        let cost = folder.import(&sandbox, &["--rate", "0"]);
        let bytes = fs::metadata(&folder.input).unwrap().len();
        table.row([format!("{} rows", count(rows)), format!("{:.1} MB", bytes as f64 / 1e6), mib(cost.peak_kib)]);
    }
    table.print();
}

/// The time from the start of the process to its first request, when nine tenths of the file are processed.
fn resume(rows: u64) {
    let mut table = Table::new(&["resuming", "first call after", "peak memory"]);
    for rows in [10_000, rows] {
        let folder = BenchFolder::new(rows);
        let settled = rows / 10 * 9;
        let earlier = folder.unlimited_sandbox(0);
        folder.import(&earlier, &["--rate", "0", "--limit", &settled.to_string()]);
        // The port is part of the target, and the run must find the same target.
        let port = earlier.address().port();
        drop(earlier);
        let began = Instant::now();
        let sandbox = folder.unlimited_sandbox(port);
        let spawned = began.elapsed();
        let cost = folder.import(&sandbox, &["--rate", "0", "--limit", "1"]);
        let first_call_ms = (imports(&sandbox).first_call_s - spawned.as_secs_f64()) * 1e3;
        table.row([format!("row {} of {}", count(settled), count(rows)), format!("{first_call_ms:.0} ms"), mib(cost.peak_kib)]);
    }
    table.print();
}

fn imports(sandbox: &Sandbox) -> ApiAudit {
    sandbox.audit().of(Api::AccountImport)
}

/// A folder with an input and a key.
struct BenchFolder {
    folder: tempfile::TempDir,
    input: PathBuf,
    settings: SandboxSettings,
}

impl BenchFolder {
    fn new(rows: u64) -> Self {
        Self::with_input(|path| write_input(path, rows))
    }

    fn with_input(write: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("users.csv");
        write(&input);
        Self { folder, input, settings: SandboxSettings::ephemeral().unwrap() }
    }

    fn sandbox(&self, set: impl FnOnce(&mut SandboxSettings)) -> Sandbox {
        let mut settings = SandboxSettings { keep: Keep::Nothing, ..self.settings.clone() };
        set(&mut settings);
        Sandbox::start(settings).unwrap()
    }

    fn unlimited_sandbox(&self, port: u16) -> Sandbox {
        self.sandbox(|settings| (settings.limit_per_s, settings.port) = (None, port))
    }

    fn summary(&self) -> PathBuf {
        self.folder.path().join("summary.json")
    }

    /// The maximum that the import itself reports. The difference to what arrived is the network's jitter.
    fn most_sent_in_1s(&self) -> String {
        let summary: serde_json::Value = serde_json::from_slice(&fs::read(self.summary()).unwrap()).unwrap();
        summary["max_calls_in_1s"].to_string()
    }

    /// Runs an import to its end.
    fn import(&self, sandbox: &Sandbox, flags: &[&str]) -> Cost {
        let errors = self.folder.path().join("stderr");
        let mut command = Command::new(env!("CARGO_BIN_EXE_chatlift"));
        command
            .args(["import", "--quiet", "--endpoint", &sandbox.endpoint(), "--sdkappid", &self.settings.sdkappid.to_string()])
            .args(flags)
            .arg(&self.input)
            .env_clear()
            .env("CHATLIFT_SECRET_KEY", self.settings.key.expose_secret())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&errors).unwrap());
        let (status, cost) = watch(command.spawn().unwrap());
        assert!(status.success(), "the import ended with {status}: {}", fs::read_to_string(errors).unwrap());
        cost
    }
}

fn write_input(path: &Path, rows: u64) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    writeln!(file, "UserID,Nick,FaceUrl").unwrap();
    for row in 0..rows {
        writeln!(file, "user{row:08},Nick {row},https://img.example.com/{row}.png").unwrap();
    }
    file.flush().unwrap();
}

/// As [`write_input`], with three tags of the profile.
fn write_tagged_input(path: &Path, rows: u64) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    writeln!(file, "UserID,Nick,FaceUrl,Tag_Profile_IM_Gender,Tag_Profile_IM_BirthDay,Tag_Profile_Custom_Level").unwrap();
    for row in 0..rows {
        writeln!(file, "user{row:08},Nick {row},https://img.example.com/{row}.png,female,1990-01-02,level {row}").unwrap();
    }
    file.flush().unwrap();
}

/// The cost of a process.
struct Cost {
    elapsed: Duration,
    /// User and system time of all its threads.
    cpu: Duration,
    peak_kib: u64,
}

/// Measures a child until its end. /proc keeps the values of an ended process until it is waited for.
fn watch(mut child: Child) -> (ExitStatus, Cost) {
    let began = Instant::now();
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let mut peak_kib = 0;
    loop {
        peak_kib = peak_kib.max(high_water_kib(&proc));
        let stat = fs::read_to_string(proc.join("stat")).unwrap();
        // The name in parentheses may contain anything; behind the last one come the state and then numbers.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
        if fields[0] == "Z" {
            let ticks: u32 = fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap();
            let elapsed = began.elapsed();
            return (child.wait().unwrap(), Cost { elapsed, cpu: TICK * ticks, peak_kib });
        }
        park_timeout(LOOK_EVERY);
    }
}

/// The most memory that the process has used so far; 0 once it has ended.
fn high_water_kib(proc: &Path) -> u64 {
    let status = fs::read_to_string(proc.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or_default()
}

fn mib(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}

/// Rows under a heading, printed in columns.
struct Table(Vec<Vec<String>>);

impl Table {
    fn new(heading: &[&str]) -> Self {
        Self(vec![heading.iter().map(|&word| word.to_owned()).collect()])
    }

    fn row(&mut self, cells: impl Into<Vec<String>>) {
        self.0.push(cells.into());
    }

    fn print(&self) {
        let width = |column: usize| self.0.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..self.0[0].len()).map(width).collect();
        let mut text = String::new();
        for row in &self.0 {
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                if column == 0 { write!(text, "{cell:<width$}") } else { write!(text, "  {cell:>width$}") }.unwrap();
            }
            text.push('\n');
        }
        println!("{text}");
    }
}
