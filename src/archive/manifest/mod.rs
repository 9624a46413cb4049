//! The manifest: what each day's file holds, and which references occur in which day, in the database beside the log.

pub(crate) mod candidates;
pub(crate) mod catalog;
pub(crate) mod damage;
pub(crate) mod days;
pub(crate) mod examine;
pub(crate) mod expired;
pub(crate) mod fetch;
pub(crate) mod grown;
pub(crate) mod ids;
pub(crate) mod missing;
pub(crate) mod open;
pub(crate) mod overlap;
pub(crate) mod owner;
pub(crate) mod refs;
pub(crate) mod remote;
pub(crate) mod schema;
pub(crate) mod seen;
pub(crate) mod strays;
pub(crate) mod values;
