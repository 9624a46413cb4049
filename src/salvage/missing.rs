//! Which ids there were, and which of them are nowhere.

use roaring::RoaringTreemap;

use crate::base::ids::IdSpan;
use crate::index::verify::Segment;

/// What is known of the ids of a damaged log.
pub(super) struct Known<'a> {
    /// The ids that are in the new database, or in the archive.
    pub(super) there: &'a RoaringTreemap,
    pub(super) segments: &'a [Segment],
    /// Whether the segments can be all there were.
    pub(super) has_all_segments: bool,
    /// Whether the tree of the rows is whole, and every segment was found again.
    pub(super) is_whole: bool,
    /// The greatest id that was given out; None: nothing tells.
    pub(super) last_id: Option<i64>,
    /// No greater one was given out; None: the database was closed.
    pub(super) reserved: Option<i64>,
}

/// The ids that the log held, or may have held, and that are nowhere.
pub(super) fn missing(known: &Known<'_>) -> Vec<IdSpan> {
    let last_sealed = known.segments.iter().map(|segment| segment.ids.last).max();
    let greatest = known.there.max().map_or(0, u64::cast_signed).max(last_sealed.unwrap_or(0));
    let mut expected = if known.is_whole { RoaringTreemap::new() } else { expected(known, last_sealed, greatest) };
    // Commits that a write-ahead log lost at its end leave no trace in it.
    let last = known.last_id.unwrap_or(greatest).max(greatest);
    if let Some(reserved) = known.reserved.filter(|reserved| *reserved > last) {
        expected.insert_range(last.cast_unsigned() + 1..=reserved.cast_unsigned());
    }
    let mut spans = spans(&(expected - known.there));
    if known.last_id.or(known.reserved).is_none() {
        let open = IdSpan { first: last.saturating_add(1), last: i64::MAX };
        match spans.last_mut().filter(|before| before.adjoins(open)) {
            Some(before) => before.last = open.last,
            None => spans.push(open),
        }
    }
    spans
}

/// The ids that a damaged log may have held, up to those that it is known to have given out.
fn expected(known: &Known<'_>, last_sealed: Option<i64>, greatest: i64) -> RoaringTreemap {
    let is_plausible = |segment: &&Segment| segment.expects_its_rows();
    let mut expected = RoaringTreemap::new();
    if known.has_all_segments {
        known.segments.iter().for_each(|segment| expected |= segment.expected());
    } else {
        // Between the segments there may have been others.
        let first = known.there.min().map_or(1, |id| id.min(1));
        expected.insert_range(first..=last_sealed.unwrap_or(0).max(0).cast_unsigned());
        for segment in known.segments.iter().filter(is_plausible) {
            let mut gaps = RoaringTreemap::new();
            gaps.insert_range(segment.ids.first.cast_unsigned()..=segment.ids.last.cast_unsigned());
            expected -= gaps - segment.expected();
        }
    }
    let last = known.last_id.unwrap_or(greatest).max(greatest);
    let first = last_sealed.map_or(1, |last| last.saturating_add(1));
    if first <= last && first > 0 {
        expected.insert_range(first.cast_unsigned()..=last.cast_unsigned());
    }
    expected
}

/// The ids as spans, in order.
pub(super) fn spans(ids: &RoaringTreemap) -> Vec<IdSpan> {
    let mut spans: Vec<IdSpan> = Vec::new();
    for id in ids.iter().map(u64::cast_signed) {
        match spans.last_mut() {
            Some(span) if span.last.checked_add(1) == Some(id) => span.last = id,
            _ => spans.push(IdSpan::of(id)),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> RoaringTreemap {
        ids.iter().copied().collect()
    }

    #[test]
    fn spans_of_ids_that_follow_one_another() {
        let found: Vec<(i64, i64)> = spans(&ids(&[1, 2, 3, 7, 9, 10])).into_iter().map(Into::into).collect();
        assert_eq!(found, [(1, 3), (7, 7), (9, 10)]);
    }

    #[test]
    fn what_was_expected_and_is_nowhere() {
        let segments = [Segment::found(IdSpan { first: 1, last: 4 }, 4, 0, None)];
        let there = ids(&[1, 2, 4, 6]);
        let known = Known {
            there: &there,
            segments: &segments,
            has_all_segments: true,
            is_whole: false,
            last_id: Some(8),
            reserved: None,
        };
        let found: Vec<(i64, i64)> = missing(&known).into_iter().map(Into::into).collect();
        assert_eq!(found, [(3, 3), (5, 5), (7, 8)]);
        assert!(missing(&Known { is_whole: true, ..known }).is_empty());
        let reserved: Vec<(i64, i64)> =
            missing(&Known { is_whole: true, reserved: Some(99), ..known }).into_iter().map(Into::into).collect();
        assert_eq!(reserved, [(9, 99)]);
        let open = Known { last_id: None, has_all_segments: false, ..known };
        assert_eq!(missing(&open).last().map(|span| (span.first, span.last)), Some((7, i64::MAX)));
    }
}
