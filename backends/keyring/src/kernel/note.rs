//! What a key has no room for: when exactly it expires, and that its value is empty.
//!
//! The kernel takes no empty payload, and tells the time that a key has left in one coarse unit.
//! Where there is either to tell, a second key beside it, `PREFIX.note:NUMBER`, says it of the key
//! with that number, and expires with it. Other programs need not know: they see the secret's key.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keyhaul_core::{Result, SecretBytes};
use linux_keyutils::Key;

use super::ring::{self, Ring};
use super::sys::Serial;

/// The payload of a key whose value is empty.
pub(super) const NOTHING: &[u8] = b"\0";

/// What a note says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) expires: Option<SystemTime>,
    pub(super) empty: bool,
}

impl Note {
    /// The note of a key, where there is one that can be read.
    pub(super) fn of(ring: &Ring, prefix: &str, key: Key) -> Result<Self> {
        // Its time can come between this step and the one before.
        let found = ring.find(&description(prefix, key));
        let Some(note) = found.ok().flatten() else {
            return Ok(Self::default());
        };
        let text = ring::read(note)?;
        Ok(std::str::from_utf8(text.expose())
            .ok()
            .and_then(Self::parse)
            .unwrap_or_default())
    }

    /// Writes it, where it says anything.
    pub(super) fn write(
        &self,
        ring: &Ring,
        prefix: &str,
        key: Key,
        seconds: Option<u32>,
    ) -> Result<()> {
        if *self == Self::default() {
            return Ok(());
        }
        let text = self.to_text();
        ring.put(
            &description(prefix, key),
            text.as_bytes(),
            seconds,
            false,
            |_| Ok(()),
        )?;
        Ok(())
    }

    /// Removes the note of a key that is gone.
    pub(super) fn remove(ring: &Ring, prefix: &str, key: Key) {
        // It says nothing of any other key: one that stays does no harm.
        if let Ok(Some(note)) = ring.find(&description(prefix, key)) {
            let _ = ring.remove(note);
        }
    }

    /// Whether a key with this payload holds an empty value.
    pub(super) fn is_empty(&self, payload: &SecretBytes) -> bool {
        self.empty && payload.expose() == NOTHING
    }

    /// When the key expires, by this note and by what the kernel shows.
    pub(super) fn expiry(&self, shown: Option<Left>, now: SystemTime) -> Option<SystemTime> {
        match (shown, self.expires) {
            (Some(Left::Forever), _) => None,
            (Some(Left::Seconds(from, to)), Some(noted)) => {
                // The kernel counts whole seconds, and rounds ours up.
                let left = noted.duration_since(now).unwrap_or_default().as_secs();
                let agree = left + 2 >= from && left <= to + 1;
                // Where they disagree, another program has set another time.
                Some(if agree {
                    noted
                } else {
                    now + Duration::from_secs(from)
                })
            }
            (Some(Left::Seconds(from, _)), None) => Some(now + Duration::from_secs(from)),
            // /proc/keys is hidden in many containers.
            (None, noted) => noted.filter(|noted| *noted > now),
        }
    }

    fn to_text(self) -> String {
        let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let expires = match self.expires {
            Some(time) => since(time).as_millis().to_string(),
            None => "-".to_owned(),
        };
        format!("{expires} {}", if self.empty { "empty" } else { "-" })
    }

    fn parse(text: &str) -> Option<Self> {
        let (expires, empty) = text.split_once(' ')?;
        let expires = match expires {
            "-" => None,
            millis => Some(UNIX_EPOCH.checked_add(Duration::from_millis(millis.parse().ok()?))?),
        };
        Some(Self {
            expires,
            empty: empty == "empty",
        })
    }
}

/// How long a key has left, as `/proc/keys` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Forever,
    /// From the first to the second.
    Seconds(u64, u64),
}

impl Left {
    /// What the kernel shows of a key; none where it does not.
    pub(super) fn of(key: Key) -> Option<Self> {
        let keys = fs::read_to_string("/proc/keys").ok()?;
        let number = key.get_id().as_raw_id();
        keys.lines().find_map(|line| Self::in_line(line, number))
    }

    /// `28b0b8d8 I--Q---     1   1h 3f010000     0     0 user      NAME: 2`
    fn in_line(line: &str, number: Serial) -> Option<Self> {
        let mut columns = line.split_whitespace();
        let shown = u32::from_str_radix(columns.next()?, 16).ok()?;
        if i64::from(shown) != i64::from(number) {
            return None;
        }
        let left = columns.nth(2)?;
        if left == "perm" {
            return Some(Self::Forever);
        }
        let (count, unit) = left.split_at_checked(left.len().checked_sub(1)?)?;
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 604_800,
            _ => return None,
        };
        let count: u64 = count.parse().ok()?;
        Some(Self::Seconds(
            count.checked_mul(unit)?,
            count.checked_add(1)?.checked_mul(unit)?,
        ))
    }
}

fn description(prefix: &str, key: Key) -> String {
    format!("{prefix}.note:{}", key.get_id().as_raw_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn noted(expires: Option<SystemTime>) -> Note {
        Note {
            expires,
            empty: false,
        }
    }

    #[test]
    fn a_note_says_what_it_said() {
        for note in [
            Note::default(),
            noted(Some(at(NOW) + Duration::from_millis(250))),
            Note {
                expires: None,
                empty: true,
            },
        ] {
            assert_eq!(Note::parse(&note.to_text()), Some(note));
        }
        for text in ["", "-", "x -", "99999999999999999999999 -"] {
            assert_eq!(Note::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_the_kernel_shows_is_read_in_its_units() {
        let line = |left: &str| {
            format!("28b0b8d8 I--Q---     1 {left:>4} 3f010000     0     0 user      a;b: 1")
        };
        let left = |shown: &str| Left::in_line(&line(shown), 0x28b0_b8d8);
        assert_eq!(left("perm"), Some(Left::Forever));
        assert_eq!(left("59s"), Some(Left::Seconds(59, 60)));
        assert_eq!(left("1h"), Some(Left::Seconds(3600, 7200)));
        assert_eq!(left("2w"), Some(Left::Seconds(1_209_600, 1_814_400)));
        assert_eq!(left("expd"), None);
        assert_eq!(Left::in_line(&line("1h"), 1), None);
        assert_eq!(Left::in_line("", 1), None);
    }

    #[test]
    fn another_programs_time_is_believed_over_the_note() {
        let hour = noted(Some(at(NOW + 3600)));
        let shown = |from, to| Some(Left::Seconds(from, to));
        assert_eq!(
            hour.expiry(shown(3600, 7200), at(NOW)),
            Some(at(NOW + 3600))
        );
        assert_eq!(
            hour.expiry(shown(3540, 3600), at(NOW)),
            Some(at(NOW + 3600))
        );
        assert_eq!(hour.expiry(shown(60, 120), at(NOW)), Some(at(NOW + 60)));
        assert_eq!(hour.expiry(Some(Left::Forever), at(NOW)), None);
        assert_eq!(hour.expiry(None, at(NOW)), Some(at(NOW + 3600)));
        assert_eq!(hour.expiry(None, at(NOW + 3601)), None);
        assert_eq!(
            noted(None).expiry(shown(60, 120), at(NOW)),
            Some(at(NOW + 60))
        );
    }
}
