//! Values come back to the byte.

use keyhaul_core::{Capability, ErrorKind, GetOptions, PutOptions, SecretBytes};

use super::Trial;
use crate::ground::{Ground, equal};
use crate::outcome::{Expect as _, Outcome, holds, same};

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "a value comes back to the byte, whatever its bytes are",
        Capability::READ,
        |ground| Box::pin(to_the_byte(ground)),
    )
    .seeded(),
    Trial::new(
        "the longest value is taken and comes back",
        Capability::READ,
        |ground| Box::pin(longest(ground)),
    )
    .seeded(),
    Trial::new(
        "one byte more than the longest value is TooLarge and changes nothing",
        Capability::empty(),
        |ground| Box::pin(too_long(ground)),
    )
    .seeded(),
    Trial::new(
        "what is not there is NotFound",
        Capability::READ,
        |ground| Box::pin(absent(ground)),
    ),
    Trial::new(
        "put, get and stat agree on version and labels",
        Capability::READ,
        |ground| Box::pin(metadata_agrees(ground)),
    )
    .seeded(),
    Trial::new(
        "labels come back, and a later write replaces them",
        Capability::READ
            .union(Capability::WRITE)
            .union(Capability::LABELS),
        |ground| Box::pin(labels(ground)),
    ),
];

/// Larger values are beyond what a trial should send over a network.
const LARGEST_TRIED: usize = 16 * 1024 * 1024;

async fn to_the_byte(ground: Ground) -> Outcome {
    let every_byte: Vec<u8> = (0..=255).collect();
    let page: Vec<u8> = (0..4096_u32).map(|n| (n * n % 251) as u8).collect();
    let values: [(&str, &[u8]); 9] = [
        ("empty", b""),
        ("one NUL", b"\0"),
        ("NUL inside", b"before\0after"),
        ("trailing newline", b"passphrase\n"),
        ("trailing CR LF and blanks", b"  passphrase \t\r\n"),
        ("not UTF-8", b"\xff\xfe\xc3\x28\x80"),
        ("looks like base64", b"cGFzcw=="),
        ("every byte", &every_byte),
        ("a page", &page),
    ];
    for (index, (name, bytes)) in values.into_iter().enumerate() {
        if bytes.len() > ground.max_value {
            continue;
        }
        let path = ground.path(&format!("value-{index}"));
        let value = SecretBytes::copy_from(bytes);
        ground
            .seed_with(&path, &value, PutOptions::default())
            .await?;
        let came = ground.get(&path, &GetOptions::default()).await;
        let came = came.succeeds(&format!("get of a value that is {name}"))?;
        equal(&came.value, &value, &format!("a value that is {name}"))?;
    }
    Ok(())
}

async fn longest(ground: Ground) -> Outcome {
    let path = ground.path("longest");
    let len = ground.max_value.min(LARGEST_TRIED);
    let value = SecretBytes::init_with(len, |bytes| {
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = (index % 253) as u8;
        }
    });
    ground
        .seed_with(&path, &value, PutOptions::default())
        .await?;
    let came = ground.get(&path, &GetOptions::default()).await;
    equal(&came.succeeds("get")?.value, &value, "the longest value")
}

async fn too_long(ground: Ground) -> Outcome {
    if ground.max_value > LARGEST_TRIED {
        return Ok(());
    }
    let value = SecretBytes::init_with(ground.max_value + 1, |bytes| bytes.fill(b'x'));
    let options = PutOptions::default().mode(ground.seeding_mode());
    let fresh = ground.path("fresh");
    let what = "put of a value one byte too long";
    ground
        .put(&fresh, &value, &options)
        .await
        .fails(ErrorKind::TooLarge, what)?;
    ground.still(&fresh, None, what).await?;
    if ground.has(Capability::WRITE) {
        let path = ground.path("there");
        let (old, _) = ground.seed(&path).await?;
        ground
            .put(&path, &value, &options)
            .await
            .fails(ErrorKind::TooLarge, what)?;
        ground.still(&path, Some(&old), what).await?;
    }
    Ok(())
}

async fn absent(ground: Ground) -> Outcome {
    let path = ground.path("absent");
    let options = GetOptions::default();
    ground
        .get(&path, &options)
        .await
        .fails(ErrorKind::NotFound, "get")?;
    ground
        .stat(&path, &options)
        .await
        .fails(ErrorKind::NotFound, "stat")?;
    let expired = GetOptions::default().expired(true);
    let what = "get with `expired`";
    ground
        .get(&path, &expired)
        .await
        .fails(ErrorKind::NotFound, what)?;
    for answer in ground.get_many(&[path], &options).await {
        answer.fails(ErrorKind::NotFound, "get_many")?;
    }
    Ok(())
}

async fn metadata_agrees(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    let (_, put) = ground.seed(&path).await?;
    let options = GetOptions::default();
    let get = ground.get(&path, &options).await.succeeds("get")?.metadata;
    let stat = ground.stat(&path, &options).await.succeeds("stat")?;
    if ground
        .can
        .intersects(Capability::UPDATE | Capability::VERSIONS)
    {
        holds(put.version.is_some(), "put to tell the version", "none")?;
    }
    same(
        &get.version,
        &put.version,
        "the version that put told, from get",
    )?;
    same(&stat, &get, "the metadata that get gave, from stat")
}

async fn labels(ground: Ground) -> Outcome {
    let path = ground.path("labelled");
    let labels = |pairs: &[(&str, &str)]| {
        let owned = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        PutOptions::default().labels(owned.collect())
    };
    let first = labels(&[("purpose", "root disk"), ("owner", "tenant-7")]);
    let second = labels(&[("owner", "tenant-8")]);
    for options in [first, second, PutOptions::default()] {
        let value = ground.canary();
        let put = ground.put(&path, &value, &options).await.succeeds("put")?;
        same(&put.labels, &options.labels, "put's labels")?;
        let stat = ground
            .stat(&path, &GetOptions::default())
            .await
            .succeeds("stat")?;
        same(&stat.labels, &options.labels, "stat's labels")?;
    }
    Ok(())
}
