//! Calls that systems have each in their own way: the quick ones of Linux, or those that every POSIX system has.
//!
//! Both files offer the same functions. Where Linux itself lacks one (an older kernel, a sandbox, a file system), its
//! callers go the way that they go everywhere else. The feature `portable` chooses the latter on Linux, too, so that they are
//! tested there.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
mod portable;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
pub(super) use linux::{
    FOLDER, Identity, begin_sync, clone_blocks, create_nameless, identity, identity_at, link_nameless, open_beneath,
    open_quickly, stat_beneath, sync_entries, sync_file_system,
};
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
pub(super) use portable::{
    FOLDER, Identity, begin_sync, clone_blocks, create_nameless, identity, identity_at, link_nameless, open_beneath,
    open_quickly, stat_beneath, sync_entries, sync_file_system,
};
