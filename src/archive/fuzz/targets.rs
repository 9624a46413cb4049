//! What is fuzzed, and what must be true of each answer.

use std::path::Path;

use roaring::{RoaringBitmap, RoaringTreemap};
use serde::de::IgnoredAny;

use super::{fuzz, size, way};
use crate::archive::file::block::{self, Block, trailer};
use crate::archive::file::format::{Format, path_of};
use crate::archive::file::frame;
use crate::archive::file::line::{LineHead, RowRef, line_id, parse_line, write_line};
use crate::archive::file::reader::DayReader;
use crate::archive::file::scan::{Watch, scan};
use crate::base::time::UtcDay;
use crate::db::wal_condition;
use crate::index::build::offsets::{Offsets, decode};
use crate::index::build::postings::{each_posting, rekeyed};
use crate::row::json::{Token, Tokens, unescape};
use crate::row::payload::members;
use crate::row::{MESSAGE, SOURCE, is_round};

/// Inputs that a second must do at least on a busy machine: a fuzzer that does nothing finds nothing.
const FEWEST: usize = 50;

fn assert_ran((count, ways): (usize, usize)) {
    assert!(count >= FEWEST, "only {count} inputs");
    assert!(ways >= 2, "all inputs were taken alike");
}

#[test]
fn segments() {
    assert_ran(fuzz("segments", &[], |input| {
        let set: Result<RoaringBitmap, _> = decode(input);
        if let Ok(set) = &set {
            let mut bytes = Vec::new();
            set.serialize_into(&mut bytes).unwrap();
            assert_eq!(&decode(&bytes).unwrap(), set);
        }
        let large = RoaringTreemap::deserialize_from(input);
        way(&[
            set.as_ref().map_or(0, |set| 1 + size(set.len() as usize)),
            large.map_or(0, |set| 1 + size(set.len() as usize)),
        ])
    }));
}

#[test]
fn postings() {
    assert_ran(fuzz("postings", &[], |input| {
        let read = |bytes: &[u8]| {
            let mut found = Vec::new();
            let outcome = each_posting(bytes, |ref_id, ids, rounds| {
                found.push((ref_id.len(), ids.into_bitmap(), rounds.map(Offsets::into_bitmap)));
            });
            (found, outcome.is_ok())
        };
        let (found, is_whole) = read(input);
        let renamed = rekeyed(input);
        if is_whole {
            // New names for references, and nothing else: the sets are the same.
            let renamed = renamed.as_ref().unwrap();
            let (again, is_whole) = read(renamed.as_deref().unwrap_or(input));
            let sets = |found: &[(usize, RoaringBitmap, Option<RoaringBitmap>)]| {
                found.iter().map(|(_, ids, rounds)| (ids.clone(), rounds.clone())).collect::<Vec<_>>()
            };
            assert!(is_whole);
            assert_eq!(sets(&again), sets(&found));
        }
        way(&[found.len() as u64, is_whole.into(), renamed.is_ok_and(|renamed| renamed.is_some()).into()])
    }));
}

#[test]
fn blocks() {
    assert_ran(fuzz("blocks", &[b"nrvblk01"], |input| {
        let blocks = block::decode(input);
        if let Some(blocks) = &blocks {
            assert_eq!(block::encode(blocks), input);
        }
        let framed = trailer::blocks(input);
        if let Some(blocks) = &framed {
            let frame = trailer::frame(blocks);
            let end = frame.len() - trailer::TRAILER_BYTES + 8;
            assert_eq!(frame[8..end], input[8..end], "the table and its checksum");
        }
        let length = input.last_chunk().and_then(trailer::frame_bytes);
        way(&[
            blocks.map_or(0, |blocks| 1 + size(blocks.len())),
            framed.map_or(0, |blocks| 1 + blocks.len() as u64),
            length.is_some().into(),
        ])
    }));
}

#[test]
fn frames() {
    assert_ran(fuzz("frames", &[], |input| {
        let mut raw = Vec::new();
        let outcome = frame::decompress(input, &mut raw);
        if outcome.is_ok() {
            assert_eq!(zstd::decode_all(input).unwrap(), raw);
        }
        let reason = outcome.err().map_or(0, |reason| reason.len() as u64);
        way(&[reason, size(raw.len())])
    }));
}

#[test]
fn lines() {
    let words: &[&[u8]] =
        &[b"\"refId\":null", b"\\u0000", b"\\ud800", b"\\\"", b",\"payload\":", b"9223372036854775808", b"1e3", b"-1"];
    assert_ran(fuzz("lines", words, |input| {
        let parsed = parse_line(input);
        if let Ok(entry) = &parsed {
            let mut line = Vec::new();
            write_line(&mut line, &RowRef::from(entry));
            let newline = line.pop();
            assert_eq!(newline, Some(b'\n'));
            assert_eq!(&parse_line(&line).unwrap(), entry, "written and read again");
            assert_eq!(line_id(&line), Some(entry.id));
            let head = LineHead::of(&line).unwrap();
            assert_eq!(
                (head.id, &*head.source, &*head.kind, head.ref_id.as_deref()),
                (entry.id, entry.source(), entry.kind(), entry.ref_id())
            );
            if let Some(id) = line_id(input) {
                assert_eq!(id, entry.id, "its first member is its id");
            }
        }
        let reason = parsed.as_ref().err().map_or(0, |reason| reason.len() as u64);
        way(&[reason, parsed.is_ok_and(|entry| entry.ref_id().is_some()).into(), LineHead::of(input).is_some().into()])
    }));
}

