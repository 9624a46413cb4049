//! The append-only log: appending through group commit, reading, following, and the meta key-values beside it.
//!
//! Rows never change. Ids strictly increase and are never reused; the order of ids is the order of commits.

mod append;
mod changes;
mod core;
mod follow;
mod group_commit;
mod handle;
mod insert;
mod keys;
mod meta;
mod operation;
mod read;
mod renumber;
mod reserve;
mod stats;
mod transaction;

pub(crate) use crate::index::given::{last_given_id, raise_last_given_id};
pub use changes::Listener;
pub use core::{Core, LogConfig, Snapshot};
pub(crate) use follow::watch;
pub use follow::{FollowedPage, Follower, ReadPage, listen, read_page, wake};
pub use group_commit::Waiter;
pub use handle::Log;
pub(crate) use keys::prune_keys;
pub use keys::{Key, KnownKey};
pub use meta::{DeleteMeta, SetMeta, delete_meta, get_meta, list_meta, set_meta};
pub(crate) use meta::{read_meta, write_meta};
pub use operation::{Answer, Done, Operation, Shared, Work};
pub use read::{Pages, count, query};
pub(crate) use read::{by_ids, each, each_by_ids, each_id, extent, ids};
pub(crate) use reserve::reserved_ids;
pub use stats::{LogStats, stats};
pub use transaction::Transaction;
