//! Values that are maps of fields.

use keyhaul_core::{
    Capability, ErrorKind, Field, GetOptions, PutMode, PutOptions, Recipe, SecretBytes, SecretPath,
};
use serde_json::{Value, json};

use super::Trial;
use super::concurrency::{WRITERS, at_once};
use super::modes::updating;
use crate::ground::{Ground, equal};
use crate::outcome::{Expect as _, Failure, Outcome, holds};

/// Fields that can be read.
const READS: Capability = Capability::FIELDS.union(Capability::READ);
/// Fields that can be written one by one.
const WRITES: Capability = READS.union(Capability::UPDATE).union(Capability::WRITE);

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "a field comes back, and one that is not there is NotFound",
        READS,
        |ground| Box::pin(one_field(ground)),
    )
    .seeded(),
    Trial::new(
        "the whole map is a JSON object, and a JSON object replaces it",
        READS.union(Capability::WRITE),
        |ground| Box::pin(whole_map(ground)),
    ),
    Trial::new(
        "what is no JSON object is no whole map, and changes nothing",
        READS,
        |ground| Box::pin(no_object(ground)),
    )
    .seeded(),
    Trial::new(
        "writing a field keeps its siblings, to the byte",
        WRITES,
        |ground| Box::pin(keeps_siblings(ground)),
    ),
    Trial::new(
        "a write that names no field keeps the siblings of the one it means",
        WRITES,
        |ground| Box::pin(unnamed(ground)),
    ),
    Trial::new(
        "Create of a field is about that field, and without one about the secret",
        READS.union(Capability::UPDATE).union(Capability::CREATE),
        |ground| Box::pin(create(ground)),
    ),
    Trial::new(
        "Update of a field is about the secret's version",
        READS.union(Capability::UPDATE),
        |ground| Box::pin(update(ground)),
    )
    .seeded(),
    Trial::new(
        "generate makes a field and keeps its siblings",
        WRITES.union(Capability::GENERATE),
        |ground| Box::pin(generate(ground)),
    ),
    Trial::new(
        "writers of different fields at once lose nothing",
        WRITES,
        |ground| Box::pin(writers_at_once(ground)),
    ),
];

fn named(name: &str) -> Option<Field> {
    Some(Field::new(name).expect("plain letters"))
}

fn text_of(value: &SecretBytes) -> String {
    String::from_utf8_lossy(value.expose()).into_owned()
}

fn bytes_of(json: &Value) -> SecretBytes {
    SecretBytes::copy_from(json.to_string().as_bytes())
}

/// Writes a whole map where there is none.
async fn seed_map(ground: &Ground, path: &SecretPath, map: &Value) -> Outcome {
    let options = PutOptions::default().field(Some(Field::all()));
    ground.seed_with(path, &bytes_of(map), options).await?;
    Ok(())
}

async fn holds_field(
    ground: &Ground,
    path: &SecretPath,
    name: &str,
    value: &SecretBytes,
) -> Outcome {
    let options = GetOptions::default().field(named(name));
    let came = ground.get(path, &options).await;
    let came = came.succeeds(&format!("get of field {name}"))?;
    equal(&came.value, value, &format!("field {name}"))
}

async fn lacks_field(ground: &Ground, path: &SecretPath, name: &str) -> Outcome {
    let options = GetOptions::default().field(named(name));
    let came = ground.get(path, &options).await;
    came.fails(
        ErrorKind::NotFound,
        &format!("get of field {name}, which is not there"),
    )
}

/// Holds the whole map to be `map`, without showing either.
async fn holds_map(ground: &Ground, path: &SecretPath, map: &Value) -> Outcome {
    let options = GetOptions::default().field(Some(Field::all()));
    let came = ground.get(path, &options).await;
    let came = came.succeeds("get of the whole map")?;
    let came: Value = serde_json::from_slice(came.value.expose())
        .map_err(|_| Failure::new("the whole map as JSON", "no JSON"))?;
    holds(came == *map, "the map that was written", "another")
}

