//! A house of its own for keyhaul: home, temporary folder, runtime folder, policy and a canary.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use keyhaul_servers::{Backend, Place};
use tempfile::TempDir;

use crate::needle::letters;
use crate::process::Watcher;
use crate::program::{finish, keyhaul, lossy};
use crate::trace::{Call, Trace, strace};
use crate::{Find, Needle, assert_clean, files, need_root, store};

/// What takes anything and keeps nothing.
const DEVICES: &[&str] = &["/dev/null", "/dev/tty", "/dev/full"];

/// The folders, the canary, and who watches.
pub struct House {
    inside: TempDir,
    outside: TempDir,
    canary: Arc<Needle>,
    others: Mutex<Vec<Arc<Needle>>>,
    watcher: Option<Watcher>,
    place: Option<Place>,
    calls: AtomicU32,
}

/// A finished keyhaul and what is known of its run.
#[derive(Debug)]
pub struct Done {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// What it and its programs called.
    pub trace: Trace,
}

impl House {
    /// A house with a fresh canary, that nobody has told to keyhaul yet, and a watcher.
    #[track_caller]
    pub fn new() -> Self {
        Self::with_canary(&letters(48))
    }

    /// A house whose canary is given, for what takes long to make and is shared.
    #[track_caller]
    pub fn with_canary(canary: &[u8]) -> Self {
        need_root();
        let inside = tempfile::tempdir().expect("folder");
        let outside = tempfile::tempdir().expect("folder");
        for folder in [inside.path(), outside.path()] {
            fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).expect("mode");
        }
        for name in ["home", "tmp", "run"] {
            let folder = inside.path().join(name);
            fs::create_dir(&folder).expect("folder");
            fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).expect("mode");
        }
        let canary = Arc::new(Needle::new("the canary", canary));
        let watcher = Some(Watcher::start(vec![canary.clone()]));
        Self {
            inside,
            outside,
            canary,
            others: Mutex::default(),
            watcher,
            place: None,
            calls: AtomicU32::new(0),
        }
    }

    /// The same, with a policy that names an empty store of this kind. What opens the store is looked
    /// for like the canary.
    #[track_caller]
    pub fn on(mut self, backend: Backend) -> Self {
        let credentials = self.outside().join("credentials");
        fs::create_dir(&credentials).expect("folder");
        fs::set_permissions(&credentials, PermissionsExt::from_mode(0o700)).expect("mode");
        let place = backend.place(&credentials);
        self.policy(&place.policy());
        for (name, bytes) in &place.credentials {
            self.also(Needle::new(*name, bytes));
        }
        self.place = Some(place);
        self
    }

    /// Gives it this policy.
    #[track_caller]
    pub fn policy(&self, text: &str) {
        let mut folder = self.inside().join("home");
        for name in [".config", "keyhaul"] {
            folder.push(name);
            fs::create_dir(&folder).expect("folder");
            fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).expect("mode");
        }
        self.write("home/.config/keyhaul/keyhaul.toml", text);
    }

    /// The store that its policy names.
    ///
    /// # Panics
    /// Where that is the embedded default's.
    pub fn place(&self) -> &Place {
        self.place.as_ref().expect("a house on a backend")
    }

    /// Everything that keyhaul may write to lies below this folder.
    pub fn inside(&self) -> &Path {
        self.inside.path()
    }

    /// What the hunt itself puts down, secrets in the clear included.
    pub fn outside(&self) -> &Path {
        self.outside.path()
    }

    /// The secret.
    pub fn canary(&self) -> &Needle {
        &self.canary
    }

    /// The canary, and whatever else is looked for by now.
    pub fn needles(&self) -> Vec<Arc<Needle>> {
        let others = self.others.lock().expect("no panic");
        [self.canary.clone()]
            .into_iter()
            .chain(others.iter().cloned())
            .collect()
    }

    /// Looks for this, too, from now on.
    pub fn also(&self, needle: Needle) {
        self.others.lock().expect("no panic").push(Arc::new(needle));
    }

    /// Looks for the keys of the embedded default's store, too, from now on.
    ///
    /// # Panics
    /// Where there is no such store yet.
    pub fn also_store_keys(&self) {
        let (identity, root) = self.default_store();
        store::identity(&identity)
            .into_iter()
            .for_each(|needle| self.also(needle));
        self.also(store::store_key(&root, &identity));
    }

    /// The secret as a file outside, for keyhaul or a control to read.
    pub fn canary_file(&self) -> PathBuf {
        let path = self.outside().join("canary");
        fs::write(&path, self.canary.bytes()).expect("written");
        path
    }

    /// Writes a file inside, readable by its owner alone, and names it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.inside().join(name);
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
        path
    }

    /// The identity and the store of the embedded default policy.
    pub fn default_store(&self) -> (PathBuf, PathBuf) {
        let home = self.inside().join("home");
        (
            home.join(".local/state/keyhaul/identity"),
            home.join(".local/share/keyhaul/secrets"),
        )
    }

    /// Gives `program` this house's environment and nothing else.
    pub fn furnish(&self, mut program: Command) -> Command {
        program
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.inside().join("home"))
            .env("TMPDIR", self.inside().join("tmp"))
            .env("XDG_RUNTIME_DIR", self.inside().join("run"))
            .env("RUST_LOG", "trace")
            .env("RUST_BACKTRACE", "full")
            .envs(self.place.iter().flat_map(|place| place.variables.clone()))
            .current_dir(self.inside());
        program
    }

    /// Where keyhaul is to put key files: root's own folder is the system's.
    pub fn runtime_dir(&self) -> String {
        self.inside().join("run/keyhaul").display().to_string()
    }

    /// keyhaul, as talkative as it gets.
    pub fn keyhaul<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = self.furnish(Command::new(keyhaul()));
        command.args(["-vvvv", "--non-interactive"]).args(arguments);
        command
    }

    /// As [`keyhaul`](Self::keyhaul), and every system call is written to the file.
    pub fn traced<S: AsRef<OsStr>>(&self, arguments: &[S]) -> (Command, PathBuf) {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let file = self.outside().join(format!("trace-{number}"));
        let mut command = self.furnish(strace(&file, keyhaul()));
        command.args(["-vvvv", "--non-interactive"]).args(arguments);
        (command, file)
    }

    /// Waits until the watcher has seen a program of this name, which must still run.
    ///
    /// # Panics
    /// Where it does not.
    #[track_caller]
    pub fn is_watched(&self, program: &str) {
        let watcher = self.watcher.as_ref().expect("until the end");
        assert!(watcher.sees(program), "the watcher sees no {program}");
    }

    /// Runs keyhaul with `input`, which may hold the canary. Nothing that leaves it may.
    #[track_caller]
    pub fn silent<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Done {
        let done = self.run(arguments, input);
        let needles = self.needles();
        let needles: Vec<&Needle> = needles.iter().map(Arc::as_ref).collect();
        assert_clean(&done.streams(&needles));
        assert_clean(&self.scan_trace(&done.trace, &needles, |_| false));
        done
    }

    /// Looks through every call that is not `expected`, nor over the one medium that carries values to
    /// the store in the clear, where there is one.
    pub fn scan_trace(
        &self,
        trace: &Trace,
        needles: &[&Needle],
        expected: impl Fn(&Call) -> bool,
    ) -> Vec<Find> {
        let place = self.place.as_ref();
        let carried = trace.over(place.and_then(|place| place.medium.as_ref()));
        let scan = |needle: &&Needle| {
            // An operator put it there, for every program that is started so.
            let given = self.is_in_environment(needle);
            let expected =
                |call: &Call| carried(call) || expected(call) || given && call.name == "execve";
            trace.scan(&[needle], expected)
        };
        needles.iter().flat_map(scan).collect()
    }

    /// Whether the policy's store takes this from the environment.
    pub fn is_in_environment(&self, needle: &Needle) -> bool {
        let mut variables = self.place.iter().flat_map(|place| &place.variables);
        variables.any(|(_, value)| value.as_bytes() == needle.bytes())
    }

    /// As [`silent`](Self::silent), and it must succeed.
    #[track_caller]
    pub fn succeeds<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Done {
        let done = self.silent(arguments, input);
        assert!(done.status.success(), "{}", done.words());
        done
    }

    /// As [`silent`](Self::silent), and it must fail with this exit status.
    #[track_caller]
    pub fn fails<S: AsRef<OsStr>>(&self, status: i32, arguments: &[S], input: &[u8]) -> Done {
        let done = self.silent(arguments, input);
        assert_eq!(done.status.code(), Some(status), "{}", done.words());
        done
    }

    /// Runs keyhaul, which must tell the canary: on standard output, and nowhere else.
    #[track_caller]
    pub fn tells<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Done {
        let done = self.run(arguments, b"");
        assert!(done.status.success(), "{}", done.words());
        let needles = [self.canary()];
        assert!(
            !crate::search("stdout", &done.stdout, &needles).is_empty(),
            "not on stdout"
        );
        assert!(
            !done.trace.scan(&needles, |_| false).is_empty(),
            "strace did not see it"
        );
        let mut finds = crate::search("standard error", &done.stderr, &needles);
        finds.extend(self.scan_trace(&done.trace, &needles, |call| call.writes_to(1)));
        assert_clean(&finds);
        done
    }

    /// Runs keyhaul under strace to its end.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Done {
        let (mut command, file) = self.traced(arguments);
        let (status, stdout, stderr) = finish(&mut command, input);
        let trace = Trace::read(&file);
        let trace = trace.unwrap_or_else(|error| panic!("{error}: {}", lossy(&stderr)));
        self.check_ways_out(&trace);
        Done {
            status,
            stdout,
            stderr,
            trace,
        }
    }

    /// Makes sure that keyhaul wrote to nothing but files inside and devices, and by no way that
    /// strace cannot see.
    #[track_caller]
    pub fn check_ways_out(&self, trace: &Trace) {
        let unseen = trace.unseen("keyhaul");
        assert!(unseen.is_empty(), "not seen by strace: {unseen:?}");
        for file in trace.written_files() {
            assert!(
                file.starts_with(self.inside()) || DEVICES.iter().any(|device| file == *device),
                "written outside of the house: {}",
                file.display()
            );
        }
    }

    /// Looks through every file inside, save those below `skipped`.
    ///
    /// The identity file holds what it is for, and nothing else.
    pub fn scan_files(&self, skipped: &[&Path]) -> Vec<Find> {
        let needles = self.needles();
        let needles: Vec<&Needle> = needles.iter().map(Arc::as_ref).collect();
        let (identity, _) = self.default_store();
        let mut finds = files::scan(self.inside(), &[skipped, &[&identity]].concat(), &needles);
        if identity.exists() {
            let found = files::scan(&identity, &[], &[self.canary()]);
            finds = finds.and_then(|finds| Ok([finds, found?].concat()));
        }
        finds.expect("readable")
    }

    /// The end of the hunt: what the watcher saw, and every file that is left.
    ///
    /// # Panics
    /// With every find.
    #[track_caller]
    pub fn end(mut self, skipped: &[&Path]) {
        let watched = self.watcher.take().expect("until the end").stop();
        assert_clean(&watched.finds);
        assert!(watched.rounds > 0, "the watcher never looked");
        assert_clean(&self.scan_files(skipped));
        assert_clean(&files::scan(Path::new("/dev/shm"), &[], &[&self.canary]).expect("readable"));
    }
}

impl Default for House {
    fn default() -> Self {
        Self::new()
    }
}

impl Done {
    /// Looks everywhere: both streams, and every call.
    pub fn scan(&self, needles: &[&Needle]) -> Vec<Find> {
        let mut finds = self.streams(needles);
        finds.extend(self.trace.scan(needles, |_| false));
        finds
    }

    /// Looks through both streams.
    pub fn streams(&self, needles: &[&Needle]) -> Vec<Find> {
        let mut finds = crate::search("standard output", &self.stdout, needles);
        finds.extend(crate::search("standard error", &self.stderr, needles));
        finds
    }

    /// What it said on standard error.
    pub fn words(&self) -> String {
        lossy(&self.stderr)
    }
}
