//! What statuses, TLS and sockets mean in keyhaul's words.

use std::io;

use keyhaul_core::{Error, ErrorKind, misleads};
use keyhaul_tls::find;
use rustls::{AlertDescription, CertificateError};

use crate::http::{Address, Answer};

/// How much of a server's words is printed.
const MOST: usize = 300;

/// The error for an answer that is no success. Whoever knows more of the request (that a 403 was a
/// dead token, that a 400 was a version that is not current) looks at the answer first.
pub(crate) fn refusal(answer: &Answer) -> Error {
    let says = match answer.listed() {
        None => format!("{} and no reason", answer.status),
        Some(lines) if lines.is_empty() => answer.status.to_string(),
        Some(lines) => format!("{}: {}", answer.status, bounded(&lines.join("; "))),
    };
    let server = answer.server();
    let error = |kind, what: &str| Error::new(kind, format!("{server} {what} ({says})"));
    match answer.status {
        // A server that speaks only TLS says so in the clear, and in no list.
        400 if answer.listed().is_none() => error(
            ErrorKind::InvalidConfig,
            "does not understand the request",
        )
        .with_advice("see whether it speaks TLS (vault+https, https://) at that port, and whether it is a Vault at all"),
        400 | 401 | 403 if !answer.authenticated => {
            error(ErrorKind::Unauthenticated, "does not know who asks")
                .with_advice("give the store a way to log in: `auth`, VAULT_TOKEN or keyhaul login")
        }
        400 | 422 => error(ErrorKind::InvalidReference, "refuses the request"),
        401 => error(ErrorKind::Unauthenticated, "does not know who asks"),
        403 => error(ErrorKind::PermissionDenied, "says no"),
        404 if answer.is_absence() => error(ErrorKind::NotFound, "has nothing there"),
        404 if answer.errors().is_empty() => error(ErrorKind::Unavailable, "gave an answer that is none of a Vault's")
            .with_advice("see whether a Vault or OpenBao is at the address, or something in between answers for it"),
        404 => error(ErrorKind::InvalidConfig, "has no such path")
            .with_advice("see that the mount in the store's url exists, in the store's namespace"),
        405 => error(ErrorKind::Unsupported, "cannot do that at this path"),
        412 => error(ErrorKind::Unavailable, "has not caught up with its leader yet"),
        413 => error(ErrorKind::TooLarge, "takes no request of that size"),
        // What `sys/health` answers on a standby; 472 and 473 on Vault Enterprise's replicas.
        429 | 472 | 473 if answer.status != 429 || answer.is_standby() => {
            error(ErrorKind::Unavailable, "is a standby")
                .with_advice("address the cluster by a name that leads to its leader")
        }
        429 => {
            let limited = error(ErrorKind::RateLimited, "asks for fewer requests");
            match answer.retry_after {
                Some(wait) => limited.with_retry_after(wait),
                None => limited,
            }
        }
        501 => error(ErrorKind::Unavailable, "is not initialised")
            .with_advice("initialise it: bao operator init"),
        503 if answer.sealed == Some(true) => error(ErrorKind::Unavailable, "is sealed")
            .with_advice("unseal it: bao operator unseal"),
        507 => error(ErrorKind::StorageFull, "has no room"),
        500.. => {
            let failed = error(ErrorKind::Unavailable, "cannot serve now");
            match answer.retry_after {
                Some(wait) => failed.with_retry_after(wait),
                None => failed,
            }
        }
        _ => error(ErrorKind::Unavailable, "gave an answer that is none of a Vault's"),
    }
}

/// The error for a request that got no answer, or half of one.
pub(crate) fn transport(error: reqwest::Error, address: &Address, proxied: bool) -> Error {
    // The url repeats what is known, and can be a proxy's with a password.
    let error = error.without_url();
    let told = match find::<rustls::Error>(&error) {
        Some(found) => tls(found, address),
        None if proxied && error.is_connect() => Error::new(
            ErrorKind::Unavailable,
            format!("{address} cannot be connected to through the proxy that is set"),
        )
        .with_advice("see `proxy`, VAULT_PROXY_ADDR, VAULT_HTTP_PROXY and HTTPS_PROXY; proxy = \"none\" goes without"),
        None => socket(&error, address),
    };
    told.with_source(error)
}

fn socket(error: &reqwest::Error, address: &Address) -> Error {
    let unavailable = |what: &str| Error::new(ErrorKind::Unavailable, format!("{address} {what}"));
    let timeout = || {
        let message = format!("{address} took no connection in time");
        Error::new(ErrorKind::Timeout, message)
    };
    if error.is_dns() {
        let host = address.host().unwrap_or_default();
        return unavailable("cannot be found: its name leads to no address").with_advice(format!(
            "see whether `{host}` is the right name, and the name service is up"
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
            .with_advice("see whether the server runs, and at that port"),
        Some(Io::HostUnreachable | Io::NetworkUnreachable) => {
            unavailable("cannot be reached from here")
        }
        Some(Io::NotFound) if !address.is_tcp() => unavailable("is not there")
            .with_advice("see whether the agent or server that makes the socket runs"),
        Some(Io::PermissionDenied) => Error::new(
            ErrorKind::PermissionDenied,
            format!("{address} cannot be opened by this user"),
        ),
        Some(Io::TimedOut) => timeout(),
        _ if error.is_connect() => unavailable("cannot be connected to"),
        _ => unavailable("broke off, or does not speak HTTP"),
    }
}

/// Certificates and all else that TLS can find wrong, each with the setting that mends it.
pub(crate) fn tls(error: &rustls::Error, address: &Address) -> Error {
    let config = |what: &str| Error::new(ErrorKind::InvalidConfig, format!("{address} {what}"));
    match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::UnknownIssuer => config("has a certificate of an unknown authority, or one it signed itself")
                .with_advice("name the authority's certificate: `ca-cert` (VAULT_CACERT)"),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                config("has a certificate that has expired")
                    .with_advice("renew the server's certificate; see that this host's clock is right")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                config("has a certificate that is not valid yet")
                    .with_advice("see that this host's clock is right")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                config("has a certificate for another name")
                    .with_advice("address the server by a name in its certificate, or give that name: `tls-server-name` (VAULT_TLS_SERVER_NAME)")
            }
            CertificateError::BadSignature => config("has a certificate that the authority of that name did not sign")
                .with_advice("name the right authority's certificate: `ca-cert` (VAULT_CACERT)"),
            _ => config("has a certificate that cannot be used")
                .with_advice("give the server a certificate of its own, signed by the authority in `ca-cert` (VAULT_CACERT), and not an authority's, as `openssl req -x509` makes it"),
        },
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied,
        ) => Error::new(
            ErrorKind::Unauthenticated,
            format!("{address} wants a client certificate that it believes"),
        )
        .with_advice("give one of the right authority: `client-cert` and `client-key` (VAULT_CLIENT_CERT, VAULT_CLIENT_KEY)"),
        rustls::Error::InvalidMessage(_) => config("does not speak TLS")
            .with_advice("see the port, or use vault+http (http://) where the way is safe"),
        _ => Error::new(ErrorKind::Unavailable, format!("{address} and TLS: no agreement")),
    }
}

/// A server's words in one line of bounded length, what [`misleads`] escaped.
pub(crate) fn printable(text: &str) -> String {
    let mut line = String::new();
    for character in bounded(text.trim()).chars() {
        if misleads(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

fn bounded(text: &str) -> String {
    let mut characters = text.chars();
    let mut line: String = characters.by_ref().take(MOST).collect();
    if characters.next().is_some() {
        line.push('…');
    }
    line
}
