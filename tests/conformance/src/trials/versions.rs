//! Older versions can be read.

use keyhaul_core::{Capability, DeleteOptions, ErrorKind, GetOptions, Version};

use super::Trial;
use crate::ground::{Ground, equal};
use crate::outcome::{Expect as _, Outcome, holds, same};

const NEEDS: Capability = Capability::VERSIONS
    .union(Capability::READ)
    .union(Capability::WRITE);

pub(super) const TRIALS: &[Trial] = &[
    Trial::new("every version kept gives its own value", NEEDS, |ground| {
        Box::pin(each_its_own(ground))
    }),
    Trial::new("a version that is not there is NotFound", NEEDS, |ground| {
        Box::pin(unknown(ground))
    }),
    Trial::new(
        "deleting a secret deletes all its versions",
        NEEDS.union(Capability::DELETE),
        |ground| Box::pin(deleted(ground)),
    ),
];

fn at(version: &Option<Version>) -> GetOptions {
    GetOptions::default().version(version.clone())
}

/// A store may forget old versions; what it gives must be the right one. The one before the
/// current is kept by every store that speaks of versions at all.
async fn each_its_own(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    let mut written = Vec::new();
    for _ in 0..4 {
        written.push(ground.seed(&path).await?);
    }
    let numbers = written.iter().map(|(_, metadata)| {
        let version = metadata.version.as_ref()?;
        version.as_str().parse::<u64>().ok()
    });
    // Where they are no numbers, nothing is said of their order.
    if let Some(numbers) = numbers.collect::<Option<Vec<_>>>() {
        let rises = numbers.windows(2).all(|pair| pair[0] < pair[1]);
        holds(
            rises,
            "versions that are numbers to rise",
            format!("{numbers:?}"),
        )?;
    }
    for (index, (value, metadata)) in written.iter().enumerate() {
        let what = format!("get of version {} of 4", index + 1);
        let get = ground.get(&path, &at(&metadata.version)).await;
        let is_old = index < 2;
        if is_old && get.as_ref().is_err_and(|e| e.kind() == ErrorKind::NotFound) {
            continue;
        }
        let came = get.succeeds(&what)?;
        equal(&came.value, value, &what)?;
        same(&came.metadata.version, &metadata.version, &what)?;
        let stat = ground
            .stat(&path, &at(&metadata.version))
            .await
            .succeeds("stat")?;
        same(&stat.version, &metadata.version, "stat of a version")?;
        let many = ground
            .get_many(std::slice::from_ref(&path), &at(&metadata.version))
            .await;
        for came in many {
            equal(
                &came.succeeds("get_many")?.value,
                value,
                "get_many of a version",
            )?;
        }
    }
    Ok(())
}

async fn unknown(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    ground.seed(&path).await?;
    for text in ["987654321", "0", "no-such-version"] {
        let options = at(&Some(Version::new(text).expect("a legal version")));
        let what = format!("get of version `{text}`");
        ground
            .get(&path, &options)
            .await
            .fails(ErrorKind::NotFound, &what)?;
        ground
            .stat(&path, &options)
            .await
            .fails(ErrorKind::NotFound, "stat of it")?;
    }
    Ok(())
}

async fn deleted(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    let (_, first) = ground.seed(&path).await?;
    let (_, second) = ground.seed(&path).await?;
    ground
        .delete(&path, &DeleteOptions::default())
        .await
        .succeeds("delete")?;
    for version in [first.version, second.version] {
        let came = ground.get(&path, &at(&version)).await;
        came.fails(ErrorKind::NotFound, "get of a deleted version")?;
    }
    Ok(())
}
