//! Certificates, and a list of those that were revoked.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};

/// An authority with a list of what it revoked.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
#[derive(Clone)]
pub struct Issued {
    pub pem: String,
    pub key: String,
    pub serial: u64,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn client(&self, serial: u64, uris: &[&str]) -> Issued {
        self.issue(serial, uris, ExtendedKeyUsagePurpose::ClientAuth, 2090)
    }

    pub fn expired(&self, serial: u64, uris: &[&str]) -> Issued {
        self.issue(serial, uris, ExtendedKeyUsagePurpose::ClientAuth, 2021)
    }

    /// A certificate that is good for so long from now on, to the second.
    pub fn short_lived(&self, serial: u64, uris: &[&str], lifetime: Duration) -> Issued {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let end = date_time_ymd(1970, 1, 1) + now.expect("after 1970") + lifetime;
        self.until(
            serial,
            uris,
            ExtendedKeyUsagePurpose::ClientAuth,
            |params| {
                params.not_after = end;
            },
        )
    }

    pub fn server(&self) -> Issued {
        self.issue(1, &[], ExtendedKeyUsagePurpose::ServerAuth, 2090)
    }

    fn issue(
        &self,
        serial: u64,
        uris: &[&str],
        usage: ExtendedKeyUsagePurpose,
        end: i32,
    ) -> Issued {
        self.until(serial, uris, usage, |params| {
            params.not_after = date_time_ymd(end, 1, 1);
        })
    }

    fn until(
        &self,
        serial: u64,
        uris: &[&str],
        usage: ExtendedKeyUsagePurpose,
        end: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(serial));
        let address = "127.0.0.1".parse().expect("an address");
        params.subject_alt_names = vec![SanType::IpAddress(address)];
        for uri in uris {
            let uri = (*uri).try_into().expect("ASCII");
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.extended_key_usages = vec![usage];
        params.not_before = date_time_ymd(2020, 1, 1);
        end(&mut params);
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a key");
        Issued {
            pem: params
                .signed_by(&key, &self.0)
                .expect("a certificate")
                .pem(),
            key: key.serialize_pem(),
            serial,
        }
    }

    pub fn crl(&self, revoked: &[&Issued]) -> String {
        self.crl_until(2090, revoked)
    }

    pub fn crl_until(&self, year: i32, revoked: &[&Issued]) -> String {
        let revoked = revoked.iter().map(|issued| RevokedCertParams {
            serial_number: SerialNumber::from(issued.serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params
            .signed_by(&self.0)
            .expect("a list")
            .pem()
            .expect("PEM")
    }
}
