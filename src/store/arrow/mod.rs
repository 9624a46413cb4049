//! Rows as Arrow's columns, by its C data and C stream interfaces: a few structs, so that no library of Arrow's is needed.
//!
//! Invariant: a stream holds one batch of rows, or one for each thread that reads it; where they come from is its origin's
//! concern.

mod c_data;
mod columns;
mod parts;
mod stream;

pub use c_data::{ArrowArray, ArrowArrayStream, ArrowSchema};
pub use columns::schema;
pub use parts::Origin;
pub use stream::{stream, stream_of};
