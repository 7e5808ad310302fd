//! How a service may count requests against its limit: small state machines without a clock, which simulations use as well.
//!
//! A request that is refused counts for none of them.

use std::collections::VecDeque;
use std::str::FromStr;
use std::time::Duration;

/// The second that a sliding window holds. Two calls exactly this far apart are not in the same one.
const SECOND: Duration = Duration::from_secs(1);

/// The way of counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counting {
    /// So many calls in any second.
    #[default]
    Sliding,
    /// So many calls from one whole second to the next: at its edge twice as many get through.
    Calendar,
    /// Calls leave a bucket at the rate; so many may stand in it. nginx's `limit_req` with `nodelay`.
    Leaky { burst: u32 },
    /// A bucket that holds so many tokens, full at first, and gets new ones at the rate.
    Token { burst: u32 },
}

/// What a limiter says of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimiterDecision {
    Admitted,
    OverLimit,
}

/// A limit with its way of counting.
#[derive(Debug, Clone)]
pub struct Limiter {
    per_s: u32,
    counted: Counted,
}

#[derive(Debug, Clone)]
enum Counted {
    Sliding(VecDeque<Duration>),
    Calendar {
        second: u64,
        calls: u32,
    },
    /// What stands in the bucket, as of then; `None` before the first call.
    Leaky {
        burst: u32,
        level: Option<(f64, Duration)>,
    },
    Token {
        burst: u32,
        tokens: f64,
        at: Duration,
    },
}

impl Limiter {
    #[must_use]
    pub fn new(counting: Counting, per_s: u32) -> Self {
        let counted = match counting {
            Counting::Sliding => Counted::Sliding(VecDeque::new()),
            Counting::Calendar => Counted::Calendar { second: 0, calls: 0 },
            Counting::Leaky { burst } => Counted::Leaky { burst, level: None },
            Counting::Token { burst } => Counted::Token { burst, tokens: f64::from(burst), at: Duration::ZERO },
        };
        Self { per_s, counted }
    }

    /// A call arrives. Time must not step back.
    pub fn admit(&mut self, now: Duration) -> LimiterDecision {
        let per_s = f64::from(self.per_s);
        let is_admitted = match &mut self.counted {
            Counted::Sliding(times) => slides(times, self.per_s as usize, now),
            Counted::Calendar { second, calls } => {
                if now.as_secs() != *second {
                    (*second, *calls) = (now.as_secs(), 0);
                }
                let fits = *calls < self.per_s;
                *calls += u32::from(fits);
                fits
            }
            Counted::Leaky { burst, level } => {
                let standing = level.map_or(0.0, |(level, at)| (level - per_s * now.saturating_sub(at).as_secs_f64() + 1.0).max(0.0));
                // A millionth of a call is what rounding makes of a distance that is exact.
                let fits = standing <= f64::from(*burst) + 1e-6;
                if fits {
                    *level = Some((standing, now));
                }
                fits
            }
            Counted::Token { burst, tokens, at } => {
                *tokens = (*tokens + per_s * now.saturating_sub(*at).as_secs_f64()).min(f64::from(*burst));
                *at = now;
                let fits = *tokens >= 1.0 - 1e-6;
                *tokens -= f64::from(u8::from(fits));
                fits
            }
        };
        if is_admitted { LimiterDecision::Admitted } else { LimiterDecision::OverLimit }
    }
}

fn slides(times: &mut VecDeque<Duration>, most: usize, now: Duration) -> bool {
    while times.front().is_some_and(|oldest| *oldest + SECOND <= now) {
        times.pop_front();
    }
    let fits = times.len() < most;
    if fits {
        times.push_back(now);
    }
    fits
}

/// Others who call the same API, evenly: what they take is not there for the client.
#[derive(Debug, Clone, Default)]
pub struct Others {
    per_s: u32,
    made: u64,
}

impl Others {
    #[must_use]
    pub fn new(per_s: u32) -> Self {
        Self { per_s, made: 0 }
    }

