//! Sockets: who gets in, for how long, and how it ends.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use super::accounts::Share;
use super::connection::{Away, Connection};
use super::entrance::{Arrival, Gone, unless};
use super::{Shared, http};

/// How long a connection that is to end may take to finish what runs.
pub(super) const GRACE: Duration = Duration::from_secs(20);
/// The same, for one on which nothing runs: its far end has only to say that it heard.
const SHORT_GRACE: Duration = Duration::from_secs(2);
/// How long a connection that is one too many may take to hear of it.
const AWAY: Duration = Duration::from_secs(5);
/// How long to wait where the system has no descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// How many connections the kernel holds until they are taken. The library's 128 is less than a site
/// that boots at once: who finds no room tries again a second later.
const BACKLOG: u32 = 4096;

/// Listens at `address`.
pub(super) fn at(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restarted service takes its address back at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Takes connections until the end begins.
pub(super) async fn accept(
    shared: Arc<Shared>,
    listener: TcpListener,
    mut ended: watch::Receiver<bool>,
) {
    let (ended, watched) = (ended.clone(), pin_end(&mut ended));
    let mut watched = pin!(watched);
    loop {
        let accepted = {
            let mut next = pin!(async {
                shared.entrance.room().await;
                listener.accept().await
            });
            poll_fn(|cx| match watched.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => next.as_mut().poll(cx).map(Some),
            })
            .await
        };
        match accepted {
            None => return,
            Some(Ok((stream, peer))) => {
                let arrival = shared.entrance.admit(peer.ip());
                let greeted = greet(Arc::clone(&shared), stream, peer, arrival, ended.clone());
                tokio::spawn(greeted);
            }
            Some(Err(error)) => {
                // A connection that broke off before it was taken, or no descriptors: both pass.
                shared
                    .sparing
                    .warn("a connection could not be accepted", || {
                        tracing::warn!(%error, "a connection could not be accepted");
                    });
                sleep(EXHAUSTED).await;
            }
        }
    }
}

async fn pin_end(ended: &mut watch::Receiver<bool>) {
    // A sender that is gone is an end too.
    let _ = ended.wait_for(|ended| *ended).await;
}

/// Lets one in when it is its turn, and serves it. What is large is made when it is needed: until
/// then a connection is a descriptor and little besides.
async fn greet(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    arrival: Arrival,
    ended: watch::Receiver<bool>,
) {
    let mut ends = ended.clone();
    let came = come_in(&shared, stream, peer, arrival);
    match unless(came, pin_end(&mut ends)).await {
        Some(Ok(came)) => Box::pin(came.serve(ended)).await,
        Some(Err(Lost::Noted(what))) => tracing::debug!(%peer, "no connection: {what}"),
        Some(Err(Lost::Warned(what))) => shared.sparing.warn(what, || {
            tracing::warn!(%peer, "no connection: {what}");
        }),
        Some(Err(Lost::Failed(error))) => {
            let what = failure(&error);
            let write = || tracing::warn!(%peer, %error, "no connection: {what}");
            shared.sparing.warn(what, write);
        }
        None => {}
    }
}

/// Why nobody came in.
enum Lost {
    /// It happens: who looks whether something listens does that.
    Noted(&'static str),
    Warned(&'static str),
    Failed(std::io::Error),
}

/// Who came in: with a certificate, and with room, if only to be told that there is none.
struct Came {
    stream: Stream,
    connection: Connection,
    builder: auto::Builder<TokioExecutor>,
    idle: Duration,
    share: Option<Share>,
    _room: OwnedSemaphorePermit,
}

/// Waits for the first bytes, and for its turn; then shakes hands.
async fn come_in(
    shared: &Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    arrival: Arrival,
) -> Result<Came, Lost> {
    let limits = shared.live().limits;
    {
        let mut byte = [0];
        let first = timeout(limits.handshake, stream.peek(&mut byte));
        match unless(first, arrival.sent_away()).await {
            Some(Ok(Ok(1))) => {}
            Some(Ok(_)) => return Err(Lost::Noted("it was closed without a word")),
            Some(Err(_)) => return Err(Lost::Noted("it said nothing in time")),
            None => return Err(Lost::Warned(gone(Gone::Silent))),
        }
    }
    match timeout(limits.queue, arrival.turn()).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => return Err(Lost::Warned(gone(why))),
        Err(_) => return Err(Lost::Warned("too many wait: its turn did not come in time")),
    }
    Box::pin(shake(shared, stream, peer, arrival)).await
}

async fn shake(
    shared: &Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    arrival: Arrival,
) -> Result<Came, Lost> {
    let live = shared.live();
    // Answers are written whole: waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    let acceptor = TlsAcceptor::from(Arc::clone(&live.tls.config));
    let accepted = timeout(live.limits.handshake, acceptor.accept(stream));
    let stream = match arrival.shake(accepted).await {
        Some(Ok(Ok(stream))) => stream,
        Some(Ok(Err(error))) => return Err(Lost::Failed(error)),
        Some(Err(_)) => return Err(Lost::Warned("its handshake took too long")),
        None => return Err(Lost::Warned(gone(Gone::Slow))),
    };
    let (_, tls) = stream.get_ref();
    let Some(chain) = tls.peer_certificates() else {
        return Err(Lost::Warned("it has shown no certificate"));
    };
    let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
    let is_h2 = tls.alpn_protocol() == Some(b"h2");
    let mut connection = Connection::new(Arc::clone(shared), &live, peer, chain);
    let share = connection
        .account
        .connect(live.limits.connections_per_identity);
    let room = match share {
        Some(_) => Arc::clone(&shared.connections).try_acquire_owned(),
        None => Err(TryAcquireError::NoPermits),
    };
    let (room, idle) = match room {
        Ok(room) => (room, live.limits.idle),
        Err(_) => {
            let (away, what) = match share {
                Some(_) => (Away::Full, "there are as many connections as may be"),
                None => (Away::Share, "its certificate has as many as one may have"),
            };
            connection.turned_away = Some(away);
            let uri = connection.uri();
            shared.sparing.warn(what, || {
                tracing::warn!(%peer, %uri, "a connection is turned away: {what}");
            });
            let room = Arc::clone(&shared.turned_away).try_acquire_owned();
            let room = room.map_err(|_| Lost::Noted("there are too many even to say so"))?;
            (room, live.limits.idle.min(AWAY))
        }
    };
    arrival.welcome();
    Ok(Came {
        stream: TokioIo::new(stream),
        connection,
        builder: builder(is_h2, idle),
        idle,
        share,
        _room: room,
    })
}

fn gone(why: Gone) -> &'static str {
    match why {
        Gone::Silent => "it said nothing, and had to make room",
        Gone::Crowd => "too many of its address wait",
        Gone::Slow => "its handshake took long, and others waited",
    }
}

