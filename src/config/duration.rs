//! Durations as Go and Istio write them: `10s`, `250ms`, `1h30m`.

use std::time::Duration;

/// Parses a duration: one or more numbers, each with its unit (`h`, `m`, `s`, `ms`), largest first or not.
pub fn parse(text: &str) -> Result<Duration, String> {
    let malformed = || format!("expected a duration such as 10s, 250ms or 1h30m, found {text:?}");
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(malformed)?;
        let (number, behind) = rest.split_at(digits);
        let unit = behind.find(|letter: char| letter.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit);
        let millis: u64 = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return Err(malformed()),
        };
        let number: u64 = number.parse().map_err(|_| malformed())?;
        let part = number.checked_mul(millis).map(Duration::from_millis).ok_or_else(malformed)?;
        total = total.checked_add(part).ok_or_else(malformed)?;
        rest = behind;
    }
    if text.is_empty() { Err(malformed()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, millis: Option<u64>) {
        assert_eq!(parse(text).ok(), millis.map(Duration::from_millis), "{text:?}");
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        check("10s", Some(10_000));
        check("250ms", Some(250));
        check("1h30m", Some(5_400_000));
        check("1m1s1ms", Some(61_001));
        check("0s", Some(0));
        for bad in ["", "10", "s", "10 s", "-1s", "1.5s", "1d", "1M", "99999999999999999999s", "10s5", "1e3s"]
        {
            check(bad, None);
        }
    }
}
