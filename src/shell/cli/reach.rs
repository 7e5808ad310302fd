//! Knows whether any request has reached the service so far, and advises what to check if none has.

use std::time::Duration;

use tokio::time::Instant;

use super::settings::{Connection, Environment, ServiceAddress};
use crate::domain::call_stats::{CallStats, RunPhase};
use crate::io::api::proxy::ProxySettings;

/// If no request got through within this time, the advice is shown. Source: the contract of the surroundings.
const TOLD_AFTER: Duration = Duration::from_secs(60);
/// Environment variables in which other programs look for a proxy. The advice names such a variable but not its value, which may contain a
/// password.
const PROXY_VARIABLES: [&str; 6] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"];

/// Watches a run until its first request gets through.
#[derive(Debug, Clone)]
pub(super) struct Reach {
    advice: String,
    began: Instant,
    is_told: bool,
}

impl Reach {
    pub(super) fn new(connection: &Connection, environment: Environment, now: Instant) -> Self {
        Self { advice: advice(&connection.service, connection.proxy(), environment), began: now, is_told: false }
    }

    /// Returns the advice once, when it is due.
    pub(super) fn heed(&mut self, calls: u64, phase: &RunPhase, now: Instant) -> Option<String> {
        let RunPhase::Waiting { why, .. } = phase else { return None };
        if self.is_told || calls > 0 || now < self.began + TOLD_AFTER {
            return None;
        }
        self.is_told = true;
        let words = format!("nothing has got through to the service for a minute ({why}): {}", self.advice);
        tracing::warn!("{words}");
        Some(words)
    }

    /// The advice, if no request of the whole run got through.
    pub(super) fn advice_on(&self, traffic: &CallStats) -> Option<&str> {
        let nothing_left = traffic.apis.iter().all(|(_, api)| api.calls == 0);
        nothing_left.then_some(self.advice.as_str())
    }
}

fn advice(service: &ServiceAddress, proxy: Option<&ProxySettings>, environment: Environment) -> String {
    let place = match service {
        ServiceAddress::Sandbox => "the sandbox on loopback".to_owned(),
        ServiceAddress::Remote { endpoint, .. } => format!("the endpoint {}", endpoint.origin().ascii_serialization()),
    };
    let proxy = proxy_advice(proxy, environment);
    format!("look at {place} (is it spelled right, does its name resolve here?), at {proxy}, and at the firewall")
}

fn proxy_advice(proxy: Option<&ProxySettings>, environment: Environment) -> String {
    if let Some(proxy) = proxy {
        return format!("the proxy {}", proxy.address.origin().ascii_serialization());
    }
    let set = PROXY_VARIABLES.into_iter().find(|name| environment(name).is_some_and(|value| !value.is_empty()));
    set.map_or_else(
        || "a proxy that this network may need (--proxy)".to_owned(),
        |name| format!("the proxy ({name} is set, and chatlift does not follow it: give it with --proxy)"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(proxy: Option<&'static str>, now: Instant) -> Reach {
        let endpoint = reqwest::Url::parse("https://chat.example.com").unwrap();
        let identity = crate::shell::cli::settings::Identity {
            sdkappid: 1,
            identifier: "administrator".to_owned(),
            credential: crate::io::api::usersig::Credential::Key("key".into()),
        };
        let environment = |name: &str| proxy.filter(|set| *set == name).map(|_| "http://me:secret@proxy:1".into());
        Reach { advice: advice(&ServiceAddress::Remote { endpoint, identity }, None, &environment), began: now, is_told: false }
    }

    #[test]
    fn the_advice_is_shown_once_after_a_minute_without_a_request_that_got_through() {
        let now = Instant::now();
        let waiting = RunPhase::Waiting { since: Duration::from_secs(50), why: "connection refused".to_owned() };
        let mut reach = reach(Some("https_proxy"), now);
        assert_eq!(reach.heed(0, &waiting, now + TOLD_AFTER - Duration::from_millis(1)), None);
        assert_eq!(reach.heed(0, &RunPhase::Running, now + TOLD_AFTER), None);
        assert_eq!(reach.heed(1, &waiting, now + TOLD_AFTER), None);
        let words = reach.heed(0, &waiting, now + TOLD_AFTER).unwrap();
        for part in ["connection refused", "https://chat.example.com", "https_proxy is set", "firewall"] {
            assert!(words.contains(part), "{part}: {words}");
        }
        assert!(!words.contains("secret"), "{words}");
        assert_eq!(reach.heed(0, &waiting, now + 2 * TOLD_AFTER), None);
    }

    #[test]
    fn a_network_without_such_a_variable_may_need_a_proxy_too() {
        assert!(reach(None, Instant::now()).advice.contains("a proxy that this network may need"));
    }
}
