//! Where each setting of a connection came from, without the secrets.

use reqwest::Url;

use crate::shell::cli::flags::ConnectionFlags;
use crate::shell::cli::settings::Environment;
use crate::shell::screen::probed::SettingSource;

/// Shown in the place of something that is not given.
const NONE: &str = "none";

/// Lists the settings in the order of the flags.
pub(super) fn list(flags: &ConnectionFlags, environment: Environment) -> Vec<SettingSource> {
    let config = &flags.defaults;
    let text = |value: &Option<String>| value.clone();
    let path = |value: &Option<std::path::PathBuf>| value.as_ref().map(|path| path.display().to_string());
    let mut found = Vec::new();
    let mut add = |name, (flag, value): (&str, Option<String>), variable: Option<&str>, (config, default): (Option<String>, &str)| {
        found.push(source(name, (flag, value), variable.map(|name| (name, environment)), (config, default)));
    };
    if flags.sandbox {
        add("service", ("--sandbox", Some("sandbox".to_owned())), None, (None, NONE));
    } else {
        let number = |value: Option<u64>| value.map(|number| number.to_string());
        add("sdkappid", ("--sdkappid", number(flags.sdkappid)), Some("CHATLIFT_SDKAPPID"), (number(config.sdkappid), NONE));
        let identifier = ("--identifier", text(&flags.identifier));
        add("identifier", identifier, Some("CHATLIFT_IDENTIFIER"), (text(&config.identifier), "administrator"));
        found.push(credential(flags, environment));
        found.push(service(flags, environment));
    }
    let mut add = |name, (flag, value): (&str, Option<String>), variable: Option<&str>, (config, default): (Option<String>, &str)| {
        found.push(source(name, (flag, value), variable.map(|name| (name, environment)), (config, default)));
    };
    add("ca-file", ("--ca-file", path(&flags.ca_file)), Some("CHATLIFT_CA_FILE"), (path(&config.ca_file), NONE));
    let number = |value: Option<u32>| value.map(|number| number.to_string());
    add("rate", ("--rate", number(flags.rate)), Some("CHATLIFT_RATE"), (number(config.rate), "the documented limits"));
    let seconds = flags.timeout.map(|timeout| timeout.as_secs_f64().to_string());
    add("timeout", ("--timeout", seconds), None, (config.timeout.map(|seconds| seconds.to_string()), "10"));
    let proxy = ("--proxy", text(&flags.proxy));
    found.push(without_password(source("proxy", proxy, Some(("CHATLIFT_PROXY", environment)), (text(&config.proxy), NONE))));
    let quota = ("--quota", text(&flags.quota.quota));
    found.push(without_password(source("quota", quota, Some(("CHATLIFT_QUOTA", environment)), (text(&config.quota), NONE))));
    found
}

fn source(
    name: &'static str,
    (flag, value): (&str, Option<String>),
    variable: Option<(&str, Environment)>,
    (config, default): (Option<String>, &str),
) -> SettingSource {
    let from_variable = || {
        let (name, environment) = variable?;
        Some((set(environment, name)?, name.to_owned()))
    };
    let found =
        value.map(|value| (value, flag.to_owned())).or_else(from_variable).or_else(|| config.map(|value| (value, CONFIG.to_owned())));
    let (value, from) = found.unwrap_or_else(|| (default.to_owned(), "default".to_owned()));
    SettingSource { name, value: Some(value), from }
}

const CONFIG: &str = "the configuration file";

/// A variable that is set to something.
fn set(environment: Environment, name: &str) -> Option<String> {
    environment(name).filter(|value| !value.is_empty()).map(|value| value.to_string_lossy().into_owned())
}

/// The key, or the ready-made signature, by where it stands. A key's file is named; nothing of its content is.
fn credential(flags: &ConnectionFlags, environment: Environment) -> SettingSource {
    let file = |path: &std::path::PathBuf| Some(path.display().to_string());
    let is_set = |name: &str| set(environment, name).is_some();
    let (value, from) = match (&flags.secret_key_file, &flags.defaults.secret_key_file) {
        (Some(path), _) => (file(path), "--secret-key-file"),
        (None, _) if is_set("CHATLIFT_SECRET_KEY") => (None, "CHATLIFT_SECRET_KEY"),
        (None, _) if is_set("CHATLIFT_USERSIG") => (None, "CHATLIFT_USERSIG"),
        (None, Some(path)) => (file(path), CONFIG),
        (None, None) => (Some(NONE.to_owned()), "default"),
    };
    SettingSource { name: "credentials", value, from: from.to_owned() }
}

fn service(flags: &ConnectionFlags, environment: Environment) -> SettingSource {
    use clap::ValueEnum;
    let region = flags.region.and_then(|region| region.to_possible_value()).map(|value| value.get_name().to_owned());
    let given = [
        (flags.endpoint.clone(), "--endpoint"),
        (region, "--region"),
        (set(environment, "CHATLIFT_ENDPOINT"), "CHATLIFT_ENDPOINT"),
        (set(environment, "CHATLIFT_REGION"), "CHATLIFT_REGION"),
        (flags.defaults.endpoint.clone(), CONFIG),
        (flags.defaults.region.clone(), CONFIG),
    ];
    let found = given.into_iter().find_map(|(value, from)| Some((value?, from)));
    let (value, from) = found.unwrap_or_else(|| (NONE.to_owned(), "default"));
    SettingSource { name: "service", value: Some(without_credentials(&value)), from: from.to_owned() }
}

/// The address in the setting alone: its URL may hold a password.
fn without_password(setting: SettingSource) -> SettingSource {
    SettingSource { value: setting.value.map(|value| without_credentials(&value)), ..setting }
}

/// A URL as scheme, host, port and path; something else as it is, unless it could hold a password.
fn without_credentials(text: &str) -> String {
    match Url::parse(text) {
        Ok(mut url) if url.has_host() => {
            // A URL with a host can do without either.
            let _ = url.set_username("").and_then(|()| url.set_password(None));
            url.set_query(None);
            url.set_fragment(None);
            url.as_str().trim_end_matches('/').to_owned()
        }
        Ok(_) | Err(_) if text.contains('@') => "(not shown)".to_owned(),
        Ok(_) | Err(_) => text.to_owned(),
    }
}
