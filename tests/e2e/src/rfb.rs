//! Logging in to VNC: RFC 6143, up to the answer to the password.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::{LIMIT, finish_with, program};

/// VNC's name for its challenge and response.
const VNC_AUTHENTICATION: u8 = 2;

/// Whether a VNC server on this host lets a password in.
#[track_caller]
pub fn vnc_login(port: u16, password: &[u8]) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("VNC listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
    let version = read::<12>(&mut stream);
    assert_eq!(&version, b"RFB 003.008\n");
    stream.write_all(&version).expect("sent");
    let [count] = read(&mut stream);
    let mut kinds = vec![0; count.into()];
    stream.read_exact(&mut kinds).expect("the kinds of login");
    assert_eq!(kinds, [VNC_AUTHENTICATION], "a password is asked for");
    stream.write_all(&kinds).expect("sent");
    let challenge = read::<16>(&mut stream);
    stream
        .write_all(&encrypted(password, &challenge))
        .expect("sent");
    u32::from_be_bytes(read(&mut stream)) == 0
}

/// The challenge under DES, whose key is the password: 8 bytes, each with its bits reversed. Triple
/// DES with one key three times is DES, and openssl still has it without its legacy provider.
fn encrypted(password: &[u8], challenge: &[u8; 16]) -> Vec<u8> {
    let mut key = [0; 8];
    for (place, byte) in key.iter_mut().zip(password) {
        *place = byte.reverse_bits();
    }
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut openssl = program("openssl");
    openssl.args(["enc", "-des-ede3", "-nopad", "-K", &hex.repeat(3)]);
    let response = finish_with(&mut openssl, challenge).ok().stdout;
    assert_eq!(response.len(), challenge.len());
    response
}

fn read<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).expect("VNC answers");
    bytes
}
