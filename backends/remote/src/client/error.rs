//! What TLS and sockets mean in keyhaul's words.

use std::io;

use keyhaul_core::{Error, ErrorKind};
use keyhaul_tls::find;
use rustls::{AlertDescription, CertificateError};

use super::config::Address;

/// The error for a request that got no answer, or half of one. `id` is what the server knows it by,
/// if it has arrived there.
pub(super) fn transport(error: reqwest::Error, address: &Address, id: Option<&str>) -> Error {
    // The url repeats what is known.
    let error = error.without_url();
    let told = match find::<rustls::Error>(&error) {
        Some(found) => tls(found, address),
        None => socket(&error, address, id),
    };
    told.with_source(error)
}

fn socket(error: &reqwest::Error, address: &Address, id: Option<&str>) -> Error {
    let during = id.map_or(String::new(), |id| format!(" during request {id}"));
    let unavailable = |what: &str| {
        Error::new(
            ErrorKind::Unavailable,
            format!("the key server {address} {what}{during}"),
        )
    };
    let timeout = || {
        let what = match id {
            Some(id) => format!("gave no answer in time to request {id}"),
            None => "took no connection in time".to_owned(),
        };
        Error::new(
            ErrorKind::Timeout,
            format!("the key server {address} {what}"),
        )
    };
    if error.is_dns() {
        return unavailable("cannot be found: its name leads to no address").with_advice(format!(
            "see whether `{}` is the right name, and the name service is up",
            address.host
        ));
    }
    if error.is_timeout() {
        return timeout();
    }
    use io::ErrorKind as Io;
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(Io::BrokenPipe | Io::ConnectionAborted | Io::ConnectionReset) => {
            unavailable("reset the connection")
        }
        Some(Io::ConnectionRefused) => unavailable("refuses connections: nothing listens there")
            .with_advice("see whether `keyhaul serve` runs there, and at that port"),
        Some(Io::HostUnreachable | Io::NetworkUnreachable) => {
            unavailable("cannot be reached from here")
        }
        Some(Io::TimedOut) => timeout(),
        Some(Io::UnexpectedEof) if error.is_connect() => {
            unavailable("ended the connection before TLS was agreed on")
        }
        _ if error.is_connect() => unavailable("cannot be connected to"),
        _ => Error::new(
            ErrorKind::Unavailable,
            format!(
                "the key server {address} broke the connection off{during}, or does not speak HTTP/2"
            ),
        ),
    }
}

/// Certificates and all else that TLS can find wrong, each with what mends it.
pub(super) fn tls(error: &rustls::Error, address: &Address) -> Error {
    let told = |kind, what: &str| Error::new(kind, format!("the key server {address} {what}"));
    let config = |what: &str| told(ErrorKind::InvalidConfig, what);
    match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::UnknownIssuer => config("has a certificate of an authority that is not the one of `ca-cert`")
                .with_advice("name the authority of the service's certificates in `ca-cert`; if it is named, somebody else answers at that address"),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                config("has a certificate that has expired")
                    .with_advice("renew the server's certificate (keyhaul pki renew, and a reload of the server); see that this host's clock is right")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                config("has a certificate that is not valid yet")
                    .with_advice("see that this host's clock is right")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                config("has a certificate for another name")
                    .with_advice(format!("address it by a name in its certificate, or issue it one for `{}`", address.host))
            }
            CertificateError::BadSignature => config("has a certificate that the authority of that name did not sign")
                .with_advice("name the right authority's certificate in `ca-cert`: there are two of the same name"),
            CertificateError::Revoked => config("has a certificate that was revoked"),
            _ => config("has a certificate that cannot be used")
                .with_advice("issue the server a certificate of its own for servers, and not an authority's"),
        },
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateExpired => {
                told(ErrorKind::Unauthenticated, "says that our certificate has expired")
                    .with_advice("renew the certificate of `client-cert`; see that both clocks are right")
            }
            AlertDescription::CertificateRevoked => {
                told(ErrorKind::Unauthenticated, "says that our certificate was revoked")
                    .with_advice("ask whoever runs the service why; a new certificate has to be issued to this host")
            }
            AlertDescription::UnknownCA => {
                told(ErrorKind::Unauthenticated, "does not know the authority of our certificate")
                    .with_advice("give a `client-cert` of the authority that the server names as `client-ca`, with the chain to it")
            }
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied => {
                told(ErrorKind::Unauthenticated, "does not believe our certificate")
                    .with_advice("see that `client-cert` is a certificate for clients, of the authority that the server names as `client-ca`, and that it is valid now")
            }
            AlertDescription::NoApplicationProtocol => {
                config("does not speak HTTP/2 there: it is no key server")
            }
            AlertDescription::ProtocolVersion => {
                config("does not speak TLS 1.3: it is no key server")
            }
            _ => told(ErrorKind::Unavailable, "ended TLS with an alert"),
        },
        rustls::Error::InvalidMessage(_) => config("does not speak TLS there: it is no key server")
            .with_advice("see the address and the port"),
        rustls::Error::PeerIncompatible(_) => {
            config("and this program have no version or cipher of TLS in common")
        }
        _ => told(ErrorKind::Unavailable, "and TLS: no agreement"),
    }
}
