//! Builds the commands in hints, with the given flags that they need, so that they run as they are shown.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::ValueEnum;

use super::encoding::label;
use super::flags::{BatchFlag, ConnectionFlags, InputFlags, RunFlags, UserIdsFlag};
use super::settings::format;
use crate::flow::import::ImportScope;

/// A command that is being built.
#[derive(Debug, Clone)]
pub(super) struct CommandLine {
    words: Vec<String>,
}

impl CommandLine {
    /// `chatlift` with a subcommand.
    pub(super) fn new(subcommand: &str) -> Self {
        Self { words: vec!["chatlift".to_owned(), subcommand.to_owned()] }
    }

    /// Adds words that need no quotes.
    pub(super) fn plain(mut self, words: &str) -> Self {
        self.words.extend(words.split(' ').map(str::to_owned));
        self
    }

    /// Adds a file.
    pub(super) fn file(mut self, path: &Path) -> Self {
        self.words.push(file_word(path));
        self
    }

    /// Adds a flag with its value if it was given.
    fn flag(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.valued(name, OsStr::new(&value.to_string())),
            None => self,
        }
    }

    fn path(self, name: &str, value: Option<&Path>) -> Self {
        match value {
            Some(value) => self.valued(name, value.as_os_str()),
            None => self,
        }
    }

    fn valued(mut self, name: &str, value: &OsStr) -> Self {
        self.words.push(flag_words(name, value));
        self
    }

    /// Adds a flag with a path as its value.
    pub(super) fn with(self, name: &str, value: &Path) -> Self {
        self.path(name, Some(value))
    }

    /// Adds the flags that change how the input is read.
    pub(super) fn reading(self, flags: &InputFlags) -> Self {
        self.mapping(flags)
            .flag("delimiter", flags.delimiter.map(delimiter))
            .flag("encoding", flags.encoding.map(label))
            .flag("escape", flags.escape.map(char::from))
            .cells(flags)
    }

    /// Adds the flags that change how a file with copies of the input's records is read; its delimiter is `separated`. It is UTF-8, whatever
    /// the input is.
    pub(super) fn reading_copy(self, flags: &InputFlags, copy: &Path, separated: u8) -> Self {
        let usual = format(&InputFlags::bare(copy.to_owned())).delimiter;
        self.mapping(flags).flag("delimiter", (usual != separated).then(|| delimiter(separated))).cells(flags)
    }

    /// Adds the flags that change how cells are read. Copies of records contain the cells as in the input.
    fn cells(self, flags: &InputFlags) -> Self {
        let mut line = self;
        line.words.extend(flags.multiline.then(|| "--multiline".to_owned()));
        line.words.extend(flags.trim.then(|| "--trim".to_owned()));
        line = flags.null.iter().fold(line, |line, word| line.flag("null", Some(word)));
        line = line.flag("user-ids", flags.user_ids.map(|UserIdsFlag::Any| "any"));
        line.words.extend(flags.compact_uuid.then(|| "--compact-uuid".to_owned()));
        line
    }

    fn mapping(self, flags: &InputFlags) -> Self {
        let line = flags.map.iter().fold(self, |line, (field, column)| line.flag("map", Some(format!("{field}={column}"))));
        let line = flags.profile.iter().fold(line, |line, (tag, column)| line.flag("profile", Some(format!("{tag}={column}"))));
        flags.value.iter().fold(line, |line, word| line.flag("value", Some(word)))
    }

    /// Adds the flags of an import that change what is sent, and how fast besides the connection's rate; and --strict, which lets no more in.
    pub(super) fn sending(self, flags: &RunFlags, scope: ImportScope) -> Self {
        let mut line = self;
        line.words.extend((scope == ImportScope::ProfilesOnly).then(|| "--profile-only".to_owned()));
        line.words.extend(flags.batch.map(|batch| match batch {
            BatchFlag::Trust => "--batch".to_owned(),
            BatchFlag::Strict => "--batch=strict".to_owned(),
        }));
        line = line.flag("single-rate", flags.single_rate).flag("profile-rate", flags.profile_rate);
        line.words.extend(flags.strict.then(|| "--strict".to_owned()));
        line
    }

    /// Adds the flags for the service, the app, the credentials and the rate.
    pub(super) fn connection(self, flags: &ConnectionFlags) -> Self {
        let region = flags.region.and_then(|region| region.to_possible_value()).map(|value| value.get_name().to_owned());
        let line = self
            .flag("sdkappid", flags.sdkappid)
            .flag("identifier", flags.identifier.as_ref())
            .path("secret-key-file", flags.secret_key_file.as_deref())
            .flag("region", region)
            .flag("endpoint", flags.endpoint.as_ref())
            .path("ca-file", flags.ca_file.as_deref())
            .flag("proxy", flags.proxy.as_ref())
            .path("proxy-password-file", flags.proxy_password_file.as_deref())
            .flag("rate", flags.rate)
            .flag("headroom", flags.headroom)
            .flag("in-flight", flags.in_flight)
            .flag("max-attempts", flags.max_attempts)
            .flag("timeout", flags.timeout.map(|timeout| timeout.as_secs_f64()))
            .flag("max-outage", flags.max_outage.map(|time| humantime::format_duration(time).to_string().replace(' ', "")))
            .path("config", flags.config.as_deref());
        if flags.sandbox { line.plain("--sandbox") } else { line }
    }
}

impl std::fmt::Display for CommandLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words.join(" "))
    }
}

/// A flag with its value for a shell.
pub(super) fn flag_words(name: &str, value: impl AsRef<OsStr>) -> String {
    let value = value.as_ref();
    let flag = format!("--{name}");
    if !begins_with_dash(value) {
        return format!("{flag} {}", shell_word(value));
    }
    // The value would be taken for a flag.
    let mut both = OsString::from(flag + "=");
    both.push(value);
    shell_word(&both)
}

