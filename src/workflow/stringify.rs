//! `JSON.stringify(JSON.parse(text))`, without building values.

use std::collections::HashMap;

use crate::row::json::{Token, Tokens, plain_length, unescape};

/// What that call gives for `text`, which is JSON, except that integers of 64 bits stay exact, numbers beyond every double stay as
/// they are written, and members stay in their order.
pub fn stringify(text: &str) -> String {
    let mut writer = Writer::default();
    Tokens::new(text).map_while(Result::ok).for_each(|token| writer.write(token));
    // All of it comes from a text, or is ASCII.
    String::from_utf8(writer.written).unwrap_or_else(|_| text.to_owned())
}

#[derive(Default)]
struct Writer {
    written: Vec<u8>,
    /// The objects and arrays that are open, outermost first.
    open: Vec<Open>,
    /// Whether the last token was a member's name.
    is_after_key: bool,
}

#[derive(Default)]
struct Open {
    has_items: bool,
    /// Of an object: where each member begins in what is written, and the first member of the same name.
    members: Vec<(usize, usize)>,
    first_of_name: HashMap<Vec<u8>, usize>,
    has_repeated: bool,
}

impl Writer {
    fn write(&mut self, token: Token<'_>) {
        let is_end = matches!(token, Token::ObjectEnd | Token::ArrayEnd);
        if !std::mem::take(&mut self.is_after_key)
            && !is_end
            && let Some(open) = self.open.last_mut()
            && std::mem::replace(&mut open.has_items, true)
        {
            self.written.push(b',');
        }
        match token {
            Token::ObjectStart | Token::ArrayStart => {
                self.written.push(if token == Token::ObjectStart { b'{' } else { b'[' });
                self.open.push(Open::default());
            }
            Token::ObjectEnd => {
                if let Some(object) = self.open.pop().filter(|object| object.has_repeated) {
                    self.replace_repeated(&object.members);
                }
                self.written.push(b'}');
            }
            Token::ArrayEnd => {
                self.open.pop();
                self.written.push(b']');
            }
            Token::Key(key) => self.write_key(&unescape(key)),
            Token::String(string) => write_string(&mut self.written, &unescape(string)),
            Token::Number(number) => write_number(&mut self.written, number),
            Token::Bool(value) => self.written.extend_from_slice(if value { b"true" } else { b"false" }),
            Token::Null => self.written.extend_from_slice(b"null"),
        }
    }

    fn write_key(&mut self, name: &[u8]) {
        if let Some(object) = self.open.last_mut() {
            let index = object.members.len();
            let first = *object.first_of_name.entry(name.to_owned()).or_insert(index);
            object.members.push((self.written.len(), first));
            object.has_repeated |= first != index;
        }
        write_string(&mut self.written, name);
        self.written.push(b':');
        self.is_after_key = true;
    }

    /// Leaves of each repeated member the last, in the place of the first.
    fn replace_repeated(&mut self, members: &[(usize, usize)]) {
        let Some((start, _)) = members.first().copied() else { return };
        let object = self.written.split_off(start);
        let mut last = HashMap::new();
        for (index, (begin, first)) in members.iter().enumerate() {
            // A comma lies between two members.
            let end = members.get(index + 1).map_or(object.len(), |(next, _)| next - start - 1);
            last.insert(*first, begin - start..end);
        }
        for (index, (_, first)) in members.iter().enumerate() {
            if let Some(range) = last.remove(first) {
                if index > 0 {
                    self.written.push(b',');
                }
                self.written.extend_from_slice(&object[range]);
            }
        }
    }
}

fn write_string(written: &mut Vec<u8>, text: &[u8]) {
    written.push(b'"');
    let mut rest = text;
    while !rest.is_empty() {
        let plain = &rest[..plain_length(rest)];
        // Half a surrogate pair begins with 0xed and a byte that no character has there.
        let half = plain.windows(2).position(|pair| pair[0] == 0xed && pair[1] >= 0xa0);
        let plain = &plain[..half.unwrap_or(plain.len())];
        written.extend_from_slice(plain);
        rest = &rest[plain.len()..];
        match *rest {
            [] => break,
            [0xed, second, third, ..] => {
                let unit = 0xd000 | u32::from(second & 0x3f) << 6 | u32::from(third & 0x3f);
                written.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                rest = &rest[3..];
                continue;
            }
            [b'"', ..] => written.extend_from_slice(b"\\\""),
            [b'\\', ..] => written.extend_from_slice(b"\\\\"),
            [8, ..] => written.extend_from_slice(b"\\b"),
            [12, ..] => written.extend_from_slice(b"\\f"),
            [b'\n', ..] => written.extend_from_slice(b"\\n"),
            [b'\r', ..] => written.extend_from_slice(b"\\r"),
            [b'\t', ..] => written.extend_from_slice(b"\\t"),
            [control, ..] => written.extend_from_slice(format!("\\u{control:04x}").as_bytes()),
        }
        rest = &rest[1..];
    }
    written.push(b'"');
}

fn write_number(written: &mut Vec<u8>, number: &str) {
    let is_exact = number != "-0" && (number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok());
    match number.parse::<f64>() {
        Ok(value) if !is_exact && value.is_finite() => {
            written.extend_from_slice(ryu_js::Buffer::new().format(value).as_bytes());
        }
        _ => written.extend_from_slice(number.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All but the integers of 64 bits and the number beyond every double is what Node 24 gives.
    #[test]
    fn it_writes_what_javascript_writes() {
        for (text, expected) in [
            (r#"{"b": 1.0, "a": [1e21, 0.1, -0.0, 1.5e300]}"#, r#"{"b":1,"a":[1e+21,0.1,0,1.5e+300]}"#),
            ("{\"s\": \"\\u00fc\\u0001\\u2028\\/\"}", "{\"s\":\"ü\\u0001\u{2028}/\"}"),
            (r#"{"n": 9007199254740993}"#, r#"{"n":9007199254740993}"#),
            (
                r#"[1e400, 18446744073709551615, 18446744073709551616]"#,
                r#"[1e400,18446744073709551615,18446744073709552000]"#,
            ),
            (r#"{"s":"\ud800a\udfff\ud83d\ude00"}"#, r#"{"s":"\ud800a\udfff😀"}"#),
            (r#"[ [ ] , { } , [ { } , [ ] ] , true,false,null,"" ]"#, r#"[[],{},[{},[]],true,false,null,""]"#),
            ("[\"\\b\\f\\n\\r\\t\\u001F\\u007f\\\"\\\\\"]", "[\"\\b\\f\\n\\r\\t\\u001f\u{7f}\\\"\\\\\"]"),
            (r#"{"a":1,"b":[2],"a":{"c":3,"c":4},"b":5,"d":6}"#, r#"{"a":{"c":4},"b":5,"d":6}"#),
            (r#"{"a":{"x":1,"x":2},"\u0061":3}"#, r#"{"a":3}"#),
        ] {
            assert_eq!(stringify(text), expected);
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let write = || {
            let text = "[{\"a\":".repeat(50_000) + "1" + &"}]".repeat(50_000);
            assert_eq!(stringify(&text), text);
        };
        std::thread::Builder::new().stack_size(32 << 10).spawn(write).unwrap().join().unwrap();
    }
}
