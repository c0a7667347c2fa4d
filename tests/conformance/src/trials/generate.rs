//! Values made by recipe.

use keyhaul_core::{
    Alphabet, Capability, ErrorKind, GetOptions, PutMode, PutOptions, Recipe, SecretBytes,
};

use super::Trial;
use crate::ground::Ground;
use crate::outcome::{Expect as _, Outcome, holds};

const CREATES: Capability = Capability::GENERATE.union(Capability::CREATE);
const WRITES: Capability = Capability::GENERATE.union(Capability::WRITE);

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "a generated value keeps to its recipe and is new each time",
        WRITES.union(Capability::READ),
        |ground| Box::pin(recipes(ground)),
    ),
    Trial::new(
        "generating where there is a secret is AlreadyExists and changes nothing, as Create",
        CREATES,
        |ground| Box::pin(creates_only(ground)),
    ),
    Trial::new(
        "generating a value too long is TooLarge and makes nothing",
        Capability::GENERATE,
        |ground| Box::pin(too_long(ground)),
    )
    .seeded(),
];

async fn recipes(ground: Ground) -> Outcome {
    let path = ground.path("made");
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    type Fits = fn(&u8) -> bool;
    let cases: [(Alphabet, usize, Fits); 5] = [
        (Alphabet::Alphanumeric, 32, u8::is_ascii_alphanumeric),
        // A key service makes nothing that could be guessed: 128 bits at least.
        (Alphabet::Alphanumeric, 22, u8::is_ascii_alphanumeric),
        (Alphabet::Hex, 64, is_hex),
        (Alphabet::Bytes, 32, |_| true),
        (Alphabet::Bytes, 1000, |_| true),
    ];
    for (alphabet, len, fits) in cases {
        if len > ground.max_value {
            continue;
        }
        let what = format!("{len} of {alphabet:?}");
        let recipe = Recipe::new(alphabet, len).succeeds("a recipe")?;
        let mut made: Vec<SecretBytes> = Vec::new();
        for _ in 0..2 {
            let answer = ground
                .generate(&path, &recipe, &PutOptions::default())
                .await;
            let answer = answer.succeeds("generate")?;
            let came = ground
                .get(&path, &GetOptions::default())
                .await
                .succeeds("get")?;
            let value = came.value.expose();
            holds(value.len() == len, &what, format!("{} bytes", value.len()))?;
            holds(value.iter().all(fits), &what, "other bytes")?;
            let shown = format!("{answer:?}");
            if let Ok(text) = std::str::from_utf8(value).map(str::trim)
                && text.len() >= 32
            {
                holds(!shown.contains(text), "no value in the answer", "the value")?;
            }
            made.push(came.value);
        }
        holds(made[0] != made[1], "another value each time", "the same")?;
    }
    Ok(())
}

async fn creates_only(ground: Ground) -> Outcome {
    let path = ground.path("made");
    let options = PutOptions::default().mode(PutMode::Create);
    let recipe = Recipe::default();
    ground
        .generate(&path, &recipe, &options)
        .await
        .succeeds("generate")?;
    let old = if ground.has(Capability::READ) {
        let came = ground.get(&path, &GetOptions::default()).await;
        Some(came.succeeds("get")?.value)
    } else {
        None
    };
    let again = ground.generate(&path, &recipe, &options).await;
    again.fails(ErrorKind::AlreadyExists, "generate as Create again")?;
    match old {
        Some(old) => ground.still(&path, Some(&old), "a refused generate").await,
        None => Ok(()),
    }
}

async fn too_long(ground: Ground) -> Outcome {
    if ground.max_value >= Recipe::MAX {
        return Ok(());
    }
    let path = ground.path("made");
    let recipe = Recipe::new(Alphabet::Hex, ground.max_value + 1).succeeds("a recipe")?;
    let options = PutOptions::default().mode(ground.seeding_mode());
    let came = ground.generate(&path, &recipe, &options).await;
    came.fails(ErrorKind::TooLarge, "generate")?;
    ground.still(&path, None, "a refused generate").await
}
