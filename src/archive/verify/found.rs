//! What the steps of a verification share: what they check with, and what they find.

use roaring::RoaringTreemap;

use crate::archive::manifest::days::{Described, Listed};
use crate::archive::manifest::seen::{DayFile, Files};
use crate::archive::verify::report::Verified;
use crate::base::ids::IdSpan;
use crate::base::time::UtcDay;
use crate::index::verify::{Elements, Segments};

/// What is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Everything,
    /// Whether the rows are what was sealed, wherever they are: nothing of the files themselves, of what the postings say of
    /// them, or of rows that were never readable.
    Rows,
}

/// The directory, and right after it the manifest and the index.
pub(super) struct Look {
    pub(super) files: Files,
    pub(super) days: Vec<Listed>,
    pub(super) described: Vec<Described>,
    pub(super) pending: Vec<UtcDay>,
    /// The ids of rows whose files were deleted because they were old.
    pub(super) expired: RoaringTreemap,
    /// Where other programs overwrote rows, or put some among others.
    pub(super) changed: Vec<IdSpan>,
    pub(super) segments: Segments,
    /// What does not fit together in the list of days.
    pub(super) faults: Vec<String>,
}

impl Look {
    /// Whether nothing else is there now. What was appended since does not matter.
    pub(super) fn is_still(&self, now: &Self) -> bool {
        let known = &self.segments.list;
        self.files == now.files
            && self.days == now.days
            && self.described == now.described
            && self.pending == now.pending
            && self.expired == now.expired
            && self.changed == now.changed
            && self.segments.restored == now.segments.restored
            && now.segments.list.get(..known.len()).is_some_and(|list| list == known)
    }

    /// Whether a day is listed.
    pub(super) fn lists(&self, day: UtcDay) -> bool {
        self.days.iter().any(|listed| listed.day == day)
    }
}

/// What the steps check with.
pub(super) struct Plan {
    pub(super) extent: Extent,
    pub(super) look: Look,
    /// The files that the manifest does not describe.
    pub(super) unlisted: Vec<DayFile>,
    /// The ids in the files, as far as they can be read.
    pub(super) archived: RoaringTreemap,
}

/// What a step found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) verified: Verified,
    /// What the postings have to say of the rows of the log, and of the rounds in the archive.
    pub(super) live: Elements,
    pub(super) archived: Elements,
}

impl Found {
    /// Takes in what another step found.
    pub(super) fn add(&mut self, other: Self) {
        self.verified.add(other.verified);
        self.live.merge(&other.live);
        self.archived.merge(&other.archived);
    }
}
