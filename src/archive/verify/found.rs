//! What the steps of a verification share: what they check with, and what they find.

use roaring::RoaringTreemap;

use crate::archive::manifest::days::Listed;
use crate::archive::verify::report::Verified;
use crate::base::ids::IdSpan;
use crate::index::verify::{Elements, Kinds};

/// What is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Everything,
    /// Whether the rows are what was sealed, wherever they are: nothing of the files themselves, of what the postings say of
    /// them, or of rows that were never readable.
    Rows,
}

/// What the steps check with.
pub(super) struct Plan {
    pub(super) extent: Extent,
    pub(super) days: Vec<Listed>,
    /// The ids in the files, as far as they can be read.
    pub(super) archived: RoaringTreemap,
    /// The ids of rows whose files were deleted because they were old.
    pub(super) expired: RoaringTreemap,
    /// Where rows lie that were put back from the archive.
    pub(super) restored: Vec<IdSpan>,
    /// Where other programs overwrote rows, or put some among others.
    pub(super) changed: Vec<IdSpan>,
    pub(super) kinds: Kinds,
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
