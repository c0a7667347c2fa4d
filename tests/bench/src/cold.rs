//! Cold processes.

use std::process::Command;
use std::time::Duration;

use crate::ground::{Ground, MANY};
use crate::measure::{Row, in_turn, mib, millis, peak_kib};

const ROUNDS: usize = 41;

pub fn rows(ground: &Ground) -> Vec<Row> {
    let mut rows = get(ground);
    rows.push(exec(ground));
    rows.push(many(ground));
    rows.push(memory(ground));
    rows
}

fn get(ground: &Ground) -> Vec<Row> {
    let get = || {
        let mut command = ground.keyhaul();
        command.args(["get", "web01/disk-0"]);
        command
    };
    let [ours, bare] = in_turn(ROUNDS, [get(), Command::new(&ground.bare)]);
    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
    let floor = Row {
        what: "get, one secret, cold".into(),
        measured: millis(ours),
        beside: format!("bare Rust process {}, ratio {ratio:.2}", millis(bare)),
        target: "at most 3 times the bare process".into(),
        met: Some(ratio <= 3.0),
    };
    let peer = match ground.systemd_creds() {
        None => Row {
            what: "get, one secret, cold".into(),
            measured: String::new(),
            beside: "systemd-creds: not usable here".into(),
            target: "at least 3 times faster".into(),
            met: None,
        },
        Some(peer) => {
            let [ours, peer] = in_turn(ROUNDS, [get(), peer]);
            let ratio = peer.as_secs_f64() / ours.as_secs_f64();
            Row {
                what: "get, one secret, cold".into(),
                measured: millis(ours),
                beside: format!("systemd-creds decrypt {}, {ratio:.1} times", millis(peer)),
                target: "at least 3 times faster".into(),
                met: Some(ratio >= 3.0),
            }
        }
    };
    vec![floor, peer]
}

fn exec(ground: &Ground) -> Row {
    let mut plain = Command::new(&ground.bare);
    plain.args(["-object", "secret,id=disk0,data=x"]);
    let [ours, plain] = in_turn(ROUNDS, [ground.run(&["--exec"], 1), plain]);
    let beyond = ours.saturating_sub(plain);
    Row {
        what: "run --exec, one secret, beyond exec itself".into(),
        measured: millis(beyond),
        beside: format!("exec of the same program {}", millis(plain)),
        target: "at most 4 ms".into(),
        met: Some(beyond <= Duration::from_millis(4)),
    }
}

fn many(ground: &Ground) -> Row {
    let [ours, bare] = in_turn(
        21,
        [ground.run(&["--exec"], MANY), Command::new(&ground.bare)],
    );
    Row {
        what: format!("run --exec, {MANY} secrets of one VM, in all"),
        measured: millis(ours),
        beside: format!("bare Rust process {}", millis(bare)),
        target: "at most 15 ms".into(),
        met: Some(ours <= Duration::from_millis(15)),
    }
}

fn memory(ground: &Ground) -> Row {
    let ours = peak_kib(&ground.peak, 11, &ground.run(&[], 1));
    let bare = peak_kib(&ground.peak, 11, &Command::new(&ground.bare));
    Row {
        what: "run, one secret, peak resident memory".into(),
        measured: mib(ours),
        beside: format!("bare Rust process {}", mib(bare)),
        target: "at most 10 MiB".into(),
        met: Some(ours <= 10 * 1024),
    }
}
