//! Whose a certificate is.

use std::net::IpAddr;

use jiff::Timestamp;
use keyhaul_core::{Error, ErrorKind, Result};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod,
    KeyUsagePurpose, SanType,
};

use super::Record;

/// Whose a certificate is: a URI makes it a client's, names and addresses a server's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    stem: String,
    uri: Option<String>,
    dns: Vec<String>,
    ips: Vec<IpAddr>,
}

impl Subject {
    /// A client, known by its URI; its files are called `STEM.pem` and `STEM.key`.
    pub fn client(stem: impl Into<String>, uri: impl Into<String>) -> Self {
        Self {
            stem: stem.into(),
            uri: Some(uri.into()),
            ..Self::default()
        }
    }

    /// A server, reached by these names and addresses.
    pub fn server(stem: impl Into<String>, dns: Vec<String>, ips: Vec<IpAddr>) -> Self {
        Self {
            stem: stem.into(),
            uri: None,
            dns,
            ips,
        }
    }

    /// What its files are called.
    pub fn stem(&self) -> &str {
        &self.stem
    }

    /// Holds it against what a certificate and a file name can hold.
    pub(super) fn check(&self) -> Result<()> {
        check_stem(&self.stem)?;
        if self.uri.is_none() && self.dns.is_empty() && self.ips.is_empty() {
            let rule = "a server's certificate names what it is reached by";
            return Err(refused(rule).with_advice("give it --dns NAME or --ip ADDRESS"));
        }
        if let Some(name) = self.dns.iter().find(|name| !is_host_name(name)) {
            let rule = format!("{name:?} is no host name");
            return Err(refused(rule).with_advice("an address goes to --ip"));
        }
        let is_uri = |uri: &String| uri.is_ascii() && url::Url::parse(uri).is_ok();
        match &self.uri {
            Some(uri) if !is_uri(uri) => Err(refused(format!("{uri:?} is no URI"))),
            _ => Ok(()),
        }
    }

    /// What its certificate says.
    pub(super) fn params(&self) -> Result<CertificateParams> {
        let mut params = CertificateParams::default();
        let ia5 = |text: &String| {
            let converted = text.as_str().try_into();
            converted.map_err(|_| refused(format!("{text:?} is not ASCII")))
        };
        let mut usages = Vec::new();
        if let Some(uri) = &self.uri {
            params.subject_alt_names.push(SanType::URI(ia5(uri)?));
            usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        for name in &self.dns {
            params.subject_alt_names.push(SanType::DnsName(ia5(name)?));
        }
        let addresses = self.ips.iter().copied().map(SanType::IpAddress);
        params.subject_alt_names.extend(addresses);
        if !self.dns.is_empty() || !self.ips.is_empty() {
            usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.extended_key_usages = usages;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        params.distinguished_name = DistinguishedName::new();
        // X.520 has room for 64 characters; the names above are what counts.
        let common: String = self.stem.chars().take(64).collect();
        params.distinguished_name.push(DnType::CommonName, common);
        params.use_authority_key_identifier_extension = true;
        params.key_identifier_method = KeyIdMethod::Sha256;
        Ok(params)
    }

    /// What the index keeps of it.
    pub(super) fn record(&self, serial: String, created: Timestamp, expires: Timestamp) -> Record {
        Record {
            serial,
            stem: self.stem.clone(),
            uri: self.uri.clone(),
            dns: self.dns.clone(),
            ips: self.ips.clone(),
            created,
            expires,
            revoked: None,
        }
    }
}

impl Record {
    /// Whose the certificate is.
    pub(super) fn subject(&self) -> Subject {
        Subject {
            stem: self.stem.clone(),
            uri: self.uri.clone(),
            dns: self.dns.clone(),
            ips: self.ips.clone(),
        }
    }
}

/// A site's name is the trust domain of SPIFFE IDs.
pub(super) fn check_site(name: &str) -> Result<()> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    if (1..=64).contains(&name.len()) && name.chars().all(legal) {
        return Ok(());
    }
    let rule = format!("{name:?} is no site's name: it is 1 to 64 of [a-z0-9._-]");
    Err(refused(rule))
}

fn check_stem(stem: &str) -> Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let rule = if !(1..=128).contains(&stem.len()) || !stem.chars().all(legal) {
        "is no name: it is 1 to 128 of [A-Za-z0-9._-]"
    } else if stem.starts_with(['.', '-']) {
        "is no name: it does not start with `.` or `-`"
    } else if ["ca", "crl", "index"].contains(&stem) {
        "is the authority's own"
    } else {
        return Ok(());
    };
    Err(refused(format!("{stem:?} {rule}")))
}

fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
        (1..=63).contains(&label.len())
            && label.chars().all(legal)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.parse::<IpAddr>().is_err() && name.split('.').all(label)
}

fn refused(rule: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, rule)
}
