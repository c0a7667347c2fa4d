//! Every method logs in where it should, and nowhere else.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::Value;

use super::*;

#[tokio::test]
async fn approle_opens_with_its_secret_and_not_with_another() {
    let files = Files::new();
    let method = approle(&files, "ar-plain", &json!({"token_policies": ["reader"]}));
    let http = http(server().address());
    read(&http, &identity(&http, method.clone()), "apps/web")
        .await
        .expect("opened");
    for name in ["secret-id", "role-id"] {
        files.write(name, "00000000-0000-0000-0000-000000000000");
        let error = identity(&http, method.clone())
            .token(None)
            .await
            .expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
        assert!(
            error.message().contains("approle at auth/ar-plain"),
            "{error}"
        );
        assert!(!format!("{error:?}").contains("00000000"), "{error:?}");
    }
}

#[tokio::test]
async fn a_mount_that_is_not_there_is_told_with_the_setting() {
    let files = Files::new();
    let keys = [
        ("method", "userpass"),
        ("mount", "nowhere"),
        ("username", "web"),
        ("password", &files.write("password", "hunter2")),
    ];
    let http = http(server().address());
    let error = identity(&http, method(&keys))
        .token(None)
        .await
        .expect_err("no mount");
    // OpenBao does not tell a stranger which mounts there are.
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(error.message().contains("auth/nowhere"), "{error}");
    assert!(
        error
            .advice()
            .is_some_and(|advice| advice.contains("mount"))
    );
}

#[tokio::test]
async fn userpass_opens_with_its_password_and_not_with_another() {
    let files = Files::new();
    let server = server();
    server.enable_auth("userpass", "up");
    server.userpass(
        "up",
        "web",
        "hunter2",
        &json!({"token_policies": ["reader"]}),
    );
    let keys = [
        ("method", "userpass"),
        ("mount", "up"),
        ("username", "web"),
        ("password", &files.write("password", "hunter2\n")),
    ];
    let http = http(server.address());
    read(&http, &identity(&http, method(&keys)), "apps/web")
        .await
        .expect("opened");
    files.write("password", "hunter3\n");
    let error = identity(&http, method(&keys))
        .token(None)
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(!format!("{error:?}").contains("hunter"), "{error:?}");
}

