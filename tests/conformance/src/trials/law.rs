//! The law of capabilities, both ways. The requests here are bad in other ways too, on purpose:
//! what a store cannot do is `Unsupported` before anything else is wrong with it.

use std::time::{Duration, SystemTime};

use keyhaul_core::{
    Capability, DeleteOptions, ErrorKind, Field, GetOptions, ListOptions, PutMode, PutOptions,
    Recipe, Result, SecretBytes, SecretPath, Version,
};

use super::Trial;
use crate::ground::Ground;
use crate::outcome::{Expect as _, Outcome, holds, same};

const NONE: Capability = Capability::empty();

pub(super) const TRIALS: &[Trial] = &[
    Trial::new("what a store can do is never Unsupported", NONE, |ground| {
        Box::pin(present(ground))
    }),
    Trial::new("without READ, no reading", NONE, |ground| {
        Box::pin(no_read(ground))
    })
    .lacking(Capability::READ),
    Trial::new("without WRITE, no Overwrite", NONE, |ground| {
        Box::pin(no_mode(ground, PutMode::Overwrite))
    })
    .lacking(Capability::WRITE),
    Trial::new("without CREATE, no Create", NONE, |ground| {
        Box::pin(no_mode(ground, PutMode::Create))
    })
    .lacking(Capability::CREATE),
    Trial::new("without UPDATE, no Update", NONE, |ground| {
        Box::pin(no_mode(ground, PutMode::Update(made_up())))
    })
    .lacking(Capability::UPDATE),
    Trial::new("without UPDATE, no delete with a version", NONE, |ground| {
        Box::pin(no_delete(ground, Some(made_up())))
    })
    .lacking(Capability::UPDATE),
    Trial::new("without DELETE, no delete", NONE, |ground| {
        Box::pin(no_delete(ground, None))
    })
    .lacking(Capability::DELETE),
    Trial::new("without LIST, no list", NONE, |ground| {
        Box::pin(no_list(ground))
    })
    .lacking(Capability::LIST),
    Trial::new("without GENERATE, no generate", NONE, |ground| {
        Box::pin(no_generate(ground))
    })
    .lacking(Capability::GENERATE),
    Trial::new("without VERSIONS, no reading of one", NONE, |ground| {
        Box::pin(no_reading_with(
            ground,
            GetOptions::default().version(Some(made_up())),
        ))
    })
    .lacking(Capability::VERSIONS),
    Trial::new("without FIELDS, no field", NONE, |ground| {
        Box::pin(no_field(ground))
    })
    .lacking(Capability::FIELDS),
    Trial::new(
        "without UPDATE, no writing of one field",
        Capability::FIELDS,
        |ground| {
            Box::pin(no_writing_with(
                ground,
                PutOptions::default().field(field()),
            ))
        },
    )
    .lacking(Capability::UPDATE),
    Trial::new("without LABELS, no labels", NONE, |ground| {
        let labels = [("key".to_owned(), "value".to_owned())].into();
        Box::pin(no_writing_with(
            ground,
            PutOptions::default().labels(labels),
        ))
    })
    .lacking(Capability::LABELS),
    Trial::new("without EXPIRY, no time of expiry", NONE, |ground| {
        let later = SystemTime::now() + Duration::from_secs(3600);
        Box::pin(no_writing_with(
            ground,
            PutOptions::default().expires(Some(later)),
        ))
    })
    .lacking(Capability::EXPIRY),
    Trial::new(
        "without IDEMPOTENT, an idempotency id changes nothing",
        Capability::CREATE,
        |ground| Box::pin(id_ignored(ground)),
    )
    .lacking(Capability::IDEMPOTENT),
];

fn made_up() -> Version {
    Version::new("987654321").expect("plain digits")
}

fn field() -> Option<Field> {
    Some(Field::new("passphrase").expect("plain letters"))
}

fn unsupported<T>(answer: Result<T>, what: &str) -> Outcome {
    answer.fails(ErrorKind::Unsupported, what)
}

