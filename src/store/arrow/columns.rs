//! The columns of a batch: their types, and their values as they are gathered.

use std::collections::HashMap;

use crate::row::LogEntry;
use crate::store::arrow::c_data::{ArrowArray, ArrowSchema, Buffer, NULLABLE};

/// Bytes of text after which a batch ends, whatever the number of its rows: memory stays small, and offsets of 32 bits
/// suffice, since one more row adds less than a gigabyte.
const MOST_TEXT_BYTES: usize = 32 << 20;

/// The type of the rows.
pub fn schema() -> ArrowSchema {
    let text = |name| ArrowSchema::new(c"u", name, NULLABLE, Vec::new(), None);
    let named =
        |name| ArrowSchema::new(c"i", name, 0, Vec::new(), Some(ArrowSchema::new(c"u", c"", 0, Vec::new(), None)));
    let columns = vec![
        ArrowSchema::new(c"l", c"id", 0, Vec::new(), None),
        named(c"source"),
        named(c"type"),
        text(c"ref_id"),
        text(c"payload"),
        ArrowSchema::new(c"tsm:UTC", c"timestamp", 0, Vec::new(), None),
    ];
    ArrowSchema::new(c"+s", c"", 0, columns, None)
}

/// The rows of one batch.
#[derive(Default)]
pub(super) struct Columns {
    ids: Vec<i64>,
    sources: Names,
    kinds: Names,
    ref_ids: Texts,
    payloads: Texts,
    timestamps: Vec<i64>,
}

impl Columns {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the next row belongs into another batch, whatever the number of those in this one.
    pub(super) fn is_full(&self) -> bool {
        self.ref_ids.bytes.len().max(self.payloads.bytes.len()).max(self.sources.size.max(self.kinds.size))
            >= MOST_TEXT_BYTES
    }

    pub(super) fn push(&mut self, row: &LogEntry) {
        self.ids.push(row.id);
        self.sources.push(row.source());
        self.kinds.push(row.kind());
        self.ref_ids.push(row.ref_id());
        self.payloads.push(row.payload());
        self.timestamps.push(row.timestamp);
    }

    pub(super) fn into_array(self) -> ArrowArray {
        let length = self.ids.len();
        let integers =
            |values| ArrowArray::new(length, 0, vec![Buffer::Missing, Buffer::Integers(values)], Vec::new(), None);
        let columns = vec![
            integers(self.ids),
            self.sources.into_array(),
            self.kinds.into_array(),
            self.ref_ids.into_array(),
            self.payloads.into_array(),
            integers(self.timestamps),
        ];
        ArrowArray::new(length, 0, vec![Buffer::Missing], columns, None)
    }
}

/// Texts of which some may be missing.
struct Texts {
    /// Where each begins, and the last ends.
    ends: Vec<i32>,
    bytes: Vec<u8>,
    /// A bit a text: whether it is there.
    validity: Vec<u8>,
    missing: usize,
}

impl Default for Texts {
    fn default() -> Self {
        Self { ends: vec![0], bytes: Vec::new(), validity: Vec::new(), missing: 0 }
    }
}

impl Texts {
    fn len(&self) -> usize {
        self.ends.len() - 1
    }

    fn push(&mut self, text: Option<&str>) {
        let index = self.len();
        if index.is_multiple_of(8) {
            self.validity.push(0);
        }
        match (text, self.validity.last_mut()) {
            (Some(text), Some(last)) => {
                self.bytes.extend_from_slice(text.as_bytes());
                *last |= 1 << (index % 8);
            }
            _ => self.missing += 1,
        }
        // A batch ends long before.
        self.ends.push(i32::try_from(self.bytes.len()).unwrap_or(i32::MAX));
    }

    fn into_array(self) -> ArrowArray {
        let length = self.len();
        let validity = if self.missing == 0 { Buffer::Missing } else { Buffer::Bytes(self.validity) };
        let buffers = vec![validity, Buffer::Offsets(self.ends), Buffer::Bytes(self.bytes)];
        ArrowArray::new(length, self.missing, buffers, Vec::new(), None)
    }
}

/// Texts of which there are few: each once, and its number a row.
#[derive(Default)]
struct Names {
    numbers: Vec<i32>,
    by_name: HashMap<Box<str>, i32>,
    names: Texts,
    last: Option<(Box<str>, i32)>,
    size: usize,
}

impl Names {
    fn push(&mut self, name: &str) {
        if let Some((last, number)) = &self.last
            && **last == *name
        {
            self.numbers.push(*number);
            return;
        }
        let number = match self.by_name.get(name) {
            Some(number) => *number,
            None => {
                let number = i32::try_from(self.by_name.len()).unwrap_or(i32::MAX);
                self.by_name.insert(name.into(), number);
                self.names.push(Some(name));
                self.size += name.len();
                number
            }
        };
        self.numbers.push(number);
        self.last = Some((name.into(), number));
    }

    fn into_array(self) -> ArrowArray {
        let length = self.numbers.len();
        let buffers = vec![Buffer::Missing, Buffer::Offsets(self.numbers)];
        ArrowArray::new(length, 0, buffers, Vec::new(), Some(self.names.into_array()))
    }
}
