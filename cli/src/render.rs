//! What people read in a terminal: widths, colours, durations, and names that cannot harm it.

use std::io::{IsTerminal, Write};

/// How output is laid out.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Columns of the terminal.
    pub width: usize,
    /// Whether colours are wanted.
    pub colour: bool,
}

/// The output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A table.
    Table,
    /// The JSON response of the API.
    Json,
}

/// An ANSI colour or weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// For what went wrong.
    Red,
    /// For what matters less.
    Dim,
    /// For what matters most.
    Bold,
    /// One of the colours that services take turns with.
    Service(u8),
}

impl Style {
    /// The style for standard output as it is: colours only where a person looks and has not said
    /// no.
    pub fn detect() -> Self {
        const WIDTH_WITHOUT_TERMINAL: usize = 120;
        const WIDTH_MIN: usize = 40;
        let terminal = std::io::stdout().is_terminal();
        let columns = std::env::var("COLUMNS")
            .ok()
            .and_then(|text| text.parse().ok());
        let asked = if terminal { terminal_width() } else { None };
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            width: asked
                .or(columns)
                .unwrap_or(WIDTH_WITHOUT_TERMINAL)
                .max(WIDTH_MIN),
            colour: terminal && !plain,
        }
    }

    /// `text` in a colour, where colours are wanted.
    pub fn paint(self, paint: Paint, text: &str) -> String {
        const SERVICES: [&str; 6] = ["36", "32", "35", "34", "33", "96"];
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Red => "31",
            Paint::Dim => "2",
            Paint::Bold => "1",
            Paint::Service(number) => SERVICES
                .get(usize::from(number) % SERVICES.len())
                .copied()
                .unwrap_or("36"),
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// The colour of a service; the same name always has the same.
pub fn service_paint(service: &str) -> Paint {
    Paint::Service(
        service
            .bytes()
            .fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte)),
    )
}

#[expect(
    unsafe_code,
    reason = "the standard library cannot ask a terminal for its size"
)]
fn terminal_width() -> Option<usize> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes a winsize, which `size` is, and it lives for the call.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// Writes to standard output; a reader that has seen enough (`| head`) is no error.
///
/// # Errors
/// When standard output cannot be written for another reason.
pub fn print(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Text from spans, made harmless: control characters could move the cursor or change the terminal,
/// and marks of direction could reorder a line.
pub fn clean(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(
                c,
                '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            )
    };
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if harmful(c) {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

/// Columns that a character takes.
fn char_width(c: char) -> usize {
    match u32::from(c) {
        // Combining marks, joiners, variation selectors.
        0x0300..=0x036f | 0x200b..=0x200d | 0xfe00..=0xfe0f => 0,
        // CJK, Hangul, kana, full-width forms, emoji.
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe4f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Columns that a text takes.
pub fn text_width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// `text`, cut to `width` columns with an ellipsis where it is longer.
pub fn cut(text: &str, width: usize) -> String {
    if text_width(text) <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut used = 1; // the ellipsis
    for c in text.chars() {
        used += char_width(c);
        if used > width {
            break;
        }
        cut.push(c);
    }
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// `text` with spaces up to `width` columns.
pub fn pad(text: &str, width: usize) -> String {
    format!(
        "{text}{}",
        " ".repeat(width.saturating_sub(text_width(text)))
    )
}

/// Nanoseconds for people: `1.23 ms`.
pub fn duration(ns: u64) -> String {
    const UNITS: [(&str, f64); 5] = [
        ("h", 3.6e12),
        ("min", 6e10),
        ("s", 1e9),
        ("ms", 1e6),
        ("µs", 1e3),
    ];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let number = ns as f64;
    for (unit, scale) in UNITS {
        if number >= scale {
            let value = number / scale;
            return format!("{value:.digits$} {unit}", digits = digits(value));
        }
    }
    format!("{ns} ns")
}

/// Bytes for people: `1.23 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u32); 5] = [
        ("PiB", 50),
        ("TiB", 40),
        ("GiB", 30),
        ("MiB", 20),
        ("KiB", 10),
    ];
    for (unit, power) in UNITS {
        if bytes >> power > 0 {
            #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
            let value = bytes as f64 / (1_u64 << power) as f64;
            return format!("{value:.digits$} {unit}", digits = digits(value));
        }
    }
    format!("{bytes} B")
}

/// Digits behind the point, so that three are shown.
fn digits(value: f64) -> usize {
    if value >= 100.0 {
        0
    } else {
        2 - usize::from(value >= 10.0)
    }
}

/// The API's time (RFC 3339, nine digits) to the millisecond: `2026-01-31 12:00:00.123`, in UTC.
pub fn time(rfc3339: &str) -> String {
    rfc3339.get(..23).unwrap_or(rfc3339).replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_duration(ns: u64, expect: &str) {
        assert_eq!(duration(ns), expect);
    }

    #[test]
    fn durations() {
        check_duration(0, "0 ns");
        check_duration(999, "999 ns");
        check_duration(1_000, "1.00 µs");
        check_duration(12_345_678, "12.3 ms");
        check_duration(1_234_567_890, "1.23 s");
        check_duration(123_456_000_000, "2.06 min");
        check_duration(7_200_000_000_000, "2.00 h");
        check_duration(360_000_000_000_000, "100 h");
    }

    #[track_caller]
    fn check_bytes(count: u64, expect: &str) {
        assert_eq!(bytes(count), expect);
    }

    #[test]
    fn amounts_of_bytes() {
        check_bytes(0, "0 B");
        check_bytes(1_023, "1023 B");
        check_bytes(1_024, "1.00 KiB");
        check_bytes(12_345_678, "11.8 MiB");
        check_bytes(500 << 30, "500 GiB");
        check_bytes(u64::MAX, "16384 PiB");
    }

    #[track_caller]
    fn check_clean(text: &str, expect: &str) {
        assert_eq!(clean(text), expect);
    }

    #[test]
    fn names_cannot_harm_a_terminal() {
        check_clean("GET /café 💡", "GET /café 💡");
        check_clean("a\x1b[2Jb", r"a\u{1b}[2Jb");
        check_clean("a\nb\tc\r", r"a\nb\tc\r");
        check_clean("a\u{9b}31mb", r"a\u{9b}31mb");
        check_clean("a\u{202e}b", r"a\u{202e}b");
        check_clean("\0\x7f", r"\u{0}\u{7f}");
    }

    #[track_caller]
    fn check_cut(text: &str, width: usize, expect: &str) {
        assert_eq!(cut(text, width), expect);
        assert!(text_width(&cut(text, width)) <= width);
    }

    #[test]
    fn widths() {
        check_cut("abc", 3, "abc");
        check_cut("abcd", 3, "ab…");
        check_cut("日本語", 6, "日本語");
        check_cut("日本語", 5, "日本…");
        check_cut("日本語", 4, "日…");
        check_cut("abc", 1, "…");
        check_cut("abc", 0, "");
        assert_eq!(pad("日", 4), "日  ");
        assert_eq!(pad("abc", 2), "abc");
    }

    #[test]
    fn times() {
        assert_eq!(
            time("2026-01-31T12:00:00.123456789Z"),
            "2026-01-31 12:00:00.123"
        );
        assert_eq!(time("odd"), "odd");
    }

    #[test]
    fn plain_where_colours_are_not_wanted() {
        let plain = Style {
            width: 80,
            colour: false,
        };
        let coloured = Style {
            width: 80,
            colour: true,
        };
        assert_eq!(plain.paint(Paint::Red, "x"), "x");
        assert_eq!(coloured.paint(Paint::Red, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(coloured.paint(Paint::Red, ""), "");
    }
}
