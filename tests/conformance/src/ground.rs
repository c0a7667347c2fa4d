//! Where a trial takes place: a prefix of its own, and a watch over every answer.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyhaul_core::{
    Capabilities, Capability, DeleteOptions, ErrorKind, GetOptions, ListOptions, Metadata, Page,
    PutMode, PutOptions, Recipe, Result, Secret, SecretBytes, SecretPath, random,
};

use crate::Handles;
use crate::leak::{self, Canary};
use crate::outcome::{Expect as _, Failure, Outcome, holds};

/// A trial's ground. Every request goes through it, to the handle whose role it is; it remembers
/// what was written, to delete it, and looks for values in every answer.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) handles: Handles,
    pub(crate) can: Capability,
    pub(crate) max_value: usize,
    prefix: SecretPath,
    watch: Arc<Mutex<Watch>>,
}

#[derive(Default)]
struct Watch {
    written: BTreeSet<SecretPath>,
    canaries: Vec<Canary>,
    leaks: BTreeSet<String>,
}

impl Ground {
    pub(crate) fn new(handles: Handles, capabilities: Capabilities) -> Self {
        let name = format!("trial-{}", random::hex(8).expect("randomness"));
        Self {
            handles,
            can: capabilities.can,
            max_value: capabilities.max_value,
            prefix: SecretPath::new(name).expect("a plain segment"),
            watch: Arc::default(),
        }
    }

    pub(crate) fn has(&self, wanted: Capability) -> bool {
        self.can.contains(wanted)
    }

    pub(crate) fn prefix(&self) -> &SecretPath {
        &self.prefix
    }

    /// The path `rest`, below this ground's prefix.
    pub(crate) fn path(&self, rest: &str) -> SecretPath {
        SecretPath::new(format!("{}/{rest}", self.prefix)).expect("a legal path")
    }

    /// A path's text below this ground's prefix.
    pub(crate) fn rest<'p>(&self, path: &'p SecretPath) -> &'p str {
        let below = path.as_str().strip_prefix(self.prefix.as_str());
        below
            .and_then(|rest| rest.strip_prefix('/'))
            .unwrap_or(path.as_str())
    }

    /// A fresh value that no answer may show.
    pub(crate) fn canary(&self) -> SecretBytes {
        let (value, canary) = Canary::new();
        self.watch().canaries.push(canary);
        value
    }

    /// Writes a fresh value by whichever mode the store has, and returns both.
    pub(crate) async fn seed(&self, path: &SecretPath) -> Outcome<(SecretBytes, Metadata)> {
        let value = self.canary();
        let metadata = self.seed_with(path, &value, PutOptions::default()).await?;
        Ok((value, metadata))
    }

    /// Writes `value` where there is none, by whichever mode the store has.
    pub(crate) async fn seed_with(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: PutOptions,
    ) -> Outcome<Metadata> {
        let options = options.mode(self.seeding_mode());
        self.put(path, value, &options).await.succeeds("put")
    }

    /// How this store takes a value where there is none.
    pub(crate) fn seeding_mode(&self) -> PutMode {
        if self.has(Capability::WRITE) {
            PutMode::Overwrite
        } else {
            PutMode::Create
        }
    }

    /// Holds that `path` has `value`, or nothing, where the store can tell.
    pub(crate) async fn still(
        &self,
        path: &SecretPath,
        value: Option<&SecretBytes>,
        after: &str,
    ) -> Outcome {
        if !self.has(Capability::READ) {
            return Ok(());
        }
        let came = self.get(path, &GetOptions::default()).await;
        match (value, came) {
            (Some(value), came) => {
                let secret = came.succeeds(&format!("get after {after}"))?;
                equal(
                    &secret.value,
                    value,
                    &format!("the old value after {after}"),
                )
            }
            (None, came) => came.fails(ErrorKind::NotFound, &format!("get after {after}")),
        }
    }

    pub(crate) async fn get(&self, path: &SecretPath, options: &GetOptions) -> Result<Secret> {
        self.seen("get", self.handles.reader.get(path, options).await)
    }

    pub(crate) async fn get_many(
        &self,
        paths: &[SecretPath],
        options: &GetOptions,
    ) -> Vec<Result<Secret>> {
        let answers = self.handles.reader.get_many(paths, options).await;
        let seen = |answer| self.seen("get_many", answer);
        answers.into_iter().map(seen).collect()
    }

    pub(crate) async fn stat(&self, path: &SecretPath, options: &GetOptions) -> Result<Metadata> {
        self.seen("stat", self.handles.reader.stat(path, options).await)
    }

    pub(crate) async fn put(
        &self,
        path: &SecretPath,
        value: &SecretBytes,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.watch().written.insert(path.clone());
        self.seen("put", self.handles.writer.put(path, value, options).await)
    }

    pub(crate) async fn generate(
        &self,
        path: &SecretPath,
        recipe: &Recipe,
        options: &PutOptions,
    ) -> Result<Metadata> {
        self.watch().written.insert(path.clone());
        let answer = self.handles.manager.generate(path, recipe, options).await;
        self.seen("generate", answer)
    }

    pub(crate) async fn delete(&self, path: &SecretPath, options: &DeleteOptions) -> Result<()> {
        self.seen("delete", self.handles.manager.delete(path, options).await)
    }

    pub(crate) async fn list(&self, prefix: &SecretPath, options: &ListOptions) -> Result<Page> {
        self.seen("list", self.handles.manager.list(prefix, options).await)
    }

    /// Looks for values in `text`.
    pub(crate) fn inspect(&self, whose: &str, text: &str) {
        let mut watch = self.watch();
        let found = watch.canaries.iter().find_map(|c| c.found_in(text));
        if let Some(how) = found {
            watch.leaks.insert(format!("a value {how} in {whose}"));
        }
    }

    /// Deletes what the trial wrote, where the store can.
    pub(crate) async fn clean_up(&self) -> Outcome {
        if !self.has(Capability::DELETE) {
            return Ok(());
        }
        let written = std::mem::take(&mut self.watch().written);
        for path in &written {
            let gone = self.delete(path, &DeleteOptions::default()).await;
            // A path that put refused is one that delete may refuse too.
            if gone.as_ref().is_err_and(|e| is_refusal(e.kind())) {
                continue;
            }
            gone.succeeds("cleaning up")?;
        }
        Ok(())
    }

    /// Holds that no value was seen where none may be.
    pub(crate) fn leaks(&self) -> Outcome {
        let leaks: Vec<_> = self.watch().leaks.iter().cloned().collect();
        holds(
            leaks.is_empty(),
            "no value in an error, in Debug or in metadata",
            leaks.join("; "),
        )
    }

    fn seen<T: Debug>(&self, operation: &str, answer: Result<T>) -> Result<T> {
        match &answer {
            Ok(answer) => self.inspect(
                &format!("the Debug of {operation}'s answer"),
                &format!("{answer:?}"),
            ),
            Err(error) => self.inspect(&format!("{operation}'s error"), &leak::all_of(error)),
        }
        answer
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an error of this kind says that the request itself cannot be.
pub(crate) fn is_refusal(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidReference | ErrorKind::TooLarge)
}

/// Holds two values equal without showing either.
pub(crate) fn equal(came: &SecretBytes, expected: &SecretBytes, what: &str) -> Outcome {
    if came == expected {
        return Ok(());
    }
    Err(Failure::new(
        format!("{what}, {} bytes", expected.len()),
        format!("{} bytes that differ", came.len()),
    ))
}
