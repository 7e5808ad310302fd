//! The program that `--on-end` names: started when everything is written and all locks are released, and never waited for without a bound.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use super::signals;
use crate::shell::terminal::{print_stderr, printable};

/// How long it may take. Source: the contract of operating.
const TIME_LIMITS: TimeLimits = TimeLimits { usual: Duration::from_secs(60), after_signal: Duration::from_secs(10) };
/// How often to look whether it has ended. Chosen: nobody notices it.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Variables that may hold a secret.
const SECRETS: [&str; 4] = ["CHATLIFT_SECRET_KEY", "CHATLIFT_USERSIG", "CHATLIFT_PROXY", "CHATLIFT_QUOTA"];
/// The variable in which a process that a signal ends leaves the call to the process that takes its place.
const PENDING: &str = "CHATLIFT_PENDING_ON_END";

/// A call that is to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct OnEndCall {
    pub(super) words: Vec<String>,
    pub(super) exit_code: u8,
    pub(super) outcome: String,
    pub(super) command: String,
    /// The page of `--report`, if one is written.
    pub(super) report: Option<PathBuf>,
    /// JSON.
    pub(super) summary: String,
}

impl OnEndCall {
    /// Makes the call. Whatever becomes of it is told, and changes nothing.
    pub(super) fn make(self) {
        let program = self.words.first().cloned().unwrap_or_default();
        let made = self.start().and_then(|mut child| wait(&mut child, TIME_LIMITS, &signals::first_at));
        match made {
            Ok(Some(status)) if status.success() => {}
            Ok(Some(status)) => warn(&program, &format!("ended with {status}")),
            Ok(None) => warn(&program, "took too long and was killed"),
            Err(error) => warn(&program, &format!("could not be run: {error}")),
        }
    }

    fn start(self) -> io::Result<Child> {
        let [program, arguments @ ..] = self.words.as_slice() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let mut command = Command::new(program);
        // Standard output is for the data of chatlift.
        command.args(arguments).stdin(Stdio::piped()).stdout(io::stderr().as_fd().try_clone_to_owned()?).process_group(0);
        SECRETS.iter().chain([&PENDING]).for_each(|name| {
            command.env_remove(name);
        });
        command.env("CHATLIFT_EXIT_CODE", self.exit_code.to_string()).env("CHATLIFT_OUTCOME", self.outcome);
        command.env("CHATLIFT_COMMAND", self.command).env("CHATLIFT_REPORT", self.report.unwrap_or_default());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that doesn't read is no fault, and must hold up nobody.
            std::thread::spawn(move || {
                let _ = stdin.write_all(self.summary.as_bytes());
            });
        }
        Ok(child)
    }

    /// The program that takes the place of this process, which thereby releases its locks, and makes the call.
    pub(super) fn successor(&self) -> Option<Command> {
        let call = serde_json::to_string(self).ok()?;
        let mut command = Command::new("/proc/self/exe");
        command.env(PENDING, call);
        Some(command)
    }
}

/// The call that a process has left to this one, which has taken its place; a signal had ended that one.
pub(super) fn pending(environment: impl Fn(&str) -> Option<OsString>) -> Option<OnEndCall> {
    serde_json::from_str(environment(PENDING)?.to_str()?).ok()
}

/// The file of a program as it is started: a name without a slash is looked up in `search`, the list of folders that is PATH.
pub(super) fn file_of(program: &str, search: Option<&OsStr>) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(program.into());
    }
    let can_start = |file: &Path| file.is_file() && accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS).is_ok();
    std::env::split_paths(search?).map(|folder| folder.join(program)).find(|file| can_start(file))
}

/// How long the program is waited for.
#[derive(Debug, Clone, Copy)]
struct TimeLimits {
    usual: Duration,
    /// From a signal on: whoever stops a service waits for it.
    after_signal: Duration,
}

/// Waits for the program's end; `None` if its time was up, and its process group is killed. `signal` says when the first signal came.
fn wait(child: &mut Child, limits: TimeLimits, signal: &dyn Fn() -> Option<Instant>) -> io::Result<Option<ExitStatus>> {
    let began = Instant::now();
    let group = Pid::from_child(child);
    let _on_signal = signals::Group::of(group);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let until = signal().map_or(began + limits.usual, |signal| signal.max(began) + limits.after_signal);
        if Instant::now() >= until {
            // If it is gone by now, nothing is left to be killed.
            let _ = kill_process_group(group, Signal::KILL);
            return child.wait().map(|_| None);
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

fn warn(program: &str, what: &str) {
    print_stderr(&format_args!("warning: --on-end: {} {what}", printable(program)));
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn call(script: &str) -> OnEndCall {
        let words = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let (outcome, command) = ("done".to_owned(), "import".to_owned());
        OnEndCall { words, exit_code: 0, outcome, command, report: None, summary: "{}\n".to_owned() }
    }

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(100);

    #[test]
    fn a_program_whose_time_is_up_is_killed_with_all_that_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let script = format!("sleep 50 & echo $! > {}; wait", pid.display());
        let mut child = call(&script).start().unwrap();
        let limits = TimeLimits { usual: SHORT, after_signal: LONG };
        while std::fs::read_to_string(&pid).unwrap_or_default().is_empty() {
            std::thread::park_timeout(LOOK_EVERY);
        }
        assert_eq!(wait(&mut child, limits, &|| None).unwrap(), None);
        let sleeper: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        let is_gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{sleeper}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z")
        };
        let began = Instant::now();
        while !is_gone() {
            assert!(began.elapsed() < LONG, "what it started lives on");
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    #[test]
    fn a_signal_leaves_it_less_time() {
        let limits = TimeLimits { usual: LONG, after_signal: SHORT };
        let (began, looks) = (Instant::now(), Cell::new(0));
        let mut child = call("sleep 50").start().unwrap();
        let signal = || {
            looks.set(looks.get() + 1);
            (looks.get() > 5).then(Instant::now).map(|_| began)
        };
        assert_eq!(wait(&mut child, limits, &signal).unwrap(), None);
        assert!(began.elapsed() < LONG / 2);
    }

    #[test]
    fn a_program_that_does_not_read_is_no_fault() {
        let long = OnEndCall { summary: "x".repeat(1 << 20), ..call("exit 3") };
        let status = wait(&mut long.start().unwrap(), TIME_LIMITS, &|| None).unwrap().unwrap();
        assert_eq!(status.code(), Some(3));
    }
}
