//! TLS certificates, made by openssl, with an encrypted key for the server.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{finish, program};

/// Two folders as QEMU's `tls-creds-x509` wants them.
#[derive(Debug)]
pub struct Certificates {
    /// The server's: its key is encrypted.
    pub server: PathBuf,
    /// The client's, which only knows whom to trust.
    pub client: PathBuf,
}

impl Certificates {
    /// The name in the server's certificate.
    pub const HOST: &str = "nbd.example";

    /// Makes an authority and a server's certificate, whose key only the passphrase opens.
    #[track_caller]
    pub fn make(folder: &Path, passphrase: &str) -> Self {
        let server = folder.join("server-tls");
        let client = folder.join("client-tls");
        fs::create_dir(&server).expect("made");
        fs::create_dir(&client).expect("made");
        let file = |name: &str, text: &str| fs::write(server.join(name), text).expect("written");
        file("passphrase", passphrase);
        file("names", &format!("subjectAltName = DNS:{}\n", Self::HOST));
        let openssl = |arguments: &str| {
            let mut command = program("openssl");
            finish(command.current_dir(&server).args(arguments.split(' '))).ok();
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";
        openssl(&format!(
            "req -x509 {key} -nodes -subj /CN=authority -days 2 -keyout authority.pem -out ca-cert.pem"
        ));
        openssl(&format!(
            "req {key} -passout file:passphrase -subj /CN={} -keyout server-key.pem -out request.pem",
            Self::HOST
        ));
        openssl(
            "x509 -req -in request.pem -CA ca-cert.pem -CAkey authority.pem -CAcreateserial -days 2 -extfile names -out server-cert.pem",
        );
        let key = fs::read_to_string(server.join("server-key.pem")).expect("the key");
        assert!(key.contains("BEGIN ENCRYPTED PRIVATE KEY"));
        fs::copy(server.join("ca-cert.pem"), client.join("ca-cert.pem")).expect("copied");
        // QEMU is to learn the passphrase from keyhaul alone.
        fs::remove_file(server.join("passphrase")).expect("removed");
        Self { server, client }
    }
}
