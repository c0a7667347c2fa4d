use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn node(name: &str) -> Subject {
    Subject::client(name, format!("spiffe://site/node/{name}"))
}

/// What OpenSSL, which knows nothing of ours, says.
fn openssl(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("openssl")
        .args(arguments)
        .output()
        .expect("openssl: apt-get install openssl");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8(text).expect("text"),
    )
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn verified(authority: &Authority, issued: &Issued, purpose: &str) -> (bool, String) {
    openssl(&[
        "verify",
        "-x509_strict",
        "-crl_check",
        "-purpose",
        purpose,
        "-CAfile",
        text(&authority.certificate()),
        "-CRLfile",
        text(&authority.crl()),
        text(&issued.certificate),
    ])
}

#[test]
fn what_is_issued_is_what_openssl_sees() {
    let folder = folder();
    let authority = Authority::create(folder.path(), "site").expect("made");
    let (dns, ips) = (
        vec!["keys.example".to_owned()],
        vec!["127.0.0.1".parse().expect("an address")],
    );
    let server = authority
        .issue(&Subject::server("server", dns, ips), LIFETIME)
        .expect("issued");
    let node = authority.issue(&node("node-a"), DAY).expect("issued");

    for (issued, purpose, other) in [
        (&server, "sslserver", "sslclient"),
        (&node, "sslclient", "sslserver"),
    ] {
        let (good, said) = verified(&authority, issued, purpose);
        assert!(good, "{said}");
        assert!(
            !verified(&authority, issued, other).0,
            "{purpose} is all it is for"
        );
        let mode = fs::metadata(&issued.key)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let (_, public) = openssl(&["pkey", "-in", text(&issued.key), "-pubout"]);
        let (_, certified) = openssl(&[
            "x509",
            "-in",
            text(&issued.certificate),
            "-noout",
            "-pubkey",
        ]);
        assert_eq!(public, certified);
    }
    let shown =
        |issued: &Issued| openssl(&["x509", "-in", text(&issued.certificate), "-noout", "-text"]).1;
    assert!(shown(&server).contains("DNS:keys.example, IP Address:127.0.0.1"));
    let said = shown(&node);
    assert!(said.contains("URI:spiffe://site/node/node-a"), "{said}");
    assert!(
        said.contains("NIST CURVE: P-256") && said.contains("CA:FALSE"),
        "{said}"
    );
    // A day from now, to the second that the index has.
    let (_, end) = openssl(&[
        "x509",
        "-in",
        text(&node.certificate),
        "-noout",
        "-enddate",
        "-dateopt",
        "iso_8601",
    ]);
    let expected = format!(
        "notAfter={}",
        node.record.expires.to_string().replace('T', " ")
    );
    assert_eq!(end.trim(), expected);
    let (_, serial) = openssl(&["x509", "-in", text(&node.certificate), "-noout", "-serial"]);
    assert_eq!(
        serial.trim().to_lowercase(),
        format!("serial={}", node.record.serial)
    );
    let ca = text(&authority.certificate()).to_owned();
    let (_, ca) = openssl(&["x509", "-in", &ca, "-noout", "-text"]);
    assert!(ca.contains("CA:TRUE, pathlen:0"), "{ca}");
}

#[test]
fn a_folder_with_an_authority_is_never_overwritten() {
    let folder = folder();
    Authority::create(folder.path(), "site").expect("made");
    let before = fs::read(folder.path().join("ca.key")).expect("there");
    let error = Authority::create(folder.path(), "other").expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(
        fs::read(folder.path().join("ca.key")).expect("there"),
        before
    );
    assert_eq!(
        Authority::open(folder.path()).expect("opened").name(),
        "site"
    );
}

