//! Frames of the write-ahead log, each written by SQLite's own system calls: see `frames.rs`.

/// Nothing is kept.
#[derive(Default)]
pub(super) struct Frames;

/// Runs `commit`.
pub(super) fn together<T>(_: &mut Frames, commit: impl FnOnce() -> T) -> T {
    commit()
}
