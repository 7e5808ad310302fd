//! Keeps the limit from one process to the next: the gates open one second after the last request of the process before.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::io::gate::{GateSettings, Headroom, OnSend};
use crate::io::journal::LastCalls;

/// How long a process waits if it cannot know whether another one was killed right before it. Source: the contract of the pace.
const UNKNOWN: Duration = Duration::from_millis(1_050);

/// The settings for the gates of a run with a lock file.
pub(super) fn gates(last_calls: LastCalls, headroom: Headroom) -> GateSettings {
    gates_by(SystemTime::now, last_calls, headroom)
}

fn gates_by(time: impl Fn() -> SystemTime + Send + Sync + 'static, last_calls: LastCalls, headroom: Headroom) -> GateSettings {
    let opens_at = Instant::now() + last_calls.wait(time());
    let on_send = OnSend::new(move || last_calls.leaves(Instant::now().into_std(), time()));
    GateSettings { headroom, opens_at: Some(opens_at), on_send, quota: None }
}

/// The settings for the gates of a run without a lock file.
pub(super) fn unknown(headroom: Headroom) -> GateSettings {
    GateSettings { headroom, opens_at: Some(Instant::now() + UNKNOWN), on_send: OnSend::default(), quota: None }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::path::Path;

    use super::*;
    use crate::io::gate::{Gate, GateAnswer, Rate};

    /// A process that sends at the full rate until it is killed.
    async fn killed_after(lived: Duration, rate_per_s: u32, lock: &Path, start: Instant, sends: &mut Vec<Instant>) {
        let time = move || SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000) + (Instant::now() - start);
        let settings = gates_by(time, LastCalls::find(lock), Headroom::DEFAULT);
        let mut gate = Gate::new(Rate::PerSecond(NonZeroU32::new(rate_per_s).unwrap()), &settings, Instant::now());
        let killed = Instant::now() + lived;
        while Instant::now() < killed {
            match gate.try_acquire(Instant::now()) {
                GateAnswer::Now(mut permit) => {
                    permit.mark_sent();
                    sends.push(Instant::now());
                }
                GateAnswer::At(at) => tokio::time::sleep_until(at.min(killed)).await,
                GateAnswer::WhenSent | GateAnswer::WhenGranted => gate.note_sends(Instant::now()),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whenever_a_process_is_killed_the_next_one_keeps_to_the_limit() {
        for rate_per_s in [1, 20, 200, 2_000] {
            let seed = fastrand::u64(..);
            let mut random = fastrand::Rng::with_seed(seed);
            let folder = tempfile::tempdir().unwrap();
            let lock = folder.path().join("lock");
            std::fs::File::create(&lock).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
            let (start, mut sends): (Instant, Vec<Instant>) = (Instant::now(), Vec::new());
            let mut firsts = Vec::new();
            for _ in 0..60 {
                firsts.push(sends.len());
                killed_after(Duration::from_micros(random.u64(900_000..2_300_000)), rate_per_s, &lock, start, &mut sends).await;
            }
            let second = Duration::from_secs(1);
            let limit = rate_per_s as usize;
            let too_many = sends.windows(limit + 1).find(|calls| calls[limit] - calls[0] < second);
            assert!(too_many.is_none(), "{rate_per_s}/s, seed {seed}: at {:?}", too_many.map(|calls| calls[0] - start));
            for first in firsts.into_iter().filter(|first| *first > 0 && *first < sends.len()) {
                let waited = sends[first] - sends[first - 1];
                assert!(waited >= second, "{rate_per_s}/s, seed {seed}: {waited:?} after the last call");
            }
        }
    }
}
