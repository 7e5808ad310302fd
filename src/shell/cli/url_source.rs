//! Where a URL was given that may contain a password.

/// The place where a URL was given. A password may stand in the variable alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UrlSource {
    Flag,
    Variable,
    ConfigFile,
}

impl UrlSource {
    /// The URL that counts among those given.
    pub(super) fn first<T>(flag: Option<T>, variable: Option<T>, config: Option<T>) -> Option<(T, Self)> {
        let flag = flag.map(|url| (url, Self::Flag));
        let variable = variable.map(|url| (url, Self::Variable));
        flag.or(variable).or(config.map(|url| (url, Self::ConfigFile)))
    }

    /// The name of the place, for a setting with this key and this environment variable.
    pub(super) fn name(self, key: &str, variable: &str) -> String {
        match self {
            UrlSource::Flag => format!("--{key}"),
            UrlSource::Variable => variable.to_owned(),
            UrlSource::ConfigFile => format!("{key} of the configuration file"),
        }
    }
}