/// Asks for everything the store can do, by requests that mostly fail for other reasons.
async fn present(ground: Ground) -> Outcome {
    let path = ground.path("absent");
    let mut kinds: Vec<(&str, Option<ErrorKind>)> = Vec::new();
    let mut asked = |what, kind| kinds.push((what, kind));
    if ground.has(Capability::READ) {
        let get = GetOptions::default();
        asked("get", kind(ground.get(&path, &get).await));
        asked("stat", kind(ground.stat(&path, &get).await));
        for answer in ground.get_many(std::slice::from_ref(&path), &get).await {
            asked("get_many", kind(answer));
        }
        if ground.has(Capability::VERSIONS) {
            let get = GetOptions::default().version(Some(made_up()));
            asked("get of a version", kind(ground.get(&path, &get).await));
            asked("stat of a version", kind(ground.stat(&path, &get).await));
        }
        if ground.has(Capability::FIELDS) {
            for field in [field(), Some(Field::all())] {
                let get = GetOptions::default().field(field);
                asked("get of a field", kind(ground.get(&path, &get).await));
            }
        }
    }
    let modes = [
        (Capability::UPDATE, PutMode::Update(made_up())),
        (Capability::CREATE, PutMode::Create),
        (Capability::WRITE, PutMode::Overwrite),
    ];
    for (needed, mode) in modes {
        if !ground.has(needed) {
            continue;
        }
        let value = ground.canary();
        let mut put = PutOptions::default().mode(mode);
        asked("put", kind(ground.put(&path, &value, &put).await));
        if ground.has(Capability::FIELDS) {
            let map = SecretBytes::copy_from(b"{}");
            let put = put.clone().field(Some(Field::all()));
            asked("put of a map", kind(ground.put(&path, &map, &put).await));
        }
        if ground.has(Capability::FIELDS | Capability::UPDATE) {
            let put = put.clone().field(field());
            asked(
                "put of a field",
                kind(ground.put(&path, &value, &put).await),
            );
        }
        if ground.has(Capability::LABELS) {
            put = put.labels([("key".to_owned(), "value".to_owned())].into());
            asked(
                "put with labels",
                kind(ground.put(&path, &value, &put).await),
            );
        }
        if ground.has(Capability::EXPIRY) {
            put = put.expires(Some(SystemTime::now() + Duration::from_secs(3600)));
            asked(
                "put with expiry",
                kind(ground.put(&path, &value, &put).await),
            );
        }
        if ground.has(Capability::GENERATE) {
            let made = ground.generate(&path, &Recipe::default(), &put).await;
            asked("generate", kind(made));
        }
    }
    if ground.has(Capability::LIST) {
        for shallow in [false, true] {
            let list = ListOptions::default().shallow(shallow).limit(Some(1));
            asked("list", kind(ground.list(ground.prefix(), &list).await));
        }
    }
    if ground.has(Capability::DELETE) {
        if ground.has(Capability::UPDATE) {
            let delete = DeleteOptions::default().version(Some(made_up()));
            asked(
                "delete with a version",
                kind(ground.delete(&path, &delete).await),
            );
        }
        asked(
            "delete",
            kind(ground.delete(&path, &DeleteOptions::default()).await),
        );
    }
    for (what, kind) in kinds {
        let expected = format!("{what}, which the capabilities name, to be supported");
        holds(
            kind != Some(ErrorKind::Unsupported),
            expected,
            "Unsupported",
        )?;
    }
    Ok(())
}

fn kind<T>(answer: Result<T>) -> Option<ErrorKind> {
    answer.err().map(|error| error.kind())
}

async fn no_read(ground: Ground) -> Outcome {
    no_reading_with(ground.clone(), GetOptions::default()).await?;
    no_reading_with(
        ground,
        GetOptions::default().version(Some(made_up())).expired(true),
    )
    .await
}

async fn no_reading_with(ground: Ground, options: GetOptions) -> Outcome {
    let path = ground.path("absent");
    unsupported(ground.get(&path, &options).await, "get")?;
    unsupported(ground.stat(&path, &options).await, "stat")?;
    let answers = ground.get_many(&[path.clone(), path], &options).await;
    same(&answers.len(), &2, "an answer for each path")?;
    for answer in answers {
        unsupported(answer, "get_many")?;
    }
    Ok(())
}

