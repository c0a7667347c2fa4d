//! Times as people write and read them.

use std::time::SystemTime;

use jiff::Timestamp;

/// RFC 3339 in UTC, to the second.
pub fn shown(time: SystemTime) -> String {
    match Timestamp::try_from(time) {
        Ok(timestamp) => format!("{timestamp:.0}"),
        Err(_) => "beyond the calendar".to_owned(),
    }
}

/// A moment on the command line: RFC 3339, or a duration from now.
pub fn moment(text: &str) -> Result<SystemTime, String> {
    if let Some(duration) = keyhaul_core::registry::parse_duration(text) {
        let moment = SystemTime::now().checked_add(duration);
        return moment.ok_or_else(|| "that is beyond the calendar".to_owned());
    }
    text.parse::<Timestamp>()
        .map(SystemTime::from)
        .map_err(|_| {
            "a moment is RFC 3339, as 2030-01-31T12:00:00Z, or a duration from now, as 90d"
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn moments_are_absolute_or_from_now() {
        let fixed = moment("2030-01-31T12:00:00Z").expect("RFC 3339");
        assert_eq!(fixed, UNIX_EPOCH + Duration::from_secs(1_896_091_200));
        assert_eq!(shown(fixed), "2030-01-31T12:00:00Z");
        let later = moment("90d").expect("a duration");
        let ahead = later.duration_since(SystemTime::now()).expect("ahead");
        assert!(ahead > Duration::from_secs(89 * 86_400));
        assert!(moment("soon").is_err());
    }
}
