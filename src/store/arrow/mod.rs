//! Rows as Arrow's columns, by its C data and C stream interfaces: a few structs, so that no library of Arrow's is needed.
//!
//! Invariant: a stream holds one batch of rows; where they come from is its origin's concern.

mod c_data;
mod columns;
mod stream;

pub use c_data::{ArrowArray, ArrowArrayStream, ArrowSchema};
pub use columns::schema;
pub use stream::{Origin, stream, stream_of};
