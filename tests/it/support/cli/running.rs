//! A running process, and what others could see of it.

use std::cell::Cell;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::run::{Run, json, rows};
use super::secrets::Secrets;
use super::{CliFixture, KEY, LOOK_EVERY, RUN_MAX, eventually};
use crate::support::server::Server;

/// A running process. It is killed when this is dropped.
pub(crate) struct Running<'a> {
    pub(super) bench: &'a CliFixture,
    pub(super) server: Option<&'a Server>,
    pub(super) shows_key: bool,
    pub(super) stem: String,
    pub(super) child: Child,
    pub(super) stdout: PathBuf,
    pub(super) stderr: PathBuf,
    pub(super) began: Instant,
    pub(super) has_ended: bool,
}

impl Running<'_> {
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process handles signals itself. Before that, a signal ends it as any process.
    pub(crate) fn takes_signals(&self) {
        const TERM_BIT: u64 = 1 << 14;
        let status = Path::new("/proc").join(self.id().to_string()).join("status");
        eventually("it takes signals", || {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let taken = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            taken.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & TERM_BIT != 0)
        });
    }

    /// Whether the process has this file of its folder open.
    pub(crate) fn has_open(&self, name: &str) -> bool {
        let opened = fs::read_dir(Path::new("/proc").join(self.id().to_string()).join("fd")).into_iter().flatten();
        opened.filter_map(Result::ok).any(|entry| fs::read_link(entry.path()).is_ok_and(|file| file == self.bench.path(name)))
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap()).into_owned()
    }

    /// The same as [`Self::wait`], and returns the most memory that the process used, in KiB.
    pub(crate) fn wait_with_peak(self) -> (Run, u64) {
        let status = Path::new("/proc").join(self.child.id().to_string()).join("status");
        let peak = Cell::new(0);
        let run = self.wait_looking(|| {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
            peak.set(line.trim().trim_end_matches(" kB").parse().unwrap_or(peak.get()));
        });
        (run, peak.get())
    }

    /// Waits for the end, searches for secrets, and reads the files of the run.
    pub(crate) fn wait(self) -> Run {
        self.wait_looking(|| ())
    }

    fn wait_looking(mut self, look: impl Fn()) -> Run {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            self.look_into_process();
            look();
            if self.began.elapsed() > RUN_MAX {
                self.child.kill().unwrap();
                panic!("it does not end: {}", self.stderr());
            }
            std::thread::park_timeout(LOOK_EVERY);
        };
        self.has_ended = true;
        assert_eq!(self.server.map(Server::wrong).unwrap_or_default(), Vec::<String>::new(), "calls are as documented");
        let secrets = self.secrets();
        let (stdout, stderr) = (fs::read(&self.stdout).unwrap(), fs::read(&self.stderr).unwrap());
        if !self.shows_key {
            secrets.must_not_be_in("stdout", &stdout);
        }
        secrets.must_not_be_in("stderr", &stderr);
        for (name, bytes) in self.bench.contents() {
            secrets.must_not_be_in(&name, &bytes);
        }
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        Run {
            code: status.code(),
            signal: status.signal(),
            stdout: text(stdout),
            stderr: text(stderr),
            rows: rows(&self.bench.path(&format!("{}.results.csv", self.stem))),
            rejects: fs::read_to_string(self.bench.path(&format!("{}.rejects.csv", self.stem))).ok(),
            checkpoint: json(&self.bench.path(&format!("{}.checkpoint.json", self.stem))),
            summary: json(&self.bench.path("summary.json")),
            took: self.began.elapsed(),
        }
    }

    fn secrets(&self) -> Secrets {
        Secrets::new(KEY, &self.server.map(Server::usersigs).unwrap_or_default())
    }

    /// Checks everything that other users of the machine could see of the process.
    fn look_into_process(&self) {
        let secrets = self.secrets();
        let process = Path::new("/proc").join(self.child.id().to_string());
        if let Ok(limits) = fs::read_to_string(process.join("limits"))
            && self.server.is_some_and(|server| server.calls() > 0)
        {
            let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
            // A process that has ended has no limits any more.
            assert!(cores.is_empty() || cores.split_whitespace().nth(4) == Some("0"), "a core dump would hold the key: {cores}");
        }
        if let Ok(cmdline) = fs::read(process.join("cmdline")) {
            secrets.must_not_be_in("argv", &cmdline);
        }
        if let Ok(environ) = fs::read(process.join("environ"))
            && !self.shows_key
        {
            secrets.must_not_be_in("the environment", &environ);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
