//! Ways in which a service may count requests against its limit, as small state machines without a clock. Simulations use them too.
//!
//! A refused request is not counted by any of them.

use std::str::FromStr;
use std::time::Duration;

use super::sliding_second::SlidingSecond;

/// The time that a limit is about.
const SECOND: Duration = Duration::from_secs(1);

/// How requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counting {
    /// Up to the limit in any second.
    #[default]
    Sliding,
    /// Up to the limit in each second of the clock; around its edge twice as many can pass.
    Calendar,
    /// A bucket that empties at the limit and holds `burst` requests, as in nginx's `limit_req` with `nodelay`.
    Leaky { burst: u32 },
    /// A bucket of `burst` tokens, full at first, that refills at the limit.
    Token { burst: u32 },
}

/// The limiter's decision about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimiterDecision {
    Admitted,
    OverLimit,
}

/// A limit in requests per second, with its way of counting.
#[derive(Debug, Clone)]
pub struct Limiter {
    per_s: u32,
    algorithm: Algorithm,
}

#[derive(Debug, Clone)]
enum Algorithm {
    Sliding(SlidingSecond),
    Calendar {
        second: u64,
        calls: u32,
    },
    /// The requests in the bucket and the time at which they were counted; `None` before the first request.
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
        let algorithm = match counting {
            Counting::Sliding => Algorithm::Sliding(SlidingSecond::default()),
            Counting::Calendar => Algorithm::Calendar { second: 0, calls: 0 },
            Counting::Leaky { burst } => Algorithm::Leaky { burst, level: None },
            Counting::Token { burst } => Algorithm::Token { burst, tokens: f64::from(burst), at: Duration::ZERO },
        };
        Self { per_s, algorithm }
    }

    /// Counts a request that arrives at `now`. Time must not go backwards.
    pub fn admit(&mut self, now: Duration) -> LimiterDecision {
        let per_s = f64::from(self.per_s);
        let is_admitted = match &mut self.algorithm {
            Algorithm::Sliding(window) => {
                let fits = window.count(now) < self.per_s as usize;
                if fits {
                    window.add(now);
                }
                fits
            }
            Algorithm::Calendar { second, calls } => {
                if now.as_secs() != *second {
                    (*second, *calls) = (now.as_secs(), 0);
                }
                let fits = *calls < self.per_s;
                *calls += u32::from(fits);
                fits
            }
            Algorithm::Leaky { burst, level } => {
                let standing = level.map_or(0.0, |(level, at)| (level - per_s * now.saturating_sub(at).as_secs_f64() + 1.0).max(0.0));
                // The tolerance of a millionth of a request absorbs rounding when requests come exactly at the limit.
                let fits = standing <= f64::from(*burst) + 1e-6;
                if fits {
                    *level = Some((standing, now));
                }
                fits
            }
            Algorithm::Token { burst, tokens, at } => {
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

/// Other programs that send requests to the same API at an even rate. They use up a part of the limit.
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

    /// Makes the requests that are due up to `now`.
    pub fn call(&mut self, limiter: &mut Limiter, now: Duration) {
        if self.per_s == 0 {
            return;
        }
        let apart = SECOND / self.per_s;
        // After a pause only the requests of the last second still matter.
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
        let burst = |burst: &str| burst.parse().map_err(|_| format!("{burst:?} is not a number of requests"));
        match text.split_once(':') {
            None if text == "sliding" => Ok(Counting::Sliding),
            None if text == "calendar" => Ok(Counting::Calendar),
            Some(("leaky", calls)) => Ok(Counting::Leaky { burst: burst(calls)? }),
            Some(("token", calls)) => match burst(calls)? {
                0 => Err("a token bucket needs a burst of at least 1".to_owned()),
                burst => Ok(Counting::Token { burst }),
            },
            _ => Err("use sliding, calendar, leaky:BURST or token:BURST".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks at which times (in milliseconds) requests are admitted.
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
    fn requests_of_others_use_up_the_limit() {
        // In 20 s, by the distance between requests: a client that stays within what is left gets all of it; a faster one is refused as
        // often as the others.
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
