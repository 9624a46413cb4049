//! Decoders under mutated input, for as long as `NERVE_FUZZ_SECONDS` says (one second each): no panic, no wrong answer.
//!
//! An input that a target took in a new way joins the inputs that are mutated, as coverage would have it, but by what the
//! target says of it: a target returns a number that stands for the way. The seeds are the files in `fuzz/seeds`, a
//! directory a target. An input that fails is printed whole; as a file among the seeds it fails the test for good.

mod targets;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

const MOST_BYTES: usize = 1 << 16;
const MOST_INPUTS: usize = 4096;
/// Numbers at the edges of what lengths and counts can be.
const EDGES: [u64; 10] = [0, 1, 2, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_fffe, 0xffff_ffff, u64::MAX >> 1];

/// A small generator of pseudorandom numbers (splitmix64), so that a run can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let (first, second) = (self.below(length + 1), self.below(length + 1));
        first.min(second)..first.max(second)
    }
}

/// One change of `bytes`, which may be any.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], words: &[&[u8]], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    match random.below(11) {
        0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        2 if at < bytes.len() => bytes[at] = random.next() as u8,
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(random.range(bytes.len()))),
        5 => {
            let piece = bytes[random.range(bytes.len())].to_vec();
            bytes.splice(at..at, piece);
        }
        6 => {
            let edge = EDGES[random.below(EDGES.len())].wrapping_add(random.next() % 3).wrapping_sub(1);
            let width = [1, 2, 4, 8][random.below(4)];
            for (place, byte) in bytes[at..].iter_mut().zip(&edge.to_le_bytes()[..width]) {
                *place = *byte;
            }
        }
        7 => {
            bytes.splice(at..at, other[random.range(other.len())].iter().copied());
        }
        8 => {
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
        _ if words.is_empty() => bytes.insert(at, random.next() as u8),
        _ => {
            bytes.splice(at..at, words[random.below(words.len())].iter().copied());
        }
    }
    bytes.truncate(MOST_BYTES);
}

fn seconds() -> f64 {
    std::env::var("NERVE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0)
}

/// The files in `fuzz/seeds/name`.
fn seeds_of(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Runs `target` on the seeds, then on mutations of what it has taken. Returns how many inputs, and how many ways.
fn fuzz(name: &str, words: &[&[u8]], target: impl Fn(&[u8]) -> u64) -> (usize, usize) {
    let mut inputs = seeds_of(name);
    assert!(!inputs.is_empty(), "no seeds of {name}");
    let mut ways = HashSet::new();
    let mut take = |input: &[u8]| match catch_unwind(AssertUnwindSafe(|| target(input))) {
        Ok(way) => ways.insert(way) && ways.len() <= MOST_INPUTS,
        Err(_) => panic!("{name} fails, input \"{}\"", input.escape_ascii()),
    };
    for seed in &inputs {
        take(seed);
    }
    let mut random = Random(xxh3_64(name.as_bytes()) ^ seconds().to_bits());
    let end = Instant::now() + Duration::from_secs_f64(seconds());
    let mut count = inputs.len();
    while Instant::now() < end {
        for _ in 0..64 {
            let mut input = inputs[random.below(inputs.len())].clone();
            for _ in 0..=random.below(4) {
                let other = random.below(inputs.len());
                mutate(&mut input, &inputs[other], words, &mut random);
            }
            count += 1;
            if take(&input) {
                inputs.push(input);
            }
        }
    }
    println!("{name}: {count} inputs, {} ways", ways.len());
    (count, ways.len())
}

/// A way as a number.
fn way(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |sum, part| xxh3_64(&[sum.to_le_bytes(), part.to_le_bytes()].concat()))
}

/// Of a count: how many digits it has, so that there are few.
fn size(count: usize) -> u64 {
    u64::from(usize::BITS - count.leading_zeros())
}

/// The control: three bytes in their places, which no seed has, and which chance alone does not find in a second.
#[test]
#[should_panic(expected = "control fails, input \"ner")]
fn a_decoder_that_fails_on_a_rare_input_is_caught() {
    for _ in 0..20 {
        fuzz("control", &[], |input| {
            let hits = input.iter().zip(b"ner").take_while(|(found, wanted)| found == wanted).count();
            assert!(hits < 3, "the rare input");
            hits as u64
        });
    }
}
