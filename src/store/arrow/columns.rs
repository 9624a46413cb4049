//! The columns of a batch: their types, and their values as they are gathered.

use std::collections::HashMap;

use crate::base::error::Result;
use crate::row::{RawRow, not_utf8};
use crate::store::arrow::c_data::{ArrowArray, ArrowSchema, Buffer, NULLABLE};

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

    /// The ids of the rows.
    #[cfg(test)]
    pub(super) fn ids(&self) -> &[i64] {
        &self.ids
    }

    /// Bytes of text of the column that has most of them.
    pub(super) fn text_bytes(&self) -> usize {
        let longest = self.ref_ids.bytes.len().max(self.payloads.bytes.len());
        longest.max(self.sources.names.bytes.len()).max(self.kinds.names.bytes.len())
    }

    pub(super) fn push(&mut self, row: RawRow<'_>) {
        let (source, kind, ref_id, payload) = row.texts;
        self.ids.push(row.id);
        self.sources.push(source);
        self.kinds.push(kind);
        self.ref_ids.push(ref_id);
        self.payloads.push(payload);
        self.timestamps.push(row.timestamp);
    }

    /// An error if a text is not UTF-8, which readers take for granted.
    pub(super) fn check(&self) -> Result<()> {
        let number = |names: &Names| {
            let wrong = names.names.first_wrong()?;
            names.numbers.iter().position(|number| usize::try_from(*number) == Ok(wrong))
        };
        let wrong =
            [number(&self.sources), number(&self.kinds), self.ref_ids.first_wrong(), self.payloads.first_wrong()];
        let wrong = wrong.into_iter().enumerate().filter_map(|(text, row)| Some((row?, text)));
        match wrong.min() {
            Some((row, text)) => Err(not_utf8(self.ids[row], text)),
            None => Ok(()),
        }
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

    fn push(&mut self, text: Option<&[u8]>) {
        let index = self.len();
        if index.is_multiple_of(8) {
            self.validity.push(0);
        }
        match (text, self.validity.last_mut()) {
            (Some(text), Some(last)) => {
                self.bytes.extend_from_slice(text);
                *last |= 1 << (index % 8);
            }
            _ => self.missing += 1,
        }
        // A batch ends long before.
        self.ends.push(i32::try_from(self.bytes.len()).unwrap_or(i32::MAX));
    }

    fn get(&self, index: usize) -> &[u8] {
        let end = |index: usize| usize::try_from(self.ends[index]).unwrap_or_default();
        &self.bytes[end(index)..end(index + 1)]
    }

    /// The first text that is not UTF-8.
    fn first_wrong(&self) -> Option<usize> {
        // Looked at once: all are valid if the whole is and none ends inside a character.
        let is_end =
            |whole: &str| self.ends.iter().all(|end| whole.is_char_boundary(usize::try_from(*end).unwrap_or_default()));
        if std::str::from_utf8(&self.bytes).is_ok_and(is_end) {
            return None;
        }
        (0..self.len()).find(|index| std::str::from_utf8(self.get(*index)).is_err())
    }

    fn into_array(self) -> ArrowArray {
        let length = self.len();
        let validity = if self.missing == 0 { Buffer::Missing } else { Buffer::Bytes(self.validity) };
        let buffers = vec![validity, Buffer::Offsets(self.ends), Buffer::Bytes(self.bytes)];
        ArrowArray::new(length, self.missing, buffers, Vec::new(), None)
    }
}

/// Texts of which there are few: each once, and its number a row.
struct Names {
    numbers: Vec<i32>,
    by_name: HashMap<Box<[u8]>, i32>,
    names: Texts,
    /// The number of the name that was looked up last with each [`slot`].
    recent: [Option<i32>; SLOTS],
}

/// Names that are found without hashing them.
const SLOTS: usize = 64;

/// Where a name is remembered: its length and its last bytes tell most names of a program apart.
fn slot(name: &[u8]) -> usize {
    let mut found = name.len();
    for byte in name.iter().rev().take(4).chain(name.first()) {
        found = found.wrapping_mul(31).wrapping_add(usize::from(*byte));
    }
    found % SLOTS
}

impl Default for Names {
    fn default() -> Self {
        Self { numbers: Vec::new(), by_name: HashMap::new(), names: Texts::default(), recent: [None; SLOTS] }
    }
}

impl Names {
    fn push(&mut self, name: &[u8]) {
        let slot = slot(name);
        if let Some(number) = self.recent[slot]
            && usize::try_from(number).is_ok_and(|number| self.names.get(number) == name)
        {
            self.numbers.push(number);
            return;
        }
        let number = match self.by_name.get(name) {
            Some(number) => *number,
            None => {
                let number = i32::try_from(self.by_name.len()).unwrap_or(i32::MAX);
                self.by_name.insert(name.into(), number);
                self.names.push(Some(name));
                number
            }
        };
        self.numbers.push(number);
        self.recent[slot] = Some(number);
    }

    fn into_array(self) -> ArrowArray {
        let length = self.numbers.len();
        let buffers = vec![Buffer::Missing, Buffer::Offsets(self.numbers)];
        ArrowArray::new(length, 0, buffers, Vec::new(), Some(self.names.into_array()))
    }
}
