//! The time that a command asks about.

use std::time::{Duration, SystemTime};

/// The flags of it.
#[derive(Debug, clap::Args)]
pub struct WindowArgs {
    /// How far to look back, such as 30m, 1h or 2d.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_since)]
    since: Duration,
    /// Start of the time range, instead of --since: RFC 3339 or Unix seconds.
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    start: Option<String>,
    /// End of the time range [default: now].
    #[arg(long, value_name = "TIME")]
    end: Option<String>,
}

impl WindowArgs {
    /// The API's parameters of the window.
    pub fn parameters(&self) -> [(&'static str, String); 2] {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let seconds = |time: Duration| format!("{}.{:09}", time.as_secs(), time.subsec_nanos());
        let start = self
            .start
            .clone()
            .unwrap_or_else(|| seconds(now.saturating_sub(self.since)));
        let end = self.end.clone().unwrap_or_else(|| seconds(now));
        [("start", start), ("end", end)]
    }
}

/// A whole number and a unit: s, m, h or d.
fn parse_since(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "'{text}' is not a valid duration; use a number and a unit, such as \
                            30m, 1h or 2d"
        )
    };
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let seconds = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(scale));
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since() {
        let check = |text: &str| parse_since(text).ok().map(|time| time.as_secs());
        assert_eq!(check("30s"), Some(30));
        assert_eq!(check("15m"), Some(900));
        assert_eq!(check("2h"), Some(7_200));
        assert_eq!(check("7d"), Some(604_800));
        assert_eq!(check("1"), None);
        assert_eq!(check("h"), None);
        assert_eq!(check("-1h"), None);
        assert_eq!(check("1.5h"), None);
        assert_eq!(check("99999999999999999999d"), None);
    }
}
