//! Credentials sealed to a TPM2, by a TPM2 in software.

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use keyhaul_core::{ErrorKind, GetOptions, PutOptions, SecretStore};
use keyhaul_servers::two_free_ports;
use support::{Place, path, secret};

const INSTALL: &str =
    "apt-get install swtpm libtss2-esys-3.0.2-0 libtss2-mu0 libtss2-rc0 libtss2-tcti-swtpm0";

/// `TPM2_FlushContext`, for all that a TPM2 of this kind has room for: sessions and objects.
const FLUSH: &str = r#"
import socket, struct, sys
try:
    tpm = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20)
    for handle in range(3):
        for kind in (0x02000000, 0x03000000, 0x80000000):
            tpm.sendall(struct.pack(">HIII", 0x8001, 14, 0x165, kind + handle))
            tpm.recv(10)
except OSError:
    pass
"#;

/// A TPM2, new from the factory. Gone with its handle.
struct Tpm {
    child: Child,
    port: u16,
    _state: tempfile::TempDir,
}

impl Tpm {
    fn new() -> Self {
        let state = tempfile::tempdir().expect("a folder");
        // Another program may take a port between the look and the use.
        for _ in 0..10 {
            let port = two_free_ports();
            let mut child = Command::new("swtpm")
                .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
                .arg(format!("--tpmstate=dir={}", state.path().display()))
                .arg(format!("--server=type=tcp,bindaddr=127.0.0.1,port={port}"))
                .arg(format!(
                    "--ctrl=type=tcp,bindaddr=127.0.0.1,port={}",
                    port + 1
                ))
                .stderr(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("swtpm: {error}; {INSTALL}"));
            let until = Instant::now() + Duration::from_secs(20);
            while Instant::now() < until && child.try_wait().expect("asked").is_none() {
                // It opens one after the other.
                let listens = |port: u16| TcpStream::connect(("127.0.0.1", port)).is_ok();
                if listens(port + 1) && listens(port) {
                    return Self {
                        child,
                        port,
                        _state: state,
                    };
                }
                thread::yield_now();
            }
            end(&mut child);
        }
        panic!("swtpm does not start");
    }

    /// A store that seals to it. What the program leaves in it where it fails is cleared away
    /// before the next run, as the kernel does it for those who use `/dev/tpmrm0`.
    fn store(&self, place: &Place, more: &[(&str, &str)]) -> Arc<dyn SecretStore> {
        let program = place.program(&format!("/usr/bin/python3 -c '{FLUSH}' {}", self.port));
        let program = program.to_string_lossy();
        let own = [
            ("tpm2-device", &*self.device()),
            ("key", "tpm2"),
            ("program", &program),
        ];
        place.store_with(&[&own, more].concat())
    }

