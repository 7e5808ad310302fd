//! Bounds of a guard: numbers of accounts, and shares that are compared without rounding.

use std::fmt;

/// Kicks that are allowed by default: the smaller of the first two, but at least the third. Source: the contract of the guards.
const KICKS: u64 = 500;
const KICKS_SHARE: Percent = Percent::whole(15);
const KICKS_ANYHOW: u64 = 10;

/// A percentage in hundredths of a per cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u64);

impl Percent {
    #[must_use]
    pub const fn whole(percent: u64) -> Self {
        Self(percent * 100)
    }

    /// Whether `part` is more than this share of `whole`.
    pub(super) const fn is_exceeded(self, part: u64, whole: u64) -> bool {
        part as u128 * 10_000 > self.0 as u128 * whole as u128
    }

    /// Whether `part` is less than this share of `whole`.
    pub(super) const fn is_missed(self, part: u64, whole: u64) -> bool {
        (part as u128 * 10_000) < self.0 as u128 * whole as u128
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 100 {
            0 => write!(f, "{} %", self.0 / 100),
            hundredths => write!(f, "{}.{hundredths:02} %", self.0 / 100),
        }
    }
}

/// A number of accounts, or a share of the known accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    Count(u64),
    Share(Percent),
    /// The default for kicks.
    Kicks,
}

impl Bound {
    /// Parses `N` or `N%` with at most two decimals.
    ///
    /// # Errors
    /// A `String` with the message for the user if the text is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither a number (N) nor a share (N%, two decimals at most)");
        let Some(share) = text.strip_suffix('%') else { return text.parse().map(Bound::Count).map_err(|_| wrong()) };
        let (whole, decimals) = share.trim_end().split_once('.').unwrap_or((share.trim_end(), ""));
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
        let hundredths = match decimals.len() {
            0 => Some(0),
            1 => number(decimals).map(|tenths| tenths * 10),
            2 => number(decimals),
            _ => None,
        };
        let whole = number(whole).filter(|whole| *whole <= 1_000_000);
        whole.zip(hundredths).map(|(whole, hundredths)| Bound::Share(Percent(whole * 100 + hundredths))).ok_or_else(wrong)
    }

    pub(super) const fn is_exceeded(self, count: u64, held: u64) -> bool {
        match self {
            Bound::Count(bound) => count > bound,
            Bound::Share(share) => share.is_exceeded(count, held),
            Bound::Kicks => count > KICKS_ANYHOW && (count > KICKS || KICKS_SHARE.is_exceeded(count, held)),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Count(count) => count.fmt(f),
            Bound::Share(share) => write!(f, "{share} of the known accounts"),
            Bound::Kicks => write!(f, "{KICKS} or {KICKS_SHARE} of the known accounts, whichever is less, but at least {KICKS_ANYHOW}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_numbers_or_shares() {
        assert_eq!(Bound::parse("0"), Ok(Bound::Count(0)));
        assert_eq!(Bound::parse("30%"), Ok(Bound::Share(Percent(3_000))));
        assert_eq!(Bound::parse("0.5%"), Ok(Bound::Share(Percent(50))));
        assert_eq!(Bound::parse("12.34%").map(|bound| bound.to_string()), Ok("12.34 % of the known accounts".to_owned()));
        for wrong in ["", "%", "-1", "1.5", "1.234%", "x%", "1e3"] {
            assert!(Bound::parse(wrong).is_err(), "{wrong}");
        }
    }
}
