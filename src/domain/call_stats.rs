//! Counts of requests and answers for progress and summary.
//!
//! This module has values only. The flows count, and the gate knows the pace.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::{Counter, Histogram};

use crate::domain::command::{Command, PerCommand};
use crate::domain::verdict::CallOutcome;

/// Distinct codes that are counted, so that a hostile server cannot fill the memory. Chosen: ten times the documented ones.
const CODES_MAX: usize = 1_000;
/// Longest latency that is measured, in milliseconds. Chosen: an hour.
const LATENCY_MAX_MS: u64 = 3_600_000;

/// A mean over less time is not shown. Source: the contract of operating.
const MEAN_FROM: Duration = Duration::from_secs(10);

/// The requests of this process to one API.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct ApiCallStats {
    /// Requests that were written to a socket.
    pub calls: u64,
    /// Requests among them that repeated an earlier one.
    pub retries: u64,
    /// Answers that refused a request as too fast.
    pub throttled: u64,
    /// The most requests in any sliding second.
    #[serde(rename = "max_calls_in_1s")]
    pub most_in_1s: usize,
    /// The throughput in requests per second at the last refusal as too fast; `None` if there was none.
    #[serde(serialize_with = "in_tenths")]
    pub ceiling_per_s: Option<f64>,
}

/// The value is rounded to tenths, because it is not known more exactly.
#[expect(clippy::ref_option, reason = "serde asks for it")]
fn in_tenths<S: serde::Serializer>(per_s: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match per_s {
        Some(per_s) => serializer.serialize_some(&((per_s * 10.0).round() / 10.0)),
        None => serializer.serialize_none(),
    }
}

/// The phase that the run is in.
#[derive(Debug, Clone, PartialEq)]
pub enum RunPhase {
    Running,
    /// The service refuses requests as too fast; about `per_s` requests per second get through.
    Throttled {
        per_s: f64,
    },
    /// The service has been down for this long.
    Waiting {
        since: Duration,
        why: String,
    },
    /// The store of the shared quota has not answered for this long.
    WaitingForQuota {
        since: Duration,
        why: String,
    },
    /// The run is stopping and waits for the requests in flight.
    Draining,
}

/// What this process had of a limit that it shares with others.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct QuotaStats {
    /// Processes that take part now, this one included, and the most at a time.
    pub processes: u64,
    pub most_processes: u64,
    /// Requests of this process that left in the last second.
    pub here_per_s: u64,
    /// How often the store was lost, and for how long in all.
    pub times_lost: u64,
    pub lost_for: Duration,
    /// Requests that left without the store's consent, because the user allows it.
    pub alone: u64,
}

impl QuotaStats {
    /// Adds the counts of an earlier phase of this process.
    fn after(self, earlier: QuotaStats) -> Self {
        Self {
            most_processes: self.most_processes.max(earlier.most_processes),
            times_lost: self.times_lost + earlier.times_lost,
            lost_for: self.lost_for + earlier.lost_for,
            alone: self.alone + earlier.alone,
            ..self
        }
    }
}

/// The requests of this process.
#[derive(Debug, Clone)]
pub struct CallStats {
    pub apis: PerCommand<ApiCallStats>,
    /// The API to which new records are sent in this mode.
    pub main: Command,
    /// Requests per second to the main API between its first and its last.
    pub mean_per_s: f64,
    /// The time between these two.
    pub mean_over: Duration,
    /// Answers by code; 0 is success.
    pub codes: BTreeMap<i64, u64>,
    /// HTTP statuses that came instead of answers.
    pub http_statuses: BTreeMap<u16, u64>,
    /// `None` if the limit is this process's own.
    pub quota: Option<QuotaStats>,
    /// Milliseconds from the gate to the end of the answer.
    latency_ms: Histogram<u64>,
}

/// Percentiles of the latency, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Latency {
    pub p50: u64,
    pub p95: u64,
    pub p99: u64,
    pub max: u64,
}

/// What is told of the requests while they are made.
#[derive(Debug, Clone, Default)]
pub struct CallsSoFar {
    pub stats: CallStats,
    /// Requests a second that are allowed now: the limit, or what gets through while the service refuses requests as too fast. `None`
    /// without a limit.
    pub limits: PerCommand<Option<f64>>,
    /// The answers since the last time that it was told.
    pub latency: LatencyCounts,
}

/// How long answers took, to one digit: little memory, so that there can be one for each of many intervals.
#[derive(Debug, Clone)]
pub struct LatencyCounts(Histogram<u32>);

impl Default for LatencyCounts {
    fn default() -> Self {
        // It grows up to the longest latency that it has seen.
        Self(Histogram::new(1).expect("one digit is allowed"))
    }
}

impl LatencyCounts {
    pub fn time(&mut self, latency: Duration) {
        let latency_ms = u64::try_from(latency.as_millis()).unwrap_or(LATENCY_MAX_MS).min(LATENCY_MAX_MS);
        // A histogram that grows takes every number.
        let _ = self.0.record(latency_ms);
    }

