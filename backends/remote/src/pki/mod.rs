//! Certificates for a site without an authority of its own: one folder, one private authority,
//! ECDSA P-256 throughout.
//!
//! | file | what |
//! |---|---|
//! | `ca.pem`, `ca.key` | the authority; the key never leaves the folder |
//! | `crl.pem` | what is revoked, made anew by each revocation |
//! | `index.jsonl` | what was issued: there is no other memory of it |
//! | `STEM.pem`, `STEM.key` | a certificate and its key. The chain is one certificate long: the authority itself is what the far end has |
//!
//! Keys are for their owner alone, and every file is replaced whole.

mod files;
mod index;
mod subject;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use keyhaul_core::credential::CredentialSource;
use keyhaul_core::{Error, ErrorKind, Result, SecretBytes, random, wipe};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams, SerialNumber,
    date_time_ymd,
};

use files::Folder;
use index::Index;
pub use index::Record;
pub use subject::Subject;

const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";
const CRL: &str = "crl.pem";

/// How long an authority lasts: ten years.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How far before its making a certificate is valid: clocks differ.
const BACKDATED: Duration = Duration::from_secs(3600);

/// How long a certificate lasts where nobody says: 90 days.
pub const LIFETIME: Duration = Duration::from_secs(90 * 86_400);

/// A private certificate authority in a folder.
pub struct Authority {
    folder: Folder,
    name: String,
    expires: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in files.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Issued {
    /// What the index says of it.
    pub record: Record,
    /// The certificate's file, PEM.
    pub certificate: PathBuf,
    /// The key's file, PEM (PKCS#8), for its owner alone.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority; `name` is the site's, as in `spiffe://NAME/node/…`.
    ///
    /// # Errors
    /// `AlreadyExists` where the folder holds one, which is never overwritten; `InvalidConfig` where
    /// `name` cannot be a site's; as the file system says.
    pub fn create(folder: &Path, name: &str) -> Result<Self> {
        subject::check_site(name)?;
        let folder = Folder::make(folder)?;
        let _lock = folder.lock()?;
        if folder.has(KEY)? {
            let rule = format!("{} holds an authority", folder.path(KEY).display());
            return Err(Error::new(ErrorKind::AlreadyExists, rule)
                .with_advice("it is never overwritten; name another folder"));
        }
        let now = SystemTime::now();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(unmade)?;
        let mut params = authority(name);
        let expires = now + AUTHORITY_LIFETIME;
        params.not_before = date_time_ymd(1970, 1, 1) + since_epoch(now - BACKDATED)?;
        params.not_after = date_time_ymd(1970, 1, 1) + since_epoch(expires)?;
        params.serial_number = Some(serial()?.1);
        let certificate = params.self_signed(&key).map_err(unmade)?;
        let index = Index::new(name, timestamp(expires)?);
        let pem = private_pem(&key);
        let authority = Self {
            folder,
            name: name.to_owned(),
            expires: index.expires(),
            issuer: Issuer::new(params, key),
        };
        let folder = &authority.folder;
        folder.write(CERTIFICATE, certificate.pem().as_bytes())?;
        authority.write_crl(&index)?;
        index.write(folder)?;
        // Last: it is what makes the folder an authority's.
        folder.write_private(KEY, &pem)?;
        Ok(authority)
    }

    /// The authority in a folder.
    ///
    /// # Errors
    /// `InvalidConfig` where there is none; `PermissionDenied` where others can read its key;
    /// `Corrupt` where its files are damaged.
    pub fn open(folder: &Path) -> Result<Self> {
        let folder = Folder::at(folder);
        if !folder.has(KEY)? {
            let rule = format!("there is no authority in {}", folder.root().display());
            return Err(Error::new(ErrorKind::InvalidConfig, rule)
                .with_advice("make one: keyhaul pki init --folder FOLDER"));
        }
        let index = Index::read(&folder)?;
        let pem = CredentialSource::File(folder.path(KEY)).read()?;
        let damaged = || {
            let rule = format!("{} is no key", folder.path(KEY).display());
            Error::new(ErrorKind::Corrupt, rule).with_advice("restore it from a backup")
        };
        let text = std::str::from_utf8(pem.expose()).map_err(|_| damaged())?;
        let key = KeyPair::from_pem(text).map_err(|_| damaged())?;
        Ok(Self {
            name: index.name().to_owned(),
            expires: index.expires(),
            issuer: Issuer::new(authority(index.name()), key),
            folder,
        })
    }

    /// The site's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The authority's own certificate, PEM: what both ends trust.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path(CERTIFICATE)
    }

