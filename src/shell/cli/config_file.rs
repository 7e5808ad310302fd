//! The configuration file: what it says is added to the command line as the flags that it names, and then read as they are.
//!
//! It is read once. What falls back to an environment variable first (the connection flags) is kept apart for `settings`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};
use serde::Deserialize;
use toml::{Table, Value};

use super::command_line::file_word;
use super::flags::Cli;
use super::settings::{Environment, cannot_read, variable};
use super::small_file;
use crate::domain::account::Field;
use crate::domain::tag::Tag;
use crate::domain::tag_words::UnknownTag;
use crate::io::files::folder_of;
use crate::shell::exit::ExitMessage;

/// Flags that are for one run, so that no file may make them a habit.
const FOR_ONE_RUN: [&str; 8] = ["restart", "dry-run", "limit", "allow", "yes", "write", "delete", "config"];

/// Whether a flag is for one run, so that the file may not have it.
#[must_use]
pub fn is_for_one_run(flag: &str) -> bool {
    FOR_ONE_RUN.contains(&flag)
}

/// Flags of no use without another one. A file may have them all the same, for the runs that have the other one.
const NEEDED: [(&str, &str); 3] = [("status-host", "status"), ("status-anywhere", "status"), ("profile", "write")];
/// The flag that names a program.
const RUNS_PROGRAM: &str = "on-end";
/// The names of what speaks of no setting.
const NO_SETTINGS: [&str; 2] = ["help", "version"];

/// What the file says of the connection, for what the environment doesn't.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct ConnectionDefaults {
    pub(super) sdkappid: Option<u64>,
    pub(super) identifier: Option<String>,
    pub(super) secret_key_file: Option<PathBuf>,
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) proxy: Option<String>,
    pub(super) proxy_password_file: Option<PathBuf>,
    pub(super) rate: Option<u32>,
    pub(super) headroom: Option<u8>,
    pub(super) in_flight: Option<u32>,
    pub(super) max_attempts: Option<u32>,
    pub(super) timeout: Option<f64>,
    pub(super) max_outage: Option<String>,
    pub(super) quota: Option<String>,
    pub(super) quota_password_file: Option<PathBuf>,
    pub(super) quota_key: Option<String>,
    #[serde(default)]
    pub(super) quota_rate: Vec<String>,
    pub(super) quota_lost: Option<String>,
}

/// The keys of [`ConnectionDefaults`].
const CONNECTION: [&str; 19] = [
    "sdkappid",
    "identifier",
    "secret-key-file",
    "region",
    "endpoint",
    "ca-file",
    "proxy",
    "proxy-password-file",
    "rate",
    "headroom",
    "in-flight",
    "max-attempts",
    "timeout",
    "max-outage",
    "quota",
    "quota-password-file",
    "quota-key",
    "quota-rate",
    "quota-lost",
];

/// Why a command line makes no command.
#[derive(Debug)]
pub(super) enum CommandLineError {
    /// clap says it.
    Usage(Box<clap::Error>),
    /// The configuration file is at fault.
    File(ExitMessage),
}

impl From<clap::Error> for CommandLineError {
    fn from(error: clap::Error) -> Self {
        Self::Usage(Box::new(error))
    }
}

/// The command that the words of a command line and the configuration file make together.
///
/// # Errors
/// What is wrong with either.
pub(super) fn parse(words: Vec<OsString>, environment: Environment) -> Result<Cli, CommandLineError> {
    let Some(file) = ConfigFile::of(&words, environment).map_err(CommandLineError::File)? else {
        return Ok(Cli::from_arg_matches(&Cli::command().try_get_matches_from(words)?)?);
    };
    let added = file.flags().map_err(CommandLineError::File)?;
    let matches = Cli::command().try_get_matches_from(with_flags(words, &added)).map_err(|error| file.blamed(error, &added))?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    if let Some(connection) = cli.command.connection_mut() {
        connection.defaults = file.connection;
    }
    Ok(cli)
}

