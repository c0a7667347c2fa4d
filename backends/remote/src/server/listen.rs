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
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use super::connection::Connection;
use super::{Live, Shared, http};

/// How long a connection that is to end may take to finish what runs.
pub(super) const GRACE: Duration = Duration::from_secs(20);
/// The same, for one on which nothing runs: its far end has only to say that it heard.
const SHORT_GRACE: Duration = Duration::from_secs(2);
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
            let mut next = pin!(listener.accept());
            poll_fn(|cx| match watched.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => next.as_mut().poll(cx).map(Some),
            })
            .await
        };
        match accepted {
            None => return,
            Some(Ok((stream, peer))) => {
                tokio::spawn(greet(Arc::clone(&shared), stream, peer, ended.clone()));
            }
            Some(Err(error)) => {
                // A connection that broke off before it was taken, or no descriptors: both pass.
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(EXHAUSTED).await;
            }
        }
    }
}

async fn pin_end(ended: &mut watch::Receiver<bool>) {
    // A sender that is gone is an end too.
    let _ = ended.wait_for(|ended| *ended).await;
}

/// Shakes hands, and serves whoever has shown a certificate.
async fn greet(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    ended: watch::Receiver<bool>,
) {
    let live = shared.live();
    // Answers are written whole: waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    let acceptor = TlsAcceptor::from(Arc::clone(&live.tls.config));
    let shaken = timeout(
        live.limits.handshake,
        shake(&shared, acceptor.accept(stream)),
    );
    let stream = match shaken.await {
        Ok(Some(Ok(stream))) => stream,
        Ok(Some(Err(error))) => return tracing::debug!(%peer, %error, "no handshake"),
        Ok(None) => return tracing::debug!(%peer, "a handshake had to make room"),
        Err(_) => return tracing::debug!(%peer, "no handshake in time"),
    };
    let Ok(room) = Arc::clone(&shared.connections).try_acquire_owned() else {
        return tracing::warn!(%peer, "there are as many connections as the limit allows");
    };
    let (_, tls) = stream.get_ref();
    let Some(chain) = tls.peer_certificates() else {
        return;
    };
    let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
    let is_h2 = tls.alpn_protocol() == Some(b"h2");
    let connection = Connection::new(Arc::clone(&shared), &live, peer, chain);
    let builder = builder(&live, is_h2);
    drop(live);
    serve(builder, TokioIo::new(stream), Arc::new(connection), ended).await;
    drop(room);
}

/// The handshake, unless it has to make room for another.
async fn shake<T>(shared: &Shared, accept: impl Future<Output = T>) -> Option<T> {
    let handshake = shared.handshakes.begin();
    let mut ended = pin!(handshake.ended.notified());
    let mut accept = pin!(accept);
    poll_fn(|cx| match accept.as_mut().poll(cx) {
        Poll::Ready(shaken) => Poll::Ready(Some(shaken)),
        Poll::Pending => ended.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Small buffers: a connection at rest costs little, and no request is long.
fn builder(live: &Live, is_h2: bool) -> auto::Builder<TokioExecutor> {
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
            .header_read_timeout(live.limits.idle)
            .max_buf_size(32 * 1024)
            .max_headers(64);
    }
    builder
}

type Stream = TokioIo<tokio_rustls::server::TlsStream<TcpStream>>;

/// Serves one connection until it ends, has nothing to ask for too long, shows a certificate that
/// holds no longer, or everything ends.
async fn serve(
    builder: auto::Builder<TokioExecutor>,
    stream: Stream,
    connection: Arc<Connection>,
    mut ended: watch::Receiver<bool>,
) {
    let idle = connection.shared.live().limits.idle;
    let service = {
        let connection = Arc::clone(&connection);
        service_fn(move |request: hyper::Request<Incoming>| {
            let connection = Arc::clone(&connection);
            async move { Ok::<_, Infallible>(http::serve(connection, request).await) }
        })
    };
    let mut serving = pin!(builder.serve_connection(stream, service));
    let mut end = pin!(pin_end(&mut ended));
    let mut refused = pin!(connection.closing.notified());
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
            let is_over = !closing
                && (end.as_mut().poll(cx).is_ready() || refused.as_mut().poll(cx).is_ready());
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
