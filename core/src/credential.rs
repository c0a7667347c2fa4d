//! Credentials: always named by their source, never written into a policy.

use std::fmt;
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind, Result, SecretBytes, SecretWriter, typed};

/// Where a credential comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialSource {
    /// `credential:NAME`: a file of that name in systemd's `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// `env:NAME`: an environment variable.
    Env(String),
    /// `fd:N`: an inherited descriptor, read once to its end, and from then on closed to the
    /// programs that this process starts.
    Fd(RawFd),
    /// `file:PATH`: a file that only its owner can read.
    File(PathBuf),
}

impl CredentialSource {
    /// The longest credential, in bytes.
    pub const MAX: usize = 1024 * 1024;

    /// Reads `env:NAME`, `file:PATH`, `credential:NAME` or `fd:N`.
    ///
    /// # Errors
    /// `InvalidConfig` with the list of forms. The text itself is not repeated: it may be the
    /// credential, written where its source belongs.
    pub fn parse(text: &str) -> Result<Self> {
        let known =
            "a credential is named by its source: env:NAME, file:PATH, credential:NAME or fd:N";
        let refuse = |rule: String| Err(Error::new(ErrorKind::InvalidConfig, rule));
        match text.split_once(':') {
            Some((_, "")) => refuse(known.into()),
            Some(("env", name)) if !name.contains(['=', '\0']) => Ok(Self::Env(name.into())),
            Some(("file", path)) if path.starts_with('/') => Ok(Self::File(path.into())),
            Some(("file", _)) => refuse("the path of `file:` is absolute".into()),
            Some(("credential", name)) if name.contains('/') || name.starts_with('.') => {
                refuse("the name of `credential:` is a plain file name".into())
            }
            Some(("credential", name)) => Ok(Self::Credential(name.into())),
            Some(("fd", number)) => match number.parse::<RawFd>() {
                Ok(fd) if fd >= 0 => Ok(Self::Fd(fd)),
                _ => refuse("the number of `fd:` is a descriptor, as in fd:3".into()),
            },
            _ => refuse(known.into()),
        }
    }

    /// The file behind the source, where there is one.
    ///
    /// # Errors
    /// `InvalidConfig` for `credential:` outside a systemd unit.
    pub fn path(&self) -> Result<Option<PathBuf>> {
        match self {
            Self::File(path) => Ok(Some(path.clone())),
            Self::Credential(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                    Error::new(
                        ErrorKind::InvalidConfig,
                        format!("{self} needs $CREDENTIALS_DIRECTORY, which is not set"),
                    )
                    .with_advice("run in a systemd unit with LoadCredential=, or name a file:PATH")
                })?;
                Ok(Some(Path::new(&folder).join(name)))
            }
            Self::Env(_) | Self::Fd(_) => Ok(None),
        }
    }

    /// Reads the credential, exactly as it is: a trailing newline is the caller's to drop.
    ///
    /// # Errors
    /// `InvalidConfig` where the source is not there or no file, `PermissionDenied` where a file can
    /// be read by others, belongs to another user, or cannot be read by us, `TooLarge` above
    /// [`MAX`](Self::MAX).
    pub fn read(&self) -> Result<SecretBytes> {
        if let Self::Env(name) = self {
            let value = std::env::var_os(name).ok_or_else(|| self.missing("is not set"))?;
            return Ok(SecretBytes::copy_from(value.as_bytes()));
        }
        let mut file = match (self, self.path()?) {
            (_, Some(path)) => self.open_private(&path)?,
            (Self::Fd(fd), _) => open_inherited(*fd)
                .map_err(|error| self.missing("is not an open descriptor").with_source(error))?,
            _ => return Err(self.missing("cannot be read")),
        };
        let mut writer = SecretWriter::with_limit(Self::MAX);
        writer
            .read_all(&mut file)
            .map_err(|error| error.with_place(self))?;
        Ok(writer.finish())
    }

    fn open_private(&self, path: &Path) -> Result<File> {
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                self.missing(&format!("is not there: {} does not exist", path.display()))
            }
            _ => Error::io(format!("{self} cannot be read"), error),
        };
        // Not to wait for the other end of what is a pipe.
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            let error = self.missing(&format!("is no file: {}", path.display()));
            return Err(error.with_advice("a pipe is named by its descriptor, as fd:3"));
        }
        let us = rustix::process::geteuid().as_raw();
        if ![0, us].contains(&metadata.uid()) {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!(
                    "{} belongs to uid {}, who could read and change the credential",
                    path.display(),
                    metadata.uid()
                ),
            )
            .with_advice(format!("chown {us} {}", typed(path))));
        }
        // systemd gives credential files 0400 or, for a unit's user, an ACL whose mask shows as
        // group bits; their folder is private.
        let open = if matches!(self, Self::Credential(_)) {
            0o007
        } else {
            0o077
        };
        if metadata.mode() & open != 0 {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!(
                    "{} has mode {:04o}: others could read the credential",
                    path.display(),
                    metadata.mode() & 0o7777
                ),
            )
            .with_advice(format!("chmod 0600 {}", typed(path))));
        }
        Ok(file)
    }

    fn missing(&self, what: &str) -> Error {
        Error::new(
            ErrorKind::InvalidConfig,
            format!("the credential {self} {what}"),
        )
    }
}

