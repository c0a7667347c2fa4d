//! Paths are opaque: two that differ in a byte are two secrets.

use keyhaul_core::{Capability, ErrorKind, GetOptions, PutOptions, SecretBytes, SecretPath};

use super::Trial;
use crate::ground::{Ground, equal, is_refusal};
use crate::outcome::{Expect as _, Failure, Outcome, holds};

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "paths that differ in a byte are different secrets",
        Capability::READ,
        |ground| Box::pin(odd_names(ground)),
    )
    .seeded(),
    Trial::new(
        "a secret can have secrets below it",
        Capability::READ,
        |ground| Box::pin(below_a_secret(ground)),
    )
    .seeded(),
    Trial::new(
        "very long paths are kept apart or refused",
        Capability::READ,
        |ground| Box::pin(long_names(ground)),
    )
    .seeded(),
    Trial::new("the root is no secret", Capability::empty(), |ground| {
        Box::pin(root(ground))
    })
    .seeded(),
];

/// Legal, and each a trap for somebody: a shell, a URL, a file system, Unicode.
pub(super) const ODD: &[&str] = &[
    "case",
    "Case",
    "with space",
    " leading and trailing ",
    "r\u{f6}\u{f6}t",
    "ro\u{308}o\u{308}t",
    "\u{65e5}\u{672c}\u{8a9e}",
    "root~next",
    "@host",
    "100%",
    "a%2Fb",
    "a/b",
    "a\\b",
    "a+b",
    "a b",
    ".hidden",
    "-dash",
    "dot.",
    "...",
    "*",
    "?version=1",
    "#field",
    "quote\"'`$(x)",
    "semi;colon,comma=equals:colon",
    "secret.tmp",
    "secret.lock",
];

async fn odd_names(ground: Ground) -> Outcome {
    let mut seeded = Vec::new();
    for name in ODD {
        let path = ground.path(name);
        let (value, _) = ground.seed(&path).await?;
        seeded.push((path, value));
    }
    for (path, value) in &seeded {
        let came = ground.get(path, &GetOptions::default()).await;
        let name = ground.rest(path);
        let came = came.succeeds(&format!("get of `{name}`"))?;
        equal(&came.value, value, &format!("the value of `{name}`"))?;
    }
    Ok(())
}

async fn below_a_secret(ground: Ground) -> Outcome {
    let names = ["a", "a/b", "a/b/c/d", "e/f", "e"];
    let mut seeded = Vec::new();
    for name in names {
        let path = ground.path(name);
        let (value, _) = ground.seed(&path).await?;
        seeded.push((path, value));
    }
    for (path, value) in &seeded {
        let came = ground.get(path, &GetOptions::default()).await;
        let name = ground.rest(path);
        let came = came.succeeds(&format!("get of `{name}`"))?;
        equal(&came.value, value, &format!("the value of `{name}`"))?;
    }
    let between = ground.path("a/b/c");
    let came = ground.get(&between, &GetOptions::default()).await;
    came.fails(ErrorKind::NotFound, "get of a folder that is no secret")
}

/// A store may refuse a path that is too long for it; it may not cut it short.
async fn long_names(ground: Ground) -> Outcome {
    let full = SecretPath::MAX - ground.prefix().as_str().len() - 1;
    for (len, separator) in [(200, "x"), (255, "x"), (256, "x"), (full, "x"), (full, "/")] {
        let unit = format!("{}{separator}", "x".repeat(62));
        let name: String = unit.chars().cycle().take(len - 1).collect();
        let paths = ["a", "b"].map(|last| ground.path(&format!("{name}{last}")));
        let value = ground.canary();
        let options = PutOptions::default().mode(ground.seeding_mode());
        match ground.put(&paths[0], &value, &options).await {
            Ok(_) => {
                let came = ground.get(&paths[0], &GetOptions::default()).await;
                let came = came.succeeds(&format!("get of a path of {len} bytes"))?;
                equal(&came.value, &value, "its value")?;
                ground
                    .still(
                        &paths[1],
                        None,
                        "put of a path that differs in its last byte",
                    )
                    .await?;
            }
            Err(error) => {
                let expected = format!("a path with {len} bytes to be taken or refused by rule");
                holds(is_refusal(error.kind()), expected, format!("{error:?}"))?;
            }
        }
    }
    Ok(())
}

async fn root(ground: Ground) -> Outcome {
    let root = SecretPath::root();
    let options = PutOptions::default().mode(ground.seeding_mode());
    let value = SecretBytes::copy_from(b"at the root");
    if ground
        .handles
        .writer
        .put(&root, &value, &options)
        .await
        .is_ok()
    {
        return Err(Failure::new("put at the root to fail", "success"));
    }
    if !ground.has(Capability::READ) {
        return Ok(());
    }
    let kinds = [ErrorKind::InvalidReference, ErrorKind::NotFound];
    let get = ground.get(&root, &GetOptions::default()).await;
    get.fails_as(&kinds, "get of the root")?;
    let stat = ground.stat(&root, &GetOptions::default()).await;
    stat.fails_as(&kinds, "stat of the root")
}
