//! The first few of many items and their count, so that a report can name examples in constant memory.

use std::borrow::Cow;

/// A count of items, with the first `N` of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examples<T, const N: usize> {
    pub count: u64,
    pub first: Vec<T>,
}

impl<T, const N: usize> Default for Examples<T, N> {
    fn default() -> Self {
        Self { count: 0, first: Vec::new() }
    }
}

impl<T, const N: usize> Examples<T, N> {
    /// Counts an item. `make` is called only if the item is kept.
    pub fn push(&mut self, make: impl FnOnce() -> T) {
        self.count += 1;
        if self.first.len() < N {
            self.first.push(make());
        }
    }
}

/// Examples by heading, in the order in which the headings occurred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExampleGroups<T, const N: usize>(Vec<(Cow<'static, str>, Examples<T, N>)>);

impl<T, const N: usize> Default for ExampleGroups<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const N: usize> ExampleGroups<T, N> {
    /// Counts an item under its heading.
    pub fn push(&mut self, heading: impl Into<Cow<'static, str>>, make: impl FnOnce() -> T) {
        let heading = heading.into();
        let at = self.0.iter().position(|(known, _)| *known == heading).unwrap_or_else(|| {
            self.0.push((heading, Examples::default()));
            self.0.len() - 1
        });
        self.0[at].1.push(make);
    }

    /// The number of items under all headings.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(_, sample)| sample.count).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The headings, the most frequent first.
    #[must_use]
    pub fn by_count(&self) -> Vec<(&str, &Examples<T, N>)> {
        let mut groups: Vec<_> = self.0.iter().map(|(heading, sample)| (&**heading, sample)).collect();
        groups.sort_by_key(|(_, sample)| std::cmp::Reverse(sample.count));
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_are_kept_and_all_are_counted() {
        let mut groups = ExampleGroups::<u32, 2>::default();
        groups.push("rare", || 0);
        for number in 1..=3 {
            groups.push("common", || number);
        }
        let found: Vec<_> = groups.by_count().into_iter().map(|(heading, sample)| (heading, sample.count, sample.first.clone())).collect();
        assert_eq!(found, [("common", 3, vec![1, 2]), ("rare", 1, vec![0])]);
        assert_eq!(groups.count(), 4);
    }
}