    pub fn add(&mut self, other: &LatencyCounts) {
        let _ = self.0.add(&other.0);
    }

    /// `None` if there was no answer.
    #[must_use]
    pub fn percentiles(&self) -> Option<Latency> {
        (!self.0.is_empty()).then(|| percentiles(&self.0))
    }
}

fn percentiles<T: Counter>(latency_ms: &Histogram<T>) -> Latency {
    let at = |quantile| latency_ms.value_at_quantile(quantile);
    Latency { p50: at(0.50), p95: at(0.95), p99: at(0.99), max: latency_ms.max() }
}

impl Default for CallStats {
    fn default() -> Self {
        let latency_ms = Histogram::new_with_bounds(1, LATENCY_MAX_MS, 2).expect("the bounds are ordered and two digits are allowed");
        Self {
            apis: PerCommand::default(),
            main: Command::AccountImport,
            mean_per_s: 0.0,
            mean_over: Duration::ZERO,
            codes: BTreeMap::new(),
            http_statuses: BTreeMap::new(),
            quota: None,
            latency_ms,
        }
    }
}

impl CallStats {
    /// No requests yet; new records will be sent to `main`.
    #[must_use]
    pub fn to(main: Command) -> Self {
        Self { main, ..Self::default() }
    }

    /// Requests to all APIs.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.apis.iter().map(|(_, api)| api.calls).sum()
    }

    /// Repeated requests to all APIs.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.apis.iter().map(|(_, api)| api.retries).sum()
    }

    /// Refusals as too fast from all APIs.
    #[must_use]
    pub fn throttled(&self) -> u64 {
        self.apis.iter().map(|(_, api)| api.throttled).sum()
    }

    /// The mean of the requests to the main API, if it is one that may be shown to people: over less time it shows the first requests rather
    /// than the pace.
    #[must_use]
    pub fn shown_mean_per_s(&self) -> Option<f64> {
        (self.mean_over >= MEAN_FROM).then_some(self.mean_per_s)
    }

    /// The most requests to the main API in any sliding second.
    #[must_use]
    pub fn most_in_1s(&self) -> usize {
        self.apis[self.main].most_in_1s
    }

    /// Counts the end of a request, unless it never reached the service. Returns what happened instead of a success, in words.
    pub fn count(&mut self, command: Command, end: &CallOutcome, latency: Duration, is_retry: bool) -> Option<String> {
        let complaint = match end {
            CallOutcome::Unreached { why } | CallOutcome::Untrusted { why, .. } => return Some(why.clone()),
            CallOutcome::ProxyRefused { status } => return Some(format!("HTTP {status} from the proxy")),
            CallOutcome::Lost { why } => Some(why.clone()),
            CallOutcome::Done(_) => {
                self.count_code(0);
                None
            }
            CallOutcome::Refused { code, info } => {
                self.count_code(*code);
                Some(format!("code {code}: {info}"))
            }
            CallOutcome::TooMany => Some("HTTP 429".to_owned()),
            CallOutcome::Redirected { .. } => None,
        };
        if let Some(status) = end.http_status() {
            *self.http_statuses.entry(status).or_default() += 1;
        }
        self.apis[command].retries += u64::from(is_retry);
        self.time(latency);
        complaint
    }

    /// Counts a request that was lost because the server had closed its kept connection. It says nothing about the service.
    pub fn count_not_delivered(&mut self, command: Command, is_retry: bool) {
        self.apis[command].retries += u64::from(is_retry);
    }

    /// Adds the counts of another phase of this process; the main API stays.
    ///
    /// # Panics
    /// Never: all histograms have the same bounds.
    pub fn add(&mut self, other: &CallStats) {
        for ((_, api), (_, more)) in self.apis.iter_mut().zip(other.apis.iter()) {
            api.calls += more.calls;
            api.retries += more.retries;
            api.throttled += more.throttled;
            api.most_in_1s = api.most_in_1s.max(more.most_in_1s);
            api.ceiling_per_s = more.ceiling_per_s.or(api.ceiling_per_s);
        }
        for (code, count) in &other.codes {
            if self.codes.len() < CODES_MAX || self.codes.contains_key(code) {
                *self.codes.entry(*code).or_default() += count;
            }
        }
        for (status, count) in &other.http_statuses {
            *self.http_statuses.entry(*status).or_default() += count;
        }
        self.quota = match (self.quota, other.quota) {
            (Some(own), Some(earlier)) => Some(own.after(earlier)),
            (own, other) => own.or(other),
        };
        self.latency_ms.add(&other.latency_ms).expect("both have the same bounds");
    }

    pub fn count_code(&mut self, code: i64) {
        if self.codes.len() < CODES_MAX || self.codes.contains_key(&code) {
            *self.codes.entry(code).or_default() += 1;
        }
    }

    pub fn time(&mut self, latency: Duration) {
        self.latency_ms.saturating_record(u64::try_from(latency.as_millis()).unwrap_or(LATENCY_MAX_MS));
    }

    #[must_use]
    pub fn latency(&self) -> Latency {
        percentiles(&self.latency_ms)
    }
}
