//! Taking the bytes of the index apart, and the error of those that are damaged.

use crate::base::error::{Error, Result};

/// Takes a number of 32 bits off the front.
pub(super) fn take_length(bytes: &mut &[u8]) -> Result<u32> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| damaged("it is cut off"))?;
    *bytes = rest;
    Ok(u32::from_le_bytes(*length))
}

/// Takes so many bytes off the front.
pub(super) fn take<'a>(bytes: &mut &'a [u8], length: u32) -> Result<&'a [u8]> {
    let (part, rest) = bytes.split_at_checked(length as usize).ok_or_else(|| damaged("it is cut off"))?;
    *bytes = rest;
    Ok(part)
}

const DAMAGED: &str = "the index of the log is damaged";
const WAY_OUT: &str = "reindex() rebuilds it";

/// The error that a reader of damaged bytes gets.
pub(crate) fn damaged(reason: &str) -> Error {
    Error::Damaged { what: DAMAGED.to_owned(), reason: reason.to_owned(), way_out: Some(WAY_OUT) }
}

/// What was read of the index; a value that is none of the index's is damage.
pub(crate) fn or_damaged<T>(read: Result<T>) -> Result<T> {
    read.map_err(|error| error.or_damaged(DAMAGED, WAY_OUT))
}