async fn one_field(ground: Ground) -> Outcome {
    let path = ground.path("map");
    let (user, passphrase) = (ground.canary(), ground.canary());
    let map = json!({ "user": text_of(&user), "passphrase": text_of(&passphrase), "port": 3260 });
    seed_map(&ground, &path, &map).await?;
    holds_field(&ground, &path, "user", &user).await?;
    holds_field(&ground, &path, "passphrase", &passphrase).await?;
    holds_field(&ground, &path, "port", &SecretBytes::copy_from(b"3260")).await?;
    lacks_field(&ground, &path, "pass").await?;
    lacks_field(&ground, &path, "User").await?;
    let absent = ground.path("absent");
    lacks_field(&ground, &absent, "user").await?;

    let options = GetOptions::default().field(named("user"));
    let paths = [absent, path.clone(), path];
    let mut many = ground.get_many(&paths, &options).await.into_iter();
    let mut next = || many.next().ok_or(Failure::new("an answer", "none"));
    next()?.fails(ErrorKind::NotFound, "get_many of a field")?;
    for _ in 0..2 {
        let came = next()?.succeeds("get_many of a field")?;
        equal(&came.value, &user, "the field, from get_many")?;
    }
    Ok(())
}

async fn whole_map(ground: Ground) -> Outcome {
    let path = ground.path("map");
    let secret = text_of(&ground.canary());
    let awkward = "quotes \" and \\ \u{1}\n\u{e9}\u{1f600}";
    let map = json!({
        "awkward": awkward, "empty": "", "list": [1, "two", null], "secret": secret, "yes": true,
    });
    seed_map(&ground, &path, &map).await?;
    holds_map(&ground, &path, &map).await?;
    let awkward = SecretBytes::copy_from(awkward.as_bytes());
    holds_field(&ground, &path, "awkward", &awkward).await?;

    let other = json!({ "other": text_of(&ground.canary()) });
    let options = PutOptions::default().field(Some(Field::all()));
    let put = ground.put(&path, &bytes_of(&other), &options).await;
    put.succeeds("put of another map")?;
    holds_map(&ground, &path, &other).await?;
    lacks_field(&ground, &path, "secret").await
}

async fn no_object(ground: Ground) -> Outcome {
    let path = ground.path("absent");
    let options = PutOptions::default()
        .field(Some(Field::all()))
        .mode(ground.seeding_mode());
    let canary = text_of(&ground.canary());
    for text in [canary.clone(), json!([canary]).to_string(), String::new()] {
        let value = SecretBytes::copy_from(text.as_bytes());
        let put = ground.put(&path, &value, &options).await;
        put.fails(ErrorKind::Corrupt, "put of what is no JSON object")?;
    }
    let get = GetOptions::default().field(Some(Field::all()));
    let came = ground.get(&path, &get).await;
    came.fails(ErrorKind::NotFound, "get after refused puts")
}

async fn keeps_siblings(ground: Ground) -> Outcome {
    let path = ground.path("map");
    let kept = ground.canary();
    let binary: Vec<u8> = (0..=255).collect();
    let values = [
        ("one", kept),
        ("binary", SecretBytes::copy_from(&binary)),
        ("newline", SecretBytes::copy_from(b"passphrase\n")),
        ("empty", SecretBytes::copy_from(b"")),
        ("looks-coded", SecretBytes::copy_from(b"cGFzcw==")),
    ];
    for (name, value) in &values {
        let options = PutOptions::default().field(named(name));
        let put = ground.put(&path, value, &options).await;
        put.succeeds(&format!("put of field {name}"))?;
    }
    for (name, value) in &values {
        holds_field(&ground, &path, name, value).await?;
    }
    let changed = ground.canary();
    let options = PutOptions::default().field(named("one"));
    let put = ground.put(&path, &changed, &options).await;
    put.succeeds("put of a field that is there")?;
    holds_field(&ground, &path, "one", &changed).await?;
    for (name, value) in &values[1..] {
        holds_field(&ground, &path, name, value).await?;
    }
    Ok(())
}