async fn no_mode(ground: Ground, mode: PutMode) -> Outcome {
    let options = PutOptions::default().mode(mode);
    let path = ground.path("absent");
    let what = "put in this mode";
    unsupported(ground.put(&path, &ground.canary(), &options).await, what)?;
    ground.still(&path, None, what).await?;
    if ground.max_value < 16 * 1024 * 1024 {
        let value = SecretBytes::init_with(ground.max_value + 1, |_| {});
        let what = "put of a value too long in this mode";
        unsupported(ground.put(&path, &value, &options).await, what)?;
    }
    if can_seed(&ground) {
        let path = ground.path("there");
        let (value, _) = ground.seed(&path).await?;
        unsupported(ground.put(&path, &ground.canary(), &options).await, what)?;
        ground.still(&path, Some(&value), what).await?;
    }
    Ok(())
}

/// Without the mode too: labels on an Update of what is not there, say.
async fn no_writing_with(ground: Ground, options: PutOptions) -> Outcome {
    let path = ground.path("absent");
    let modes = [
        PutMode::Overwrite,
        PutMode::Create,
        PutMode::Update(made_up()),
    ];
    for mode in modes {
        let options = options.clone().mode(mode);
        let put = ground.put(&path, &ground.canary(), &options).await;
        unsupported(put, "put with it")?;
        let made = ground.generate(&path, &Recipe::default(), &options).await;
        unsupported(made, "generate with it")?;
    }
    ground.still(&path, None, "put with it").await
}

async fn no_delete(ground: Ground, version: Option<Version>) -> Outcome {
    let options = DeleteOptions::default().version(version);
    let what = "such a delete";
    let absent = ground.path("absent");
    unsupported(ground.delete(&absent, &options).await, what)?;
    if can_seed(&ground) {
        let path = ground.path("there");
        let (value, _) = ground.seed(&path).await?;
        unsupported(ground.delete(&path, &options).await, what)?;
        ground.still(&path, Some(&value), what).await?;
    }
    Ok(())
}

async fn no_list(ground: Ground) -> Outcome {
    let bad = ListOptions::default()
        .limit(Some(0))
        .after(Some("no cursor".into()));
    for options in [
        ListOptions::default(),
        ListOptions::default().shallow(true),
        bad,
    ] {
        for prefix in [ground.prefix().clone(), SecretPath::root()] {
            unsupported(ground.list(&prefix, &options).await, "list")?;
        }
    }
    Ok(())
}

async fn no_generate(ground: Ground) -> Outcome {
    let path = ground.path("absent");
    let modes = [
        PutMode::Overwrite,
        PutMode::Create,
        PutMode::Update(made_up()),
    ];
    for mode in modes {
        let options = PutOptions::default().mode(mode);
        let made = ground.generate(&path, &Recipe::default(), &options).await;
        unsupported(made, "generate")?;
    }
    ground.still(&path, None, "generate").await
}

async fn no_field(ground: Ground) -> Outcome {
    for field in [field(), Some(Field::all())] {
        let get = GetOptions::default().field(field.clone());
        no_reading_with(ground.clone(), get).await?;
        no_writing_with(ground.clone(), PutOptions::default().field(field)).await?;
    }
    Ok(())
}

async fn id_ignored(ground: Ground) -> Outcome {
    let path = ground.path("secret");
    let id = keyhaul_core::IdempotencyId::random().succeeds("an id")?;
    let options = PutOptions::default()
        .mode(PutMode::Create)
        .idempotency(Some(id));
    let value = ground.canary();
    ground
        .put(&path, &value, &options)
        .await
        .succeeds("put with an id")?;
    let again = ground.put(&path, &ground.canary(), &options).await;
    again.fails(ErrorKind::AlreadyExists, "the same put again")
}

fn can_seed(ground: &Ground) -> bool {
    ground
        .can
        .intersects(Capability::WRITE | Capability::CREATE)
}
