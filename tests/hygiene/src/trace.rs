//! The system calls of a program and of everything it starts: whatever leaves a process, leaves by
//! one of them.
//!
//! strace writes down every call but those that only read files and pipes, with every string in full,
//! the arguments and environments of programs included. So also what is written and removed again at
//! once is seen, where each open file lies, and what comes over a socket: who could send it in the
//! clear could be overheard.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use keyhaul_servers::Medium;

use crate::{Find, Needle, search};

/// The calls that bring data in, save from sockets, and those that only cost time.
const NOT_TRACED: &str = "read,pread64,readv,preadv,preadv2,getrandom,\
    futex,poll,ppoll,epoll_wait,epoll_pwait,clock_nanosleep,mprotect,madvise,rt_sigprocmask,rt_sigaction";

/// The calls that move data unseen.
const UNSEEN: &[&str] = &[
    "copy_file_range",
    "io_uring_setup",
    "memfd_create",
    "process_vm_writev",
    "sendfile",
    "splice",
    "tee",
    "vmsplice",
];

/// What a program and its descendants called.
#[derive(Debug, Default)]
pub struct Trace {
    calls: Vec<Call>,
}

/// A system call.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// Of which thread.
    pub thread: u32,
    /// Its name, as `write`.
    pub name: String,
    /// Its first argument, where that is a descriptor.
    pub descriptor: Option<i32>,
    /// What that descriptor is, where it is a socket, as `TCP:[127.0.0.1:1->127.0.0.1:2]`.
    pub socket: Option<String>,
    /// Every string among its arguments and in what it answered.
    pub strings: Vec<Vec<u8>>,
    /// The file it opened to write to, where it did.
    pub opened: Option<PathBuf>,
    /// Whether it made memory that a file or another process shares, and that can be written to.
    pub shares_memory: bool,
}

/// `program` under strace, which writes to `file`.
pub fn strace(file: &Path, program: &Path) -> Command {
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-v", "-xx", "-s", "16777216"])
        .args(["--decode-fds=path,socket", "-e"])
        .arg(format!("trace=!{NOT_TRACED}"))
        .arg("-o")
        .arg(file)
        .arg("--")
        .arg(program);
    command
}

impl Trace {
    /// Reads what strace wrote.
    ///
    /// # Errors
    /// Where it cannot be read, or holds no call at all.
    pub fn read(file: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(file)?;
        let mut calls: Vec<Call> = Vec::new();
        let mut begun = BTreeMap::new();
        for line in text.lines() {
            let Some(mut call) = Call::parse(line) else {
                continue;
            };
            if line.ends_with("<unfinished ...>") {
                begun.insert(call.thread, (call.descriptor, call.socket.clone()));
            } else if line.contains(" resumed>") {
                // Its end does not repeat what it was called on.
                if let Some((descriptor, socket)) = begun.remove(&call.thread) {
                    (call.descriptor, call.socket) = (descriptor, socket);
                }
            }
            calls.push(call);
        }
        if calls.iter().any(|call| call.name == "execve") {
            Ok(Self { calls })
        } else {
            Err(io::Error::other(
                "strace saw no program start: may it trace here?",
            ))
        }
    }

    /// Every call, in order.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Looks through every call that is not `expected`, and through all that was written to each
    /// descriptor, as a whole.
    pub fn scan(&self, needles: &[&Needle], expected: impl Fn(&Call) -> bool) -> Vec<Find> {
        let mut finds = Vec::new();
        let mut written: BTreeMap<(u32, i32), Vec<u8>> = BTreeMap::new();
        for call in self.calls.iter().filter(|call| !expected(call)) {
            let place = format!(
                "thread {}, {}({:?})",
                call.thread, call.name, call.descriptor
            );
            for string in &call.strings {
                finds.extend(search(&place, string, needles));
            }
            let moves = ["write", "send", "recv"];
            let moves = moves.iter().any(|word| call.name.contains(word));
            if let (Some(descriptor), true) = (call.descriptor, moves) {
                let all = written.entry((call.thread, descriptor)).or_default();
                call.strings
                    .iter()
                    .for_each(|string| all.extend_from_slice(string));
            }
        }
        for ((thread, descriptor), all) in written {
            let place = format!("thread {thread}, all that went through {descriptor}");
            finds.extend(search(&place, &all, needles));
        }
        finds
    }