#[tokio::test]
async fn a_certificate_opens_for_its_holder() {
    let server = OpenBao::tls();
    server.kv("apps", 1);
    server.write("apps/web", &json!({"value": "opened"}));
    server.policy("reader", "path \"apps/*\" { capabilities = [\"read\"] }");
    server.enable_auth("cert", "cert");
    let options = json!({"token_policies": ["reader"], "allowed_common_names": ["web01"]});
    server.cert("cert", "hosts", &server.authority().pem(), &options);
    let ca = server.ca_path();
    let ca = ca.to_str().expect("a path");
    let as_host = |name: &str| {
        let (certificate, key) = server.client_certificate(name);
        let keys = [
            ("ca-cert", ca),
            ("client-cert", certificate.to_str().expect("a path")),
            ("client-key", key.to_str().expect("a path")),
        ];
        http_with(server.address(), &keys)
    };
    for keys in [
        &[("method", "cert")][..],
        &[("method", "cert"), ("role", "hosts")],
    ] {
        let http = as_host("web01");
        read(&http, &identity(&http, method(keys)), "apps/web")
            .await
            .expect("opened");
    }
    let stranger = as_host("web02");
    let bare = http_with(server.address(), &[("ca-cert", ca)]);
    for (http, kind) in [
        (stranger, ErrorKind::Unauthenticated),
        (bare, ErrorKind::InvalidConfig),
    ] {
        let identity = identity(&http, method(&[("method", "cert")]));
        let error = identity.token(None).await.expect_err("refused");
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[tokio::test]
async fn a_json_web_token_opens_for_its_subject() {
    let files = Files::new();
    let key = SigningKey::new(&files);
    let server = server();
    server.enable_auth("jwt", "jwt");
    let role = json!({
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_subject": "web01",
        "bound_audiences": ["vault"],
        "token_policies": ["reader"],
    });
    server.jwt("jwt", &key.public(), "hosts", &role);
    let http = http(server.address());
    let login = |subject: &str| {
        let claims = json!({
            "sub": subject,
            "aud": "vault",
            "nbf": 1_577_836_800_u64,
            "exp": 4_102_444_800_u64,
        });
        let jwt = files.write("jwt", &key.sign(&claims));
        identity(
            &http,
            method(&[("method", "jwt"), ("role", "hosts"), ("jwt", &jwt)]),
        )
    };
    read(&http, &login("web01"), "apps/web")
        .await
        .expect("opened");
    let error = login("web02").token(None).await.expect_err("another's");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
}

/// The Kubernetes API is stood in for by its one endpoint that OpenBao asks, which knows one service
/// account; the login itself is real.
#[tokio::test]
async fn a_pods_service_account_opens() {
    let files = Files::new();
    let key = SigningKey::new(&files);
    let server = server();
    server.enable_auth("kubernetes", "k8s");
    let config = json!({
        "kubernetes_host": token_reviews(),
        "token_reviewer_jwt": key.sign(&json!({"sub": "reviewer"})),
        "disable_local_ca_jwt": true,
        "kubernetes_ca_cert": keyhaul_servers::Authority::new("kubernetes").pem(),
    });
    server.write("auth/k8s/config", &config);
    let role = json!({
        "bound_service_account_names": ["web01"],
        "bound_service_account_namespaces": ["vms"],
        "audience": "vault",
        "token_policies": ["reader"],
    });
    server.write("auth/k8s/role/hosts", &role);
    let http = http(server.address());
    let login = |name: &str| {
        let claims = json!({
            "aud": ["vault"],
            "sub": format!("system:serviceaccount:vms:{name}"),
            "kubernetes.io": {"namespace": "vms", "serviceaccount": {"name": name, "uid": "1"}},
        });
        let jwt = files.write("sa", &key.sign(&claims));
        let keys = [
            ("method", "kubernetes"),
            ("mount", "k8s"),
            ("role", "hosts"),
            ("jwt", &jwt),
        ];
        identity(&http, method(&keys))
    };
    read(&http, &login("web01"), "apps/web")
        .await
        .expect("opened");
    let error = login("web02").token(None).await.expect_err("another's");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
}

#[tokio::test]
async fn a_wrapped_secret_id_is_spent_once_and_never_by_a_probe() {
    let files = Files::new();
    let server = server();
    server.enable_auth("approle", "ar-wrapped");
    let role_id = server.approle("ar-wrapped", "web", &json!({"token_policies": ["reader"]}));
    let wrapping = server.wrapped_secret_id("ar-wrapped", "web", "10m");
    let wrapped = files.write("wrapped", &format!("{wrapping}\n"));
    let keys = [
        ("method", "approle"),
        ("mount", "ar-wrapped"),
        ("role-id", &files.write("role-id", &role_id)),
        ("wrapped-secret-id", &wrapped),
    ];
    let http = http(server.address());
    for _ in 0..3 {
        let probed = identity(&http, method(&keys)).probe(None).await;
        assert_eq!(probed.expect("reached"), Probed::Unspent);
    }
    let first = identity(&http, method(&keys));
    read(&http, &first, "apps/web").await.expect("opened");
    // The second login of the same, and a probe, say so.
    let second = identity(&http, method(&keys));
    for error in [
        second.token(None).await.expect_err("spent"),
        second.probe(None).await.map(drop).expect_err("spent"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
        assert!(error.message().contains("used already"), "{error}");
        assert!(
            error
                .advice()
                .is_some_and(|advice| advice.contains("intercepted"))
        );
        assert!(!format!("{error:?}").contains(&wrapping), "{error:?}");
    }
    // The first still works, until its token dies: then there is nothing to log in with.
    read(&http, &first, "apps/web").await.expect("opened");
    server.revoke(&text(&first.token(None).await.expect("held")));
    let error = read(&http, &first, "apps/web").await.expect_err("dead");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
}

#[tokio::test]
async fn what_wraps_something_else_is_not_unwrapped() {
    let files = Files::new();
    let server = server();
    server.enable_auth("approle", "ar-foreign");
    let role_id = server.approle("ar-foreign", "web", &json!({}));
    let headers = [("X-Vault-Wrap-TTL", "10m")];
    let body = json!({"secret_id": "hunter2"});
    let reply = server.request_with(
        "POST",
        "sys/wrapping/wrap",
        server.root_token(),
        &headers,
        Some(&body),
    );
    let wrapping = reply.text("/wrap_info/token");
    let keys = [
        ("method", "approle"),
        ("mount", "ar-foreign"),
        ("role-id", &files.write("role-id", &role_id)),
        ("wrapped-secret-id", &files.write("wrapped", &wrapping)),
    ];
    let http = http(server.address());
    let error = identity(&http, method(&keys))
        .token(None)
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(error.message().contains("another answer"), "{error}");
    // It is still there for whoever it is meant for.
    let reply = server.request("POST", "sys/wrapping/unwrap", &wrapping, None);
    assert_eq!(reply.text("/data/secret_id"), "hunter2");
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_lose_what_was_unwrapped() {
    let files = Files::new();
    let server = server();
    server.enable_auth("approle", "ar-cancel");
    let role_id = server.approle("ar-cancel", "web", &json!({"token_policies": ["reader"]}));
    let wrapping = server.wrapped_secret_id("ar-cancel", "web", "10m");
    let keys = [
        ("method", "approle"),
        ("mount", "ar-cancel"),
        ("role-id", &files.write("role-id", &role_id)),
        ("wrapped-secret-id", &files.write("wrapped", &wrapping)),
    ];
    let (proxy, http) = watched();
    proxy.set(keyhaul_servers::Mode::Delay(Duration::from_millis(100)));
    let identity = identity(&http, method(&keys));
    let soon = Instant::now() + Duration::from_millis(50);
    let error = identity.token(Some(soon)).await.expect_err("too soon");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    read(&http, &identity, "apps/web").await.expect("opened");
    assert_eq!(count(&proxy, "POST /v1/sys/wrapping/unwrap"), 1);
}

/// A key that signs JSON web tokens, by openssl.
struct SigningKey(std::path::PathBuf);

impl SigningKey {
    fn new(files: &Files) -> Self {
        let path = files.path().join("signing.pem");
        let made = Command::new("openssl")
            .args([
                "genpkey",
                "-algorithm",
                "RSA",
                "-pkeyopt",
                "rsa_keygen_bits:2048",
                "-out",
            ])
            .arg(&path)
            .stderr(Stdio::null())
            .status()
            .unwrap_or_else(|error| {
                panic!("openssl is not installed: scripts/setup test ({error})")
            });
        assert!(made.success());
        Self(path)
    }

    fn public(&self) -> String {
        let output = Command::new("openssl")
            .args(["pkey", "-pubout", "-in"])
            .arg(&self.0)
            .output()
            .expect("openssl");
        String::from_utf8(output.stdout).expect("PEM")
    }

    /// RS256, as RFC 7515 has it.
    fn sign(&self, claims: &Value) -> String {
        let part = |value: &Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
        let signed = format!(
            "{}.{}",
            part(&json!({"alg": "RS256", "typ": "JWT"})),
            part(claims)
        );
        let mut openssl = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign"])
            .arg(&self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("openssl");
        let mut input = openssl.stdin.take().expect("piped");
        input.write_all(signed.as_bytes()).expect("written");
        drop(input);
        let signature = openssl.wait_with_output().expect("openssl").stdout;
        format!("{signed}.{}", Base64UrlUnpadded::encode_string(&signature))
    }
}

/// Kubernetes' TokenReview endpoint, for the service account `web01` in `vms`: its address.
fn token_reviews() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().expect("cloned"));
            let mut length = 0;
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                if let Some(number) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = number.trim().parse().unwrap_or(0);
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("the review");
            let review: Value = serde_json::from_slice(&body).expect("the review");
            let jwt = review["spec"]["token"].as_str().expect("a token");
            let claims = jwt.split('.').nth(1).expect("claims");
            let claims = Base64UrlUnpadded::decode_vec(claims).expect("claims");
            let claims: Value = serde_json::from_slice(&claims).expect("claims");
            let known = claims["sub"] == "system:serviceaccount:vms:web01";
            let user = json!({"username": claims["sub"], "uid": "1"});
            let status = json!({"authenticated": known, "user": user, "audiences": ["vault"]});
            let answer = json!({
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "status": status,
            })
            .to_string();
            let head =
                "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nConnection: close";
            let _ = write!(
                stream,
                "{head}\r\nContent-Length: {}\r\n\r\n{answer}",
                answer.len()
            );
        }
    });
    address
}
