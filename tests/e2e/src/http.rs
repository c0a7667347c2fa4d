//! A web server with a disk behind a password: it shows which bytes QEMU makes of a secret.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use base64ct::{Base64, Encoding};

use crate::{LIMIT, PATTERN};

const SIZE: usize = 64 * 1024;

/// A server on this host that gives a disk full of the pattern to the user `web01`, if the
/// password is right.
#[derive(Debug)]
pub struct PasswordServer {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PasswordServer {
    /// Starts it.
    pub fn start(password: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let credentials = [b"web01:", password].concat();
        let expected = format!("Basic {}", Base64::encode_string(&credentials));
        let ends = Arc::new(AtomicBool::new(false));
        let ended = ends.clone();
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                // Whoever hangs up in between did not want the answer.
                let _ = stream.and_then(|stream| answer(stream, &expected));
            }
        });
        Self {
            address,
            ends,
            thread: Some(thread),
        }
    }

    /// The options of a block device that reads from it, with the password of this secret object.
    pub fn options(&self, secret_id: &str) -> String {
        format!(
            "driver=raw,file.driver=http,file.url=http://{}/disk,file.username=web01,file.password-secret={secret_id}",
            self.address
        )
    }
}

impl Drop for PasswordServer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // The listener looks up when somebody comes.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, expected: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut authorized = false;
    let mut range = 0..SIZE;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(": ") else {
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorized = value == expected,
            "range" => range = parse_range(value).unwrap_or(range),
            _ => {}
        }
    }
    if !authorized {
        return stream.write_all(
            b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    }
    let (status, length) = if request.starts_with("HEAD") {
        ("200 OK", SIZE)
    } else {
        ("206 Partial Content", range.len())
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nAccept-Ranges: bytes\r\nContent-Length: {length}\r\nContent-Range: bytes {}-{}/{SIZE}\r\nConnection: close\r\n\r\n",
        range.start,
        range.end - 1,
    )?;
    if request.starts_with("GET") {
        stream.write_all(&vec![PATTERN; range.len()])?;
    }
    Ok(())
}

/// `bytes=FIRST-LAST`.
fn parse_range(value: &str) -> Option<std::ops::Range<usize>> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let last: usize = last.parse().ok()?;
    Some(first.parse().ok()?..(last + 1).min(SIZE))
}
