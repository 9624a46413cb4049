//! An archive job: which rows go, writing them, publishing the files, deleting the rows.

pub(crate) mod adopt;
pub(crate) mod expire;
pub(crate) mod export;
pub(crate) mod plan;
pub(crate) mod publish;
pub(crate) mod recover;
pub(crate) mod reindex;
pub(crate) mod steps;
pub(crate) mod throttle;
