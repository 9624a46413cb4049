//! Names that another program may have stored otherwise than as text.

use rusqlite::Row;

use crate::base::error::Result;

/// The name in this column, which is not NULL. Bytes count as the text that they are; what is not UTF-8 is replaced.
pub(crate) fn stored_name(row: &Row<'_>, column: usize) -> Result<String> {
    let bytes = row.get_ref(column)?.as_bytes().map_err(rusqlite::Error::from)?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}
