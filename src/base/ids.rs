//! Ids of rows.

/// The ids from one to another, both included; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdSpan {
    /// The least id.
    pub first: i64,
    /// The greatest id.
    pub last: i64,
}

impl IdSpan {
    /// Every id that SQLite can give out.
    pub const ALL: Self = Self { first: i64::MIN, last: i64::MAX };

    /// The ids from `first` to `last`; None if there are none.
    pub fn new(first: i64, last: i64) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// A single id.
    pub fn of(id: i64) -> Self {
        Self { first: id, last: id }
    }

    /// Whether the id is in the span.
    pub fn contains(self, id: i64) -> bool {
        self.first <= id && id <= self.last
    }

    /// The ids that are in both spans; None if there are none.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// The least span that holds both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    /// Whether `next` begins right after this span ends.
    pub fn adjoins(self, next: Self) -> bool {
        self.last.checked_add(1) == Some(next.first)
    }

    /// Spans of the same ids, ascending, none of which overlaps or adjoins another.
    pub fn joined(mut spans: Vec<Self>) -> Vec<Self> {
        spans.sort_unstable();
        spans.dedup_by(|next, before| {
            let is_joined = before.last >= next.first || before.adjoins(*next);
            if is_joined {
                *before = before.union(*next);
            }
            is_joined
        });
        spans
    }

    /// How many ids there are. Of [`IdSpan::ALL`] one too few: their number has 65 bits.
    #[expect(clippy::len_without_is_empty, reason = "a span is never empty")]
    pub fn len(self) -> u64 {
        self.last.abs_diff(self.first).saturating_add(1)
    }
}

impl From<IdSpan> for (i64, i64) {
    fn from(span: IdSpan) -> Self {
        (span.first, span.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span() -> impl Strategy<Value = IdSpan> {
        (-20_i64..20, 0_i64..20).prop_map(|(first, more)| IdSpan { first, last: first + more })
    }

    proptest! {
        #[test]
        fn a_span_is_the_set_of_its_ids(one in span(), other in span()) {
            let ids = |span: IdSpan| (-50..50).filter(move |id| span.contains(*id));
            prop_assert_eq!(one.len(), ids(one).count() as u64);
            let both: Vec<_> = ids(one).filter(|id| other.contains(*id)).collect();
            prop_assert_eq!(one.intersect(other).map(|both| ids(both).collect::<Vec<_>>()).unwrap_or_default(), both);
            let union = one.union(other);
            prop_assert!(ids(one).chain(ids(other)).all(|id| union.contains(id)));
            prop_assert_eq!(one.adjoins(other), ids(one).max().unwrap() + 1 == ids(other).min().unwrap());
        }
    }

    proptest! {
        #[test]
        fn joined_spans_are_apart_and_the_same_ids(spans in proptest::collection::vec(span(), 0..8)) {
            let joined = IdSpan::joined(spans.clone());
            prop_assert!(joined.windows(2).all(|pair| pair[0].last + 1 < pair[1].first));
            for id in -50..50 {
                prop_assert_eq!(joined.iter().any(|span| span.contains(id)), spans.iter().any(|span| span.contains(id)));
            }
        }
    }

    #[test]
    fn the_ends_of_the_ids_do_not_overflow() {
        assert_eq!(IdSpan::ALL.len(), u64::MAX);
        assert!(!IdSpan::ALL.adjoins(IdSpan::of(i64::MIN)));
        assert_eq!(IdSpan::new(1, 0), None);
        assert_eq!(IdSpan::ALL.intersect(IdSpan::of(i64::MAX)), Some(IdSpan::of(i64::MAX)));
    }
}
