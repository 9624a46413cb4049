//! A day's file for one who reads the rows, and writes the bytes: the log on PostgreSQL.

use std::collections::HashMap;
use std::path::Path;

use crate::archive::file::format::Format;
use crate::archive::file::line::{RowRef, write_line};
use crate::archive::file::summary::{KindSet, Kinds};
use crate::archive::file::writer::{RawBlock, Storage, block_bytes};
use crate::base::digest::Digest;
use crate::base::error::{Error, Result};
use crate::row::{CopiedRow, is_round};

/// Takes the rows of a day in the order of their ids, and gives the bytes of its file.
pub struct DayEncoder {
    block: RawBlock,
    block_bytes: usize,
    storage: Storage<Vec<u8>>,
    ids: Vec<i64>,
    rounds: HashMap<Box<str>, Vec<i64>>,
    kinds: KindSet,
}

/// What a day's file holds.
pub struct EncodedDay {
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of its lines.
    pub raw_size: u64,
    /// Of the file.
    pub sha256: Digest,
    /// Of its rows, ascending.
    pub ids: Vec<i64>,
    /// The references, each with the ids of its rounds.
    pub rounds: HashMap<Box<str>, Vec<i64>>,
    /// The pairs of source and type; None: too many.
    pub kinds: Option<Kinds>,
}

impl DayEncoder {
    /// Of no rows yet.
    pub fn new(format: Format) -> Result<Self> {
        Ok(Self {
            block: RawBlock::default(),
            block_bytes: block_bytes(format),
            storage: Storage::new(Vec::new(), Path::new(""), format)?,
            ids: Vec::new(),
            rounds: HashMap::new(),
            kinds: KindSet::new(),
        })
    }

    /// Appends a row; `line` is what stands for it in a file, with its newline, if that is known.
    pub fn add(&mut self, row: &RowRef<'_>, line: Option<&[u8]>) -> Result<()> {
        if self.ids.last().is_some_and(|last| *last >= row.id) {
            return Err(Error::Value(format!("the id {} is of two rows, or out of order", row.id)));
        }
        self.ids.push(row.id);
        self.kinds.add(row.source, row.kind);
        if let Some(ref_id) = row.ref_id {
            let rounds = match self.rounds.get_mut(ref_id) {
                Some(rounds) => rounds,
                None => self.rounds.entry(ref_id.into()).or_default(),
            };
            if is_round(Some(row.source), Some(row.kind), row.payload) {
                rounds.push(row.id);
            }
        }
        let length = self.block.row(row.id, |buffer| match line {
            Some(line) => buffer.extend_from_slice(line),
            None => write_line(buffer, row),
        });
        if length >= self.block_bytes { self.storage.push(&mut self.block) } else { Ok(()) }
    }

    /// The bytes of the file that there are since this was called the last time: those of whole blocks.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.storage.sink())
    }

    /// How many rows it has taken.
    pub fn row_count(&self) -> usize {
        self.ids.len()
    }

    /// The rest of the file's bytes, and what it holds.
    pub fn finish(mut self) -> Result<(Vec<u8>, EncodedDay)> {
        if !self.block.is_empty() {
            self.storage.push(&mut self.block)?;
        }
        let (stored, bytes) = self.storage.end()?;
        let (size, raw_size, sha256) = stored.figures();
        let kinds = self.kinds.finish();
        Ok((bytes, EncodedDay { size, raw_size, sha256, ids: self.ids, rounds: self.rounds, kinds }))
    }
}

impl<'a> From<&'a CopiedRow<'a>> for RowRef<'a> {
    fn from(row: &'a CopiedRow<'a>) -> Self {
        Self {
            id: row.id,
            source: &row.source,
            kind: &row.kind,
            ref_id: row.ref_id.as_deref(),
            payload: row.payload.as_deref(),
            timestamp: row.timestamp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::file::writer::write_file;
    use crate::archive::job::throttle::Throttle;
    use crate::row::{LogEntry, NewLogEntry};

    fn entries() -> Vec<LogEntry> {
        let texts: Vec<String> = (0..40).map(|number| format!("{{\"n\":{number}}}").repeat(2_000)).collect();
        let entry = |(number, text): (usize, &String)| {
            let ref_id = (number % 3 > 0).then_some("run");
            NewLogEntry { source: "s", kind: "t", ref_id, payload: Some(text), timestamp: Some(5) }
                .stored(number as i64)
        };
        texts.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn the_bytes_are_those_of_the_log_on_one_machine() {
        for format in [Format::Plain, Format::Zstd] {
            let mut file = Vec::new();
            let (_, stored) = write_file(&mut file, Path::new("day"), format, &Throttle::default(), |writer| {
                entries().iter().for_each(|entry| {
                    writer.row(entry.id, |buffer| write_line(buffer, &entry.into()));
                });
                Ok(())
            })
            .unwrap();
            let (mut encoder, mut bytes) = (DayEncoder::new(format).unwrap(), Vec::new());
            for (number, entry) in entries().iter().enumerate() {
                let mut line = Vec::new();
                write_line(&mut line, &entry.into());
                encoder.add(&entry.into(), (number % 2 == 0).then_some(&line)).unwrap();
                bytes.extend(encoder.take());
            }
            let (rest, day) = encoder.finish().unwrap();
            bytes.extend(rest);
            assert!(bytes == file, "{format:?}");
            assert_eq!((day.size, day.raw_size, day.sha256), stored.figures());
            assert_eq!(day.ids, (0..40).collect::<Vec<_>>());
            assert_eq!(day.kinds, Some(vec![("s".into(), "t".into())]));
            assert_eq!(day.rounds, HashMap::from([("run".into(), Vec::new())]));
        }
    }

    #[test]
    fn ids_ascend() {
        for id in [7, 6] {
            let mut encoder = DayEncoder::new(Format::Plain).unwrap();
            let row = |id| RowRef { id, source: "s", kind: "t", ref_id: None, payload: None, timestamp: 5 };
            encoder.add(&row(7), None).unwrap();
            assert!(encoder.add(&row(id), None).is_err());
        }
    }
}
