//! What left and what came back: the counts that progress and summary share.
//!
//! Values only; the import counts, the gate knows the pace.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Distinct codes that are counted; past that a hostile server would fill the memory. Chosen: ten times the documented ones.
const CODES_MAX: usize = 1_000;
/// Longest latency that is told apart, in milliseconds. Chosen: an hour.
const LATENCY_MAX_MS: u64 = 3_600_000;

/// Counts of this process' calls.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// Calls that were written to a socket.
    pub calls: u64,
    /// Those of them that repeated an earlier call of the same row.
    pub retries: u64,
    /// Answers that said "too fast".
    pub throttled: u64,
    /// Most calls in any sliding second.
    pub most_in_1s: usize,
    /// Calls a second between the first and the last.
    pub mean_per_s: f64,
    /// Answers by the API's code.
    pub codes: BTreeMap<i64, u64>,
    /// From leaving the gate to the end of the answer, in milliseconds.
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

impl Default for Traffic {
    fn default() -> Self {
        let latency_ms = Histogram::new_with_bounds(1, LATENCY_MAX_MS, 2).expect("the bounds are in order and two digits are allowed");
        Self { calls: 0, retries: 0, throttled: 0, most_in_1s: 0, mean_per_s: 0.0, codes: BTreeMap::new(), latency_ms }
    }
}

impl Traffic {
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
        let at = |quantile| self.latency_ms.value_at_quantile(quantile);
        Latency { p50: at(0.50), p95: at(0.95), p99: at(0.99), max: self.latency_ms.max() }
    }
}