    /// Makes their calls up to now.
    pub fn call(&mut self, limiter: &mut Limiter, now: Duration) {
        if self.per_s == 0 {
            return;
        }
        let apart = SECOND / self.per_s;
        // After a pause only those of the last second still matter.
        let first = now.saturating_sub(SECOND).as_nanos() / apart.as_nanos();
        self.made = self.made.max(u64::try_from(first).unwrap_or(u64::MAX));
        loop {
            let at = Duration::from_nanos(u64::try_from(apart.as_nanos() * u128::from(self.made)).unwrap_or(u64::MAX));
            if at > now {
                return;
            }
            limiter.admit(at);
            self.made += 1;
        }
    }
}

impl FromStr for Counting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let burst = |burst: &str| burst.parse().map_err(|_| format!("{burst:?} is no number of calls"));
        match text.split_once(':') {
            None if text == "sliding" => Ok(Counting::Sliding),
            None if text == "calendar" => Ok(Counting::Calendar),
            Some(("leaky", calls)) => Ok(Counting::Leaky { burst: burst(calls)? }),
            Some(("token", calls)) => match burst(calls)? {
                0 => Err("a bucket of tokens holds at least one".to_owned()),
                burst => Ok(Counting::Token { burst }),
            },
            _ => Err("it is one of sliding, calendar, leaky:BURST, token:BURST".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moments, in milliseconds, of those calls that get through.
    #[track_caller]
    fn check(counting: Counting, per_s: u32, calls_ms: &[u64], expected: &[u64]) {
        let mut limiter = Limiter::new(counting, per_s);
        let admitted = calls_ms.iter().filter(|ms| limiter.admit(Duration::from_millis(**ms)) == LimiterDecision::Admitted);
        assert_eq!(admitted.copied().collect::<Vec<_>>(), expected, "{counting:?}");
    }

    #[test]
    fn each_way_of_counting_lets_through_what_it_should() {
        check(Counting::Sliding, 2, &[0, 1, 2, 999, 1_000, 1_000, 1_001], &[0, 1, 1_000, 1_001]);
        check(Counting::Calendar, 2, &[900, 950, 999, 1_000, 1_001, 1_002, 2_000], &[900, 950, 1_000, 1_001, 2_000]);
        check(Counting::Leaky { burst: 0 }, 10, &[0, 99, 100, 150, 200, 1_000], &[0, 100, 200, 1_000]);
        check(Counting::Leaky { burst: 1 }, 10, &[0, 0, 0, 99, 100, 200, 200], &[0, 0, 100, 200]);
        check(Counting::Token { burst: 2 }, 10, &[0, 0, 0, 99, 100, 5_000, 5_000, 5_000], &[0, 0, 100, 5_000, 5_000]);
    }

    #[test]
    fn what_others_take_is_not_there() {
        // In 20 s, by the distance of the calls: who keeps to what is left gets all, who doesn't is refused as often as the others are.
        for (apart_ms, expected) in [(11, 1_818..=1_819), (5, 2_600..=2_700)] {
            let (mut limiter, mut others) = (Limiter::new(Counting::Sliding, 200), Others::new(100));
            let admitted = (0..20_000 / apart_ms).filter(|n| {
                let now = Duration::from_millis(apart_ms * n);
                others.call(&mut limiter, now);
                limiter.admit(now) == LimiterDecision::Admitted
            });
            let share = admitted.count();
            assert!(expected.contains(&share), "{apart_ms} ms: {share}");
        }
    }

    #[test]
    fn ways_of_counting_have_names() {
        let check = |text: &str, expected| assert_eq!(text.parse::<Counting>().ok(), expected, "{text}");
        check("sliding", Some(Counting::Sliding));
        check("calendar", Some(Counting::Calendar));
        check("leaky:0", Some(Counting::Leaky { burst: 0 }));
        check("leaky:5", Some(Counting::Leaky { burst: 5 }));
        check("token:200", Some(Counting::Token { burst: 200 }));
        for wrong in ["", "leaky", "token:0", "token:-1", "Sliding", "leaky:x"] {
            check(wrong, None);
        }
    }
}