impl fmt::Display for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(name) => write!(f, "credential:{name}"),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::Fd(fd) => write!(f, "fd:{fd}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

fn open_inherited(fd: RawFd) -> std::io::Result<File> {
    let path = format!("/dev/fd/{fd}");
    // A pipe is opened anew by its path, which leaves the caller's position in a file alone.
    let file = match File::open(&path) {
        Ok(file) => file,
        // Sockets cannot be opened by path: duplicate them.
        Err(_) => {
            // SAFETY: F_DUPFD_CLOEXEC takes any number and fails on one that is not open.
            let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
            if copy < 0 {
                return Err(std::io::Error::last_os_error());
            }
            // SAFETY: `copy` is a new descriptor that nothing else owns.
            File::from(unsafe { OwnedFd::from_raw_fd(copy) })
        }
    };
    // A program that is started later has no use for it, and could read a file again. It does
    // need the three standard streams.
    // SAFETY: F_SETFD takes any number and fails on one that is not open.
    if fd > 2 && unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn forms_round_trip_and_the_rest_is_refused_without_being_repeated() {
        for text in [
            "env:VAULT_TOKEN",
            "file:/etc/keyhaul/id",
            "credential:id",
            "fd:3",
        ] {
            assert_eq!(CredentialSource::parse(text).expect(text).to_string(), text);
        }
        for text in [
            "hunter2",
            "pass:hunter2",
            "env:",
            "file:relative",
            "credential:../x",
            "fd:-1",
        ] {
            let error = CredentialSource::parse(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn files_are_read_exactly_and_only_when_private() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("id");
        std::fs::write(&path, "secret\n").expect("written");
        let source = CredentialSource::parse(&format!("file:{}", path.display())).expect("valid");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).expect("mode");
        let error = source.read().expect_err("readable by others");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(
            error
                .advice()
                .is_some_and(|advice| advice.starts_with("chmod 0600 "))
        );
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
        assert_eq!(source.read().expect("read").expose(), b"secret\n");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(
            source.read().expect_err("gone").kind(),
            ErrorKind::InvalidConfig
        );
    }

    #[test]
    fn descriptors_are_read_to_their_end() {
        let (read, mut write) = std::io::pipe().expect("pipe");
        write.write_all(b"secret").expect("written");
        drop(write);
        let source = CredentialSource::Fd(read.as_raw_fd());
        assert_eq!(source.read().expect("read").expose(), b"secret");
        assert!(CredentialSource::Fd(9999).read().is_err());
    }

    #[test]
    fn a_program_that_is_started_later_does_not_inherit_the_descriptor() {
        let file = tempfile::tempfile().expect("file");
        let inherits = || {
            let fd = rustix::io::fcntl_getfd(&file).expect("flags");
            !fd.contains(rustix::io::FdFlags::CLOEXEC)
        };
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).expect("set");
        assert!(inherits());
        CredentialSource::Fd(file.as_raw_fd()).read().expect("read");
        assert!(!inherits());
    }

    #[test]
    fn a_pipe_is_no_file_and_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).expect("pipe");
        let error = CredentialSource::File(path).read().expect_err("a pipe");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("id");
        std::fs::write(&path, "secret").expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
        if std::os::unix::fs::chown(&path, Some(65534), None).is_err() {
            // Only root can give a file away.
            assert!(!rustix::process::geteuid().is_root());
            return;
        }
        let source = CredentialSource::File(path.clone());
        let error = source.read().expect_err("nobody's");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.message().contains("uid 65534"), "{error}");
        std::os::unix::fs::chown(&path, Some(0), None).expect("given back");
        source.read().expect("root's");
    }
}