    /// Whether a call of this trace went over a medium.
    pub fn over(&self, medium: Option<&Medium>) -> impl Fn(&Call) -> bool {
        let medium = medium.cloned();
        let mut sockets = BTreeSet::new();
        if let Some(Medium::Unix(path)) = &medium {
            let path = path.as_os_str().as_bytes();
            let connects = |call: &&Call| {
                call.name == "connect" && call.strings.iter().any(|string| string == path)
            };
            let connected = self.calls.iter().filter(connects);
            sockets.extend(connected.filter_map(Call::socket_number));
        }
        move |call| match &medium {
            None => false,
            Some(Medium::Keys) => ["add_key", "keyctl"].contains(&call.name.as_str()),
            Some(Medium::Tcp(address)) => call
                .socket
                .as_ref()
                .is_some_and(|socket| socket.ends_with(&format!("->{address}]"))),
            Some(Medium::Unix(_)) => call
                .socket_number()
                .is_some_and(|number| sockets.contains(&number)),
        }
    }

    /// Every call of `program` that moves data where strace does not see it: within the kernel, or by
    /// memory that is shared. What else was started is left out, as far as it is another program.
    pub fn unseen(&self, program: &str) -> Vec<&Call> {
        let mut others = BTreeSet::new();
        let mut found = Vec::new();
        for call in &self.calls {
            if let ("execve", Some(path)) = (call.name.as_str(), call.strings.first()) {
                let path = Path::new(OsStr::from_bytes(path));
                if path.file_name() == Some(OsStr::new(program)) {
                    others.remove(&call.thread);
                } else {
                    others.insert(call.thread);
                }
            }
            let unseen = UNSEEN.contains(&call.name.as_str()) || call.shares_memory;
            if unseen && !others.contains(&call.thread) {
                found.push(call);
            }
        }
        found
    }

    /// Every file that was opened to be written to.
    pub fn written_files(&self) -> impl Iterator<Item = &Path> {
        self.calls.iter().filter_map(|call| call.opened.as_deref())
    }
}

impl Call {
    /// Whether it wrote to this descriptor.
    pub fn writes_to(&self, descriptor: i32) -> bool {
        self.name.contains("write") && self.descriptor == Some(descriptor)
    }

    /// The kernel's number for the socket of this process that it was called on, where it is a local
    /// one: the first in `UNIX-STREAM:[1->2]`.
    fn socket_number(&self) -> Option<u64> {
        let socket = self.socket.as_ref()?.strip_prefix("UNIX")?;
        let (_, numbers) = socket.split_once('[')?;
        let end = numbers.find(|c: char| !c.is_ascii_digit())?;
        numbers[..end].parse().ok()
    }

    /// Reads `17 openat(AT_FDCWD</tmp>, "\x61", O_RDONLY) = 3</tmp/a>`.
    fn parse(line: &str) -> Option<Self> {
        let (thread, rest) = line.split_once(char::is_whitespace)?;
        let rest = rest.trim_start();
        let rest = rest.strip_prefix("<... ").unwrap_or(rest);
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
        let (name, arguments) = rest.split_at(end);
        let number = arguments.trim_start_matches('(');
        let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
        let (number, behind) = number.split_at(digits);
        let socket = behind
            .strip_prefix('<')
            .filter(|text| {
                ["TCP", "UDP", "UNIX"]
                    .iter()
                    .any(|kind| text.starts_with(kind))
            })
            .and_then(|text| text.split_once("]>"))
            .map(|(socket, _)| format!("{socket}]"));
        Some(Self {
            thread: thread.parse().ok()?,
            name: name.to_owned(),
            descriptor: number.parse().ok(),
            socket,
            strings: strings(arguments),
            opened: opened(name, arguments),
            shares_memory: name == "mmap"
                && arguments.contains("PROT_WRITE")
                && arguments.contains("MAP_SHARED"),
        })
    }
}

/// The file that a call opened to write to: strace names it behind the answer.
fn opened(name: &str, arguments: &str) -> Option<PathBuf> {
    let writes = ["O_WRONLY", "O_RDWR", "O_CREAT"]
        .iter()
        .any(|flag| arguments.contains(flag));
    if !(name == "creat" || name.starts_with("open") && writes) {
        return None;
    }
    let (_, answer) = arguments.rsplit_once(" = ")?;
    let (_, path) = answer.split_once('<')?;
    let path = unescaped(path.strip_suffix('>')?);
    Some(PathBuf::from(OsStr::from_bytes(&path)))
}

