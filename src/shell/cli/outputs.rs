//! The files that a command writes as a whole, for others to read. All of them are judged before anything else is done: each can be
//! written, and none is another file of the command. The constants of [`OutputKind`] are the table of them.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{ErrorKind, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, OFlags, makedev};

use super::environment;
use super::flags::{CommandWords, ConnectionFlags, EndFlags};
use super::on_end::file_of;
use super::output_paths::{Named, NamedFile, ensure_access, ensure_name_fits, ensure_writable};
use crate::io::files::{aside, describe, resolved};
use crate::shell::exit::ExitMessage;

/// The numbers of `/dev/null`. Source: Linux' list of devices.
const DEV_NULL: (u32, u32) = (1, 3);

/// What an output may be besides a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Besides {
    /// Nothing: it is replaced, perhaps again and again, and others look for a file.
    Nothing,
    /// Standard output.
    Stdout,
    /// What takes text that is written once: the standard streams, a pipe that is read, a terminal, `/dev/null`.
    Streams,
}

/// A kind of file that a command writes as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutputKind {
    named: Named,
    besides: Besides,
}

impl OutputKind {
    pub(super) const SUMMARY: Self = Self::new("summary", "summary", Besides::Streams);
    pub(super) const METRICS: Self = Self::new("metrics", "metrics-file", Besides::Nothing);
    pub(super) const REPORT: Self = Self::new("report", "report", Besides::Nothing);
    pub(super) const PLAN: Self = Self::new("plan", "plan", Besides::Stdout);
    pub(super) const PROBE: Self = Self::new("JSON object", "json", Besides::Stdout);
    pub(super) const ENVIRONMENT: Self = Self::new("environment file", "env-file", Besides::Nothing);

    const fn new(what: &'static str, flag: &'static str, besides: Besides) -> Self {
        Self { named: Named { what, flag }, besides }
    }

    /// What helps against a place that is no file.
    fn takes(self) -> String {
        let flag = self.named.flag;
        match self.besides {
            Besides::Nothing => format!("name a file with --{flag}"),
            Besides::Stdout => format!("name a file, or /dev/stdout, with --{flag}"),
            Besides::Streams => format!("name a file, /dev/stdout or a pipe that is read with --{flag}"),
        }
    }
}

/// The outputs that the flags name, and what else the command reads or writes.
#[derive(Debug, Default)]
pub(super) struct NamedOutputs {
    outputs: Vec<(OutputKind, PathBuf)>,
    others: Vec<PathBuf>,
}

impl NamedOutputs {
    /// Of a command with these other files, which no output may be written over.
    pub(super) fn beside(others: Vec<PathBuf>) -> Self {
        Self { outputs: Vec::new(), others }
    }

    /// With one more, if it is named.
    pub(super) fn and(mut self, kind: OutputKind, path: Option<&Path>) -> Self {
        self.outputs.extend(path.map(|path| (kind, path.to_owned())));
        self
    }

    /// Finds out which of them can be written. Nothing is left behind by that.
    pub(super) fn judged(self) -> JudgedOutputs {
        let mut judged = JudgedOutputs::default();
        for (number, (kind, path)) in self.outputs.iter().enumerate() {
            match self.differs(number).and_then(|()| can_be_output(*kind, path)) {
                Ok(()) => judged.usable.push((*kind, path.clone())),
                Err(word) => drop(judged.refusal.get_or_insert(word)),
            }
        }
        judged
    }

    /// Neither the output nor the name under which it is made is another file of the command.
    fn differs(&self, number: usize) -> Result<(), ExitMessage> {
        let (kind, path) = &self.outputs[number];
        let hint = format!("name another file with --{}", kind.named.flag);
        let own = NamedFile::of(path);
        // What is found under that name is removed, whatever other names it has.
        let made_as = aside(&own.name).ok();
        let outputs = self.outputs.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, (_, path))| NamedFile::of(path));
        for other in self.others.iter().map(|other| NamedFile::of_input(other)).chain(outputs) {
            if own.is(&other) {
                return Err(own.named_twice(&other, &hint));
            }
            if made_as.as_ref() == Some(&other.name) {
                return Err(other.named_twice(&other, &hint));
            }
        }
        Ok(())
    }
}

/// The outputs that can be written.
#[derive(Debug, Default)]
pub(super) struct JudgedOutputs {
    usable: Vec<(OutputKind, PathBuf)>,
    /// What is wrong with the first of the others.
    refusal: Option<ExitMessage>,
}

