//! Sealing and opening values by the program, and why that fails where it does.

use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Result, SecretBytes};

use crate::MAX_VALUE;
use crate::config::Settings;
use crate::envelope::{self, SealedTo};
use crate::host;
use crate::program::{Ended, Program};

/// The most that systemd encrypts: others may have written more than the store does.
const LARGEST: usize = 1024 * 1024;
/// The most that a credential of this store's takes, encrypted and in Base64.
const LARGEST_SEALED: usize = MAX_VALUE * 2;
/// How long a run of the program may take: a TPM can be slow, and busy.
const LIMIT: Duration = Duration::from_secs(20);
/// The first version that has the program.
const OLDEST: u32 = 250;
/// The name of what is sealed to see whether that works.
const TRIAL: &str = "keyhaul-trial";

/// Seals and opens values, each by a run of the program.
#[derive(Debug)]
pub(crate) struct Sealer {
    program: Program,
    name: String,
    key: String,
    /// Which TPM2, where the policy says so.
    device: Option<String>,
    /// What new values are bound to in it, where the policy says so.
    pcrs: Option<String>,
}

impl Sealer {
    pub(crate) fn new(settings: &Settings) -> Self {
        let argument = |option: &str, value: &Option<String>| {
            let value = value.as_ref()?;
            Some(format!("--{option}={value}"))
        };
        Self {
            program: Program::new(settings.program.clone(), LIMIT),
            name: settings.program.display().to_string(),
            key: settings.key.clone(),
            device: argument("tpm2-device", &settings.tpm2_device),
            pcrs: argument("tpm2-pcrs", &settings.tpm2_pcrs),
        }
    }

    /// Seals a value as the credential of this name, and sees whether that opens again.
    ///
    /// # Errors
    /// `PermissionDenied` where the host's key is not ours to use, `Unavailable` where there is
    /// nothing to seal to, those of the program.
    pub(crate) fn seal(
        &self,
        name: &str,
        value: &SecretBytes,
        deadline: Option<Instant>,
    ) -> Result<SecretBytes> {
        let sealed = match self.encrypt(name, &self.key, value.expose(), deadline)? {
            Ended::Well(sealed) => sealed,
            Ended::Badly(said) => return Err(self.not_sealed(deadline, said)),
        };
        // What this store would not read, it does not write. systemd 252 seals what it never opens
        // again: values near its limit, and those bound to no PCR at all.
        envelope::sealed_to(sealed.expose())?;
        match self.decrypt(name, None, sealed.expose(), deadline)? {
            Ended::Well(opened) if opened == *value => Ok(sealed),
            Ended::Well(_) => Err(self.not_to_be_trusted()),
            Ended::Badly(said) => Err(self.not_to_be_trusted().with_source(said)),
        }
    }

    /// Opens the credential of this name; also one that has `expired`, if that is wanted.
    ///
    /// # Errors
    /// `NotFound` where it has expired, `Corrupt` where it does not open, `Unavailable` where what it
    /// is sealed to is not there, `PermissionDenied` where that is not ours to use.
    pub(crate) fn open(
        &self,
        name: &str,
        sealed: &[u8],
        expired: bool,
        deadline: Option<Instant>,
    ) -> Result<SecretBytes> {
        let sealed_to = envelope::sealed_to(sealed)?;
        let said = match self.decrypt(name, None, sealed, deadline)? {
            Ended::Well(value) => return Ok(value),
            Ended::Badly(said) => said,
        };
        // Its exit status does not say why. At the beginning of time nothing has expired.
        match self.decrypt(name, Some("--timestamp=@0"), sealed, deadline)? {
            Ended::Well(value) if expired => Ok(value),
            Ended::Well(_) => Err(Error::new(ErrorKind::NotFound, "the secret has expired")
                .with_advice("write it anew, or ask for it although it has expired")),
            Ended::Badly(_) => Err(self.not_opened(name, sealed_to, deadline, said)),
        }
    }

    /// Whether the program is there, and what `key` names can be sealed to and opened again. Nothing
    /// is changed: a host without a key is not given one.
    ///
    /// # Errors
    /// `InvalidConfig` where it is no such program, those of [`Sealer::seal`].
    pub(crate) fn works(&self) -> Result<()> {
        self.version(None)?;
        if self.uses_host_key() && host::has_no_key() {
            // Where /var is in memory, `auto` is the TPM2 alone.
            if self.key == "auto" && self.has_tpm2(None) {
                return Ok(());
            }
            return Err(host::no_key().with_advice(
                "make it: systemd-creds setup; or mount /var, or restore the key from a backup",
            ));
        }
        let value = SecretBytes::copy_from(TRIAL.as_bytes());
        self.seal(TRIAL, &value, None).map(drop)
    }