    /// When the authority ends, and all that it has issued.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// The list of what is revoked, PEM.
    pub fn crl(&self) -> PathBuf {
        self.folder.path(CRL)
    }

    /// A new certificate with a key of its own.
    ///
    /// # Errors
    /// `AlreadyExists` where one of that stem is valid still; `InvalidConfig` where the subject or
    /// the lifetime is none; as the file system says.
    pub fn issue(&self, subject: &Subject, lifetime: Duration) -> Result<Issued> {
        subject.check()?;
        let _lock = self.folder.lock()?;
        let index = Index::read(&self.folder)?;
        if index.live(subject.stem()).next().is_some() {
            let rule = format!("there is a certificate `{}`", subject.stem());
            return Err(Error::new(ErrorKind::AlreadyExists, rule)
                .with_advice("renew it: keyhaul pki renew NAME; or revoke it first"));
        }
        self.make(index, subject, lifetime)
    }

    /// The same names again, with a new key and a new serial number. The certificate before stays
    /// valid until it expires or is revoked.
    ///
    /// # Errors
    /// `NotFound` where there is none of that stem, or all are revoked.
    pub fn renew(&self, stem: &str, lifetime: Duration) -> Result<Issued> {
        let _lock = self.folder.lock()?;
        let index = Index::read(&self.folder)?;
        let subject = match index.latest(stem) {
            Some(record) if record.revoked.is_none() => record.subject(),
            Some(_) => {
                let rule = format!("the certificate `{stem}` is revoked");
                return Err(Error::new(ErrorKind::NotFound, rule)
                    .with_advice("issue it anew: keyhaul pki issue"));
            }
            None => return Err(unknown(stem, &index)),
        };
        self.make(index, &subject, lifetime)
    }

    /// Revokes the certificate of a serial number, or all of a stem that are valid still; those
    /// that are revoked by now. The list of what is revoked is made anew.
    ///
    /// # Errors
    /// `NotFound` where there is none.
    pub fn revoke(&self, which: &str) -> Result<Vec<Record>> {
        let _lock = self.folder.lock()?;
        let mut index = Index::read(&self.folder)?;
        let revoked = index.revoke(which, timestamp(SystemTime::now())?);
        if revoked.is_empty() {
            return Err(unknown(which, &index));
        }
        // The index first: a list that was not written is made up for by the next revocation, also
        // of the same certificate.
        index.count_crl();
        index.write(&self.folder)?;
        self.write_crl(&index)?;
        Ok(revoked)
    }

    /// All that was issued, the oldest first.
    ///
    /// # Errors
    /// `Corrupt` where the index is damaged; as the file system says.
    pub fn list(&self) -> Result<Vec<Record>> {
        Ok(Index::read(&self.folder)?.into_records())
    }