impl JudgedOutputs {
    /// # Errors
    /// The [`ExitMessage`] for an output that can't be written (exit code 2).
    pub(super) fn all_usable(&self) -> Result<(), ExitMessage> {
        self.refusal.clone().map_or(Ok(()), Err)
    }

    /// The file of this kind, if one is named and can be written.
    pub(super) fn path(&self, kind: OutputKind) -> Option<&Path> {
        self.usable.iter().find(|(usable, _)| *usable == kind).map(|(_, path)| path.as_path())
    }
}

/// The files that the command line, the environment and the configuration name to be read for a connection.
pub(super) fn read_for(flags: &ConnectionFlags) -> Vec<PathBuf> {
    let config = &flags.defaults;
    let paths = [
        &flags.config,
        &flags.secret_key_file,
        &config.secret_key_file,
        &flags.ca_file,
        &config.ca_file,
        &flags.proxy_password_file,
        &config.proxy_password_file,
        &flags.quota.quota_password_file,
        &config.quota_password_file,
    ];
    let variables = ["CHATLIFT_CONFIG", "CHATLIFT_CA_FILE"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    paths.into_iter().flatten().cloned().chain(variables).filter(|path| !path.as_os_str().is_empty()).collect()
}

/// The files that a command only uses, so that nothing may be written over them: what it reads for a connection, and the program that it
/// starts at its end.
pub(super) fn used_for(connection: &ConnectionFlags, ending: &EndFlags) -> Vec<PathBuf> {
    let program = ending.on_end.as_ref().and_then(|CommandWords(words)| words.first());
    let program = program.and_then(|program| file_of(program, environment("PATH").as_deref()));
    read_for(connection).into_iter().chain(program).collect()
}

/// A standard stream of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnStream {
    Stdout,
    Stderr,
}

/// The standard stream that the path is a name of. It is written to, whatever it is: its file must not be replaced.
pub(super) fn own_stream(path: &Path) -> Option<OwnStream> {
    let is_one_of = |names: [&str; 3]| names.iter().any(|name| path == Path::new(name));
    if is_one_of(["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]) {
        Some(OwnStream::Stdout)
    } else if is_one_of(["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"]) {
        Some(OwnStream::Stderr)
    } else {
        None
    }
}

/// Whether the output can be written, and is replaced only where that is right.
fn can_be_output(kind: OutputKind, path: &Path) -> Result<(), ExitMessage> {
    let OutputKind { named, besides } = kind;
    let no_file = |found: &str| {
        let why = format!("the {} {} is {found}, not a file", named.what, path.display());
        Err(ExitMessage::yours(why, kind.takes()))
    };
    match (own_stream(path), besides) {
        (Some(_), Besides::Streams) | (Some(OwnStream::Stdout), Besides::Stdout) => return Ok(()),
        (Some(OwnStream::Stdout), Besides::Nothing) => return no_file("standard output"),
        (Some(OwnStream::Stderr), Besides::Nothing | Besides::Stdout) => return no_file("standard error"),
        (None, _) => {}
    }
    match fs::metadata(path) {
        Ok(stat) if stat.is_file() => {}
        Ok(stat) if besides == Besides::Streams && takes_text(path, &stat) => return ensure_access(named, path, path, Access::WRITE_OK),
        Ok(stat) => return no_file(describe(stat.file_type())),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
        Err(error) => return Err(ExitMessage::yours(format!("cannot write the {} {}: {error}", named.what, path.display()), kind.takes())),
    }
    if path.file_name().is_none() || path.as_os_str().as_bytes().ends_with(b"/") {
        return no_file("the name of a folder");
    }
    if let Ok(made_as) = aside(&resolved(path)) {
        ensure_name_fits(&made_as, &format!("give --{} a shorter name", named.flag))?;
    }
    ensure_writable(named, path)
}

/// Whether it is a pipe, a terminal, or `/dev/null`.
fn takes_text(path: &Path, stat: &Metadata) -> bool {
    stat.file_type().is_fifo()
        || (stat.file_type().is_char_device() && (stat.rdev() == makedev(DEV_NULL.0, DEV_NULL.1) || is_terminal(path)))
}

fn is_terminal(path: &Path) -> bool {
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).expect("the flags fit into an i32");
    OpenOptions::new().write(true).custom_flags(flags).open(path).is_ok_and(|file| file.is_terminal())
}
