//! The pages of a database that is closed: those of its write-ahead log where it has any, else those of the file.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::base::error::{Error, Result};
use crate::base::interrupt::check;
use crate::base::io::fill;
use crate::db::format::word;
use crate::db::wal_checksum;
use crate::durable;
use crate::salvage::record::Encoding;

const OPERATION: &str = "salvage a database";
const MAGIC: &[u8] = b"SQLite format 3\0";
const HEADER_BYTES: usize = 100;
const USUAL_PAGE_BYTES: usize = 4_096;
const PAGE_SIZES: [usize; 8] = [4_096, 1_024, 8_192, 16_384, 32_768, 65_536, 2_048, 512];
const LOG_HEADER_BYTES: u64 = 32;
const FRAME_HEADER_BYTES: u64 = 24;
const LITTLE_ENDIAN: u32 = 0x377f_0682;
/// Pages that are looked at to tell their size.
const SAMPLE: u64 = 256;

pub(super) struct Image {
    path: PathBuf,
    file: File,
    file_bytes: u64,
    pub(super) page_bytes: usize,
    /// Bytes of a page that hold data.
    pub(super) usable: usize,
    pub(super) page_count: u32,
    /// That of the texts; UTF-8 where the header does not say it.
    pub(super) encoding: Encoding,
    log: Option<File>,
    /// Where in the log the newest committed state of a page is.
    committed: HashMap<u32, u64>,
    /// Where pages are whose commits SQLite would not find, because the log is damaged before them.
    pub(super) loose: Vec<u64>,
    /// Whether the header of the file was what it should be.
    pub(super) has_header: bool,
}

