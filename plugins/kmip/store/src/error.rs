//! What TLS and sockets mean in keyhaul's words.

use std::io;

use keyhaul_core::{Error, ErrorKind};
use keyhaul_tls::find;
use rustls::{AlertDescription, CertificateError};

use crate::config::Address;

/// A connection that was not made, or broke.
pub(crate) fn transport(error: io::Error, address: &Address) -> Error {
    let told = match find::<rustls::Error>(&error) {
        Some(found) => tls(found, address),
        None => socket(&error, address),
    };
    told.with_source(error)
}

pub(crate) fn timeout(address: &Address, what: &str) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!("the KMIP server {address} {what} in time"),
    )
}

fn socket(error: &io::Error, address: &Address) -> Error {
    use io::ErrorKind as Io;
    let unavailable = |what: &str| {
        Error::new(
            ErrorKind::Unavailable,
            format!("the KMIP server {address} {what}"),
        )
    };
    match error.kind() {
        Io::ConnectionRefused => unavailable("refuses connections: nothing listens there")
            .with_advice("see whether the server runs, and at that port"),
        Io::HostUnreachable | Io::NetworkUnreachable => unavailable("cannot be reached from here"),
        Io::TimedOut => timeout(address, "took no connection"),
        Io::BrokenPipe | Io::ConnectionAborted | Io::ConnectionReset => {
            unavailable("reset the connection")
        }
        Io::UnexpectedEof => unavailable("ended the connection"),
        _ => unavailable("cannot be connected to")
            .with_advice("see whether the host in the store's url is the right name"),
    }
}

/// Certificates and all else that TLS can find wrong, each with what mends it.
fn tls(error: &rustls::Error, address: &Address) -> Error {
    let told = |kind, what: &str| Error::new(kind, format!("the KMIP server {address} {what}"));
    let config = |what: &str| told(ErrorKind::InvalidConfig, what);
    let unknown = |what: &str| told(ErrorKind::Unauthenticated, what);
    match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                config("has a certificate of an authority that is not the one of `ca-cert`")
                    .with_advice("name the authority of the server's certificate in `ca-cert`; if it is named, somebody else answers at that address")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                config("has a certificate that has expired")
                    .with_advice("renew the server's certificate; see that this host's clock is right")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                config("has a certificate that is not valid yet")
                    .with_advice("see that this host's clock is right")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                config("has a certificate for another name").with_advice(format!(
                    "address it by a name in its certificate, or issue it one for `{}`",
                    address.host
                ))
            }
            _ => config("has a certificate that cannot be used")
                .with_advice("issue the server a certificate of its own for servers, with its name as a subject alternative name"),
        },
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateExpired => {
                unknown("says that our certificate has expired")
                    .with_advice("renew the certificate of `client-cert`; see that both clocks are right")
            }
            AlertDescription::CertificateRevoked => {
                unknown("says that our certificate was revoked")
                    .with_advice("ask whoever runs the server why; a new certificate has to be issued to this host")
            }
            AlertDescription::UnknownCA => {
                unknown("does not know the authority of our certificate")
                    .with_advice("give a `client-cert` of an authority that the server believes, with the chain to it")
            }
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied => {
                unknown("does not believe our certificate")
                    .with_advice("see that `client-cert` is a certificate for clients, of an authority that the server believes, and that it is valid now")
            }
            AlertDescription::HandshakeFailure
            | AlertDescription::InsufficientSecurity
            | AlertDescription::ProtocolVersion => config(AGREEMENT).with_advice(CIPHERS),
            _ => told(ErrorKind::Unavailable, "ended TLS with an alert"),
        },
        rustls::Error::InvalidMessage(_) => config("does not speak TLS there")
            .with_advice("see the host and the port in the store's url"),
        rustls::Error::PeerIncompatible(_) => config(AGREEMENT).with_advice(CIPHERS),
        _ => told(ErrorKind::Unavailable, "and TLS: no agreement"),
    }
}

const AGREEMENT: &str = "and keyhaul have no version or cipher of TLS in common";
const CIPHERS: &str = "let the server speak TLS 1.3, or 1.2 with ECDHE and AES-GCM; old servers need an ECDSA certificate for that";
