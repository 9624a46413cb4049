//! What a damaged file still tells: the rows that can be read, and the lines that cannot, as far as they are kept.

use std::collections::{HashMap, HashSet};

use crate::archive::file::block::PLAIN_BLOCK_BYTES;
use crate::archive::file::format::Format;
use crate::archive::file::frame;
use crate::archive::file::line::{LineHead, RowRef, line_id};
use crate::archive::file::reader::{DayReader, each_line, parse_within_memory};
use crate::archive::file::scan::PlainLines;
use crate::base::ids::IdSpan;
use crate::row::{Filter, index_key};

/// Bytes of lines that cannot be read which are kept; of what is beyond, anything may be.
const MOST_TORN_BYTES: usize = 1 << 20;

/// Bytes of a compressed file that are read to find the end of a frame; most have less.
const FIRST_WINDOW: u64 = 256 << 10;

/// What a damaged file still tells.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    /// The ids of the rows of each reference, by its key; those without one under None.
    refs: HashMap<Option<Box<str>>, Vec<i64>>,
    /// Pairs of source and type, by their keys.
    kinds: HashSet<(Box<str>, Box<str>)>,
    torn: Vec<Torn>,
    torn_bytes: usize,
    /// Some part could not be read at all.
    is_dark: bool,
}

/// A line that does not say whose row it is.
#[derive(Debug)]
struct Torn {
    id: Option<i64>,
    bytes: Box<[u8]>,
}

/// Whether a read needs what is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    No,
    /// A line that cannot be read may be of a row that is wanted.
    Perhaps,
    /// A row can be read that may be wanted, or a line names all that is asked for.
    Yes,
}

impl Remains {
    /// Nothing can be read at all.
    pub(crate) fn dark() -> Self {
        Self { is_dark: true, ..Self::default() }
    }

    /// Reads what can be read.
    pub(crate) fn read(reader: DayReader) -> Self {
        let mut remains = Self::default();
        match reader.format() {
            Format::Plain => {
                let mut lines = PlainLines::new(&reader);
                loop {
                    match lines.next() {
                        Ok(Some(line)) => remains.take(line),
                        Ok(None) => break,
                        Err(_) => {
                            remains.is_dark = true;
                            break;
                        }
                    }
                    if lines.block().len() >= PLAIN_BLOCK_BYTES {
                        lines.end_block();
                    }
                }
            }
            Format::Zstd => match reader.trailing_blocks() {
                Ok(blocks) => {
                    let mut reader = reader.with_blocks(blocks);
                    for index in 0..reader.blocks().len() {
                        match reader.block(index) {
                            Ok(()) => each_line(reader.last_block().1).for_each(|line| remains.take(line)),
                            Err(_) => remains.is_dark = true,
                        }
                    }
                }
                Err(_) => remains.take_frames(&reader),
            },
        }
        remains
    }

    /// The rows of a compressed file without its table, frame by frame as far as it goes.
    fn take_frames(&mut self, reader: &DayReader) {
        self.is_dark = true;
        let (mut offset, mut window) = (0, FIRST_WINDOW);
        let (mut stored, mut raw) = (Vec::new(), Vec::new());
        while offset < reader.size() {
            let length = window.min(reader.size() - offset);
            if reader.read_into(&mut stored, length, offset).is_err() {
                return;
            }
            match zstd::zstd_safe::find_frame_compressed_size(&stored) {
                Ok(0) | Err(_) if length == reader.size() - offset => return,
                Ok(0) | Err(_) => window *= 4,
                Ok(size) => {
                    // What is skipped is no row.
                    if frame::decompress(&stored[..size], &mut raw).is_ok() {
                        each_line(&raw).for_each(|line| self.take(line));
                    }
                    offset += size as u64;
                    window = FIRST_WINDOW;
                }
            }
        }
    }

    fn take(&mut self, line: &[u8]) {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if let Ok(row) = parse_within_memory(text) {
            let row = RowRef::from(&row);
            return self.add(row.id, row.source, row.kind, row.ref_id);
        }
        if let Some(head) = LineHead::of(text) {
            return self.add(head.id, &head.source, &head.kind, head.ref_id.as_deref());
        }
        // An empty line costs memory, too.
        let bytes = text.len().max(size_of::<Torn>());
        if self.torn_bytes + bytes > MOST_TORN_BYTES {
            self.is_dark = true;
        } else {
            self.torn_bytes += bytes;
            self.torn.push(Torn { id: line_id(text), bytes: text.into() });
        }
    }

    fn add(&mut self, id: i64, source: &str, kind: &str, ref_id: Option<&str>) {
        self.refs.entry(ref_id.map(|ref_id| (*index_key(ref_id)).into())).or_default().push(id);
        self.kinds.insert(((*index_key(source)).into(), (*index_key(kind)).into()));
    }

    /// Whether a read with this filter needs the file, its bounds of time aside.
    pub(crate) fn need(&self, filter: &Filter) -> Need {
        let Some(wanted) = filter.ids() else { return Need::No };
        let has_kind = self.kinds.iter().any(|(source, kind)| {
            let is =
                |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|text| *index_key(text) == *found);
            is(&filter.source, source) && is(&filter.kind, kind)
        });
        let has_id = |ids: &Vec<i64>| ids.iter().any(|id| wanted.contains(*id));
        let has_row = match &filter.ref_id {
            Some(ref_id) => self.refs.get(&Some((*index_key(ref_id)).into())).is_some_and(has_id),
            None => self.refs.values().any(has_id),
        };
        let texts: Vec<Vec<u8>> =
            [&filter.source, &filter.kind, &filter.ref_id].into_iter().flatten().map(escaped).collect();
        let torn = |torn: &Torn| match torn.id {
            Some(id) if !wanted.contains(id) => Need::No,
            _ if !texts.is_empty() && texts.iter().all(|text| memchr::memmem::find(&torn.bytes, text).is_some()) => {
                Need::Yes
            }
            _ => Need::Perhaps,
        };
        let of_rows = if has_row && has_kind { Need::Yes } else { Need::No };
        let of_dark = if self.is_dark { Need::Perhaps } else { Need::No };
        self.torn.iter().map(torn).fold(of_rows.max(of_dark), Need::max)
    }

    /// The least span of ids in which its rows are; lines that cannot be read may have any up to `bound`, if it is given.
    pub(crate) fn id_span(&self, bound: Option<i64>) -> Option<IdSpan> {
        let ids = self.refs.values().flatten().copied().chain(self.torn.iter().filter_map(|torn| torn.id));
        let unknown = self.is_dark || self.torn.iter().any(|torn| torn.id.is_none());
        let unknown = bound.filter(|_| unknown).and_then(|bound| IdSpan::new(1.min(bound), bound));
        ids.map(IdSpan::of).chain(unknown).reduce(IdSpan::union)
    }

    /// The greatest id that can be read.
    pub(crate) fn last_id(&self) -> Option<i64> {
        self.refs.values().flatten().copied().chain(self.torn.iter().filter_map(|torn| torn.id)).max()
    }
}

/// The text as it stands in a line.
fn escaped(text: &String) -> Vec<u8> {
    let quoted = serde_json::to_vec(text).unwrap_or_default();
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_vec()
}