/// Behind the command's name, where a flag can't be taken for something else.
fn with_flags(mut words: Vec<OsString>, added: &[String]) -> Vec<OsString> {
    let place = words.len().min(2);
    words.splice(place..place, added.iter().map(OsString::from));
    words
}

/// Who may write to the file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Writers {
    /// Only who could also start chatlift as this user.
    Own,
    Others,
    /// Others can put another file into its place, in this folder.
    OthersInFolder(PathBuf),
}

impl Writers {
    fn of(path: &Path) -> Self {
        const GROUP_OR_OTHERS: u32 = 0o022;
        // In such a folder nobody removes or renames what is another's.
        const STICKY: u32 = 0o1000;
        let owners = [0, rustix::process::geteuid().as_raw()];
        let is_own = |stat: Metadata| owners.contains(&stat.uid()) && stat.mode() & GROUP_OR_OTHERS == 0;
        let is_own_folder =
            |stat: Metadata| owners.contains(&stat.uid()) && (stat.mode() & GROUP_OR_OTHERS == 0 || stat.mode() & STICKY != 0);
        if !std::fs::metadata(path).is_ok_and(is_own) {
            return Self::Others;
        }
        // The file may be named by a link, which can be put elsewhere as well.
        let named_in = folder_of(path).to_owned();
        let lies_in = std::fs::canonicalize(path).ok().and_then(|path| path.parent().map(Path::to_owned));
        let mut folders = [Some(named_in), lies_in].into_iter().flatten();
        let others = folders.find(|folder| !std::fs::metadata(folder).is_ok_and(is_own_folder));
        others.map_or(Self::Own, Self::OthersInFolder)
    }

    /// How they can change what the file says, and what stops them.
    fn objection(&self, path: &Path) -> Option<[String; 2]> {
        match self {
            Self::Own => None,
            Self::Others => {
                Some(["others can write to this file".to_owned(), format!("chmod go-w {}, and see that it is yours", file_word(path))])
            }
            Self::OthersInFolder(folder) => Some([
                format!("others can replace this file, since they can write to its folder {}", folder.display()),
                format!("chmod go-w {}, and see that it is yours", file_word(folder)),
            ]),
        }
    }
}

/// The file, and the command that it is read for.
struct ConfigFile {
    path: PathBuf,
    writers: Writers,
    text: String,
    values: Table,
    connection: ConnectionDefaults,
    /// The command, and what was typed of it.
    command: Command,
    typed: ArgMatches,
}

