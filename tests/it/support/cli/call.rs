//! A command line that is being built.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::running::Running;
use super::{CliFixture, Run};
use crate::support::server::Server;

/// Commands that send requests.
const SENDERS: [&str; 3] = ["import", "sync", "verify"];

/// A command line that is being built.
pub(crate) struct Call<'a> {
    pub(super) bench: &'a CliFixture,
    pub(super) command: Command,
    /// Flags that are added unless the test gives them.
    pub(super) usual: &'static [&'static str],
    pub(super) stdin: Option<Vec<u8>>,
    pub(super) server: Option<&'a Server>,
    /// Whether the environment or the output may contain the key, because the test wants it there.
    pub(super) shows_key: bool,
    pub(super) is_soon_after: bool,
    pub(super) stem: String,
}

impl<'a> Call<'a> {
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    /// Sets the flags that are added unless the test gives them.
    pub(crate) fn usually(self, usual: &'static [&'static str]) -> Self {
        Self { usual, ..self }
    }

    /// Removes the rate limit.
    pub(crate) fn at_any_rate(self) -> Self {
        self.args(&["--rate", "0"])
    }

    /// Leaves the time of the last request as the last process on these files has left it, so that this one waits its second out.
    pub(crate) fn soon_after(self) -> Self {
        Self { is_soon_after: true, ..self }
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.shows_key |= name == "CHATLIFT_SECRET_KEY" || name == "CHATLIFT_USERSIG";
        self.command.env(name, value.as_ref());
        self
    }

    pub(crate) fn stdin(self, text: &(impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { stdin: Some(text.as_ref().to_owned()), ..self }
    }

    /// Sets the name of the results if they are not named after the input.
    pub(crate) fn stem(self, stem: &str) -> Self {
        Self { stem: stem.to_owned(), ..self }
    }

    /// Adds the server's UserSigs to the search for secrets.
    pub(crate) fn against(self, server: &'a Server) -> Self {
        Self { server: Some(server), ..self }
    }

    pub(crate) fn run(self) -> Run {
        self.start().wait()
    }

    /// Runs the command in a shell that sets limits first.
    pub(crate) fn through_shell(self, limits: &str) -> Self {
        self.through("/bin/sh", &["-c", &format!("{limits}; exec \"$0\" \"$@\"")])
    }

    /// Runs the command by another program, which replaces itself by it.
    pub(crate) fn through(mut self, program: &str, args: &[&str]) -> Self {
        let mut outer = Command::new(program);
        outer.args(args).arg(self.command.get_program()).args(self.command.get_args());
        outer.env_clear().current_dir(self.bench.folder.path()).stdin(Stdio::null());
        self.command = outer;
        self
    }

    pub(crate) fn start(mut self) -> Running<'a> {
        let given: BTreeSet<_> = self.command.get_args().map(ToOwned::to_owned).collect();
        let is_given = |flag: &str| flag.split_once('=').is_some_and(|(name, _)| given.contains(OsStr::new(name)));
        self.command.args(self.usual.iter().filter(|flag| !is_given(flag)));
        if !self.is_soon_after && given.iter().any(|arg| SENDERS.iter().any(|command| arg == command)) {
            self.bench.ages_last_calls();
        }
        let number = self.bench.outputs.replace(self.bench.outputs.get() + 1);
        let output = |name: &str| self.bench.outside.path().join(format!("{number}.{name}"));
        let (stdout, stderr) = (output("stdout"), output("stderr"));
        if let Some(text) = &self.stdin {
            fs::write(output("stdin"), text).unwrap();
            self.command.stdin(File::open(output("stdin")).unwrap());
        }
        self.command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        let child = self.command.spawn().unwrap();
        let Self { bench, server, shows_key, stem, .. } = self;
        Running { bench, server, shows_key, stem, child, stdout, stderr, began: Instant::now(), has_ended: false }
    }
}
