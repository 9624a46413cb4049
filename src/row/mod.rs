//! A row of the log: as it is given, as it is read, what its payload says, and which rows a read wants.

mod arrays;
mod copied;
mod entry;
mod filter;
mod indexed;
pub(crate) mod json;
mod key;
mod kinds;
mod marked;
pub(crate) mod payload;
mod round;
mod texts;

pub use arrays::Arrays;
pub use copied::{CopiedRow, CopiedRows, of_record};
pub(crate) use entry::{COLUMNS, Entries, not_utf8};
pub use entry::{DEFAULT_MAX_TEXT_BYTES, LogEntry, NewLogEntry, OwnedEntry, RawRow, check_name};
pub(crate) use filter::Conditions;
pub use filter::Filter;
pub(crate) use indexed::IndexedRow;
pub use json::Malformed;
pub(crate) use key::index_key;
pub(crate) use kinds::{EVENT, MESSAGE, SOURCE};
pub use marked::unmarked_bytes;
pub use round::NumberedRound;
pub(crate) use round::{is_round, is_round_entry};