    /// What the library calls it.
    fn device(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// Extends a PCR, as firmware does the seventh where Secure Boot's keys are others:
    /// `TPM2_PCR_Extend` of the TPM 2.0 library specification, part 3, with an empty password and one
    /// SHA-256 digest.
    fn extend(&self, pcr: u8) {
        let session = [0x40, 0, 0, 0x09, 0, 0, 0, 0, 0];
        let mut command = vec![0x80, 0x02, 0, 0, 0, 65, 0, 0, 0x01, 0x82, 0, 0, 0, pcr];
        command.extend((session.len() as u32).to_be_bytes());
        command.extend(session);
        command.extend([0, 0, 0, 1, 0, 0x0b]);
        command.extend([0x77; 32]);
        assert_eq!(command.len(), 65);
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the TPM");
        let limit = Some(Duration::from_secs(20));
        stream.set_read_timeout(limit).expect("a limit");
        stream.write_all(&command).expect("asked");
        let mut answer = [0; 10];
        stream.read_exact(&mut answer).expect("answered");
        assert_eq!(answer[6..], [0; 4], "{answer:02x?}");
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // Where it ended by itself, both do nothing.
    let _ = child.kill();
    let _ = child.wait();
}

async fn put(store: &dyn SecretStore, name: &str) {
    let options = PutOptions::default();
    let done = store.put(&path(name), &secret("value"), &options).await;
    done.expect("put");
}

/// Whether the value is read, or why not.
async fn read(store: &dyn SecretStore, name: &str) -> Result<(), ErrorKind> {
    let came = store.get(&path(name), &GetOptions::default()).await;
    let came = came.map_err(|error| {
        assert!(!format!("{error:?}").contains("\"value\""));
        error.kind()
    })?;
    assert_eq!(came.value.expose(), b"value");
    Ok(())
}

#[tokio::test]
async fn a_value_is_sealed_to_the_tpm2_and_opens_in_no_other() {
    let (tpm, other, place) = (Tpm::new(), Tpm::new(), Place::new());
    for (key, start) in [
        ("tpm2", "DHzAexF2RZGcSwvqCLwg/"),
        ("host+tpm2", "k6iUCUh0RJCQyvL8k8q1U"),
    ] {
        let store = tpm.store(&place, &[("key", key)]);
        put(&*store, "a").await;
        let file = fs::read_to_string(place.path().join("a")).expect("there");
        assert!(file.starts_with(start), "{key}: {file}");
        assert_eq!(read(&*store, "a").await, Ok(()));
        // What is read says by itself what it needs.
        let host = tpm.store(&place, &[("key", "host")]);
        assert_eq!(read(&*host, "a").await, Ok(()));
        let other = other.store(&place, &[]);
        assert_eq!(read(&*other, "a").await, Err(ErrorKind::Corrupt));
    }
}

#[tokio::test]
async fn what_is_sealed_to_signed_pcrs_is_no_damage_where_something_is_missing() {
    let (tpm, place) = (Tpm::new(), Place::new());
    let (key, public) = (place.path().join(".key"), place.path().join(".public"));
    let (key, public) = (key.to_string_lossy(), public.to_string_lossy());
    for arguments in [
        &["genpkey", "-algorithm", "RSA", "-out", &*key][..],
        &["pkey", "-in", &*key, "-pubout", "-out", &*public],
    ] {
        let made = Command::new("openssl").args(arguments).output();
        let made = made.unwrap_or_else(|error| panic!("{error}; apt-get install openssl"));
        assert!(made.status.success(), "{made:?}");
    }
    let device = format!("--tpm2-device={}", tpm.device());
    let public = format!("--tpm2-public-key={public}");
    for (name, key) in [
        ("a", "--with-key=tpm2-with-public-key"),
        ("b", "--with-key=host+tpm2-with-public-key"),
    ] {
        place.encrypt(name, &[key, &device, &public], "value");
    }
    let store = tpm.store(&place, &[]);
    // A host that was booted from a signed image has a signature, by another key.
    let signed = ["/etc", "/run", "/usr/local/lib", "/usr/lib"]
        .iter()
        .any(|above| fs::exists(format!("{above}/systemd/tpm2-pcr-signature.json")).expect("seen"));
    let (kind, word) = match signed {
        true => (ErrorKind::Corrupt, "does not open"),
        false => (ErrorKind::Unavailable, "no signature"),
    };
    for name in ["a", "b"] {
        let error = store.get(&path(name), &GetOptions::default()).await;
        let error = error.expect_err("not signed");
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.message().contains(word), "{error}");
    }
    // The control: what lacks nothing is damaged.
    let none = "A".repeat(200);
    fs::write(
        place.path().join("c"),
        format!("DHzAexF2RZGcSwvqCLwg/g{none}"),
    )
    .expect("written");
    assert_eq!(read(&*store, "c").await, Err(ErrorKind::Corrupt));
    drop(tpm);
    for name in ["a", "b"] {
        let error = store.get(&path(name), &GetOptions::default()).await;
        let error = error.expect_err("no TPM2");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.message().contains("sealed to a TPM2"), "{error}");
    }
}

#[tokio::test]
async fn a_tpm2_that_is_gone_is_no_damage() {
    let (tpm, place) = (Tpm::new(), Place::new());
    let store = tpm.store(&place, &[]);
    put(&*store, "a").await;
    store.probe().await.expect("the control");
    drop(tpm);
    let error = store.probe().await.expect_err("gone");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(read(&*store, "a").await, Err(ErrorKind::Unavailable));
    let options = PutOptions::default();
    let error = store.put(&path("b"), &secret("value"), &options).await;
    assert_eq!(error.expect_err("gone").kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn what_is_bound_to_secure_boot_goes_with_it_and_what_is_bound_elsewhere_stays() {
    let (tpm, place) = (Tpm::new(), Place::new());
    // systemd takes PCRs that were never extended for such as firmware does not keep.
    tpm.extend(7);
    tpm.extend(16);
    let bound = tpm.store(&place, &[("tpm2-pcrs", "7")]);
    let elsewhere = tpm.store(&place, &[("tpm2-pcrs", "16")]);
    put(&*bound, "bound").await;
    put(&*elsewhere, "elsewhere").await;
    assert_eq!(read(&*bound, "bound").await, Ok(()));
    tpm.extend(7);
    assert_eq!(read(&*bound, "bound").await, Err(ErrorKind::Corrupt));
    assert_eq!(read(&*elsewhere, "elsewhere").await, Ok(()));
}

#[tokio::test]
async fn what_would_not_open_again_is_not_written() {
    let (tpm, place) = (Tpm::new(), Place::new());
    tpm.extend(7);
    put(&*tpm.store(&place, &[]), "a").await;
    // Version 252 seals to no PCR, and then does not open it. Others may.
    let store = tpm.store(&place, &[("tpm2-pcrs", "")]);
    let options = PutOptions::default();
    match store.put(&path("a"), &secret("other"), &options).await {
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            assert_eq!(read(&*store, "a").await, Ok(()), "the old value");
        }
        Ok(_) => {
            tpm.extend(7);
            let came = store.get(&path("a"), &GetOptions::default()).await;
            assert_eq!(came.expect("bound to nothing").value.expose(), b"other");
        }
    }
}
