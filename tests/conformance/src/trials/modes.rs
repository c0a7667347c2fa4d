//! What may be there already when a secret is written.

use keyhaul_core::{Capability, ErrorKind, GetOptions, PutMode, PutOptions, Version};

use super::Trial;
use crate::ground::{Ground, equal};
use crate::outcome::{Expect as _, Outcome, holds};

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "Overwrite replaces the value and the version",
        Capability::WRITE.union(Capability::READ),
        |ground| Box::pin(overwrite(ground)),
    ),
    Trial::new(
        "Create makes what is not there",
        Capability::CREATE.union(Capability::READ),
        |ground| Box::pin(create(ground)),
    ),
    Trial::new(
        "Create of what is there is AlreadyExists and changes nothing",
        Capability::CREATE,
        |ground| Box::pin(create_again(ground)),
    ),
    Trial::new(
        "Create makes again what was deleted",
        Capability::CREATE.union(Capability::DELETE),
        |ground| Box::pin(create_after_delete(ground)),
    ),
    Trial::new(
        "Update of the current version replaces it",
        Capability::UPDATE.union(Capability::READ),
        |ground| Box::pin(update(ground)),
    )
    .seeded(),
    Trial::new(
        "Update of an older version is a Conflict and changes nothing",
        Capability::UPDATE,
        |ground| Box::pin(update_stale(ground)),
    )
    .seeded(),
    Trial::new(
        "Update of what is not there is NotFound and makes nothing",
        Capability::UPDATE,
        |ground| Box::pin(update_absent(ground)),
    )
    .seeded(),
];

pub(super) fn updating(version: &Option<Version>) -> Outcome<PutOptions> {
    holds(version.is_some(), "put to tell the version", "none")?;
    let mode = version.clone().map_or(PutMode::Overwrite, PutMode::Update);
    Ok(PutOptions::default().mode(mode))
}

fn creating() -> PutOptions {
    PutOptions::default().mode(PutMode::Create)
}

async fn overwrite(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    let (_, first) = ground.seed(&path).await?;
    let (value, second) = ground.seed(&path).await?;
    let came = ground
        .get(&path, &GetOptions::default())
        .await
        .succeeds("get")?;
    equal(&came.value, &value, "the value written last")?;
    holds(
        first.version.is_none() || first.version != second.version,
        "another version after another write",
        format!("{:?} twice", first.version),
    )
}

async fn create(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    let value = ground.canary();
    ground
        .put(&path, &value, &creating())
        .await
        .succeeds("put")?;
    let came = ground
        .get(&path, &GetOptions::default())
        .await
        .succeeds("get")?;
    equal(&came.value, &value, "the value created")
}

async fn create_again(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    let value = ground.canary();
    ground
        .put(&path, &value, &creating())
        .await
        .succeeds("put")?;
    let identical = ground.put(&path, &value, &creating()).await;
    identical.fails(ErrorKind::AlreadyExists, "put as Create of the same value")?;
    let other = ground.put(&path, &ground.canary(), &creating()).await;
    other.fails(ErrorKind::AlreadyExists, "put as Create of another value")?;
    ground.still(&path, Some(&value), "a refused Create").await
}

async fn create_after_delete(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    ground
        .put(&path, &ground.canary(), &creating())
        .await
        .succeeds("put")?;
    ground
        .delete(&path, &Default::default())
        .await
        .succeeds("delete")?;
    let value = ground.canary();
    ground
        .put(&path, &value, &creating())
        .await
        .succeeds("put after delete")?;
    ground.still(&path, Some(&value), "the second Create").await
}

async fn update(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    let (_, mut metadata) = ground.seed(&path).await?;
    // Thrice, since the version to name next is the one that the last write told.
    for _ in 0..3 {
        let value = ground.canary();
        let options = updating(&metadata.version)?;
        metadata = ground
            .put(&path, &value, &options)
            .await
            .succeeds("put as Update")?;
        let came = ground
            .get(&path, &GetOptions::default())
            .await
            .succeeds("get")?;
        equal(&came.value, &value, "the value of the update")?;
    }
    let stat = ground
        .stat(&path, &GetOptions::default())
        .await
        .succeeds("stat")?;
    let options = updating(&stat.version)?;
    let last = ground.put(&path, &ground.canary(), &options).await;
    last.succeeds("put as Update of the version that stat gave")
        .map(|_| ())
}

async fn update_stale(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    let (_, first) = ground.seed(&path).await?;
    let value = ground.canary();
    let options = updating(&first.version)?;
    ground
        .put(&path, &value, &options)
        .await
        .succeeds("put as Update")?;
    let again = ground.put(&path, &ground.canary(), &options).await;
    again.fails(ErrorKind::Conflict, "put as Update of a version replaced")?;
    let made_up = PutMode::Update(Version::new("987654321").expect("plain digits"));
    let options = PutOptions::default().mode(made_up);
    let unknown = ground.put(&path, &ground.canary(), &options).await;
    unknown.fails(
        ErrorKind::Conflict,
        "put as Update of a version that never was",
    )?;
    ground.still(&path, Some(&value), "a refused Update").await
}

async fn update_absent(ground: Ground) -> Outcome {
    let (_, elsewhere) = ground.seed(&ground.path("elsewhere")).await?;
    let path = ground.path("absent");
    let options = updating(&elsewhere.version)?;
    let came = ground.put(&path, &ground.canary(), &options).await;
    came.fails(ErrorKind::NotFound, "put as Update of what is not there")?;
    ground.still(&path, None, "a refused Update").await
}