    fn make(&self, mut index: Index, subject: &Subject, lifetime: Duration) -> Result<Issued> {
        let now = SystemTime::now();
        let expires = now.checked_add(lifetime).ok_or_else(too_long)?;
        let expires = timestamp(expires).map_err(|_| too_long())?;
        if lifetime < Duration::from_secs(60) || expires > self.expires {
            return Err(too_long());
        }
        let mut params = subject.params()?;
        let (hex, number) = serial()?;
        params.serial_number = Some(number);
        params.not_before = date_time_ymd(1970, 1, 1) + since_epoch(now - BACKDATED)?;
        params.not_after = date_time_ymd(1970, 1, 1) + since_epoch(expires.into())?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(unmade)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(unmade)?;
        let record = subject.record(hex, timestamp(now)?, expires);
        // The index first: what is not in it could not be revoked.
        index.push(record.clone());
        index.write(&self.folder)?;
        let stem = subject.stem();
        let (pem, key_file) = (format!("{stem}.pem"), format!("{stem}.key"));
        self.folder.write_private(&key_file, &private_pem(&key))?;
        self.folder.write(&pem, certificate.pem().as_bytes())?;
        Ok(Issued {
            record,
            certificate: self.folder.path(&pem),
            key: self.folder.path(&key_file),
        })
    }

    fn write_crl(&self, index: &Index) -> Result<()> {
        let mut revoked_certs = Vec::new();
        for (serial, at) in index.revocations() {
            revoked_certs.push(RevokedCertParams {
                serial_number: SerialNumber::from(unhex(serial)?),
                revocation_time: date_time_ymd(1970, 1, 1) + since_epoch(at.into())?,
                reason_code: None,
                invalidity_date: None,
            });
        }
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(1970, 1, 1) + since_epoch(SystemTime::now())?,
            // Nobody is there to make the next one before something is revoked.
            next_update: date_time_ymd(1970, 1, 1) + since_epoch(self.expires.into())?,
            crl_number: SerialNumber::from(index.crl_number()),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).map_err(unmade)?;
        let pem = list.pem().map_err(unmade)?;
        self.folder.write(CRL, pem.as_bytes())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("folder", &self.folder.root())
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What all of an authority's certificates say of their issuer.
fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "keyhaul");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.key_identifier_method = KeyIdMethod::Sha256;
    params
}

/// A key as its file has it.
fn private_pem(key: &KeyPair) -> SecretBytes {
    let mut pem = key.serialize_pem().into_bytes();
    let secret = SecretBytes::copy_from(&pem);
    wipe(&mut pem);
    secret
}

/// A fresh serial number, 16 bytes, in hexadecimal and as it is.
fn serial() -> Result<(String, SerialNumber)> {
    let mut bytes = vec![0; 16];
    random::fill(&mut bytes)?;
    // Positive, and of full length.
    bytes[0] = bytes[0] & 0x3f | 0x40;
    let hex = base16ct::lower::encode_string(&bytes);
    Ok((hex, SerialNumber::from(bytes)))
}

fn unhex(serial: &str) -> Result<Vec<u8>> {
    base16ct::lower::decode_vec(serial).map_err(|_| index::damaged("a serial number"))
}

fn timestamp(time: SystemTime) -> Result<Timestamp> {
    let whole = Timestamp::try_from(time).and_then(|t| Timestamp::from_second(t.as_second()));
    whole.map_err(|error| {
        let rule = "the clock is beyond the calendar";
        Error::new(ErrorKind::InvalidConfig, rule).with_source(error)
    })
}

fn since_epoch(time: SystemTime) -> Result<Duration> {
    time.duration_since(UNIX_EPOCH).map_err(|error| {
        let rule = "the clock stands before 1970";
        Error::new(ErrorKind::InvalidConfig, rule).with_source(error)
    })
}

fn too_long() -> Error {
    let rule = "a certificate lasts a minute at least, and not longer than its authority";
    Error::new(ErrorKind::InvalidConfig, rule)
}

fn unmade(error: rcgen::Error) -> Error {
    Error::new(ErrorKind::Internal, "a certificate could not be made").with_source(error)
}

fn unknown(which: &str, index: &Index) -> Error {
    let known = index.live_stems().join(", ");
    let error = Error::new(
        ErrorKind::NotFound,
        format!("there is no valid certificate `{which}`"),
    );
    if known.is_empty() {
        error.with_advice("nothing is issued yet: keyhaul pki issue")
    } else {
        error.with_advice(format!("valid are: {known}"))
    }
}