    /// The version of systemd that the program is of.
    fn version(&self, deadline: Option<Instant>) -> Result<u32> {
        let said = match self.program.run(&["--version"], b"", LARGEST, deadline)? {
            Ended::Well(said) => said,
            Ended::Badly(said) => {
                let does_not = self.is_no_program("does not say its version");
                return Err(does_not.with_source(said));
            }
        };
        // As "systemd 252 (252.39-1~deb12u2)" and "systemd 257.1".
        let number = std::str::from_utf8(said.expose())
            .ok()
            .and_then(|said| said.strip_prefix("systemd "))
            .and_then(|rest| rest.split(|letter: char| !letter.is_ascii_digit()).next())
            .and_then(|number| number.parse().ok());
        match number {
            Some(version) if version >= OLDEST => Ok(version),
            Some(version) => Err(self.is_no_program(&format!("is of systemd {version}"))),
            None => Err(self.is_no_program("does not say its version")),
        }
    }

    fn is_no_program(&self, why: &str) -> Error {
        Error::new(ErrorKind::InvalidConfig, format!("{} {why}", self.name)).with_advice(format!(
            "`program` is a systemd-creds of version {OLDEST} or later"
        ))
    }

    fn encrypt(
        &self,
        name: &str,
        key: &str,
        value: &[u8],
        deadline: Option<Instant>,
    ) -> Result<Ended> {
        let (name, key) = (format!("--name={name}"), format!("--with-key={key}"));
        let mut arguments = vec!["encrypt", &name, &key];
        arguments.extend(self.device.as_deref());
        arguments.extend(self.pcrs.as_deref());
        arguments.extend(["-", "-"]);
        self.program
            .run(&arguments, value, LARGEST_SEALED, deadline)
    }

    fn decrypt(
        &self,
        name: &str,
        time: Option<&str>,
        sealed: &[u8],
        deadline: Option<Instant>,
    ) -> Result<Ended> {
        let name = format!("--name={name}");
        let mut arguments = vec!["decrypt", &name, "--newline=no"];
        arguments.extend(time);
        arguments.extend(self.device.as_deref());
        arguments.extend(["-", "-"]);
        self.program.run(&arguments, sealed, LARGEST, deadline)
    }

    fn not_opened(
        &self,
        name: &str,
        sealed_to: SealedTo,
        deadline: Option<Instant>,
        said: String,
    ) -> Error {
        self.missing(name, sealed_to, deadline)
            .unwrap_or_else(|| self.damaged(name, sealed_to))
            .with_source(said)
    }

    /// Why it does not open, where that is not its own fault.
    fn missing(&self, name: &str, sealed_to: SealedTo, deadline: Option<Instant>) -> Option<Error> {
        if sealed_to.host_key && host::has_no_key() {
            return Some(host::no_key().with_advice(
                "if /var is not mounted yet, mount it; if the host was set up anew, restore the key from a backup, or set the secrets anew",
            ));
        }
        let version = match self.version(deadline) {
            Ok(version) => version,
            Err(error) => return Some(error),
        };
        if sealed_to.host_key
            && let Some(error) = host::no_right_to_key(version)
        {
            return Some(error);
        }
        if host::asks_service(version) && !self.does(&self.key, deadline) {
            return Some(host::refused_by_service());
        }
        if sealed_to.tpm2 && !self.has_tpm2(deadline) {
            return Some(host::no_tpm2(name, sealed_to));
        }
        sealed_to.signature.then(|| host::no_signature(name))?
    }

    fn damaged(&self, name: &str, sealed_to: SealedTo) -> Error {
        let advice = if sealed_to.tpm2 {
            "it is sealed to a state of this machine's TPM2, which firmware or Secure Boot's keys may have changed, or it was encrypted on another host, or is damaged: restore it from a backup, or set the secret anew"
        } else {
            "it was encrypted on another host, or for another name, or is damaged: restore it from a backup, or set the secret anew"
        };
        Error::new(
            ErrorKind::Corrupt,
            format!("{} does not open the credential {name}", self.name),
        )
        .with_advice(advice)
    }

    /// Whether there is a TPM2 to seal to: nothing is kept, to see.
    fn has_tpm2(&self, deadline: Option<Instant>) -> bool {
        let asked = self.encrypt(TRIAL, "tpm2", b"", deadline);
        matches!(asked, Ok(Ended::Well(_)))
    }

    /// Whether something is sealed to this key, and opens again.
    fn does(&self, key: &str, deadline: Option<Instant>) -> bool {
        let Ok(Ended::Well(sealed)) = self.encrypt(TRIAL, key, b"", deadline) else {
            return false;
        };
        let opened = self.decrypt(TRIAL, None, sealed.expose(), deadline);
        matches!(opened, Ok(Ended::Well(_)))
    }

    fn uses_host_key(&self) -> bool {
        self.key != "tpm2"
    }

    fn not_to_be_trusted(&self) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!("{} does not open what it just encrypted", self.name),
        )
        .with_advice("nothing was written: another `key`, or other `tpm2-pcrs`, may do")
    }

    fn not_sealed(&self, deadline: Option<Instant>, said: String) -> Error {
        // Where there is no host's key, the program makes one: that is no reason.
        let why = match self.version(deadline) {
            Ok(version) if self.uses_host_key() => host::no_right_to_key(version),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        why.unwrap_or_else(|| {
            Error::new(
                ErrorKind::Unavailable,
                format!("{} encrypts nothing", self.name),
            )
            .with_advice("`key` chooses what it seals to")
        })
        .with_source(said)
    }
}