/// Every quoted string of a line.
fn strings(text: &str) -> Vec<Vec<u8>> {
    // With -xx nothing in a string but hex digits: a quote is always an end.
    let parts = text.split('"').skip(1).step_by(2);
    parts.map(unescaped).collect()
}

fn unescaped(text: &str) -> Vec<u8> {
    let numbers = text.split("\\x").skip(1);
    let byte = |number: &str| u8::from_str_radix(number.get(..2)?, 16).ok();
    numbers.filter_map(byte).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    /// What strace sees of a shell script.
    fn traced(script: &str, needle: &Needle) -> Trace {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("trace");
        let text = String::from_utf8(needle.bytes().to_vec()).expect("letters");
        std::fs::write(folder.path().join("secret"), text).expect("written");
        let status = strace(&file, Path::new("/bin/sh"))
            .args(["-c", script])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .status()
            .expect("strace: apt-get install strace");
        assert!(status.success(), "{script}");
        Trace::read(&file).expect("a trace")
    }

    #[test]
    fn reading_alone_is_no_leak_and_every_way_out_is() {
        let needle = Needle::canary();
        let finds = |script: &str| traced(script, &needle).scan(&[&needle], |_| false);
        assert_eq!(finds("read secret < secret || true"), []);
        for script in [
            "cat secret",
            "tr . , < secret > copy; rm copy",
            "/bin/echo $(cat secret)",
            "LEAK=$(cat secret) /bin/true",
            "base64 secret | cat > copy; rm copy",
            "touch $(cat secret); rm -f $(cat secret)",
            // Byte by byte: only the whole of what was written shows it.
            "dd if=secret of=copy bs=1 2>/dev/null",
        ] {
            assert!(!finds(script).is_empty(), "{script}");
        }
    }

    /// python3 that says the secret to itself, over TCP and over a socket in the folder, through
    /// calls that send and calls that receive.
    #[test]
    fn a_medium_is_told_from_every_other_socket() {
        let needle = Needle::canary();
        let script = "python3 -c 'import socket
secret = open(\"secret\", \"rb\").read()
def say(listener, kind):
    listener.listen()
    client = socket.socket(kind)
    client.connect(listener.getsockname())
    server = listener.accept()[0]
    client.sendall(secret)
    server.recv(100)
    server.sendmsg([secret])
    client.recvmsg(100)
tcp = socket.create_server((\"127.0.0.1\", 0))
say(tcp, socket.AF_INET)
unix = socket.socket(socket.AF_UNIX)
unix.bind(\"socket\")
say(unix, socket.AF_UNIX)
open(\"port\", \"w\").write(str(tcp.getsockname()[1]))'";
        let trace = traced(script, &needle);
        let found = |medium: Option<&Medium>| {
            let over = trace.over(medium);
            trace.scan(&[&needle], over).len()
        };
        let peer = |call: &Call| {
            let socket = call.socket.as_ref()?.strip_prefix("TCP:[")?;
            let (_, peer) = socket.strip_suffix(']')?.split_once("->")?;
            (call.name == "sendto").then(|| peer.parse().expect("an address"))
        };
        let listener = trace.calls().iter().find_map(peer).expect("TCP");
        let all = found(None);
        assert!(all >= 8, "{all}");
        let one_way = all / 4;
        // The server's half of a connection has the client for its peer.
        let without_tcp = found(Some(&Medium::Tcp(listener)));
        assert_eq!(without_tcp, all - one_way, "{all}");
        let without_unix = found(Some(&Medium::Unix("socket".into())));
        assert_eq!(without_unix, all - one_way, "{all}");
        assert_eq!(found(Some(&Medium::Unix("other".into()))), all);
        assert_eq!(found(Some(&Medium::Keys)), all);
    }

    #[test]
    fn copying_within_the_kernel_is_noticed() {
        let needle = Needle::canary();
        let trace = traced("cat secret > copy; rm copy", &needle);
        assert!(!trace.unseen("cat").is_empty());
        assert!(trace.unseen("rm").is_empty());
    }

    #[test]
    fn files_opened_to_be_written_are_named_wherever_they_are() {
        let trace = traced(
            "read line < secret; : > one; cd / && : > /dev/null",
            &Needle::canary(),
        );
        let files: Vec<&Path> = trace.written_files().collect();
        assert!(
            files
                .iter()
                .any(|file| file.ends_with("one") && file.is_absolute())
        );
        assert!(files.contains(&Path::new("/dev/null")));
        assert!(!files.iter().any(|file| file.ends_with("secret")));
    }
}
