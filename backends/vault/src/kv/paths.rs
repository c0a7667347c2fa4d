//! Where a secret is: in the API's words, and in a Vault policy's.

use keyhaul_core::SecretPath;

/// Which of the two key-value engines a mount is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KvVersion {
    One,
    Two,
}

impl KvVersion {
    /// The version of its name, `1` or `2`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "1" => Some(Self::One),
            "2" => Some(Self::Two),
            _ => None,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::Two => "2",
        }
    }
}

/// A mount, and which engine it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Its path, as `kv/prod`.
    pub(crate) path: String,
    /// Its engine.
    pub(crate) version: KvVersion,
}

/// The parts of the API below a mount of KV version 2.
pub(crate) const DATA: &str = "data";
pub(crate) const DELETE: &str = "delete";
pub(crate) const METADATA: &str = "metadata";

impl Mount {
    /// Where the values of `path` are.
    pub(crate) fn data(&self, path: &SecretPath) -> String {
        match self.version {
            KvVersion::One => self.below(None, path),
            KvVersion::Two => self.below(Some(DATA), path),
        }
    }

    /// Where lists are, and what is known of a secret.
    pub(crate) fn metadata(&self, path: &SecretPath) -> String {
        match self.version {
            KvVersion::One => self.below(None, path),
            KvVersion::Two => self.below(Some(METADATA), path),
        }
    }

    /// A part of version 2's API.
    pub(crate) fn part(&self, part: &'static str, path: &SecretPath) -> String {
        self.below(Some(part), path)
    }

    fn below(&self, part: Option<&str>, path: &SecretPath) -> String {
        let parts = [Some(self.path.as_str()), part, Some(path.as_str())];
        let parts = parts.into_iter().flatten().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("/")
    }
}

/// The rest of a path that begins with `data/`, as people copy it from the API's documentation.
pub(crate) fn without_data(path: &SecretPath) -> Option<SecretPath> {
    let rest = path.as_str().strip_prefix("data/")?;
    SecretPath::new(rest).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> SecretPath {
        SecretPath::new(text).expect("a path")
    }

    #[test]
    fn each_version_has_its_own_paths() {
        let mount = |version| Mount {
            path: "kv/prod".into(),
            version,
        };
        let secret = path("vms/web01");
        assert_eq!(mount(KvVersion::One).data(&secret), "kv/prod/vms/web01");
        assert_eq!(mount(KvVersion::One).metadata(&secret), "kv/prod/vms/web01");
        assert_eq!(
            mount(KvVersion::Two).data(&secret),
            "kv/prod/data/vms/web01"
        );
        assert_eq!(
            mount(KvVersion::Two).metadata(&SecretPath::root()),
            "kv/prod/metadata"
        );
        assert_eq!(
            mount(KvVersion::Two).part(DELETE, &secret),
            "kv/prod/delete/vms/web01"
        );
    }

    #[test]
    fn only_a_whole_segment_is_the_apis() {
        assert_eq!(without_data(&path("data/vms/x")), Some(path("vms/x")));
        assert_eq!(without_data(&path("data")), None);
        assert_eq!(without_data(&path("database/x")), None);
    }
}