/// Quotes a word for a shell. Control characters and bytes that are not UTF-8 are written with `printf`, because the line of a hint cannot
/// contain them. (This loses line breaks at the very end of a word; no flag and no file that chatlift names ends with one.)
pub(super) fn shell_word(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref();
    let is_plain = |char: char| char.is_alphanumeric() || "_-./=,:+@%".contains(char);
    match word.to_str().filter(|text| !text.contains(char::is_control)) {
        Some(text) if !text.is_empty() && text.chars().all(is_plain) => text.to_owned(),
        Some(text) => format!("'{}'", text.replace('\'', "'\\''")),
        None => format!("\"$(printf '{}')\"", word.as_encoded_bytes().iter().map(|byte| octal(*byte)).collect::<String>()),
    }
}

/// A byte as an escape for `printf`.
fn octal(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"_./=".contains(&byte) { char::from(byte).to_string() } else { format!("\\{byte:03o}") }
}

/// The same as [`shell_word`] for a file. A name that begins with a dash would be taken for a flag, so it gets `./` in front.
pub(super) fn file_word(path: &Path) -> String {
    let is_flag = begins_with_dash(path.as_os_str()) && path != Path::new("-");
    if is_flag { shell_word(Path::new(".").join(path)) } else { shell_word(path) }
}

fn begins_with_dash(word: &OsStr) -> bool {
    word.as_encoded_bytes().starts_with(b"-")
}

/// A delimiter as the value of its flag, quoted for a shell.
pub(super) fn delimiter_word(byte: u8) -> String {
    shell_word(delimiter(byte))
}

fn delimiter(byte: u8) -> String {
    if byte == b'\t' { "tab".to_owned() } else { char::from(byte).to_string() }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::shell::cli::flags::{Cli, CliCommand};

    /// The flags of an import with these words.
    fn flags(words: &[&str]) -> Box<crate::shell::cli::flags::ImportFlags> {
        let parsed = Cli::try_parse_from(["chatlift", "import"].iter().chain(words)).unwrap();
        let CliCommand::Import(flags) = parsed.command else { unreachable!("it is an import") };
        flags
    }

    #[test]
    fn a_command_carries_the_flags_that_were_given_in_a_shells_words() {
        let given = flags(&[
            "my users.csv",
            "--sdkappid",
            "7",
            "--identifier",
            "it's me",
            "--secret-key-file",
            "a key",
            "--region",
            "tokyo",
            "--rate",
            "0",
            "--headroom",
            "20",
            "--timeout",
            "2.5",
            "--max-outage",
            "90min",
            "--map",
            "UserID=user id",
            "--map",
            "Nick=-",
            "--delimiter",
            ";",
        ]);
        let line = CommandLine::new("check").file(&given.run.input.file).reading(&given.run.input).connection(&given.run.connection);
        assert_eq!(
            line.to_string(),
            "chatlift check 'my users.csv' --map 'UserID=user id' --map Nick=- --delimiter ';' --sdkappid 7 --identifier 'it'\\''s me' \
             --secret-key-file 'a key' --region tokyo --rate 0 --headroom 20 --timeout 2.5 --max-outage 1h30m"
        );
        assert_eq!(CommandLine::new("import").file(Path::new("-x.csv")).to_string(), "chatlift import ./-x.csv");
    }

    #[test]
    fn a_copy_gets_its_delimiter_as_a_flag_unless_its_name_implies_it() {
        let given = flags(&["users.tsv"]);
        let line = |copy: &str, separated: u8| {
            CommandLine::new("import").file(Path::new(copy)).reading_copy(&given.run.input, Path::new(copy), separated).to_string()
        };
        assert_eq!(line("r.csv", b','), "chatlift import r.csv");
        assert_eq!(line("r.csv", b'\t'), "chatlift import r.csv --delimiter tab");
        assert_eq!(line("r.tsv", b'\t'), "chatlift import r.tsv");
        assert_eq!(line("r.csv", b'|'), "chatlift import r.csv --delimiter '|'");
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        use std::os::unix::ffi::OsStrExt;
        let check = |word: &[u8], expected: &str| {
            assert_eq!(shell_word(OsStr::from_bytes(word)), expected);
            let said = std::process::Command::new("/bin/sh").args(["-c", &format!("printf %s {expected}")]).output().unwrap();
            assert_eq!(said.stdout, word, "{expected}");
        };
        check(b"a/b-1.csv", "a/b-1.csv");
        check(b"my users.csv", "'my users.csv'");
        check(b"it's", "'it'\\''s'");
        check(b"$HOME `x` *", "'$HOME `x` *'");
        check(b"", "''");
        check(b"caf\xe9 $x.csv", "\"$(printf 'caf\\351\\040\\044x.csv')\"");
        check(b"a\nb%s'\\", "\"$(printf 'a\\012b\\045s\\047\\134')\"");
    }

    #[test]
    fn a_file_name_is_never_taken_for_a_flag() {
        use std::os::unix::ffi::OsStrExt;
        let check = |path: &[u8], expected: &str| assert_eq!(file_word(Path::new(OsStr::from_bytes(path))), expected);
        check(b"-x.csv", "./-x.csv");
        check(b"-", "-");
        check(b"-\xff", "\"$(printf './\\055\\377')\"");
        let line = CommandLine::new("audit").with("results", Path::new(OsStr::from_bytes(b"-\xff")));
        assert_eq!(line.to_string(), "chatlift audit \"$(printf '\\055\\055results=\\055\\377')\"");
    }
}
