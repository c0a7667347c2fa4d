//! Writes that can be repeated.

use keyhaul_core::{Capability, ErrorKind, GetOptions, IdempotencyId, PutMode, PutOptions, Recipe};

use super::Trial;
use super::modes::updating;
use crate::ground::Ground;
use crate::outcome::{Expect as _, Outcome, same};

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "a Create repeated under its id answers as the first time and writes nothing",
        Capability::IDEMPOTENT.union(Capability::CREATE),
        |ground| Box::pin(create(ground)),
    ),
    Trial::new(
        "an Update repeated under its id answers as the first time and writes nothing",
        Capability::IDEMPOTENT.union(Capability::UPDATE),
        |ground| Box::pin(update(ground)),
    )
    .seeded(),
    Trial::new(
        "a repeated write does not undo a later one",
        Capability::IDEMPOTENT.union(Capability::WRITE),
        |ground| Box::pin(later(ground)),
    ),
    Trial::new(
        "a generate repeated under its id keeps the value it made",
        Capability::IDEMPOTENT
            .union(Capability::GENERATE)
            .union(Capability::CREATE)
            .union(Capability::READ),
        |ground| Box::pin(generate(ground)),
    ),
    Trial::new(
        "another id is another write, and an id at another path too",
        Capability::IDEMPOTENT.union(Capability::CREATE),
        |ground| Box::pin(another(ground)),
    ),
];

fn identified(mode: PutMode) -> Outcome<PutOptions> {
    let id = IdempotencyId::random().succeeds("an id")?;
    Ok(PutOptions::default().mode(mode).idempotency(Some(id)))
}

async fn create(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    let value = ground.canary();
    let options = identified(PutMode::Create)?;
    let first = ground.put(&path, &value, &options).await.succeeds("put")?;
    for _ in 0..2 {
        let again = ground.put(&path, &value, &options).await;
        let again = again.succeeds("the same Create under the same id")?;
        same(
            &again.version,
            &first.version,
            "the version of the first time",
        )?;
    }
    ground.still(&path, Some(&value), "a repeated Create").await
}

async fn update(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    let (_, seeded) = ground.seed(&path).await?;
    let value = ground.canary();
    let id = IdempotencyId::random().succeeds("an id")?;
    let options = updating(&seeded.version)?.idempotency(Some(id));
    let first = ground.put(&path, &value, &options).await.succeeds("put")?;
    let again = ground.put(&path, &value, &options).await;
    let again = again.succeeds("the same Update under the same id")?;
    same(
        &again.version,
        &first.version,
        "the version of the first time",
    )?;
    ground.still(&path, Some(&value), "a repeated Update").await
}

async fn later(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    let value = ground.canary();
    let options = identified(PutMode::Overwrite)?;
    let first = ground.put(&path, &value, &options).await.succeeds("put")?;
    let (newer, _) = ground.seed(&path).await?;
    let again = ground.put(&path, &value, &options).await;
    let again = again.succeeds("the write before, again")?;
    same(
        &again.version,
        &first.version,
        "the version of the first time",
    )?;
    ground
        .still(&path, Some(&newer), "a repetition of the write before")
        .await
}

async fn generate(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    let options = identified(PutMode::Create)?;
    let recipe = Recipe::default();
    let first = ground
        .generate(&path, &recipe, &options)
        .await
        .succeeds("generate")?;
    let made = ground
        .get(&path, &GetOptions::default())
        .await
        .succeeds("get")?;
    let again = ground.generate(&path, &recipe, &options).await;
    let again = again.succeeds("the same generate under the same id")?;
    same(
        &again.version,
        &first.version,
        "the version of the first time",
    )?;
    ground
        .still(&path, Some(&made.value), "a repeated generate")
        .await
}

async fn another(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    let value = ground.canary();
    let options = identified(PutMode::Create)?;
    ground.put(&path, &value, &options).await.succeeds("put")?;
    let other = identified(PutMode::Create)?;
    let came = ground.put(&path, &ground.canary(), &other).await;
    came.fails(ErrorKind::AlreadyExists, "the same Create under another id")?;
    ground
        .still(&path, Some(&value), "a refused Create")
        .await?;
    let elsewhere = ground.path("elsewhere");
    let value = ground.canary();
    ground
        .put(&elsewhere, &value, &options)
        .await
        .succeeds("put elsewhere")?;
    ground
        .still(&elsewhere, Some(&value), "put elsewhere")
        .await
}
