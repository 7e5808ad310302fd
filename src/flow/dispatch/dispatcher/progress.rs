//! How far a run is: what the dispatcher reports while it works.

use tokio::time::Instant;

use super::Dispatcher;
use crate::domain::call_stats::{CallStats, CallsSoFar, RunPhase};
use crate::domain::command::PerCommand;
use crate::flow::dispatch::{Flow, Progress, Workload};
use crate::io::api::Api;
use crate::io::gate;
use crate::io::quota::QuotaWait;

impl<A: Api, F: Flow> Dispatcher<A, F> {
    pub(super) fn report_if_due(&mut self) {
        if Instant::now() >= self.reported_at + self.settings.progress_every {
            self.report();
        }
    }

    pub(super) fn report(&mut self) {
        let now = Instant::now();
        self.reported_at = now;
        self.note_sends();
        let stats = self.stats();
        let progress = Progress {
            at: now,
            phase: self.phase(now),
            calls: stats.calls(),
            retries: stats.retries(),
            in_flight: self.scheduler.in_flight(),
            so_far: CallsSoFar {
                limits: PerCommand::new(|command| self.gates[command].allowed_per_s()),
                stats,
                latency: std::mem::take(&mut self.recent_latency),
            },
        };
        self.flow.report(progress);
    }

    /// The requests so far, with what the gates know of them.
    pub(super) fn stats(&self) -> CallStats {
        let mut stats = self.traffic.clone();
        stats.main = self.flow.workload().main_command();
        for (command, gate) in self.gates.iter() {
            let api = &mut stats.apis[command];
            (api.calls, api.most_in_1s, api.ceiling_per_s) = (gate.written(), gate.most_in_1s(), gate.ceiling_per_s());
        }
        let main = &self.gates[stats.main];
        (stats.mean_per_s, stats.mean_over) = (main.mean_per_s(), main.sent_over());
        stats.quota = self.quota.as_ref().map(|quota| quota.stats(Instant::now()));
        stats
    }

    fn phase(&self, now: Instant) -> RunPhase {
        if self.cause.is_some() {
            return RunPhase::Draining;
        }
        match self.scheduler.down_since() {
            Some((since, breaker)) => RunPhase::Waiting { since: now - since, why: self.why_down[breaker].clone() },
            None => self.phase_of_gates(now),
        }
    }

    /// What holds calls up that the service would take.
    fn phase_of_gates(&self, now: Instant) -> RunPhase {
        if let Some(QuotaWait { since, why }) = self.quota.as_ref().and_then(|quota| quota.waiting(now)) {
            return RunPhase::WaitingForQuota { since: now - since, why };
        }
        match gate::slowed(&self.gates) {
            Some(per_s) => RunPhase::Throttled { per_s },
            None => RunPhase::Running,
        }
    }
}