/// What went wrong with a handshake.
fn failure(error: &std::io::Error) -> &'static str {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error as Tls};
    let inside = error.get_ref().and_then(|inside| inside.downcast_ref());
    match inside {
        None => "the handshake broke off",
        Some(Tls::NoCertificatesPresented) => "it has shown no certificate",
        Some(Tls::InvalidCertificate(bad)) => match bad {
            Bad::Expired | Bad::ExpiredContext { .. } => "its certificate has expired",
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => "its certificate is not valid yet",
            Bad::Revoked => "its certificate is revoked",
            Bad::UnknownRevocationStatus => "no revocation list is about its certificate",
            Bad::UnknownIssuer | Bad::BadSignature => "its certificate is of a foreign authority",
            Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => {
                "its certificate is not for clients"
            }
            _ => "its certificate does not verify",
        },
        Some(Tls::NoApplicationProtocol) => "it speaks another protocol",
        Some(Tls::PeerIncompatible(_)) => "it has no version or cipher of TLS in common",
        Some(Tls::AlertReceived(
            Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown,
        )) => "it does not believe the service's certificate",
        Some(Tls::AlertReceived(_)) => "it ended the handshake with an alert",
        Some(Tls::InvalidMessage(_) | Tls::InappropriateMessage { .. }) => "it does not speak TLS",
        Some(_) => "the handshake failed",
    }
}

/// Small buffers: a connection at rest costs little, and no request is long.
fn builder(is_h2: bool, idle: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    if is_h2 {
        builder = builder.http2_only();
        builder
            .http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(256 * 1024)
            .max_concurrent_streams(100)
            .max_frame_size(16 * 1024)
            .max_header_list_size(16 * 1024)
            .max_send_buf_size(64 * 1024)
            .keep_alive_interval(Duration::from_secs(60))
            .keep_alive_timeout(Duration::from_secs(20));
    } else {
        builder = builder.http1_only();
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(idle)
            .max_buf_size(32 * 1024)
            .max_headers(64);
    }
    builder
}

type Stream = TokioIo<tokio_rustls::server::TlsStream<TcpStream>>;

impl Came {
    /// Serves one connection until it ends, has nothing to ask for too long, shows a certificate
    /// that holds no longer, or everything ends.
    async fn serve(self, mut ended: watch::Receiver<bool>) {
        let (idle, connection) = (self.idle, Arc::new(self.connection));
        let mut share = self.share;
        let service = {
            let connection = Arc::clone(&connection);
            service_fn(move |request: hyper::Request<Incoming>| {
                let connection = Arc::clone(&connection);
                // In a box: the room for a request under way is kept by every connection at rest.
                async move { Ok::<_, Infallible>(Box::pin(http::serve(connection, request)).await) }
            })
        };
        let mut serving = pin!(self.builder.serve_connection(self.stream, service));
        let mut end = pin!(pin_end(&mut ended));
        let mut refused = pin!(async {
            if let Some(reason) = unless(connection.outdated(), connection.closing.notified()).await
            {
                let (peer, uri) = (&connection.peer, connection.uri());
                connection.shared.sparing.warn(reason, || {
                    tracing::warn!(%peer, %uri, "a connection is ended: {reason}");
                });
            }
        });
        let mut timer = pin!(sleep(idle));
        let mut closing = false;
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = serving.as_mut().poll(cx) {
                    if let Err(error) = result {
                        tracing::debug!(peer = %connection.peer, %error, "a connection broke off");
                    }
                    return Poll::Ready(());
                }
                let is_refused = !closing && refused.as_mut().poll(cx).is_ready();
                if is_refused {
                    // While it ends, whoever has a better certificate takes its place.
                    share = None;
                }
                let is_over = is_refused || !closing && end.as_mut().poll(cx).is_ready();
                let is_due = timer.as_mut().poll(cx).is_ready();
                match (closing, is_over || is_due) {
                    (_, false) => return Poll::Pending,
                    (true, true) => return Poll::Ready(()),
                    (false, true) if is_over || connection.idle() >= idle => {
                        closing = true;
                        serving.as_mut().graceful_shutdown();
                        let rests = connection.idle() >= idle.min(SHORT_GRACE);
                        timer.set(sleep(if rests { SHORT_GRACE } else { GRACE }));
                    }
                    (false, true) => {
                        let rest = idle.saturating_sub(connection.idle());
                        timer.set(sleep_until(Instant::now() + rest));
                    }
                }
            }
        })
        .await;
    }
}
