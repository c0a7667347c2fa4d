//! Many at once, and futures dropped half-way.

use std::time::Duration;

use futures_util::future::{join_all, poll_immediate};
use keyhaul_core::{Capability, ErrorKind, GetOptions, PutMode, PutOptions, SecretBytes};

use super::Trial;
use super::modes::updating;
use crate::ground::{Ground, equal};
use crate::outcome::{Expect as _, Failure, Outcome, holds, same};

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "of many Creates at once one wins, and its value is there",
        Capability::CREATE,
        |ground| Box::pin(creates(ground)),
    ),
    Trial::new(
        "Updates at once lose nothing",
        Capability::UPDATE.union(Capability::READ),
        |ground| Box::pin(updates(ground)),
    )
    .seeded(),
    Trial::new(
        "a reader never sees half a value",
        Capability::WRITE.union(Capability::READ),
        |ground| Box::pin(whole_values(ground)),
    ),
    Trial::new(
        "a put dropped half-way leaves the old value or the new one",
        Capability::WRITE.union(Capability::READ),
        |ground| Box::pin(dropped(ground)),
    ),
];

pub(super) const WRITERS: usize = 8;

/// What the tasks came to, each in its own thread where the runtime has several.
pub(super) async fn at_once<T: Send + 'static>(
    work: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Outcome<Vec<T>> {
    let tasks: Vec<_> = work.into_iter().map(tokio::spawn).collect();
    let done = join_all(tasks).await;
    done.into_iter()
        .collect::<Result<_, _>>()
        .map_err(|_| Failure::new("an answer", "a panic, which is printed above"))
}

async fn creates(ground: Ground) -> Outcome {
    for round in 0..4 {
        let path = ground.path(&format!("contested-{round}"));
        let answers = at_once((0..WRITERS).map(|_| {
            let (ground, path) = (ground.clone(), path.clone());
            async move {
                let value = ground.canary();
                let options = PutOptions::default().mode(PutMode::Create);
                (ground.put(&path, &value, &options).await, value)
            }
        }))
        .await?;
        let mut winners = Vec::new();
        for (answer, value) in answers {
            match answer {
                Ok(_) => winners.push(value),
                lost => lost.fails(ErrorKind::AlreadyExists, "a Create that lost")?,
            }
        }
        same(&winners.len(), &1, "one winner")?;
        ground.still(&path, winners.first(), "many Creates").await?;
    }
    Ok(())
}

/// Each writer adds one to a number, by compare-and-set, several times.
async fn updates(ground: Ground) -> Outcome {
    const EACH: usize = 5;
    let path = ground.path("counter");
    let zero = SecretBytes::copy_from(b"0");
    ground
        .seed_with(&path, &zero, PutOptions::default())
        .await?;
    let work = (0..WRITERS).map(|_| {
        let (ground, path) = (ground.clone(), path.clone());
        async move {
            for _ in 0..EACH {
                add_one(&ground, &path).await?;
            }
            Ok(())
        }
    });
    let outcomes: Vec<Outcome> = at_once(work).await?;
    outcomes.into_iter().collect::<Outcome>()?;
    let total = SecretBytes::copy_from((WRITERS * EACH).to_string().as_bytes());
    let came = ground
        .get(&path, &GetOptions::default())
        .await
        .succeeds("get")?;
    equal(&came.value, &total, "the sum of all additions")
}

async fn add_one(ground: &Ground, path: &keyhaul_core::SecretPath) -> Outcome {
    for _ in 0..1000 {
        let came = ground
            .get(path, &GetOptions::default())
            .await
            .succeeds("get")?;
        let text = std::str::from_utf8(came.value.expose()).ok();
        let number = text.and_then(|text| text.parse::<u64>().ok());
        let number = number.ok_or_else(|| Failure::new("a number", "something else"))?;
        let next = SecretBytes::copy_from((number + 1).to_string().as_bytes());
        let options = updating(&came.metadata.version)?;
        match ground.put(path, &next, &options).await {
            Ok(_) => return Ok(()),
            lost => lost.fails(ErrorKind::Conflict, "an Update that lost")?,
        }
    }
    Err(Failure::new("an Update to win", "1000 that lost"))
}

async fn whole_values(ground: Ground) -> Outcome {
    let path = ground.path("changing");
    let most = ground.max_value.min(50_000);
    let of = move |letter: u8, len: usize| SecretBytes::init_with(len, |bytes| bytes.fill(letter));
    let whole = move |value: &SecretBytes| *value == of(b'a', most) || *value == of(b'b', most / 3);
    ground
        .seed_with(&path, &of(b'a', most), PutOptions::default())
        .await?;
    let writer = {
        let (ground, path) = (ground.clone(), path.clone());
        tokio::spawn(async move {
            for round in 0..50 {
                let value = if round % 2 == 0 {
                    of(b'b', most / 3)
                } else {
                    of(b'a', most)
                };
                let put = ground.put(&path, &value, &PutOptions::default()).await;
                put.succeeds("put")?;
                tokio::task::yield_now().await;
            }
            Ok(())
        })
    };
    let mut reads = 0;
    while !writer.is_finished() || reads == 0 {
        let came = ground
            .get(&path, &GetOptions::default())
            .await
            .succeeds("get")?;
        holds(whole(&came.value), "one of the two values whole", "another")?;
        reads += 1;
        tokio::task::yield_now().await;
    }
    let written: Outcome = writer
        .await
        .unwrap_or_else(|_| Err(Failure::new("puts", "a panic")));
    written
}

/// Drops a put after more and more time. What it had begun may still come to pass later, so that
/// any value offered so far is right, and a torn or lost one is wrong.
async fn dropped(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    let (value, _) = ground.seed(&path).await?;
    let mut offered = vec![value];
    for round in 0..24_u64 {
        let value = ground.canary();
        let options = PutOptions::default();
        let put = ground.put(&path, &value, &options);
        if round == 0 {
            // Dropped at its very first wait.
            let _ = poll_immediate(put).await;
        } else {
            let wait = Duration::from_micros(20 << (round / 2).min(10));
            let _ = tokio::time::timeout(wait, put).await;
        }
        offered.push(value);
        let came = ground
            .get(&path, &GetOptions::default())
            .await
            .succeeds("get")?;
        let known = offered.contains(&came.value);
        holds(known, "the old value or the new one", "another")?;
    }
    Ok(())
}
