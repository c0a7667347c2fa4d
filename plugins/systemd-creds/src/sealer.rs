//! Sealing and opening values by the program, and why that fails where it does.

use std::time::{Duration, Instant};

use keyhaul_core::{Error, ErrorKind, Result, SecretBytes};
use rustix::fs::Access;
use rustix::io::Errno;

use crate::MAX_VALUE;
use crate::config::Settings;
use crate::envelope::{self, SealedTo};
use crate::program::{Ended, Program};

/// The most that systemd encrypts: others may have written more than the store does.
const LARGEST: usize = 1024 * 1024;
/// The most that a credential of this store's takes, encrypted and in Base64.
const LARGEST_SEALED: usize = MAX_VALUE * 2;
/// How long a run of the program may take: a TPM can be slow, and busy.
const LIMIT: Duration = Duration::from_secs(20);
/// Where systemd keeps the host's key.
const HOST_KEY: &str = "/var/lib/systemd/credential.secret";

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
            Ended::Badly(said) => return Err(self.not_sealed(said)),
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

    /// Whether the program is there and answers.
    ///
    /// # Errors
    /// `InvalidConfig` where it is no such program.
    pub(crate) fn works(&self) -> Result<()> {
        match self.program.run(&["--version"], b"", LARGEST, None)? {
            Ended::Well(_) => Ok(()),
            Ended::Badly(said) => Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("{} does not work", self.name),
            )
            .with_source(said)),
        }
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
        let error = if sealed_to.needs_host_key()
            && let Some(error) = no_host_key()
        {
            error
        } else if sealed_to.needs_tpm2() && !self.has_tpm2(deadline) {
            Error::new(
                ErrorKind::Unavailable,
                format!("the credential {name} is sealed to a TPM2, and there is none that systemd can use"),
            )
            .with_advice("`systemd-creds has-tpm2` says what is missing: firmware, driver or libraries")
        } else {
            self.damaged(name, sealed_to)
        };
        error.with_source(said)
    }

    fn damaged(&self, name: &str, sealed_to: SealedTo) -> Error {
        let advice = if sealed_to.needs_tpm2() {
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

    /// Whether there is a TPM2 to seal to: nothing is sealed, to see.
    fn has_tpm2(&self, deadline: Option<Instant>) -> bool {
        let asked = self.encrypt("nothing", "tpm2", b"", deadline);
        matches!(asked, Ok(Ended::Well(_)))
    }

    fn not_to_be_trusted(&self) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!("{} does not open what it just encrypted", self.name),
        )
        .with_advice("nothing was written: another `key`, or other `tpm2-pcrs`, may do")
    }

    fn not_sealed(&self, said: String) -> Error {
        // Where there is no host's key, the program makes one: that is no reason.
        no_right_to_the_key()
            .unwrap_or_else(|| {
                Error::new(
                    ErrorKind::Unavailable,
                    format!("{} encrypts nothing", self.name),
                )
                .with_advice("what it says stands below; `key` chooses what it seals to")
            })
            .with_source(said)
    }
}

/// Why what is sealed to the host's key does not open, where that is the key's fault.
fn no_host_key() -> Option<Error> {
    match rustix::fs::access(HOST_KEY, Access::EXISTS) {
        Err(Errno::NOENT) => Some(
            Error::new(
                ErrorKind::Unavailable,
                format!("this host has no key for credentials: {HOST_KEY} is not there"),
            )
            .with_advice(format!(
                "if /var is not mounted yet, mount it; if the host was set up anew, restore {HOST_KEY} from a backup, or set the secrets anew"
            )),
        ),
        _ => no_right_to_the_key(),
    }
}

/// The likeliest reason for whoever is not root.
fn no_right_to_the_key() -> Option<Error> {
    let denied = rustix::fs::access(HOST_KEY, Access::READ_OK) == Err(Errno::ACCESS);
    denied.then(|| {
        Error::new(
            ErrorKind::PermissionDenied,
            "only root may use this host's key for credentials",
        )
        .with_advice("run keyhaul as root; from version 256 on, systemd can do it for others")
    })
}
