//! Trees of pages: <https://sqlite.org/fileformat2.html#b_tree_pages>.

use std::collections::HashSet;

use rusqlite::types::Value;

use crate::base::error::Result;
use crate::base::interrupt::check;
use crate::db::format::{
    Bounds, INTERIOR_INDEX, LEAF_INDEX, LEAF_TABLE, MOST_DEPTH, PageHeader, local_bytes, varint, word,
};
use crate::salvage::image::Image;
use crate::salvage::record::decode;

/// An entry of a tree.
pub(super) struct Entry {
    /// 0 in an index, as which a table without row ids is stored.
    pub(super) rowid: i64,
    pub(super) values: Vec<Value>,
}

/// What trees led to.
pub(super) struct Walk<'a> {
    image: &'a Image,
    pub(super) visited: HashSet<u32>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(image: &'a Image) -> Self {
        Self { image, visited: HashSet::new() }
    }

    /// Calls `visit` with each entry of the tree at `root` that can be read; returns whether it is whole.
    pub(super) fn tree(&mut self, root: u32, visit: &mut dyn FnMut(Entry) -> Result<()>) -> Result<bool> {
        self.descend(root, Bounds::NONE, 0, visit)
    }

    fn descend(
        &mut self,
        number: u32,
        bounds: Bounds,
        depth: usize,
        visit: &mut dyn FnMut(Entry) -> Result<()>,
    ) -> Result<bool> {
        check()?;
        if depth > MOST_DEPTH || self.visited.contains(&number) {
            return Ok(false);
        }
        let Some(page) = self.image.page(number)? else { return Ok(false) };
        let Some(header) = PageHeader::of(&page, number) else { return Ok(false) };
        match header.kind {
            LEAF_TABLE => {
                let (entries, mut is_whole) = self.entries(&page, header)?;
                let mut before = None;
                for entry in &entries {
                    is_whole &= bounds.contain(entry.rowid) && before.is_none_or(|before| entry.rowid > before);
                    before = Some(entry.rowid);
                }
                // Another leaf than the one that should be here: it is looked at with those that no tree led to.
                if !entries.is_empty() && !entries.iter().any(|entry| bounds.contain(entry.rowid)) {
                    return Ok(false);
                }
                self.visited.insert(number);
                entries.into_iter().filter(|entry| bounds.contain(entry.rowid)).try_for_each(visit)?;
                Ok(is_whole)
            }
            LEAF_INDEX => {
                self.visited.insert(number);
                let (entries, is_whole) = self.entries(&page, header)?;
                entries.into_iter().try_for_each(visit)?;
                Ok(is_whole)
            }
            _ => {
                self.visited.insert(number);
                let mut is_whole = true;
                let mut after = bounds.0;
                for cell in header.cells(&page) {
                    let Some(cell) = cell.filter(|cell| cell.len() > 4) else {
                        is_whole = false;
                        continue;
                    };
                    let child = word(cell, 0);
                    if header.kind == INTERIOR_INDEX {
                        is_whole &= self.descend(child, bounds, depth + 1, visit)?;
                        match self
                            .payload(&cell[4..], true)?
                            .and_then(|(payload, _)| decode(&payload, self.image.encoding))
                        {
                            Some(values) => visit(Entry { rowid: 0, values })?,
                            None => is_whole = false,
                        }
                        continue;
                    }
                    let Some((last, _)) = varint(&cell[4..]) else {
                        is_whole = false;
                        continue;
                    };
                    let last = last.cast_signed();
                    is_whole &= self.descend(child, Bounds(after, Some(last)), depth + 1, visit)?;
                    after = Some(last);
                }
                Ok(is_whole & self.descend(header.right, Bounds(after, bounds.1), depth + 1, visit)?)
            }
        }
    }

    /// The entries of a page of the file that no tree led to, if it is a leaf of a table; none else.
    pub(super) fn stray(&self, number: u32) -> Result<Vec<Entry>> {
        if number == 1 || self.visited.contains(&number) {
            return Ok(Vec::new());
        }
        let Some(page) = self.image.page(number)? else { return Ok(Vec::new()) };
        self.leaf(&page)
    }

    /// The entries of a leaf of a table.
    pub(super) fn leaf(&self, page: &[u8]) -> Result<Vec<Entry>> {
        match PageHeader::of(page, 2).filter(|header| header.kind == LEAF_TABLE) {
            Some(header) => Ok(self.entries(page, header)?.0),
            None => Ok(Vec::new()),
        }
    }

    /// The entries of a leaf, and whether none is damaged.
    fn entries(&self, page: &[u8], header: PageHeader) -> Result<(Vec<Entry>, bool)> {
        let (mut entries, mut is_whole) = (Vec::new(), true);
        for cell in header.cells(page) {
            let entry = match cell {
                Some(cell) => self.entry(cell, header.kind == LEAF_INDEX)?,
                None => None,
            };
            match entry {
                Some(entry) => entries.push(entry),
                None => is_whole = false,
            }
        }
        Ok((entries, is_whole))
    }

    fn entry(&self, cell: &[u8], is_index: bool) -> Result<Option<Entry>> {
        let Some((payload, rowid)) = self.payload(cell, is_index)? else { return Ok(None) };
        Ok(decode(&payload, self.image.encoding).map(|values| Entry { rowid, values }))
    }

    /// The record of a cell, with what overflows from it into other pages, and its row id.
    fn payload(&self, cell: &[u8], is_index: bool) -> Result<Option<(Vec<u8>, i64)>> {
        let usable = self.image.usable;
        let Some((length, mut at)) = varint(cell) else { return Ok(None) };
        let mut rowid = 0;
        if !is_index {
            let Some((found, bytes)) = varint(&cell[at..]) else { return Ok(None) };
            (rowid, at) = (found.cast_signed(), at + bytes);
        }
        let all_pages = u64::from(self.image.page_count) * usable as u64;
        let Some(length) = usize::try_from(length).ok().filter(|length| *length as u64 <= all_pages) else {
            return Ok(None);
        };
        let local = local_bytes(length, usable, is_index);
        let Some(bytes) = cell.get(at..at + local) else { return Ok(None) };
        let mut payload = bytes.to_vec();
        let mut next = if local < length { word(cell, at + local) } else { 0 };
        while payload.len() < length {
            let Some(page) = self.image.page(next)? else { return Ok(None) };
            let count = (length - payload.len()).min(usable - 4);
            payload.extend_from_slice(&page[4..4 + count]);
            next = word(&page, 0);
        }
        Ok(Some((payload, rowid)))
    }
}
