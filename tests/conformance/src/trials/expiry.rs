//! Secrets that expire.

use std::time::{Duration, Instant, SystemTime};

use keyhaul_core::{Capability, ErrorKind, GetOptions, PutMode, PutOptions, SecretPath};

use super::Trial;
use crate::ground::{Ground, equal};
use crate::outcome::{Expect as _, Failure, Outcome, holds, same};

const NEEDS: Capability = Capability::EXPIRY.union(Capability::READ);

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "a secret is served until it expires, which get and stat tell",
        NEEDS,
        |ground| Box::pin(far_future(ground)),
    )
    .seeded(),
    Trial::new(
        "what has expired is NotFound, unless it is asked for although expired",
        NEEDS,
        |ground| Box::pin(past(ground)),
    )
    .seeded(),
    Trial::new("a secret expires when its time comes", NEEDS, |ground| {
        Box::pin(comes(ground))
    })
    .seeded(),
    Trial::new(
        "an expired secret that the store keeps counts as there for Create",
        NEEDS.union(Capability::CREATE),
        |ground| Box::pin(counts_as_there(ground)),
    ),
    Trial::new(
        "a later write without expiry does not expire",
        NEEDS.union(Capability::WRITE),
        |ground| Box::pin(lifted(ground)),
    ),
];

fn expiring(at: SystemTime) -> PutOptions {
    PutOptions::default().expires(Some(at))
}

fn in_the_past() -> PutOptions {
    expiring(SystemTime::now() - Duration::from_secs(3600))
}

async fn far_future(ground: Ground) -> Outcome {
    let path = ground.path("lasting");
    let at = SystemTime::now() + Duration::from_secs(3600);
    let value = ground.canary();
    ground.seed_with(&path, &value, expiring(at)).await?;
    let came = ground
        .get(&path, &GetOptions::default())
        .await
        .succeeds("get")?;
    equal(&came.value, &value, "the value")?;
    let stat = ground
        .stat(&path, &GetOptions::default())
        .await
        .succeeds("stat")?;
    for told in [came.metadata.expires, stat.expires] {
        let off = told.map(|told| match told.duration_since(at) {
            Ok(late) => late,
            Err(early) => early.duration(),
        });
        holds(
            off.is_some_and(|off| off <= Duration::from_secs(1)),
            "the time of expiry, to the second",
            format!("{off:?} off"),
        )?;
    }
    Ok(())
}

async fn past(ground: Ground) -> Outcome {
    let path = ground.path("expired");
    let value = ground.canary();
    ground.seed_with(&path, &value, in_the_past()).await?;
    let plain = GetOptions::default();
    ground
        .get(&path, &plain)
        .await
        .fails(ErrorKind::NotFound, "get")?;
    for answer in ground.get_many(std::slice::from_ref(&path), &plain).await {
        answer.fails(ErrorKind::NotFound, "get_many")?;
    }
    let anyway = ground
        .get(&path, &GetOptions::default().expired(true))
        .await;
    match ground.stat(&path, &plain).await {
        Ok(stat) => {
            let expired = stat.is_expired(SystemTime::now());
            holds(
                expired,
                "stat to tell a time of expiry past",
                format!("{stat:?}"),
            )?;
            let came = anyway.succeeds("get with `expired` of what stat knows")?;
            equal(&came.value, &value, "the value")
        }
        // The store does not keep what has expired.
        stat => {
            stat.fails(ErrorKind::NotFound, "stat")?;
            anyway.fails(
                ErrorKind::NotFound,
                "get with `expired` of what stat does not know",
            )
        }
    }
}

async fn comes(ground: Ground) -> Outcome {
    let path = ground.path("expiring");
    let at = SystemTime::now() + Duration::from_secs(2);
    let value = ground.canary();
    ground.seed_with(&path, &value, expiring(at)).await?;
    let come_to_pass = gone_at(&ground, &path).await?;
    // Stores that count in whole seconds may be early by one.
    let early = at.duration_since(come_to_pass).unwrap_or_default();
    holds(
        early <= Duration::from_secs(1),
        "the secret to be served until it expires",
        format!("NotFound {early:?} early"),
    )
}

/// When the secret is first not served, at the latest: a look can take long, with retries, and the
/// store may have said so at its very end. Each look is a request; the limit is on the wait.
async fn gone_at(ground: &Ground, path: &SecretPath) -> Outcome<SystemTime> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        match ground.get(path, &GetOptions::default()).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            came => {
                came.fails(ErrorKind::NotFound, "get of what may have expired")?;
                return Ok(SystemTime::now());
            }
        }
    }
    Err(Failure::new(
        "NotFound after 2 seconds",
        "the value after 10",
    ))
}

async fn counts_as_there(ground: Ground) -> Outcome {
    let path = ground.path("expired");
    let options = in_the_past().mode(PutMode::Create);
    let value = ground.canary();
    ground.put(&path, &value, &options).await.succeeds("put")?;
    let is_kept = ground.stat(&path, &GetOptions::default()).await.is_ok();
    let create = PutOptions::default().mode(PutMode::Create);
    let came = ground.put(&path, &ground.canary(), &create).await;
    if is_kept {
        came.fails(ErrorKind::AlreadyExists, "put as Create of what stat knows")
    } else {
        came.succeeds("put as Create of what stat does not know")
            .map(|_| ())
    }
}

async fn lifted(ground: Ground) -> Outcome {
    let path = ground.path("expired");
    let value = ground.canary();
    ground.seed_with(&path, &value, in_the_past()).await?;
    let (value, metadata) = ground.seed(&path).await?;
    same(&metadata.expires, &None, "no time of expiry")?;
    ground
        .still(&path, Some(&value), "a write without expiry")
        .await
}