impl Image {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let missing = || Error::errno(path, OPERATION, libc::ENOENT, "there is no such file".into());
        let file = durable::open_regular(path)?.ok_or_else(missing)?;
        let file_bytes = file.metadata().map_err(|error| Error::io(path, OPERATION, &error))?.len();
        let mut log_path = path.as_os_str().to_owned();
        log_path.push("-wal");
        let log = durable::open_regular(Path::new(&log_path))?;
        let mut image = Self {
            path: path.to_owned(),
            file,
            file_bytes,
            page_bytes: USUAL_PAGE_BYTES,
            usable: USUAL_PAGE_BYTES,
            page_count: 0,
            encoding: Encoding::default(),
            log,
            committed: HashMap::new(),
            loose: Vec::new(),
            has_header: false,
        };
        image.find_page_size()?;
        let pages = file_bytes.div_ceil(image.page_bytes as u64);
        image.page_count = u32::try_from(pages).unwrap_or(u32::MAX);
        image.read_log()?;
        Ok(image)
    }

    fn find_page_size(&mut self) -> Result<()> {
        let mut header = [0; HEADER_BYTES];
        self.read(&mut header, 0)?;
        let stated = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 65_536,
            size => usize::from(size),
        };
        let is_size = PAGE_SIZES.contains(&stated);
        self.has_header = header.starts_with(MAGIC) && is_size;
        let mut best = (0, USUAL_PAGE_BYTES);
        if self.has_header {
            best = (1, stated);
        } else {
            for size in PAGE_SIZES {
                let score = self.count_trees(size)?;
                if score > best.0 {
                    best = (score, size);
                }
            }
        }
        self.page_bytes = best.1;
        if self.has_header {
            self.encoding = Encoding::of(word(&header, 56));
        }
        let reserved = if self.has_header { usize::from(header[20]) } else { 0 };
        self.usable = self.page_bytes - if reserved <= 32 { reserved } else { 0 };
        Ok(())
    }

    /// How many bytes of a sample are in pages that look like those of trees.
    fn count_trees(&self, size: usize) -> Result<usize> {
        let mut page = vec![0; size];
        let mut count = 0;
        for number in 1..(self.file_bytes / size as u64).min(SAMPLE * USUAL_PAGE_BYTES as u64 / size as u64) {
            self.read(&mut page, number * size as u64)?;
            let cells = usize::from(u16::from_be_bytes([page[3], page[4]]));
            let content = usize::from(u16::from_be_bytes([page[5], page[6]]));
            let is_tree = matches!(page[0], 2 | 5 | 10 | 13) && cells > 0 && cells * 2 + 8 <= content && content < size;
            count += if is_tree { size } else { 0 };
        }
        Ok(count)
    }

    /// As many bytes as there are from `offset` on; the rest stays as it is.
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        read_at(&self.file, buffer, offset).map_err(|error| Error::io(&self.path, OPERATION, &error))
    }

    /// The state of a page; None beyond the end.
    pub(super) fn page(&self, number: u32) -> Result<Option<Vec<u8>>> {
        let mut page = vec![0; self.page_bytes];
        if let Some(&offset) = self.committed.get(&number) {
            return self.frame(offset).map(Some);
        }
        if number == 0 || number > self.page_count {
            return Ok(None);
        }
        match self.read(&mut page, u64::from(number - 1) * self.page_bytes as u64) {
            Ok(_) => Ok(Some(page)),
            // A sector that the disk does not give back.
            Err(Error::Io { errno: libc::EIO, .. }) => Ok(Some(vec![0; self.page_bytes])),
            Err(error) => Err(error),
        }
    }

    /// The page in the log at `offset`.
    pub(super) fn frame(&self, offset: u64) -> Result<Vec<u8>> {
        let mut page = vec![0; self.page_bytes];
        if let Some(log) = &self.log {
            read_at(log, &mut page, offset).map_err(|error| Error::io(&self.path, OPERATION, &error))?;
        }
        Ok(page)
    }

    fn read_log(&mut self) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        let failed = |error: std::io::Error| Error::io(&self.path, OPERATION, &error);
        let mut header = [0; LOG_HEADER_BYTES as usize];
        if read_at(log, &mut header, 0).map_err(failed)? < header.len() {
            return Ok(());
        }
        let is_little_endian = word(&header, 0) == LITTLE_ENDIAN;
        let mut sum = wal_checksum(is_little_endian, (0, 0), &header[..24]);
        let is_header = word(&header, 0) & !1 == LITTLE_ENDIAN & !1
            && sum == (word(&header, 24), word(&header, 28))
            && word(&header, 8) as usize % 65_536 == self.page_bytes % 65_536;
        let mut salts = is_header.then(|| header[16..24].to_vec());
        let mut is_whole = is_header;
        let (mut pending, mut offset) = (Vec::new(), LOG_HEADER_BYTES);
        let mut frame = vec![0; FRAME_HEADER_BYTES as usize + self.page_bytes];
        let (mut committed, mut loose, mut page_count) = (HashMap::new(), Vec::new(), self.page_count);
        while read_at(log, &mut frame, offset).map_err(failed)? == frame.len() {
            check()?;
            let salts = salts.get_or_insert_with(|| frame[8..16].to_vec());
            let at = offset + FRAME_HEADER_BYTES;
            offset += frame.len() as u64;
            let is_of_this_log = frame[8..16] == **salts;
            let next = wal_checksum(is_little_endian, sum, &frame[..8]);
            let next = wal_checksum(is_little_endian, next, &frame[FRAME_HEADER_BYTES as usize..]);
            is_whole &= is_of_this_log && next == (word(&frame, 16), word(&frame, 20));
            if is_whole {
                sum = next;
                pending.push((word(&frame, 0), at));
                if word(&frame, 4) != 0 {
                    committed.extend(pending.drain(..));
                    page_count = word(&frame, 4);
                }
            } else if is_of_this_log {
                loose.push(at);
            }
        }
        self.committed = committed;
        // Behind the end of a commit lie pages that are no longer in use, and those of later commits that were lost.
        self.page_count = page_count.max(self.page_count);
        self.loose = loose;
        Ok(())
    }

    /// The pages that are not in use, as far as the list of them can be read.
    pub(super) fn free_pages(&self) -> Result<HashSet<u32>> {
        let mut free = HashSet::new();
        let Some(first) = self.page(1)?.filter(|_| self.has_header) else { return Ok(free) };
        let mut trunk = word(&first, 32);
        while trunk != 0 && free.insert(trunk) {
            let Some(page) = self.page(trunk)? else { break };
            trunk = word(&page, 0);
            let count = (word(&page, 4) as usize).min(self.usable / 4 - 2);
            free.extend((0..count).map(|index| word(&page, 8 + 4 * index)));
        }
        Ok(free)
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut at = offset;
    fill(buffer, |rest| {
        loop {
            match file.read_at(rest, at) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(count) => {
                    at += count as u64;
                    return Ok(count);
                }
                Err(error) => return Err(error),
            }
        }
    })
}
