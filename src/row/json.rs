//! JSON, token by token: strict (RFC 8259), at any depth, on a stack of fixed size.
//!
//! What is open is kept on the heap, a bit a level. No function here or in its callers recurses by the depth of a text,
//! because a payload comes from any program, and may be read on a thread with a small stack.

use std::borrow::Cow;
use std::fmt;

/// A piece of a JSON text, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    ObjectStart,
    ObjectEnd,
    ArrayStart,
    ArrayEnd,
    /// The name of a member, with its quotes.
    Key(&'a str),
    /// With its quotes.
    String(&'a str),
    Number(&'a str),
    Bool(bool),
    Null,
}

/// Why a text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The offset of the first byte that cannot be there.
    pub at: usize,
    /// What is wrong there.
    pub reason: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "not JSON: {} at byte {}", self.reason, self.at)
    }
}

/// The tokens of a text, in order; after an error there is none.
pub(crate) struct Tokens<'a> {
    text: &'a str,
    position: usize,
    open: Open,
    expected: Expected,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Value,
    /// The first item of an array, or its end.
    ItemOrEnd,
    /// The first member of an object, or its end.
    KeyOrEnd,
    /// A comma, or the end of what is open; at the outermost level, the end of the text.
    Next,
    Nothing,
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, position: 0, open: Open::default(), expected: Expected::Value }
    }

    /// How many objects and arrays are open after the last token.
    pub(crate) fn depth(&self) -> usize {
        self.open.depth
    }

    /// Where the last token ends.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    fn step(&mut self) -> Result<Option<Token<'a>>, Malformed> {
        loop {
            self.skip_space();
            let Some(byte) = self.peek() else {
                let is_whole = self.expected == Expected::Next && self.open.depth == 0;
                return if is_whole { Ok(None) } else { Err(self.malformed("the text ends too early")) };
            };
            return match self.expected {
                Expected::Nothing => Ok(None),
                Expected::ItemOrEnd if byte == b']' => Ok(Some(self.close(Token::ArrayEnd))),
                Expected::KeyOrEnd if byte == b'}' => Ok(Some(self.close(Token::ObjectEnd))),
                Expected::Value | Expected::ItemOrEnd => self.value(byte).map(Some),
                Expected::KeyOrEnd => self.key(byte).map(Some),
                Expected::Next => match (byte, self.open.innermost_is_object()) {
                    (b',', Some(is_object)) => {
                        self.position += 1;
                        self.skip_space();
                        if is_object {
                            let byte = self.peek().unwrap_or_default();
                            self.key(byte).map(Some)
                        } else {
                            self.expected = Expected::Value;
                            continue;
                        }
                    }
                    (b'}', Some(true)) => Ok(Some(self.close(Token::ObjectEnd))),
                    (b']', Some(false)) => Ok(Some(self.close(Token::ArrayEnd))),
                    (_, Some(_)) => Err(self.malformed("neither a comma nor the end of what is open")),
                    (_, None) => Err(self.malformed("text after the value")),
                },
            };
        }
    }

    fn value(&mut self, byte: u8) -> Result<Token<'a>, Malformed> {
        let start = self.position;
        match byte {
            b'{' => return Ok(self.open(true)),
            b'[' => return Ok(self.open(false)),
            _ => {}
        }
        self.expected = Expected::Next;
        match byte {
            b'"' => {
                self.string()?;
                Ok(Token::String(&self.text[start..self.position]))
            }
            b'-' | b'0'..=b'9' => {
                self.number()?;
                Ok(Token::Number(&self.text[start..self.position]))
            }
            b't' => self.word("true", Token::Bool(true)),
            b'f' => self.word("false", Token::Bool(false)),
            b'n' => self.word("null", Token::Null),
            b'N' | b'I' => Err(self.malformed("NaN and Infinity are no JSON numbers")),
            _ => Err(self.malformed("no value")),
        }
    }

    fn key(&mut self, byte: u8) -> Result<Token<'a>, Malformed> {
        if byte != b'"' {
            return Err(self.malformed("no member's name in double quotes"));
        }
        let start = self.position;
        self.string()?;
        let key = &self.text[start..self.position];
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(self.malformed("no colon after a member's name"));
        }
        self.position += 1;
        self.expected = Expected::Value;
        Ok(Token::Key(key))
    }

    fn open(&mut self, is_object: bool) -> Token<'a> {
        self.position += 1;
        self.open.push(is_object);
        if is_object {
            self.expected = Expected::KeyOrEnd;
            Token::ObjectStart
        } else {
            self.expected = Expected::ItemOrEnd;
            Token::ArrayStart
        }
    }

    fn close(&mut self, token: Token<'a>) -> Token<'a> {
        self.position += 1;
        self.open.pop();
        self.expected = Expected::Next;
        token
    }

    fn word(&mut self, word: &str, token: Token<'a>) -> Result<Token<'a>, Malformed> {
        if !self.text.as_bytes()[self.position..].starts_with(word.as_bytes()) {
            return Err(self.malformed("no value"));
        }
        self.position += word.len();
        Ok(token)
    }

    /// From the opening quote to behind the closing one.
    fn string(&mut self) -> Result<(), Malformed> {
        let bytes = self.text.as_bytes();
        self.position += 1;
        loop {
            self.position += plain_length(&bytes[self.position..]);
            match self.peek() {
                Some(b'"') => {
                    self.position += 1;
                    return Ok(());
                }
                Some(b'\\') => match bytes.get(self.position + 1) {
                    Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.position += 2,
                    Some(b'u') if hex(bytes, self.position + 2).is_some() => self.position += 6,
                    _ => return Err(self.malformed("an unknown escape")),
                },
                Some(_) => return Err(self.malformed("a control character in a string")),
                None => return Err(self.malformed("a string without its end")),
            }
        }
    }

    fn number(&mut self) -> Result<(), Malformed> {
        if self.peek() == Some(b'-') {
            self.position += 1;
        }
        if self.peek() == Some(b'0') {
            self.position += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.position += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.position += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.position += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let rest = &self.text.as_bytes()[self.position..];
        let length = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        if length == 0 {
            return Err(self.malformed("a number without a digit"));
        }
        self.position += length;
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.position += 1;
        }
    }

    fn malformed(&self, reason: &'static str) -> Malformed {
        Malformed { at: self.position, reason }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Result<Token<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.expected == Expected::Nothing {
            return None;
        }
        let found = self.step();
        if !matches!(found, Ok(Some(_))) {
            self.expected = Expected::Nothing;
        }
        found.transpose()
    }
}

/// What is open, outermost first: a bit each, set for an object.
#[derive(Default)]
struct Open {
    bits: Vec<u64>,
    depth: usize,
}

impl Open {
    fn push(&mut self, is_object: bool) {
        let (word, bit) = (self.depth / 64, self.depth % 64);
        if word == self.bits.len() {
            self.bits.push(0);
        }
        self.bits[word] = self.bits[word] & !(1 << bit) | u64::from(is_object) << bit;
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth -= 1;
    }

    fn innermost_is_object(&self) -> Option<bool> {
        let innermost = self.depth.checked_sub(1)?;
        Some(self.bits[innermost / 64] >> (innermost % 64) & 1 == 1)
    }
}

/// How many bytes at the beginning stand for themselves in a string: none is a quote, a backslash or a control character.
pub(crate) fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    let less = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGHS;
    let (words, _) = bytes.as_chunks::<8>();
    let mut length = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        let special =
            less(word, b' ') | less(word ^ (ONES * u64::from(b'"')), 1) | less(word ^ (ONES * u64::from(b'\\')), 1);
        if special != 0 {
            // Borrows set bits above a true one only, so the lowest is right.
            return length + special.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    let is_special = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
    length + bytes[length..].iter().position(is_special).unwrap_or(bytes.len() - length)
}

/// The four hexadecimal digits at `position`.
fn hex(bytes: &[u8], position: usize) -> Option<u16> {
    let digits = bytes.get(position..position + 4)?;
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)? as u16))
}

