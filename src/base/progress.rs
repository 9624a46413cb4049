//! How long work tells how far it is.

use crate::base::error::Result;

/// Called with (done, to do) between two steps, outside of any transaction; an error stops the work there.
pub type Progress<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;
