//! The cipher and the objects.

use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

use keyhaul_core::SecretBytes;
use keyhaul_core::qemu::object::{Dialect, SecretObject};
use keyhaul_core::qemu::{MasterKey, encrypt};

use crate::ground::Ground;
use crate::measure::{Row, median};

const LARGE: usize = 64 * 1024;

pub fn rows(_: &Ground) -> Vec<Row> {
    let master = MasterKey::generate().expect("the system has randomness");
    vec![object(&master), large(&master)]
}

fn object(master: &MasterKey) -> Row {
    let secret = SecretBytes::random(32).expect("the system has randomness");
    let each = median(
        (0..9)
            .map(|_| {
                let before = Instant::now();
                for _ in 0..20_000 {
                    let ciphertext = encrypt(master, black_box(secret.expose())).expect("encrypts");
                    let object =
                        SecretObject::new("root", "keyhaul-00000000", ciphertext).expect("ids");
                    black_box(object.render(Dialect::Args).expect("fits"));
                }
                before.elapsed() / 20_000
            })
            .collect(),
    );
    // The floor: the 16 random bytes of the IV, from the operating system as well.
    let floor = median(
        (0..9)
            .map(|_| {
                let before = Instant::now();
                for _ in 0..20_000 {
                    let mut iv = [0; 16];
                    keyhaul_core::random::fill(&mut iv).expect("the system has randomness");
                    black_box(iv);
                }
                before.elapsed() / 20_000
            })
            .collect(),
    );
    Row {
        what: "a 32-byte secret to a finished object".into(),
        measured: format!("{:.2} µs", each.as_nanos() as f64 / 1000.0),
        beside: format!(
            "its IV from the OS alone {:.2} µs",
            floor.as_nanos() as f64 / 1000.0
        ),
        target: "at most 2 µs".into(),
        met: Some(each <= Duration::from_micros(2)),
    }
}

fn large(master: &MasterKey) -> Row {
    let what = "encrypting 64 KiB".to_owned();
    let target = "at least 0.85 of openssl speed".to_owned();
    let secret = SecretBytes::random(LARGE).expect("the system has randomness");
    // In turn, so that a drifting machine drifts for both.
    let mut ratios = Vec::new();
    let mut shown = (0.0, 0.0);
    for _ in 0..3 {
        let before = Instant::now();
        let mut count = 0_u32;
        while before.elapsed() < Duration::from_secs(1) {
            black_box(encrypt(master, black_box(secret.expose())).expect("encrypts"));
            count += 1;
        }
        let ours = f64::from(count) * LARGE as f64 / before.elapsed().as_secs_f64() / 1e6;
        let Some(openssl) = openssl_speed() else {
            return Row {
                what,
                measured: format!("{ours:.0} MB/s"),
                beside: "openssl: not to be had".into(),
                target,
                met: None,
            };
        };
        ratios.push(((ours / openssl) * 1000.0) as u64);
        shown = (ours, openssl);
    }
    let ratio = median(ratios) as f64 / 1000.0;
    Row {
        what,
        measured: format!("{:.0} MB/s", shown.0),
        beside: format!("openssl speed {:.0} MB/s, ratio {ratio:.2}", shown.1),
        target,
        met: Some(ratio >= 0.85),
    }
}

/// MB/s of `openssl speed` at this size.
fn openssl_speed() -> Option<f64> {
    let output = Command::new("openssl")
        .args([
            "speed",
            "-elapsed",
            "-seconds",
            "1",
            "-evp",
            "aes-256-cbc",
            "-bytes",
            "65536",
        ])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text
        .lines()
        .rev()
        .find(|line| line.to_ascii_uppercase().starts_with("AES-256-CBC"))?;
    let kilobytes: f64 = last
        .split_whitespace()
        .last()?
        .trim_end_matches('k')
        .parse()
        .ok()?;
    Some(kilobytes / 1000.0)
}
