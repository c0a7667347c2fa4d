//! Deleting.

use keyhaul_core::{Capability, DeleteOptions, ErrorKind, GetOptions};

use super::Trial;
use super::modes::updating;
use crate::ground::Ground;
use crate::outcome::{Expect as _, Outcome};

const CONDITIONAL: Capability = Capability::DELETE.union(Capability::UPDATE);

pub(super) const TRIALS: &[Trial] = &[
    Trial::new("what is deleted is gone", Capability::DELETE, |ground| {
        Box::pin(gone(ground))
    })
    .seeded(),
    Trial::new(
        "deleting what is not there succeeds",
        Capability::DELETE,
        |ground| Box::pin(absent(ground)),
    ),
    Trial::new(
        "deleting a secret leaves its neighbours and what is below it",
        Capability::DELETE,
        |ground| Box::pin(neighbours(ground)),
    )
    .seeded(),
    Trial::new(
        "deleting with a version that is not current is a Conflict and deletes nothing",
        CONDITIONAL,
        |ground| Box::pin(stale(ground)),
    )
    .seeded(),
    Trial::new(
        "deleting with the current version deletes, and again succeeds",
        CONDITIONAL,
        |ground| Box::pin(current(ground)),
    )
    .seeded(),
];

async fn gone(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    ground.seed(&path).await?;
    ground
        .delete(&path, &DeleteOptions::default())
        .await
        .succeeds("delete")?;
    ground.still(&path, None, "delete").await?;
    if ground.has(Capability::READ) {
        let stat = ground.stat(&path, &GetOptions::default()).await;
        stat.fails(ErrorKind::NotFound, "stat after delete")?;
    }
    Ok(())
}

async fn absent(ground: Ground) -> Outcome {
    for name in ["absent", "no/such/folder"] {
        let path = ground.path(name);
        let came = ground.delete(&path, &DeleteOptions::default()).await;
        came.succeeds("delete of what is not there")?;
    }
    Ok(())
}

async fn neighbours(ground: Ground) -> Outcome {
    let mut kept = Vec::new();
    for name in ["a/b", "ab", "a~next", "A"] {
        let path = ground.path(name);
        let (value, _) = ground.seed(&path).await?;
        kept.push((path, value));
    }
    let path = ground.path("a");
    // Once as a mere folder, once as a secret.
    ground
        .delete(&path, &DeleteOptions::default())
        .await
        .succeeds("delete of a folder")?;
    ground.seed(&path).await?;
    ground
        .delete(&path, &DeleteOptions::default())
        .await
        .succeeds("delete")?;
    for (path, value) in &kept {
        ground
            .still(path, Some(value), "delete of a neighbour")
            .await?;
    }
    Ok(())
}

async fn stale(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    let (_, first) = ground.seed(&path).await?;
    let value = ground.canary();
    let options = updating(&first.version)?;
    ground
        .put(&path, &value, &options)
        .await
        .succeeds("put as Update")?;
    let options = DeleteOptions::default().version(first.version);
    let came = ground.delete(&path, &options).await;
    came.fails(ErrorKind::Conflict, "delete with a version replaced")?;
    ground.still(&path, Some(&value), "a refused delete").await
}

/// The second time is what a retry after a lost answer looks like.
async fn current(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    let (_, metadata) = ground.seed(&path).await?;
    let options = DeleteOptions::default().version(metadata.version);
    ground
        .delete(&path, &options)
        .await
        .succeeds("delete with the current version")?;
    ground.still(&path, None, "delete").await?;
    ground
        .delete(&path, &options)
        .await
        .succeeds("the same delete again")
}
