//! Commands for a shell, as hints have them: with the flags that were given and are needed, so that they run as they stand.

use std::path::Path;

use clap::ValueEnum;

use super::flags::{ConnectionFlags, InputFlags};
use super::input::shell_word;
use super::settings::format;

/// A command in the making.
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
        let text = path.display().to_string();
        // What begins with a dash would be taken for a flag.
        let text = if text.len() > 1 && text.starts_with('-') { format!("./{text}") } else { text };
        self.words.push(shell_word(&text));
        self
    }

    /// Adds a flag with its value, if it was given.
    fn flag(mut self, name: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            let value = value.to_string();
            // A value that begins with a dash would be taken for a flag.
            let words = if value.starts_with('-') {
                vec![shell_word(&format!("--{name}={value}"))]
            } else {
                vec![format!("--{name}"), shell_word(&value)]
            };
            self.words.extend(words);
        }
        self
    }

    fn path(self, name: &str, value: Option<&Path>) -> Self {
        self.flag(name, value.map(Path::display))
    }

    /// Adds a flag with a path as its value.
    pub(super) fn with(self, name: &str, value: &Path) -> Self {
        self.path(name, Some(value))
    }

    /// Adds what changes how the input is read.
    pub(super) fn reading(self, flags: &InputFlags) -> Self {
        self.mapping(flags).flag("delimiter", flags.delimiter.map(delimiter))
    }

    /// Adds what changes how a file of the input's records is read, that is `separated` so.
    pub(super) fn reading_copy(self, flags: &InputFlags, copy: &Path, separated: u8) -> Self {
        let usual = format(&InputFlags { file: copy.to_owned(), map: Vec::new(), delimiter: None }).delimiter;
        self.mapping(flags).flag("delimiter", (usual != separated).then(|| delimiter(separated)))
    }

    fn mapping(self, flags: &InputFlags) -> Self {
        flags.map.iter().fold(self, |line, (field, column)| line.flag("map", Some(format!("{field}={column}"))))
    }

    /// Adds what says where the service is, who calls, and how fast.
    pub(super) fn connection(self, flags: &ConnectionFlags) -> Self {
        let region = flags.region.and_then(|region| region.to_possible_value()).map(|value| value.get_name().to_owned());
        let line = self
            .flag("sdkappid", flags.sdkappid)
            .flag("identifier", flags.identifier.as_ref())
            .path("secret-key-file", flags.secret_key_file.as_deref())
            .flag("region", region)
            .flag("endpoint", flags.endpoint.as_ref())
            .path("ca-file", flags.ca_file.as_deref())
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

fn delimiter(byte: u8) -> String {
    if byte == b'\t' { "tab".to_owned() } else { char::from(byte).to_string() }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::flags::{Cli, Command};

    /// The flags of an import that is called so.
    fn flags(words: &[&str]) -> Box<crate::cli::flags::ImportFlags> {
        let parsed = Cli::try_parse_from(["chatlift", "import"].iter().chain(words)).unwrap();
        let Command::Import(flags) = parsed.command else { unreachable!("it is an import") };
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
    fn a_copy_is_told_its_delimiter_where_its_name_does_not_tell_it() {
        let given = flags(&["users.tsv"]);
        let line = |copy: &str, separated: u8| {
            CommandLine::new("import").file(Path::new(copy)).reading_copy(&given.run.input, Path::new(copy), separated).to_string()
        };
        assert_eq!(line("r.csv", b','), "chatlift import r.csv");
        assert_eq!(line("r.csv", b'\t'), "chatlift import r.csv --delimiter tab");
        assert_eq!(line("r.tsv", b'\t'), "chatlift import r.tsv");
        assert_eq!(line("r.csv", b'|'), "chatlift import r.csv --delimiter '|'");
    }
}
