//! TLS against real servers: each thing that can be wrong with a certificate names its setting.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyhaul_core::ErrorKind;
use keyhaul_servers::{Authority, Certificate, OpenBao, Setup, eventually, free_port};
use rustls::pki_types::ServerName;

use super::*;

async fn refused<const N: usize>(address: &str, given: [(&str, Value); N]) -> Error {
    let outcome = http(address, given).ask(health()).await;
    outcome.map(drop).expect_err("refused")
}

fn ca(server: &OpenBao) -> (&'static str, Value) {
    ("ca-cert", text(server.ca_path().display()))
}

#[track_caller]
fn names(error: &Error, kind: ErrorKind, setting: &str) {
    assert_eq!(error.kind(), kind, "{}", whole(error));
    let advice = error.advice().unwrap_or_default();
    assert!(advice.contains(setting), "{setting} in: {}", whole(error));
}

#[tokio::test]
async fn the_authority_comes_from_a_file_a_text_or_a_folder() {
    let server = tls_server();
    let address = server.address();
    let pem = std::fs::read_to_string(server.ca_path()).expect("read");
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("one.pem"), &pem).expect("written");
    std::fs::write(folder.path().join("README"), "nothing").expect("written");
    for (name, value) in [
        ("ca-cert", server.ca_path().display().to_string()),
        ("ca-cert-bytes", pem.clone()),
        ("ca-path", folder.path().display().to_string()),
    ] {
        let wire = http(address, [(name, text(&value))]);
        wire.ask(health()).await.map(drop).expect(name);
    }
    for (name, value) in [
        ("VAULT_CACERT", server.ca_path().display().to_string()),
        ("BAO_CACERT_BYTES", pem),
        ("VAULT_CAPATH", folder.path().display().to_string()),
    ] {
        let wire = wire(address, options([]), &[(name, &value)]);
        wire.ask(health()).await.map(drop).expect(name);
    }
}

#[tokio::test]
async fn an_authority_that_cannot_be_read_is_named_with_its_setting() {
    let address = tls_server().address();
    let folder = tempfile::tempdir().expect("folder");
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing").expect("written");
    for (name, value) in [
        ("ca-cert", text("/nowhere/ca.pem")),
        ("ca-cert", text(empty.display())),
        ("ca-cert-bytes", text("nothing")),
        ("ca-path", text("/nowhere")),
        ("ca-path", text(folder.path().display())),
    ] {
        let error = refused(address, [(name, value)]).await;
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
        assert!(error.message().contains(&format!("`{name}`")), "{error}");
    }
}

#[tokio::test]
async fn an_unknown_authority_names_ca_cert() {
    let server = tls_server();
    let folder = tempfile::tempdir().expect("folder");
    let other = folder.path().join("other.pem");
    // The same name, another key.
    for name in ["another", "keyhaul tests"] {
        std::fs::write(&other, Authority::new(name).pem()).expect("written");
        let error = refused(server.address(), [("ca-cert", text(other.display()))]).await;
        names(&error, ErrorKind::InvalidConfig, "ca-cert");
    }
    // What is in the environment does not count where the policy names one.
    let path = server.ca_path().display().to_string();
    let given = options([("ca-cert", text(other.display()))]);
    let error = wire(server.address(), given, &[("VAULT_CACERT_BYTES", &path)])
        .ask(health())
        .await
        .map(drop)
        .expect_err("the policy's counts");
    names(&error, ErrorKind::InvalidConfig, "VAULT_CACERT");
}

#[tokio::test]
async fn without_an_authority_of_its_own_a_store_believes_the_systems_and_names_ca_cert() {
    let error = refused(tls_server().address(), []).await;
    names(&error, ErrorKind::InvalidConfig, "ca-cert");
}

