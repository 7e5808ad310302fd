//! The flags for what is done at the end of a run.

use std::path::PathBuf;

use clap::Args;

/// What is done at the end of a run, however it ends.
#[derive(Debug, Args)]
#[command(next_help_heading = "At the end")]
pub struct EndFlags {
    /// Write the figures of the run as Prometheus metrics, for the textfile collector of the node exporter: FILE.prom
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// The label `job` of the metrics [default: the name of the input without its ending]
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// Run this program (no shell) at every end. It gets the summary on its standard input, and CHATLIFT_EXIT_CODE, CHATLIFT_OUTCOME,
    /// CHATLIFT_COMMAND and CHATLIFT_REPORT in its environment. It may run for a minute
    #[arg(long, value_name = "COMMAND", value_parser = command_words)]
    pub on_end: Option<CommandWords>,
}

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandWords(pub Vec<String>);

fn command_words(text: &str) -> Result<CommandWords, String> {
    match shlex::split(text) {
        Some(words) if words.is_empty() => Err("it names no program".to_owned()),
        Some(words) => Ok(CommandWords(words)),
        None => Err("a quote in it is not closed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_splits_them_and_nothing_is_expanded() {
        let words = |text: &str| command_words(text).map(|CommandWords(words)| words);
        let owned = |words: &[&str]| Ok(words.iter().map(|word| (*word).to_owned()).collect());
        assert_eq!(words("notify 'to  me' \"$HOME\" a\\ b *"), owned(&["notify", "to  me", "$HOME", "a b", "*"]));
        assert_eq!(words("  "), Err("it names no program".to_owned()));
        assert_eq!(words("say 'it"), Err("a quote in it is not closed".to_owned()));
    }
}
