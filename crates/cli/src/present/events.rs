//! Events (`ioward events`) and the operations of partitions (`ioward audit`), a line each.

use ioward_api::AuditLine;
use ioward_model::{Event, Verdict, VfOp, utc::date};

/// One event.
#[must_use]
pub fn event(event: &Event) -> String {
    format!("{}  {}\n", time(event.time_ms), one_line(&event.kind.to_string()))
}

/// One operation that a partition asked for, or how many of it are not kept any more.
#[must_use]
pub fn audit(line: &AuditLine) -> String {
    let entry = match line {
        AuditLine::Entry(numbered) => &numbered.entry,
        AuditLine::Dropped { partition, dropped } => {
            return format!("{partition}: not kept any more: {dropped}\n");
        }
    };
    let mut request = entry.request.name().to_owned();
    if let Some(vf) = entry.request.vf() {
        request += &format!(" {vf}");
    }
    if let VfOp::Set { change, .. } = &entry.request {
        for (name, value) in change.describe() {
            request += &format!(" {name}={value}");
        }
    }
    let verdict = match &entry.verdict {
        Verdict::Granted => "granted".to_owned(),
        Verdict::Refused(why) => format!("refused: {}", one_line(why)),
        Verdict::Failed(why) => format!("failed: {}", one_line(why)),
    };
    let by = entry.uid.map(|uid| format!(" (by UID {uid} of the host)")).unwrap_or_default();
    format!("{}  {}: {request}{by}: {verdict}\n", time(entry.time_ms), entry.partition)
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

/// UTC, as RFC 3339 has it: the logs of several machines sort together.
pub fn time(ms_since_1970: u64) -> String {
    let (seconds, ms) = (ms_since_1970 / 1000, ms_since_1970 % 1000);
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Milliseconds since 1970 of a time as [`time`] writes it; what is left out at its end is 0.
#[must_use]
pub fn parse_time(text: &str) -> Option<u64> {
    let (day, clock) = text.strip_suffix('Z').unwrap_or(text).split_once('T').unwrap_or((text, ""));
    let number = |text: &str, most: u64| text.parse().ok().filter(|number| *number <= most);
    let mut parts = day.splitn(3, '-');
    let (year, month, day) =
        (number(parts.next()?, 9999)?, number(parts.next()?, 12)?, number(parts.next()?, 31)?);
    let (clock, ms) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut seconds = 0;
    let mut parts = clock.split(':').filter(|part| !part.is_empty());
    for (most, worth) in [(23, 3600), (59, 60), (60, 1)] {
        seconds += parts.next().map_or(Some(0), |part| number(part, most))? * worth;
    }
    if parts.next().is_some() || year < 1970 || month == 0 || day == 0 {
        return None;
    }
    // Day by day is soon enough for a few decades, and `date` knows the calendar.
    let mut days = (year - 1970) * 365;
    while date(days) < (year, month, day) {
        days += 1;
    }
    (date(days) == (year, month, day)).then_some((days * 86_400 + seconds) * 1000 + number(ms, 999)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_date_says() {
        // From: date -u -d @SECONDS
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_799, "2000-02-29T23:59:59.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_763_769_600, "2025-11-22T00:00:00.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
            (253_402_300_799, "9999-12-31T23:59:59.007Z"),
        ] {
            assert_eq!(time(seconds * 1000 + 7), expected);
            assert_eq!(parse_time(expected), Some(seconds * 1000 + 7));
        }
        time(u64::MAX);
    }

    #[test]
    fn an_event_and_an_audit_entry_are_a_line_each() {
        let value = r#"{"number":1,"time_ms":7,"event":"partition-ended","partition":"web","why":"killed\nby signal 9"}"#;
        let expected = "1970-01-01T00:00:00.007Z  partition web ended: killed by signal 9\n";
        assert_eq!(event(&serde_json::from_str(value).unwrap()), expected);
        let value = r#"{"time_ms":7,"partition":"web","request":{"op":"set","vf":"net0","change":{"vlan":5}},
            "verdict":{"verdict":"refused","why":"vlan is not in guest_may of this VF"}}"#;
        let expected =
            "1970-01-01T00:00:00.007Z  web: set net0 vlan=5: refused: vlan is not in guest_may of this VF\n";
        assert_eq!(audit(&serde_json::from_str(value).unwrap()), expected);
        let value = r#"{"time_ms":7,"partition":"web","uid":1000,"request":{"op":"reset","vf":"net0"},"verdict":{"verdict":"granted"}}"#;
        let expected = "1970-01-01T00:00:00.007Z  web: reset net0 (by UID 1000 of the host): granted\n";
        assert_eq!(audit(&serde_json::from_str(value).unwrap()), expected);
        let value = r#"{"partition":"web","dropped":{"changes":0,"refusals":1,"reads":700}}"#;
        let expected = "web: not kept any more: 1 refusal, 700 reads\n";
        assert_eq!(audit(&serde_json::from_str(value).unwrap()), expected);
    }
}
