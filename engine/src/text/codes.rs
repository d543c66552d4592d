//! Audio codes as text: `<|audio_code_N|>` one after the other, five per second of music.

use super::lm_vocabulary::{CODE_PREFIX, CODE_SUFFIX, LEGAL_CODES};

/// Audio codes per second.
pub const CODES_PER_SECOND: usize = 5;

/// Codes found in a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParsedCodes {
    /// The codes in their order, each below [`LEGAL_CODES`].
    pub codes: Vec<u32>,
    /// How many were larger than any legal code and were replaced by the largest.
    pub clamped: usize,
}

/// Number of codes of `seconds` of music: the fraction of a code is cut off.
pub fn code_count(seconds: f64) -> usize {
    (seconds * CODES_PER_SECOND as f64) as usize
}

/// The text of `codes`.
pub fn print_codes(codes: &[u32]) -> String {
    codes
        .iter()
        .map(|code| format!("{CODE_PREFIX}{code}{CODE_SUFFIX}"))
        .collect()
}

/// All codes in `text`, whatever stands between them. A text of nothing but numbers with commas
/// between them is taken as codes too.
pub fn parse_codes(text: &str) -> ParsedCodes {
    let mut parsed = ParsedCodes::default();
    let bare = text.trim();
    if bare.starts_with(|c: char| c.is_ascii_digit()) {
        let numbers: Vec<&str> = bare.split(',').map(str::trim).collect();
        if numbers.iter().all(|n| is_number(n)) {
            numbers.iter().for_each(|n| parsed.push(n));
            return parsed;
        }
    }
    for (number, _) in code_matches(text) {
        parsed.push(number);
    }
    parsed
}

/// Digits of every `<|audio_code_N|>` in `text`, and the whole match.
pub(super) fn code_matches(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.match_indices(CODE_PREFIX).filter_map(|(at, _)| {
        let rest = &text[at + CODE_PREFIX.len()..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let closed = digits > 0 && rest[digits..].starts_with(CODE_SUFFIX);
        let length = CODE_PREFIX.len() + digits + CODE_SUFFIX.len();
        closed.then(|| (&rest[..digits], &text[at..at + length]))
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

impl ParsedCodes {
    /// A number too long for any integer type is too large as well.
    fn push(&mut self, digits: &str) {
        let code = digits.parse::<u32>().unwrap_or(u32::MAX);
        self.clamped += usize::from(code >= LEGAL_CODES);
        self.codes.push(code.min(LEGAL_CODES - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_printed_and_parsed() {
        let codes = [18953, 13833, 0, 63999];
        let text = "<|audio_code_18953|><|audio_code_13833|><|audio_code_0|><|audio_code_63999|>";
        assert_eq!(print_codes(&codes), text);
        assert_eq!(parse_codes(text).codes, codes);
        assert_eq!(parse_codes(&text.replace("><", ">, \n<")).codes, codes);
    }

    #[test]
    fn what_is_no_code_is_passed_over() {
        let text = "x<|audio_code_1|>y<|audio_code_|><|audio_code_2<|audio_code_3|>4";
        assert_eq!(parse_codes(text).codes, [1, 3]);
        for text in ["", " ", "music", "<|audio_code_-1|>", "1,2,x"] {
            assert_eq!(parse_codes(text), ParsedCodes::default(), "{text}");
        }
    }

    #[test]
    fn large_codes_become_the_largest_legal_one() {
        let parsed = parse_codes("<|audio_code_64000|><|audio_code_99999999999999999999|>");
        assert_eq!((parsed.codes, parsed.clamped), (vec![63999, 63999], 2));
        assert_eq!(parse_codes("<|audio_code_0007|>").codes, [7]);
    }

    #[test]
    fn bare_numbers_are_codes() {
        assert_eq!(parse_codes(" 1, 2,64000 ").codes, [1, 2, 63999]);
        assert_eq!(parse_codes("12").codes, [12]);
    }

    #[test]
    fn the_count_is_cut_off() {
        for (seconds, count) in [
            (0.2, 1),
            (12.5, 62),
            (30.3, 151),
            (59.99, 299),
            (600.0, 3000),
        ] {
            assert_eq!(code_count(seconds), count);
        }
    }
}
