//! A server of few words: a listening socket that answers as a test says and keeps what it was sent.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// A listening socket. Its threads end with the test's process.
pub(crate) struct Raw {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Raw {
    /// Gives every request to `answer`, by its number from 0, which writes what it likes. A
    /// connection is closed when `answer` returns false.
    pub(crate) fn new(
        answer: impl Fn(usize, &str, &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on loopback");
        let address = listener.local_addr().expect("its address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, kept) = (Arc::new(answer), Arc::clone(&seen));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&kept));
                thread::spawn(move || {
                    while let Some(head) = read_head(&mut stream) {
                        let number = {
                            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                            seen.push(head.clone());
                            seen.len() - 1
                        };
                        if !answer(number, &head, &mut stream) {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// Answers every request with these bytes and closes.
    pub(crate) fn saying(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::new(move |_, _, stream| {
            // A client that has gone is a client that has heard enough.
            let _ = stream.write_all(&bytes);
            false
        })
    }

    /// Answers every request with a status, headers and a body.
    pub(crate) fn answering(status: u16, headers: &str, body: &str) -> Self {
        Self::saying(response(status, headers, body))
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads of all requests.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// An HTTP/1.1 response. Each of `headers` ends in CRLF.
pub(crate) fn response(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
        .into_bytes()
}

/// A request up to its empty line; a body stays unread, which the small ones here allow.
fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    String::from_utf8(head).ok()
}