/// The text that a string token or a key stands for, in UTF-8, except that an escaped surrogate without its other half
/// takes the three bytes that UTF-8 would give it (Python's `surrogatepass`, "WTF-8").
pub(crate) fn unescape(token: &str) -> Cow<'_, [u8]> {
    let bytes = &token.as_bytes()[1..token.len() - 1];
    let Some(first) = memchr::memchr(b'\\', bytes) else { return Cow::Borrowed(bytes) };
    let mut text = Vec::with_capacity(bytes.len());
    text.extend_from_slice(&bytes[..first]);
    let mut position = first;
    while let Some(byte) = bytes.get(position) {
        if *byte != b'\\' {
            let length = plain_length(&bytes[position..]);
            text.extend_from_slice(&bytes[position..position + length]);
            position += length;
            continue;
        }
        let escape = bytes[position + 1];
        position += 2;
        if escape != b'u' {
            text.push(match escape {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                itself => itself,
            });
            continue;
        }
        let unit = hex(bytes, position).unwrap_or_default();
        position += 4;
        let low = match bytes.get(position..position + 2) {
            Some(b"\\u") if (0xd800..0xdc00).contains(&unit) => {
                hex(bytes, position + 2).filter(|low| (0xdc00..0xe000).contains(low))
            }
            _ => None,
        };
        position += if low.is_some() { 6 } else { 0 };
        match char::decode_utf16([unit].into_iter().chain(low)).next() {
            Some(Ok(character)) => text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            _ => text.extend([0xe0 | (unit >> 12) as u8, 0x80 | (unit >> 6 & 0x3f) as u8, 0x80 | (unit & 0x3f) as u8]),
        }
    }
    Cow::Owned(text)
}

/// Whether a number is written as an integer.
pub(crate) fn is_integer(number: &str) -> bool {
    !number.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
}

#[cfg(test)]
mod tests;
