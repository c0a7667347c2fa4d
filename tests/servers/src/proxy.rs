//! A TCP proxy that a test commands: what stands between a client and its server on a bad day.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

/// What the proxy does to every connection, those that are open included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Closes a connection in good order once this many bytes of the server's have gone through.
    Cut(u64),
    /// Hands all bytes on, each this much later, in both directions; the throughput stays.
    Delay(Duration),
    /// Hands all bytes on.
    Pass,
    /// Resets connections: the open ones at once, new ones when they come.
    Reset,
    /// Accepts and holds all bytes back, to hand them on when the mode changes.
    Stall,
    /// Accepts, takes all bytes and hands on none, ever.
    Swallow,
}

/// A proxy on a port of loopback, in front of one server.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    gone: AtomicBool,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    open: Vec<Arc<Wire>>,
    connections: usize,
    asked: Vec<u8>,
    answered: u64,
}

/// One side of a connection.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    /// To end in a reset: nothing may end it in good order before.
    reset: AtomicBool,
}

impl Proxy {
    /// A proxy to `server`, `HOST:PORT` or an address like `https://127.0.0.1:8200`.
    pub fn to(server: &str) -> Self {
        let server = server.rsplit("://").next().unwrap_or(server);
        let server = server.parse().expect("an address like 127.0.0.1:8200");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on loopback");
        let shared = Arc::new(Shared {
            server,
            state: Mutex::new(State {
                mode: Mode::Pass,
                open: Vec::new(),
                connections: 0,
                asked: Vec::new(),
                answered: 0,
            }),
            changed: Condvar::new(),
            gone: AtomicBool::new(false),
        });
        let address = listener.local_addr().expect("bound above");
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Self { address, shared }
    }

    /// Where it listens: `127.0.0.1:PORT`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what it does.
    pub fn set(&self, mode: Mode) {
        let mut state = self.shared.state();
        state.mode = mode;
        if mode == Mode::Reset {
            reset(&mut state);
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// How many connections were ever made to it.
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }

    /// How many bytes servers have answered in all.
    pub fn answered(&self) -> u64 {
        self.shared.state().answered
    }

    /// The request lines that clients have sent, over HTTP/1.1 in the clear: `GET /v1/sys/health`.
    pub fn requests(&self) -> Vec<String> {
        let state = self.shared.state();
        String::from_utf8_lossy(&state.asked)
            .lines()
            .filter_map(|line| line.strip_suffix(" HTTP/1.1"))
            // A body has no newline of its own: the next request follows it on its line.
            .filter_map(|line| {
                let methods = ["GET /", "POST /", "PUT /", "PATCH /", "DELETE /", "LIST /"];
                let start = methods.iter().filter_map(|word| line.rfind(word)).max()?;
                Some(line[start..].to_owned())
            })
            .collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::SeqCst);
        self.set(Mode::Reset);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mode, once it is not `Stall`.
    fn mode(&self) -> Mode {
        let state = self.state();
        let state = self
            .changed
            .wait_while(state, |state| state.mode == Mode::Stall)
            .unwrap_or_else(PoisonError::into_inner);
        state.mode
    }
}

/// Has every open connection end in a reset. Reading ends at once, which lets go of the socket, and a
/// socket without linger is reset when it is let go.
fn reset(state: &mut State) {
    for wire in state.open.drain(..) {
        wire.reset.store(true, Ordering::SeqCst);
        let _ = set_socket_linger(&wire.stream, Some(Duration::ZERO));
        let _ = wire.stream.shutdown(Shutdown::Read);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.gone.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        let mut state = shared.state();
        state.connections += 1;
        if state.mode == Mode::Reset {
            let _ = set_socket_linger(&client, Some(Duration::ZERO));
            continue;
        }
        let Ok(server) = TcpStream::connect(shared.server) else {
            continue;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let wire = |stream| {
            let reset = AtomicBool::new(false);
            Arc::new(Wire { stream, reset })
        };
        let (client, server) = (wire(client), wire(server));
        state.open.retain(|wire| Arc::strong_count(wire) > 1);
        state
            .open
            .extend([Arc::clone(&client), Arc::clone(&server)]);
        drop(state);
        relay(&client, &server, shared, true);
        relay(&server, &client, shared, false);
    }
}

/// Moves bytes one way: one thread reads, the other writes when they are due.
fn relay(from: &Arc<Wire>, to: &Arc<Wire>, shared: &Arc<Shared>, asking: bool) {
    let (send, receive) = mpsc::channel::<(Instant, Vec<u8>)>();
    let (from, to) = (Arc::clone(from), Arc::clone(to));
    let (target, reading) = (Arc::clone(&to), Arc::clone(shared));
    thread::spawn(move || read(&from.stream, &target.stream, &send, &reading, asking));
    thread::spawn(move || {
        for (due, bytes) in receive {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if (&to.stream).write_all(&bytes).is_err() {
                break;
            }
        }
        if !to.reset.load(Ordering::SeqCst) {
            let _ = to.stream.shutdown(Shutdown::Write);
        }
    });
}

fn read(
    from: &TcpStream,
    to: &TcpStream,
    send: &mpsc::Sender<(Instant, Vec<u8>)>,
    shared: &Shared,
    asking: bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut answered = 0_u64;
    while let Ok(length @ 1..) = (&mut &*from).read(&mut buffer) {
        let mut bytes = buffer[..length].to_vec();
        if asking {
            shared.state().asked.extend_from_slice(&bytes);
        } else {
            shared.state().answered += bytes.len() as u64;
        }
        let mut due = Instant::now();
        match shared.mode() {
            Mode::Cut(after) if !asking => {
                let room = usize::try_from(after.saturating_sub(answered)).unwrap_or(usize::MAX);
                if room <= bytes.len() {
                    bytes.truncate(room);
                    let _ = (&mut &*to).write_all(&bytes);
                    let _ = to.shutdown(Shutdown::Both);
                    let _ = from.shutdown(Shutdown::Both);
                    return;
                }
            }
            Mode::Delay(delay) => due += delay,
            Mode::Reset => return,
            Mode::Swallow => continue,
            Mode::Cut(_) | Mode::Pass | Mode::Stall => {}
        }
        answered += bytes.len() as u64;
        if send.send((due, bytes)).is_err() {
            return;
        }
    }
}
