//! A disk that hangs: strace holds a thread of the server back in the call that forces a file to it,
//! as one that does not answer would.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::LIMIT;

/// A thread that hangs whenever it forces a file to the disk, until this is dropped.
pub struct Hanging(Child);

impl Hanging {
    /// Has the thread of this name hang: there is one, of the only server in this process.
    pub async fn thread(name: &str) -> Self {
        let tasks = std::fs::read_dir("/proc/self/task").expect("threads");
        let mut tasks = tasks.map(|task| task.expect("a thread").path());
        let is_it = |task: &Path| {
            let comm = std::fs::read_to_string(task.join("comm"));
            comm.is_ok_and(|comm| comm.trim_end() == name)
        };
        let task = tasks.find(|task| is_it(task)).expect("the thread");
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
