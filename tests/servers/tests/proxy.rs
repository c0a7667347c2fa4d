//! The proxy does what it is told, between plain sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use keyhaul_servers::{Mode, Proxy};

/// A server that sends back what it gets, and a proxy before it.
fn echo() -> Proxy {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut from = stream.try_clone().expect("cloned");
                std::io::copy(&mut from, &mut &stream)
            });
        }
    });
    Proxy::to(&address.to_string())
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).expect("connected");
    let limit = Some(Duration::from_millis(300));
    stream.set_read_timeout(limit).expect("set");
    stream
}

/// What comes back of `text`, or how it fails.
fn ask(stream: &mut TcpStream, text: &[u8]) -> Result<Vec<u8>, ErrorKind> {
    stream.write_all(text).map_err(|error| error.kind())?;
    let mut answer = vec![0; text.len()];
    match stream.read_exact(&mut answer) {
        Ok(()) => Ok(answer),
        Err(error) => Err(error.kind()),
    }
}

#[test]
fn passes_and_counts() {
    let proxy = echo();
    let mut one = connect(&proxy);
    assert_eq!(
        ask(&mut one, b"GET /a HTTP/1.1\r\n").expect("echoed"),
        b"GET /a HTTP/1.1\r\n"
    );
    ask(&mut one, b"{\"a\":1}PUT /b HTTP/1.1\r\n").expect("echoed");
    assert_eq!(proxy.connections(), 1);
    assert_eq!(proxy.requests(), ["GET /a", "PUT /b"]);
}

#[test]
fn delays_each_way_without_narrowing() {
    let proxy = echo();
    let mut stream = connect(&proxy);
    ask(&mut stream, b"warm").expect("echoed");
    proxy.set(Mode::Delay(Duration::from_millis(50)));
    let start = Instant::now();
    // Ten in flight take hardly longer than one.
    for _ in 0..10 {
        stream.write_all(b"x").expect("sent");
        thread::sleep(Duration::from_millis(1));
    }
    stream.read_exact(&mut [0; 10]).expect("echoed");
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert!(start.elapsed() < Duration::from_millis(400));
}

#[test]
fn stalls_until_told_to_go_on() {
    let proxy = echo();
    let mut stream = connect(&proxy);
    proxy.set(Mode::Stall);
    assert_eq!(ask(&mut stream, b"x"), Err(ErrorKind::WouldBlock));
    proxy.set(Mode::Pass);
    stream.read_exact(&mut [0; 1]).expect("held back, not lost");
}

#[test]
fn cuts_after_some_bytes() {
    let proxy = echo();
    proxy.set(Mode::Cut(3));
    let mut stream = connect(&proxy);
    stream.write_all(b"12345").expect("sent");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .expect("an end in good order");
    assert_eq!(answer, b"123");
}

#[test]
fn resets_open_and_new_connections() {
    let proxy = echo();
    let mut stream = connect(&proxy);
    ask(&mut stream, b"x").expect("echoed");
    proxy.set(Mode::Reset);
    let error = stream.read(&mut [0; 1]).expect_err("reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // A new one is reset when it is accepted, which can be before or after our first byte.
    let mut stream = connect(&proxy);
    let error = ask(&mut stream, b"x").expect_err("reset");
    assert!(matches!(
        error,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    ));
}

#[test]
fn swallows_for_ever() {
    let proxy = echo();
    let mut stream = connect(&proxy);
    proxy.set(Mode::Swallow);
    assert_eq!(ask(&mut stream, b"x"), Err(ErrorKind::WouldBlock));
    proxy.set(Mode::Pass);
    assert_eq!(ask(&mut stream, b"y").expect("echoed"), b"y");
}