#[test]
fn what_is_revoked_is_on_the_list_and_the_rest_is_not() {
    let folder = folder();
    Authority::create(folder.path(), "site").expect("made");
    // As another process does.
    let authority = Authority::open(folder.path()).expect("opened");
    let a = authority.issue(&node("node-a"), DAY).expect("issued");
    let b = authority.issue(&node("node-b"), DAY).expect("issued");
    let revoked = authority.revoke("node-a").expect("revoked");
    assert_eq!(revoked.len(), 1);
    let (good, said) = verified(&authority, &a, "sslclient");
    assert!(!good && said.contains("certificate revoked"), "{said}");
    assert!(verified(&authority, &b, "sslclient").0);
    let by_serial = authority.revoke(&b.record.serial).expect("revoked");
    assert_eq!(by_serial[0].stem, "node-b");
    assert!(!verified(&authority, &b, "sslclient").0);
    let (_, number) = openssl(&["crl", "-in", text(&authority.crl()), "-noout", "-crlnumber"]);
    assert_eq!(number.trim(), "crlNumber=0x03");
    for nobody in ["node-a", "node-c"] {
        let error = authority.revoke(nobody).expect_err(nobody);
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    // The name is free again.
    let again = authority.issue(&node("node-a"), DAY).expect("issued");
    assert!(verified(&authority, &again, "sslclient").0);
}

#[test]
fn a_renewed_certificate_has_the_same_names_and_another_key() {
    let folder = folder();
    let authority = Authority::create(folder.path(), "site").expect("made");
    let first = authority.issue(&node("node-a"), DAY).expect("issued");
    let key = fs::read(&first.key).expect("there");
    let error = authority
        .issue(&node("node-a"), DAY)
        .expect_err("there already");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let second = authority.renew("node-a", LIFETIME).expect("renewed");
    assert_eq!(second.record.uri, first.record.uri);
    assert_ne!(second.record.serial, first.record.serial);
    assert!(second.record.expires > first.record.expires);
    assert_ne!(fs::read(&second.key).expect("there"), key);
    assert!(verified(&authority, &second, "sslclient").0);
    let stems = authority.list().expect("listed");
    assert_eq!(stems.iter().filter(|record| record.is_live()).count(), 2);
    // Both, since both are valid.
    assert_eq!(authority.revoke("node-a").expect("revoked").len(), 2);
    let error = authority.renew("node-a", DAY).expect_err("revoked");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let folder = folder();
    for site in ["", "Site", "a/b", &"a".repeat(65)] {
        let error = Authority::create(folder.path(), site).expect_err(site);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }
    assert_eq!(
        Authority::open(folder.path()).expect_err("none").kind(),
        ErrorKind::InvalidConfig
    );
    let authority = Authority::create(folder.path(), "site").expect("made");
    let server = |name: &str| Subject::server("server", vec![name.to_owned()], Vec::new());
    for subject in [
        node(""),
        node("../x"),
        node(".hidden"),
        node("ca"),
        Subject::client("x", "no uri"),
        server("10.0.0.1"),
        server("a b"),
        server("-a"),
        Subject::server("server", Vec::new(), Vec::new()),
    ] {
        let error = authority.issue(&subject, DAY).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{subject:?}");
    }
    for lifetime in [Duration::ZERO, 20 * 365 * DAY, Duration::MAX] {
        let error = authority
            .issue(&node("node-a"), lifetime)
            .expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }
    assert_eq!(authority.list().expect("listed"), []);
}

#[test]
fn a_key_that_others_can_read_and_a_damaged_index_are_refused() {
    let folder = folder();
    let authority = Authority::create(folder.path(), "site").expect("made");
    authority.issue(&node("node-a"), DAY).expect("issued");
    let key = folder.path().join("ca.key");
    let set = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("set");
    set(0o644);
    let error = Authority::open(folder.path()).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    set(0o600);
    Authority::open(folder.path()).expect("the control");
    let index = folder.path().join("index.jsonl");
    let text = fs::read_to_string(&index).expect("there");
    fs::write(&index, &text[..text.len() - 20]).expect("cut");
    let error = Authority::open(folder.path()).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let place = error.context().place.clone().expect("a place");
    assert!(place.ends_with("index.jsonl:2"), "{place}");
}

#[test]
fn many_writers_lose_nothing() {
    let folder = folder();
    Authority::create(folder.path(), "site").expect("made");
    std::thread::scope(|scope| {
        for number in 0..8 {
            let path = folder.path();
            scope.spawn(move || {
                let authority = Authority::open(path).expect("opened");
                authority
                    .issue(&node(&format!("node-{number}")), DAY)
                    .expect("issued");
            });
        }
    });
    let listed = Authority::open(folder.path()).and_then(|authority| authority.list());
    assert_eq!(listed.expect("listed").len(), 8);
}