async fn unnamed(ground: Ground) -> Outcome {
    let path = ground.path("map");
    let sibling = ground.canary();
    seed_map(&ground, &path, &json!({ "sibling": text_of(&sibling) })).await?;
    let value = ground.canary();
    let put = ground.put(&path, &value, &PutOptions::default()).await;
    put.succeeds("put that names no field")?;
    let came = ground.get(&path, &GetOptions::default()).await;
    equal(&came.succeeds("get")?.value, &value, "what was put")?;
    holds_field(&ground, &path, "sibling", &sibling).await
}

async fn create(ground: Ground) -> Outcome {
    let path = ground.path("map");
    let create = |name: Option<Field>| PutOptions::default().mode(PutMode::Create).field(name);
    let (one, two) = (ground.canary(), ground.canary());
    let put = ground.put(&path, &one, &create(named("one"))).await;
    put.succeeds("Create of a field of no secret")?;
    let put = ground.put(&path, &two, &create(named("two"))).await;
    put.succeeds("Create of another field")?;
    let again = ground
        .put(&path, &ground.canary(), &create(named("one")))
        .await;
    again.fails(ErrorKind::AlreadyExists, "Create of a field that is there")?;
    let unnamed = ground.put(&path, &ground.canary(), &create(None)).await;
    unnamed.fails(
        ErrorKind::AlreadyExists,
        "Create without a field where there is a secret",
    )?;
    let map = ground
        .put(&path, &bytes_of(&json!({})), &create(Some(Field::all())))
        .await;
    map.fails(
        ErrorKind::AlreadyExists,
        "Create of a map where there is one",
    )?;
    holds_field(&ground, &path, "one", &one).await?;
    holds_field(&ground, &path, "two", &two).await
}

async fn update(ground: Ground) -> Outcome {
    let path = ground.path("map");
    let (one, two) = (ground.canary(), ground.canary());
    seed_map(&ground, &path, &json!({ "one": text_of(&one) })).await?;
    let current = ground.stat(&path, &GetOptions::default()).await;
    let current = current.succeeds("stat")?.version;
    let options = updating(&current)?.field(named("two"));
    let put = ground.put(&path, &two, &options).await;
    put.succeeds("Update of the current version")?;
    let stale = ground.put(&path, &ground.canary(), &options).await;
    stale.fails(ErrorKind::Conflict, "Update of an older version")?;
    holds_field(&ground, &path, "one", &one).await?;
    holds_field(&ground, &path, "two", &two).await
}

async fn generate(ground: Ground) -> Outcome {
    let path = ground.path("map");
    let sibling = ground.canary();
    seed_map(&ground, &path, &json!({ "sibling": text_of(&sibling) })).await?;
    let recipe = Recipe::default();
    let options = PutOptions::default().field(named("made"));
    let made = ground.generate(&path, &recipe, &options).await;
    made.succeeds("generate")?;
    let options = GetOptions::default().field(named("made"));
    let came = ground.get(&path, &options).await;
    let came = came.succeeds("get of what was made")?;
    holds(
        came.value.len() == recipe.length(),
        "the recipe's length",
        "another",
    )?;
    holds_field(&ground, &path, "sibling", &sibling).await
}

async fn writers_at_once(ground: Ground) -> Outcome {
    const EACH: usize = 4;
    let path = ground.path("map");
    seed_map(&ground, &path, &json!({ "first": "x" })).await?;
    let work = (0..WRITERS).map(|writer| {
        let (ground, path) = (ground.clone(), path.clone());
        async move {
            let options = PutOptions::default().field(named(&format!("field-{writer}")));
            let mut last = ground.canary();
            for _ in 0..EACH {
                last = ground.canary();
                let put = ground.put(&path, &last, &options).await;
                put.succeeds("put of a field of its own")?;
            }
            Ok(last)
        }
    });
    let written: Outcome<Vec<SecretBytes>> = at_once(work).await?.into_iter().collect();
    for (writer, value) in written?.iter().enumerate() {
        holds_field(&ground, &path, &format!("field-{writer}"), value).await?;
    }
    holds_field(&ground, &path, "first", &SecretBytes::copy_from(b"x")).await
}
