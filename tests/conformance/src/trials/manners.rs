//! What a store shows of itself, and what it keeps to itself.

use std::thread;

use keyhaul_core::{Capability, GetOptions, ListOptions, PutMode, PutOptions, Version};

use super::Trial;
use crate::ground::Ground;
use crate::outcome::{Expect as _, Failure, Outcome, holds, same};

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "the descriptor needs no runtime, stays the same and holds no credential",
        Capability::empty(),
        |ground| Box::pin(descriptor(ground)),
    ),
    Trial::new(
        "the capabilities stay the same",
        Capability::empty(),
        |ground| Box::pin(capabilities(ground)),
    ),
    Trial::new(
        "probe succeeds and changes nothing",
        Capability::READ,
        |ground| Box::pin(probe(ground)),
    )
    .seeded(),
    Trial::new(
        "no refusal shows a value, nor does the Debug of anything",
        Capability::empty(),
        |ground| Box::pin(silence(ground)),
    )
    .seeded(),
];

async fn descriptor(ground: Ground) -> Outcome {
    for (role, store) in ground.handles.named() {
        let first = store.descriptor().clone();
        let asked = store.clone();
        // Where there is no runtime, a store that reaches for its server fails.
        let second = thread::spawn(move || asked.descriptor().clone()).join();
        let second = second.map_err(|_| Failure::new("a descriptor", "a panic"))?;
        same(
            &second,
            &first,
            &format!("the descriptor of the {role} again"),
        )?;
        for (what, text) in [("name", &first.name), ("scheme", &first.scheme)] {
            holds(!text.is_empty(), format!("a {what}"), "none")?;
        }
        let authority = first
            .location
            .split_once("://")
            .map_or("", |(_, rest)| rest);
        let userinfo = authority
            .split('/')
            .next()
            .and_then(|host| host.rsplit_once('@'));
        holds(
            userinfo.is_none_or(|(user, _)| !user.contains(':')),
            "a location without a password",
            "user information with a `:`",
        )?;
    }
    Ok(())
}

async fn capabilities(ground: Ground) -> Outcome {
    for (role, store) in ground.handles.named() {
        let first = store.capabilities().await.succeeds("capabilities")?;
        let second = store.capabilities().await.succeeds("capabilities")?;
        same(
            &second,
            &first,
            &format!("the capabilities of the {role} again"),
        )?;
    }
    Ok(())
}

async fn probe(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    let (value, _) = ground.seed(&path).await?;
    let before = ground
        .stat(&path, &GetOptions::default())
        .await
        .succeeds("stat")?;
    for (role, store) in ground.handles.named() {
        store
            .probe()
            .await
            .succeeds(&format!("probe of the {role}"))?;
    }
    let after = ground
        .stat(&path, &GetOptions::default())
        .await
        .succeeds("stat")?;
    same(&after, &before, "the metadata from before the probe")?;
    ground.still(&path, Some(&value), "probe").await?;
    if ground.has(Capability::LIST) {
        let page = ground.list(ground.prefix(), &ListOptions::default()).await;
        same(&page.succeeds("list")?.secrets, &vec![path], "one secret")?;
    }
    Ok(())
}

/// Every answer of every trial is looked through; here are the refusals of writes on purpose.
async fn silence(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    ground.seed(&path).await?;
    let version = Version::new("987654321").succeeds("a version")?;
    for mode in [PutMode::Create, PutMode::Update(version)] {
        let options = PutOptions::default().mode(mode);
        let refused = ground.put(&path, &ground.canary(), &options).await;
        holds(refused.is_err(), "a refusal", "success")?;
    }
    if ground.has(Capability::READ) {
        let secret = ground
            .get(&path, &GetOptions::default())
            .await
            .succeeds("get")?;
        ground.inspect("the Debug of a secret", &format!("{secret:?} {secret:#?}"));
    }
    for (role, store) in ground.handles.named() {
        ground.inspect(
            &format!("the Debug of the {role}"),
            &format!("{store:?} {store:#?}"),
        );
    }
    Ok(())
}