impl ConfigFile {
    /// The file that the command line or the environment names, if the command reads one.
    fn of(words: &[OsString], environment: Environment) -> Result<Option<Self>, ExitMessage> {
        let all = Cli::command().ignore_errors(true);
        let Ok(matches) = all.clone().try_get_matches_from(words) else { return Ok(None) };
        let Some((command, typed)) = called(&all, &matches) else { return Ok(None) };
        let Ok(given) = typed.try_get_one::<PathBuf>("config") else { return Ok(None) };
        let named = given
            .cloned()
            .map_or_else(|| variable(environment, "CHATLIFT_CONFIG").map(|name| name.map(PathBuf::from)), |path| Ok(Some(path)))?;
        let Some(path) = named else { return Ok(None) };
        let bytes = small_file::read(&path).map_err(|why| cannot_read("the configuration file", &path, &why))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| ExitMessage::yours(format!("the configuration file {} is not UTF-8", path.display()), "save it as UTF-8"))?;
        let values = toml::from_str(&text).map_err(|why| not_as_it_should_be(&path, &text, &why))?;
        let connection = toml::from_str(&text).map_err(|why| not_as_it_should_be(&path, &text, &why))?;
        Ok(Some(Self { writers: Writers::of(&path), path, text, values, connection, command: command.clone(), typed: typed.clone() }))
    }

    /// The flags that the command line lacks and the file has, for the command.
    fn flags(&self) -> Result<Vec<String>, ExitMessage> {
        let known = settings_of_all_commands();
        let mut flags = Vec::new();
        for (key, value) in &self.values {
            if is_for_one_run(key) {
                return Err(self.wrong(key, &format!("{key} is for a single run"), &format!("give --{key} on the command line")));
            }
            if key == RUNS_PROGRAM
                && let Some([how, remedy]) = self.writers.objection(&self.path)
            {
                let (why, hint) = (format!("{key} starts a program, and {how}"), format!("{remedy}; or give --{key} on the command line"));
                return Err(self.wrong(key, &why, &hint));
            }
            if !known.contains(key) {
                return Err(self.wrong(key, &format!("there is no flag --{key}"), NAMES));
            }
            let reads_connection = self.command.get_arguments().any(|arg| arg.get_long() == Some("sdkappid"));
            if !(reads_connection && CONNECTION.contains(&key.as_str())) {
                flags.extend(self.flags_of(key, value)?);
            }
        }
        Ok(flags)
    }

    fn flags_of(&self, key: &str, value: &Value) -> Result<Vec<String>, ExitMessage> {
        let Some(arg) = self.command.get_arguments().find(|arg| arg.get_long() == Some(key)) else { return Ok(Vec::new()) };
        if NEEDED.iter().any(|(flag, other)| *flag == key && self.lacks(other)) {
            return Ok(Vec::new());
        }
        let is_switch = matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::Count);
        let is_repeatable = matches!(arg.get_action(), ArgAction::Append);
        let takes_none = arg.get_num_args().is_some_and(|count| count.min_values() == 0);
        let id = arg.get_id().as_str();
        match value {
            Value::Table(entries) if is_repeatable => self.entries(key, id, entries),
            _ if self.typed.value_source(id) == Some(ValueSource::CommandLine) => Ok(Vec::new()),
            Value::Boolean(is_on) if is_switch || takes_none => Ok(if *is_on { vec![format!("--{key}")] } else { Vec::new() }),
            Value::Array(values) if is_repeatable => values.iter().map(|value| self.flag(key, value)).collect(),
            value if !is_switch => Ok(vec![self.flag(key, value)?]),
            _ => Err(self.not_taken(key)),
        }
    }

    /// Whether neither the command line nor the file has a flag that the command knows.
    fn lacks(&self, flag: &str) -> bool {
        let is_known = self.command.get_arguments().any(|arg| arg.get_long() == Some(flag));
        is_known && !self.values.contains_key(flag) && self.typed.value_source(flag) != Some(ValueSource::CommandLine)
    }

    fn flag(&self, key: &str, value: &Value) -> Result<String, ExitMessage> {
        scalar(value).map(|text| format!("--{key}={text}")).ok_or_else(|| self.not_taken(key))
    }

    /// A table's entries as `KEY=VALUE`, but for keys that the command line has one for. A table within has the words of a tag.
    fn entries(&self, key: &str, id: &str, entries: &Table) -> Result<Vec<String>, ExitMessage> {
        let typed: Vec<&str> = self.typed.get_raw(id).into_iter().flatten().filter_map(|word| word.to_str()).collect();
        let is_typed = |name: &str| typed.iter().any(|word| word.split_once('=').is_some_and(|(typed, _)| is_same_entry(key, typed, name)));
        let mut flags = Vec::new();
        for (name, value) in entries_with_their_words(entries) {
            let text = scalar(value).ok_or_else(|| self.not_taken(key))?;
            self.names_a_tag(key, &name)?;
            if !is_typed(&name) {
                flags.push(format!("--{key}={name}={text}"));
            }
        }
        Ok(flags)
    }

    /// The name of an entry is no secret, so a message shows it.
    fn names_a_tag(&self, key: &str, name: &str) -> Result<(), ExitMessage> {
        let tag = match key {
            "profile" => name,
            "value" => name.split(':').next().unwrap_or(name),
            _ => return Ok(()),
        };
        let is_field = Field::ALL.iter().any(|field| field.name() == tag || field.profile().is_some_and(|field| field.spec().tag == tag));
        match (Tag::parse(tag), is_field) {
            (Some(_), _) => Ok(()),
            (None, false) => Err(self.wrong(name, &UnknownTag(tag.to_owned()).to_string(), "correct the name of the tag")),
            (None, true) => Err(self.wrong(name, &format!("{tag:?} is no tag but a field of its own"), "[map] names its column")),
        }
    }

    fn not_taken(&self, key: &str) -> ExitMessage {
        self.wrong(
            key,
            &format!("--{key} does not take what {key} says"),
            &format!("write it as `chatlift {} --help` shows it", self.command.get_name()),
        )
    }

    /// The file's fault where clap complains about a flag of the file; no message shows the value, which may be a secret in the wrong place.
    fn blamed(&self, error: clap::Error, added: &[String]) -> CommandLineError {
        let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else { return error.into() };
        let Some(key) = named.strip_prefix("--").map(|rest| rest.split([' ', '=', '[']).next().unwrap_or_default()) else {
            return error.into();
        };
        let is_added = added.iter().any(|flag| flag[2..].split('=').next() == Some(key));
        if is_added { CommandLineError::File(self.not_taken(key)) } else { error.into() }
    }

    fn wrong(&self, key: &str, why: &str, hint: &str) -> ExitMessage {
        let is_key = |line: &str| {
            line.trim_start_matches([' ', '\t', '[', '"'])
                .strip_prefix(key)
                .is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '-'))
        };
        let place = self.text.lines().position(is_key).map_or(String::new(), |line| format!(" line {}", line + 1));
        ExitMessage::yours(format!("the configuration file {}{place}: {why}", self.path.display()), hint.to_owned())
    }
}