#[test]
fn the_systems_certificates_are_read_only_where_a_store_has_no_authority_of_its_own() {
    let folder = tempfile::tempdir().expect("folder");
    let system = folder.path().join("system.pem");
    std::fs::write(&system, Authority::new("system").pem()).expect("written");
    let opened = |test: &str| {
        let test = format!("http::tests::tls::{test}");
        let output = std::process::Command::new("strace")
            .args(["-f", "-e", "trace=openat"])
            .arg(std::env::current_exe().expect("this program"))
            .args(["--exact", &test])
            .env("SSL_CERT_FILE", &system)
            .env_remove("SSL_CERT_DIR")
            .output()
            .expect("strace runs: apt-get install strace");
        assert!(output.status.success(), "{test}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("1 passed"), "{said}");
        String::from_utf8_lossy(&output.stderr)
            .matches("/system.pem")
            .count()
    };
    assert_eq!(
        opened("the_authority_comes_from_a_file_a_text_or_a_folder"),
        0
    );
    let control = "without_an_authority_of_its_own_a_store_believes_the_systems_and_names_ca_cert";
    assert!(opened(control) > 0);
}

#[tokio::test]
async fn a_certificate_that_a_server_signed_itself_names_ca_cert() {
    let folder = tempfile::tempdir().expect("folder");
    let server = SelfSigned::start(folder.path());
    let address = format!("https://127.0.0.1:{}", server.port);
    let error = refused(&address, [ca(tls_server())]).await;
    names(&error, ErrorKind::InvalidConfig, "ca-cert");
    // It is an authority's besides: naming it does not help, and the advice says why.
    let own = [("ca-cert", text(folder.path().join("self.crt").display()))];
    let error = refused(&address, own).await;
    names(&error, ErrorKind::InvalidConfig, "openssl req -x509");
    let off = [("skip-verify", Value::Boolean(true))];
    http(&address, off)
        .ask(health())
        .await
        .map(drop)
        .expect("the control");
}

/// A server with what `openssl req -x509` makes.
struct SelfSigned {
    child: std::process::Child,
    port: u16,
}

impl SelfSigned {
    fn start(folder: &std::path::Path) -> Self {
        let openssl = |arguments: &str| {
            let mut command = std::process::Command::new("openssl");
            command.args(arguments.split(' ')).current_dir(folder);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command
        };
        let made = openssl(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=vault -addext subjectAltName=IP:127.0.0.1 -keyout self.key -out self.crt",
        );
        let made = { made }
            .status()
            .expect("openssl runs: apt-get install openssl");
        assert!(made.success());
        let port = free_port();
        let serve = format!("s_server -accept {port} -cert self.crt -key self.key -www");
        let child = openssl(&serve).spawn().expect("openssl runs");
        eventually("openssl listens", Duration::from_secs(20), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { child, port }
    }
}

impl Drop for SelfSigned {
    fn drop(&mut self) {
        // It has no other end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn an_expired_certificate_is_called_so() {
    let server = Setup::tls().certificate(Certificate::Expired).start();
    let error = refused(server.address(), [ca(&server)]).await;
    assert!(error.message().contains("expired"), "{error}");
    names(&error, ErrorKind::InvalidConfig, "clock");
}

#[tokio::test]
async fn a_certificate_for_another_name_names_tls_server_name_which_mends_it() {
    let server = Setup::tls().certificate(Certificate::WrongName).start();
    let error = refused(server.address(), [ca(&server)]).await;
    names(&error, ErrorKind::InvalidConfig, "tls-server-name");
    let mended = [ca(&server), ("tls-server-name", text("elsewhere.example"))];
    http(server.address(), mended)
        .ask(health())
        .await
        .map(drop)
        .expect("mended");
    let error = refused(
        server.address(),
        [ca(&server), ("tls-server-name", text("nowhere.example"))],
    )
    .await;
    names(&error, ErrorKind::InvalidConfig, "tls-server-name");
}

#[tokio::test]
async fn verification_is_off_only_by_name() {
    let server = Setup::tls().certificate(Certificate::WrongName).start();
    let off = [("skip-verify", Value::Boolean(true))];
    http(server.address(), off)
        .ask(health())
        .await
        .map(drop)
        .expect("anyone");
    let on = options([("skip-verify", Value::Boolean(false)), ca(&server)]);
    let environment = [("VAULT_SKIP_VERIFY", "true")];
    let policy = wire(server.address(), on, &environment).ask(health()).await;
    policy.map(drop).expect_err("the policy's counts");
    let by_environment = wire(server.address(), options([]), &environment);
    by_environment
        .ask(health())
        .await
        .map(drop)
        .expect("anyone");
    // Set to nothing is not set to true.
    let empty = wire(
        server.address(),
        options([ca(&server)]),
        &[("VAULT_SKIP_VERIFY", "")],
    );
    empty.ask(health()).await.map(drop).expect_err("verified");
}

#[tokio::test]
async fn each_time_verification_is_off_there_is_a_warning() {
    let warnings = Warnings::default();
    let guard = tracing::subscriber::set_default(warnings.clone());
    let count = || warnings.0.load(Ordering::Relaxed);
    let server = tls_server();
    http(server.address(), [ca(server)])
        .ask(health())
        .await
        .map(drop)
        .expect("verified");
    assert_eq!(count(), 0);
    for times in 1..=2 {
        let off = [("skip-verify", Value::Boolean(true))];
        http(server.address(), off)
            .ask(health())
            .await
            .map(drop)
            .expect("anyone");
        assert_eq!(count(), times);
    }
    drop(guard);
}

/// Counts the warnings of this crate.
#[derive(Clone, Debug, Default)]
struct Warnings(Arc<AtomicUsize>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN && metadata.target().starts_with("keyhaul")
    }

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_client_certificate_that_is_wanted_is_asked_for_by_its_settings() {
    let server = Setup::tls().require_client_certificates().start();
    let error = refused(server.address(), [ca(&server)]).await;
    names(&error, ErrorKind::Unauthenticated, "client-cert");

    let with = |(certificate, key): &(std::path::PathBuf, std::path::PathBuf)| {
        [
            ca(&server),
            ("client-cert", text(certificate.display())),
            ("client-key", text(key.display())),
        ]
    };
    let ours = server.client_certificate("node7");
    http(server.address(), with(&ours))
        .ask(health())
        .await
        .map(drop)
        .expect("believed");

    let folder = tempfile::tempdir().expect("folder");
    let foreign = Authority::new("another")
        .client("node7")
        .write(folder.path(), "foreign");
    let error = refused(server.address(), with(&foreign)).await;
    names(&error, ErrorKind::Unauthenticated, "client-cert");

    // Two halves of two pairs.
    let error = refused(server.address(), with(&(ours.0.clone(), foreign.1))).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");

    std::fs::set_permissions(&ours.1, PermissionsExt::from_mode(0o644)).expect("mode");
    let error = refused(server.address(), with(&ours)).await;
    names(&error, ErrorKind::PermissionDenied, "chmod 0600");
    assert!(error.message().contains("client-key"), "{error}");
}

#[tokio::test]
async fn a_server_that_speaks_tls_and_a_client_that_does_not_and_the_reverse() {
    let server = tls_server();
    let clear = server.address().replace("https", "http");
    let error = refused(&clear, []).await;
    names(&error, ErrorKind::InvalidConfig, "vault+https");
    let over = dev().address().replace("http", "https");
    let error = refused(&over, [ca(server)]).await;
    names(&error, ErrorKind::InvalidConfig, "vault+http");
}

#[tokio::test]
async fn the_key_exchange_is_hybrid_post_quantum() {
    let server = tls_server();
    let given = options([ca(server)]);
    let address = Address::parse(server.address(), "it").expect("address");
    let settings = Settings::new(Some(address), &given, &Environment::of(&[])).expect("settings");
    let config = super::super::tls::config(&settings.tls, true)
        .await
        .expect("config");
    let name = ServerName::try_from("127.0.0.1").expect("name");
    let mut session = rustls::ClientConnection::new(Arc::new(config), name).expect("session");
    let host = server.address().trim_start_matches("https://");
    let mut socket = TcpStream::connect(host).expect("connected");
    while session.is_handshaking() {
        session.complete_io(&mut socket).expect("handshake");
    }
    let group = session.negotiated_key_exchange_group().expect("a group");
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
}
