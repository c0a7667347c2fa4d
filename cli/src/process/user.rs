use std::ffi::CString;

use keyhaul_core::{Error, ErrorKind, Result};
use nix::unistd::{Gid, Group, Uid, getgrouplist};

/// Another user to run QEMU as, with that user's groups.
#[derive(Clone, Debug)]
pub struct User {
    pub uid: Uid,
    pub gid: Gid,
    pub groups: Vec<Gid>,
}

impl User {
    /// The user of a name or number, looked up before the fork: nothing may be looked up after it.
    pub fn find(name: &str) -> Result<Self> {
        let failed = |error: nix::Error| Error::io("the user database", error.into());
        let found = match name.parse::<u32>() {
            Ok(uid) => nix::unistd::User::from_uid(Uid::from_raw(uid)),
            Err(_) => nix::unistd::User::from_name(name),
        };
        let user = found.map_err(failed)?.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("there is no user {name:?}"),
            )
            .with_advice("`getent passwd` lists the users")
        })?;
        let name = CString::new(user.name.as_str())
            .map_err(|_| Error::new(ErrorKind::InvalidConfig, "the user's name holds a NUL"))?;
        let groups = getgrouplist(&name, user.gid).map_err(failed)?;
        tracing::debug!(
            user = user.name,
            uid = user.uid.as_raw(),
            groups = ?groups.iter().filter_map(|gid| Group::from_gid(*gid).ok()?).map(|g| g.name).collect::<Vec<_>>(),
            "runs as"
        );
        Ok(Self {
            uid: user.uid,
            gid: user.gid,
            groups,
        })
    }
}
