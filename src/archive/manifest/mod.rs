//! The manifest: what each day's file holds, and which references occur in which day, in the database beside the log.

pub(crate) mod catalog;
pub(crate) mod days;
pub(crate) mod ids;
pub(crate) mod refs;
pub(crate) mod schema;