/// The entries of a table; `[value.Gender]` holds words of Gender.
fn entries_with_their_words(entries: &Table) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (name, value) in entries {
        match value {
            Value::Table(words) => found.extend(words.iter().map(|(word, value)| (format!("{name}:{word}"), value))),
            value => found.push((name.clone(), value)),
        }
    }
    found
}

/// Whether what stands before the `=` of two entries means the same: a tag has two names, and words are told apart to the letter.
fn is_same_entry(key: &str, one: &str, other: &str) -> bool {
    let tag_and_word = |text: &str| {
        let (tag, word) = if key == "value" { text.split_once(':').unwrap_or((text, "")) } else { (text, "") };
        Tag::parse(tag).map(|tag| (tag, word.to_owned()))
    };
    match (tag_and_word(one), tag_and_word(other)) {
        (Some(one), Some(other)) => one == other,
        (Some(_) | None, _) => one.eq_ignore_ascii_case(other),
    }
}

const NAMES: &str =
    "its names are those of the flags, without the dashes in front; a secret may stand in it only as a path, such as secret-key-file";

/// The command that is called, with what was typed behind it.
fn called<'a>(all: &'a Command, matches: &'a ArgMatches) -> Option<(&'a Command, &'a ArgMatches)> {
    let (name, matches) = matches.subcommand()?;
    let command = all.find_subcommand(name)?;
    called(command, matches).or(Some((command, matches)))
}

/// The names of all flags of the commands that read a configuration file.
fn settings_of_all_commands() -> BTreeSet<String> {
    fn collect(command: &Command, names: &mut BTreeSet<String>) {
        let longs = || command.get_arguments().filter_map(clap::Arg::get_long);
        if longs().any(|name| name == "config") {
            names.extend(longs().filter(|name| !NO_SETTINGS.contains(name)).map(str::to_owned));
        }
        command.get_subcommands().for_each(|command| collect(command, names));
    }
    let mut names = BTreeSet::new();
    collect(&Cli::command(), &mut names);
    names
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

fn not_as_it_should_be(path: &Path, text: &str, why: &toml::de::Error) -> ExitMessage {
    let place = why.span().map_or(String::new(), |span| format!(" line {}", 1 + text[..span.start.min(text.len())].matches('\n').count()));
    let complaint = without_value(why.message().lines().next().unwrap_or_default());
    ExitMessage::yours(format!("the configuration file {}{place}: {complaint}", path.display()), NAMES)
}

/// A complaint about a value without the value: it may be a secret in the wrong place.
fn without_value(complaint: &str) -> String {
    match complaint.split_once(", expected ") {
        Some((start, expected)) if start.starts_with("invalid ") => format!("the value is not {expected}"),
        _ => complaint.to_owned(),
    }
}
