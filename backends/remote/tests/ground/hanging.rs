//! A disk that hangs: strace holds a thread of the server back in the call that forces a file to it,
//! as one that does not answer would.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::LIMIT;

/// The threads that one server started: others in this process have some of the same names.
pub struct Threads(HashSet<PathBuf>);

impl Threads {
    /// Starts a server, and tells its threads from all that were there before.
    pub async fn of<T>(start: impl Future<Output = T>) -> (T, Self) {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
        let _turn = ONE_AT_A_TIME.lock().await;
        let before = tasks();
        let server = start.await;
        (server, Self(&tasks() - &before))
    }
}

fn tasks() -> HashSet<PathBuf> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads");
    tasks.map(|task| task.expect("a thread").path()).collect()
}

/// A thread that hangs whenever it forces a file to the disk, until this is dropped.
pub struct Hanging(Child);

impl Hanging {
    /// Has the server's thread of this name hang.
    pub async fn thread(threads: &Threads, name: &str) -> Self {
        let is_it = |task: &&PathBuf| {
            let comm = std::fs::read_to_string(task.join("comm"));
            comm.is_ok_and(|comm| comm.trim_end() == name)
        };
        let task = threads.0.iter().find(is_it).expect("the thread");
        let id = task.file_name().expect("a number").to_owned();
        let strace = Command::new("strace")
            .args(["-qq", "-o", "/dev/null", "-p"])
            .arg(&id)
            .args(["-e", "trace=fsync,fdatasync"])
            .args(["-e", "inject=fsync,fdatasync:delay_enter=600000000"])
            .stdout(Stdio::null())
            .spawn()
            .expect("strace, of the package of that name: apt install strace");
        let hanging = Self(strace);
        let status = task.join("status");
        let begun = Instant::now();
        loop {
            let status = std::fs::read_to_string(&status).expect("a status");
            let traced = status.lines().find_map(|l| l.strip_prefix("TracerPid:"));
            if traced.is_some_and(|tracer| tracer.trim() != "0") {
                return hanging;
            }
            assert!(begun.elapsed() < LIMIT, "strace may not trace this process");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        // Gone at once, it leaves the thread to go on.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