#[test]
fn payloads() {
    let words: &[&[u8]] = &[
        b"{\"role\":\"a\",\"content\":\"b\"}",
        b"\"triggerPayload\":",
        b"[[[[[[[[",
        b"]]]]]]]]",
        b"\\u0000",
        b"\\ud83e\\udde0",
        b"\"type\":\"thread_start\"",
        b"1e400",
        b"-0.0",
        b"\xe2\x80\xa8",
        b"null",
        b"{}",
    ];
    assert_ran(fuzz("payloads", words, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return 0 };
        let mut count = 0;
        let shape = members(text, |name, value| {
            count += 1 + usize::from(name.len() > 8);
            assert!(!value.is_empty() && text.contains(value));
        });
        // Another reader judges alike what is JSON; but it does not read deep ones.
        if shape.is_ok_and(|shape| shape.depth < 100) || shape.is_err() {
            let other = serde_json::from_str::<IgnoredAny>(text);
            let is_too_deep = other.as_ref().is_err_and(|error| error.to_string().contains("recursion"));
            assert!(is_too_deep || other.is_ok() == shape.is_ok(), "{shape:?}, and by another reader {other:?}");
        }
        let mut kinds = 0;
        for token in Tokens::new(text).map_while(Result::ok) {
            match token {
                Token::Key(quoted) | Token::String(quoted) => {
                    kinds |= 1 + u64::from(unescape(quoted).len() + 2 < quoted.len())
                }
                Token::Number(_) => kinds |= 4,
                Token::Bool(_) | Token::Null => kinds |= 8,
                Token::ObjectStart | Token::ObjectEnd | Token::ArrayStart | Token::ArrayEnd => {}
            }
        }
        let reason = shape.err().map_or(0, |malformed| malformed.reason.len() as u64);
        let depth = shape.map_or(0, |shape| size(shape.depth));
        way(&[reason, depth, size(count), kinds, is_round(Some(SOURCE), Some(MESSAGE), Some(text)).into()])
    }));
}

/// Whole files of a day. What is taken is what the file holds: as many rows as lines.
fn day_files(name: &str, format: Format) -> (usize, usize) {
    let directory = in_memory();
    let day: UtcDay = "1970-01-02".parse().unwrap();
    let path = path_of(directory.path(), day, format);
    fuzz(
        name,
        &[
            b"\n",
            b"{\"id\":2,\"source\":\"s\",\"type\":\"t\",\"refId\":null,\"payload\":null,\"timestamp\":86400001}\n",
        ],
        |input| {
            put(&path, &framed(input, format).unwrap_or_else(|| input.to_vec()));
            let reader = DayReader::open(directory.path(), day, format).unwrap().unwrap();
            let mut references = 0;
            let watch = Watch {
                take_part: &mut |part| {
                    references += part.len() as u64;
                    Ok(())
                },
                is_round: &|_| true,
            };
            match scan(reader, watch) {
                Ok(summary) => {
                    let rows = summary.row_count();
                    if format == Format::Plain {
                        assert_eq!(rows, input.split_inclusive(|byte| *byte == b'\n').count() as u64);
                    }
                    way(&[1, size(rows as usize), size(references as usize)])
                }
                Err(error) => {
                    // The path is the same each time; the reason is not.
                    way(&[0, error.to_string().bytes().filter(|byte| !byte.is_ascii_digit()).count() as u64])
                }
            }
        },
    )
}

/// The compressed file with these lines, if the input says so by its first byte; the second is how many it claims.
/// Without it, every change is caught by a checksum, and nothing behind it is tried.
fn framed(input: &[u8], format: Format) -> Option<Vec<u8>> {
    let (b'L', &[claimed, ref lines @ ..]) = (input.first()?, input.get(1..)?) else { return None };
    if format == Format::Plain {
        return None;
    }
    let mut file = zstd::bulk::compress(lines, 1).unwrap();
    let first_id = lines.split(|byte| *byte == b'\n').next().and_then(line_id).unwrap_or(1);
    let checksum = Block::checksum(&file);
    let stored_bytes = u32::try_from(file.len()).unwrap();
    let block = Block { offset: 0, stored_bytes, row_count: claimed.into(), first_id, checksum };
    file.extend(trailer::frame(&[block]));
    Some(file)
}

fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[test]
fn plain_day_files() {
    assert_ran(day_files("plain_day_files", Format::Plain));
}

#[test]
fn compressed_day_files() {
    assert_ran(day_files("compressed_day_files", Format::Zstd));
}

#[test]
fn write_ahead_logs() {
    let directory = in_memory();
    let (database, log) = (directory.path().join("logs.db"), directory.path().join("logs.db-wal"));
    assert_ran(fuzz("write_ahead_logs", &[], |input| {
        put(&log, input);
        way(&[wal_condition(&database).unwrap() as u64, size(input.len())])
    }));
}

#[expect(clippy::disallowed_methods, reason = "a test makes its own input")]
fn put(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}
