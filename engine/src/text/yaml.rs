//! One YAML scalar, written as PyYAML's emitter writes the value of a key at the top of a block
//! mapping (80 columns, two spaces of indent, Unicode kept). The planner was trained on that
//! form, quotes and line breaks included.

/// Column after which a line is broken at the next single space.
const WIDTH: usize = 80;
/// What a continuation line starts with.
const INDENT: &str = "  ";

/// Appends `text` as a scalar to `out`. `column` is the number of characters of the line so far
/// (the key and its colon); the space after the colon is written here.
pub fn write_scalar(text: &str, column: usize, out: &mut String) {
    let chars: Vec<char> = text.chars().collect();
    let mut writer = Writer {
        out,
        column: column + 1,
    };
    writer.out.push(' ');
    let shape = Shape::of(&chars);
    if shape.plain && !resolves_to_other_type(text) {
        writer.plain(&chars);
    } else if shape.single_quoted {
        writer.single_quoted(&chars);
    } else {
        writer.double_quoted(&chars);
    }
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_blank(c: char) -> bool {
    matches!(c, '\0' | ' ' | '\t' | '\r') || is_break(c)
}

/// Characters that only a double-quoted scalar can hold.
fn is_special(c: char) -> bool {
    !matches!(c,
        '\n' | '\u{20}'..='\u{7e}' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}'
        | '\u{10000}'..='\u{10fffe}')
        || c == '\u{feff}'
}

/// Which styles can hold a text.
struct Shape {
    plain: bool,
    single_quoted: bool,
}

impl Shape {
    fn of(chars: &[char]) -> Self {
        let (Some(&first), Some(&last)) = (chars.first(), chars.last()) else {
            return Shape {
                plain: false,
                single_quoted: true,
            };
        };
        let blank_at = |i: usize| chars.get(i).is_none_or(|c| is_blank(*c));
        let edge = |c: char| c == ' ' || is_break(c);
        let mut plain = !edge(first) && !edge(last);
        plain &= !(chars.starts_with(&['-'; 3]) || chars.starts_with(&['.'; 3]));
        plain &= !"#,[]{}&*!|>'\"%@`".contains(first);
        plain &= !("?:-".contains(first) && blank_at(1));
        let mut single_quoted = true;
        for (i, &c) in chars.iter().enumerate() {
            let before = i.checked_sub(1).map(|i| chars[i]);
            if i > 0 {
                plain &= !(c == ':' && blank_at(i + 1));
                plain &= !(c == '#' && before.is_some_and(is_blank));
            }
            plain &= !is_break(c);
            let space_at_break = |b: char| c == ' ' && is_break(b) || is_break(c) && b == ' ';
            if is_special(c) || before.is_some_and(space_at_break) {
                (plain, single_quoted) = (false, false);
            }
        }
        Shape {
            plain,
            single_quoted,
        }
    }
}

struct Writer<'a> {
    out: &'a mut String,
    /// Characters in the current line.
    column: usize,
}

impl Writer<'_> {
    fn push(&mut self, c: char) {
        self.out.push(c);
        self.column += 1;
    }

    fn extend(&mut self, chars: &[char]) {
        chars.iter().for_each(|c| self.push(*c));
    }

    fn indent(&mut self) {
        self.out.push_str(INDENT);
        self.column = INDENT.len();
    }

    fn wrap(&mut self) {
        self.out.push('\n');
        self.indent();
    }

    fn plain(&mut self, chars: &[char]) {
        for run in chars.chunk_by(|a, b| (*a == ' ') == (*b == ' ')) {
            if run == [' '] && self.column > WIDTH {
                self.wrap();
            } else {
                self.extend(run);
            }
        }
    }

    fn single_quoted(&mut self, chars: &[char]) {
        self.push('\'');
        let kind = |c: char| (c == ' ', is_break(c));
        let mut at = 0;
        for run in chars.chunk_by(|a, b| kind(*a) == kind(*b)) {
            let inner = at > 0 && at + run.len() < chars.len();
            at += run.len();
            if is_break(run[0]) {
                if run[0] == '\n' {
                    self.out.push('\n');
                }
                self.out.extend(run);
                self.indent();
            } else if run == [' '] && self.column > WIDTH && inner {
                self.wrap();
            } else {
                for &c in run {
                    self.push(c);
                    if c == '\'' {
                        self.push(c);
                    }
                }
            }
        }
        self.push('\'');
    }

    fn double_quoted(&mut self, chars: &[char]) {
        self.push('"');
        // Characters from `start` on are not written yet; one past `end` after an escape.
        let mut start = 0;
        for end in 0..=chars.len() {
            let c = chars.get(end).copied();
            if c.is_none_or(needs_escape) {
                self.extend(chars.get(start..end).unwrap_or_default());
                start = start.max(end);
                if let Some(c) = c {
                    self.extend(&escape(c).chars().collect::<Vec<_>>());
                    start = end + 1;
                }
            }
            let inner = 0 < end && end + 1 < chars.len();
            if inner && (c == Some(' ') || start >= end) && self.column + end > WIDTH + start {
                self.extend(chars.get(start..end).unwrap_or_default());
                start = start.max(end);
                self.push('\\');
                self.wrap();
                if chars[start] == ' ' {
                    self.push('\\');
                }
            }
        }
        self.push('"');
    }
}

