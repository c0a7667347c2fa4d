//! Reading many at once.

use keyhaul_core::{Capability, ErrorKind, GetOptions};

use super::Trial;
use crate::ground::{Ground, equal};
use crate::outcome::{Expect as _, Outcome, same};

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "get_many answers in the order of the paths, each with its own outcome",
        Capability::READ,
        |ground| Box::pin(in_order(ground)),
    )
    .seeded(),
    Trial::new(
        "get_many of nothing is nothing",
        Capability::READ,
        |ground| Box::pin(nothing(ground)),
    ),
    Trial::new(
        "get_many gives each of a hundred its own value",
        Capability::READ,
        |ground| Box::pin(hundred(ground)),
    )
    .seeded(),
];

async fn in_order(ground: Ground) -> Outcome {
    let mut values = Vec::new();
    for name in ["z", "a", "m"] {
        values.push(ground.seed(&ground.path(name)).await?.0);
    }
    // The index of the value expected, or none where there is no secret.
    let asked = [
        ("m", Some(2)),
        ("absent", None),
        ("z", Some(0)),
        ("m", Some(2)),
        ("absent", None),
        ("a", Some(1)),
        ("z", Some(0)),
    ];
    let paths: Vec<_> = asked.iter().map(|(name, _)| ground.path(name)).collect();
    let answers = ground.get_many(&paths, &GetOptions::default()).await;
    same(&answers.len(), &asked.len(), "as many answers as paths")?;
    for (index, (answer, (name, value))) in answers.into_iter().zip(asked).enumerate() {
        let what = format!("answer {index}, of `{name}`,");
        match value {
            Some(value) => equal(&answer.succeeds(&what)?.value, &values[value], &what)?,
            None => answer.fails(ErrorKind::NotFound, &what)?,
        }
    }
    Ok(())
}

async fn nothing(ground: Ground) -> Outcome {
    let answers = ground.get_many(&[], &GetOptions::default()).await;
    same(&answers.len(), &0, "no answers to no paths")
}

async fn hundred(ground: Ground) -> Outcome {
    let mut seeded = Vec::new();
    for index in 0..100 {
        let path = ground.path(&format!("secret-{index}"));
        let (value, _) = ground.seed(&path).await?;
        seeded.push((path, value));
    }
    let paths: Vec<_> = seeded.iter().map(|(path, _)| path.clone()).collect();
    let answers = ground.get_many(&paths, &GetOptions::default()).await;
    same(&answers.len(), &paths.len(), "as many answers as paths")?;
    for (answer, (path, value)) in answers.into_iter().zip(&seeded) {
        let what = ground.rest(path);
        equal(&answer.succeeds(what)?.value, value, what)?;
    }
    Ok(())
}
