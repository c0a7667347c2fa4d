//! How old revocation lists are.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::pki_types::CertificateRevocationListDer;

/// The end of each list's time, of one file.
#[derive(Debug, Default)]
pub(super) struct Lists {
    file: PathBuf,
    ends: Vec<Timestamp>,
}

impl Lists {
    pub(super) fn of(file: &Path, lists: &[CertificateRevocationListDer<'_>]) -> Self {
        Self {
            file: file.to_owned(),
            // One that cannot be read here cannot be used either, and the verifier says so.
            ends: lists.iter().filter_map(|list| next_update(list)).collect(),
        }
    }

    /// Tells the log of each list that should have been replaced before now.
    pub(super) fn warn(&self) {
        for end in self.overdue(Timestamp::now()) {
            tracing::warn!(
                crl = %self.file.display(),
                next_update = %end,
                "a revocation list should have been replaced: what was revoked since is not known \
                 here; put the authority's new one there and reload"
            );
        }
    }

    fn overdue(&self, now: Timestamp) -> impl Iterator<Item = &Timestamp> {
        self.ends.iter().filter(move |end| **end <= now)
    }
}

/// When the next list was promised: `nextUpdate` of RFC 5280, 5.1.2.5, in DER.
fn next_update(list: &[u8]) -> Option<Timestamp> {
    let (list, _) = element(list, SEQUENCE)?;
    let (content, _) = element(list, SEQUENCE)?;
    // The version, the algorithm and the issuer stand before the times.
    let (_, rest) = element(content, INTEGER)?;
    let (_, rest) = element(rest, SEQUENCE)?;
    let (_, rest) = element(rest, SEQUENCE)?;
    let (_this_update, rest) = time(rest)?;
    time(rest).map(|(time, _)| time)
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;

/// The content of the element of that tag at the beginning, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The length of the length, of which four bytes are more than any file has.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// The time at the beginning, and what follows it: `YYMMDDhhmmssZ`, until 2049, or with four digits
/// of the year.
fn time(der: &[u8]) -> Option<(Timestamp, &[u8])> {
    let ((text, rest), digits) = match element(der, UTC_TIME) {
        Some(found) => (found, 2),
        None => (element(der, GENERALIZED_TIME)?, 4),
    };
    let text = std::str::from_utf8(text).ok()?;
    let (year, others) = text.split_at_checked(digits)?;
    let century = match (digits, year) {
        (4, _) => "",
        (_, year) if year < "50" => "20",
        _ => "19",
    };
    let time = Timestamp::strptime(
        "%Y%m%d%H%M%S%z",
        format!("{century}{year}{}+0000", others.strip_suffix('Z')?),
    );
    Some((time.ok()?, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
        IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
    };
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::pki::Authority;

    fn list(year: i32) -> CertificateRevocationListDer<'static> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(1999, 12, 31),
            next_update: date_time_ymd(year, 6, 30),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&issuer).expect("a list").into()
    }

    /// Both ways to write a time, of the last and of this century.
    #[test]
    fn the_next_lists_time_is_read() {
        for year in [2001, 2026, 2049, 2050, 2110] {
            let expected: Timestamp = format!("{year}-06-30T00:00:00Z").parse().expect("a time");
            assert_eq!(next_update(&list(year)), Some(expected), "{year}");
        }
    }

    #[test]
    fn a_list_of_our_own_authority_lasts_as_long_as_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::create(&folder.path().join("pki"), "example.com");
        let authority = authority.expect("an authority");
        let list = CertificateRevocationListDer::from_pem_file(authority.crl()).expect("a list");
        assert_eq!(next_update(&list), Some(authority.expires()));
    }

    #[test]
    fn a_list_is_overdue_from_its_last_moment_on() {
        let end: Timestamp = "2026-06-30T00:00:00Z".parse().expect("a time");
        let lists = Lists::of(Path::new("crl.pem"), &[list(2026), list(2090)]);
        let second = jiff::SignedDuration::from_secs(1);
        assert_eq!(lists.overdue(end - second).count(), 0);
        assert_eq!(lists.overdue(end).collect::<Vec<_>>(), [&end]);
    }

    #[test]
    fn what_is_no_list_has_no_time() {
        let whole = list(2026);
        for length in [0, 1, 2, 5, 20, 60] {
            assert_eq!(next_update(&whole[..length]), None, "{length}");
        }
        assert_eq!(next_update(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(next_update(&[SEQUENCE, 0x80]), None);
        assert_eq!(time(b"\x17\x0d260630\xc3\xa900000Z"), None);
    }
}