fn needs_escape(c: char) -> bool {
    let kept = matches!(c, ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}');
    !kept || matches!(c, '"' | '\\' | '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn escape(c: char) -> String {
    let short = match c {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        _ => {
            return match u32::from(c) {
                code @ ..=0xff => format!("\\x{code:02X}"),
                code @ ..=0xffff => format!("\\u{code:04X}"),
                code => format!("\\U{code:08X}"),
            };
        }
    };
    format!("\\{short}")
}

/// Whether a YAML 1.1 reader would take the plain text for a null, boolean, number, date, merge
/// key or default key.
fn resolves_to_other_type(text: &str) -> bool {
    const WORDS: [&str; 27] = [
        "", "~", "null", "Null", "NULL", "yes", "Yes", "YES", "no", "No", "NO", "true", "True",
        "TRUE", "false", "False", "FALSE", "on", "On", "ON", "off", "Off", "OFF", "<<", "=",
        ".nan", ".NaN",
    ];
    WORDS.contains(&text) || text == ".NAN" || is_int(text) || is_float(text) || is_date(text)
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['+', '-']).unwrap_or(text)
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A digit, then digits and underscores.
fn grouped(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && filler(text)
}

/// Only digits and underscores, possibly none.
fn filler(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || b == b'_')
}

/// Groups of base 60 after the first: one or two digits below 60.
fn base_60<'a>(mut groups: impl Iterator<Item = &'a str>) -> bool {
    groups.all(|g| digits(g) && (g.len() == 1 || g.len() == 2 && g.as_bytes()[0] < b'6'))
}

fn is_int(text: &str) -> bool {
    let text = unsigned(text);
    let of = |rest: &str, alphabet: &str| {
        !rest.is_empty() && rest.chars().all(|c| c == '_' || alphabet.contains(c))
    };
    if let Some(rest) = text.strip_prefix('0') {
        return rest.is_empty()
            || of(rest, "01234567")
            || (rest.strip_prefix('b')).is_some_and(|r| of(r, "01"))
            || (rest.strip_prefix('x')).is_some_and(|r| of(r, "0123456789abcdefABCDEF"));
    }
    let mut groups = text.split(':');
    groups.next().is_some_and(grouped) && base_60(groups)
}

fn is_float(text: &str) -> bool {
    let bare = unsigned(text);
    if matches!(bare, ".inf" | ".Inf" | ".INF") {
        return true;
    }
    let Some((whole, rest)) = bare.split_once('.') else {
        return false;
    };
    let (fraction, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    let exponent_ok = exponent.is_none_or(|e| e.strip_prefix(['+', '-']).is_some_and(digits));
    if whole.is_empty() {
        // A sign before the dot is not in the rule.
        return bare.len() == text.len() && grouped(fraction) && exponent_ok;
    }
    if whole.contains(':') {
        let mut groups = whole.split(':');
        let first = groups.next().is_some_and(grouped);
        return first && base_60(groups) && filler(rest);
    }
    grouped(whole) && filler(fraction) && exponent_ok
}

/// `2001-12-14`, or a date with a time.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let (Some(year), Some(month), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let one_or_two = |t: &str| digits(t) && t.len() <= 2;
    if year.len() != 4 || !digits(year) || !one_or_two(month) {
        return false;
    }
    if month.len() == 2 && rest.len() == 2 && digits(rest) {
        return true;
    }
    let day_end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (day, rest) = rest.split_at(day_end);
    let time = match rest.strip_prefix(['T', 't']) {
        Some(time) => time,
        None => rest.trim_start_matches([' ', '\t']),
    };
    one_or_two(day) && time.len() < rest.len() && is_time(time)
}

/// `H:MM:SS`, a fraction and a zone optional.
fn is_time(text: &str) -> bool {
    let clock_end = text
        .find(|c: char| !c.is_ascii_digit() && c != ':')
        .unwrap_or(text.len());
    let (clock, mut rest) = text.split_at(clock_end);
    let groups: Vec<&str> = clock.split(':').collect();
    let [hour, minute, second] = groups[..] else {
        return false;
    };
    let clock_ok = digits(hour) && hour.len() <= 2;
    if !clock_ok || ![minute, second].iter().all(|t| digits(t) && t.len() == 2) {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    let zone = rest.trim_start_matches([' ', '\t']);
    if rest.is_empty() || zone == "Z" {
        return true;
    }
    let Some(offset) = zone.strip_prefix(['+', '-']) else {
        return false;
    };
    let (hours, minutes) = match offset.split_once(':') {
        Some((h, m)) => (h, Some(m)),
        None => (offset, None),
    };
    let hours_ok = digits(hours) && hours.len() <= 2;
    hours_ok && minutes.is_none_or(|m| digits(m) && m.len() == 2)
}
