//! Blocks of memory that are given back with a secret in them: none by code of ours.

use std::sync::Arc;

use keyhaul_core::qemu::{Dialect, KeySource, MasterKey, MasterObject, SecretObject, encrypt};
use keyhaul_core::{
    DeleteOptions, Encoding, GetOptions, MemoryStore, Policy, PutOptions, Recipe, Reference,
    Registry, Resolver, SecretBytes, SecretPath, SecretStore, SecretWriter, StoreFactory,
};
use keyhaul_file::FileFactory;
use keyhaul_hygiene::freed::{Freed, Scanning};
use keyhaul_hygiene::{Disguise, Needle};
use keyhaul_keyring::KeyringFactory;
use keyhaul_plugin_process::ProcessFactory;
use keyhaul_servers::Backend;
use keyhaul_vault::VaultFactory;

#[global_allocator]
static ALLOCATOR: Scanning = Scanning::new();

/// How many blocks come back with the secret in them, bare, in hex or in base64, when `work` gets it.
fn freed(work: impl FnOnce(&Needle)) -> usize {
    let needle = Needle::canary();
    let mut texts: Vec<Vec<u8>> = vec![needle.bytes().to_vec()];
    for disguise in [
        Disguise::Hex,
        Disguise::Base64(0),
        Disguise::Base64(1),
        Disguise::Base64(2),
    ] {
        texts.extend(disguise.texts(needle.bytes()).into_iter().next());
    }
    let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
    let Freed { hits, .. } = ALLOCATOR.during(&texts, || work(&needle));
    hits
}

fn runtime() -> tokio::runtime::Runtime {
    let built = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build();
    built.expect("a runtime")
}

fn path() -> SecretPath {
    SecretPath::new("web01/root").expect("valid")
}

#[test]
fn a_plain_string_leaves_one_and_a_growing_vector_several() {
    let string = freed(|needle| {
        drop(String::from_utf8(needle.bytes().to_vec()).expect("letters"));
    });
    assert_eq!(string, 1);
    let growing = freed(|needle| {
        let mut bytes = Vec::with_capacity(48);
        bytes.extend_from_slice(needle.bytes());
        bytes.extend_from_slice(&[0; 100]);
        bytes.extend_from_slice(&[0; 1000]);
    });
    assert_eq!(growing, 3);
    for disguise in [Disguise::Hex, Disguise::Base64(1)] {
        let text = freed(|needle| drop(disguise.texts(needle.bytes())));
        assert!(text > 0, "{disguise}");
    }
    assert_eq!(freed(|_| drop(vec![7; 1000])), 0);
}

#[test]
fn secret_bytes_and_their_writer() {
    let hits = freed(|needle| {
        let value = SecretBytes::copy_from(needle.bytes());
        assert!(value == SecretBytes::copy_from(needle.bytes()));
        let _ = format!("{value:?}");
        // Larger than what the arena's regions hold, and large enough for a mapping of its own.
        for times in [1, 100, 3000] {
            drop(SecretBytes::init_with(48 * times, |block| {
                block
                    .chunks_exact_mut(48)
                    .for_each(|part| part.copy_from_slice(needle.bytes()));
            }));
        }
        let mut writer = SecretWriter::with_limit(1 << 20);
        for _ in 0..1000 {
            writer.push(needle.bytes()).expect("fits");
        }
        drop(writer.finish());
        let mut writer = SecretWriter::with_limit(1 << 20);
        writer.read_all(&mut needle.bytes()).expect("fits");
        assert_eq!(writer.finish().expose(), needle.bytes());
    });
    assert_eq!(hits, 0);
}

#[test]
fn encodings() {
    let hits = freed(|needle| {
        let value = SecretBytes::copy_from(needle.bytes());
        for encoding in Encoding::ALL {
            let stored = encoding.encode(&value).expect("encoded");
            assert!(encoding.decode(stored).expect("decoded") == value);
        }
        let wrong = SecretBytes::copy_from(needle.bytes());
        assert!(Encoding::Hex.decode(wrong).is_err());
    });
    assert_eq!(hits, 0);
}

#[test]
fn encryption_and_objects() {
    let hits = freed(|needle| {
        let master = MasterKey::generate().expect("randomness");
        let ciphertext = encrypt(&master, needle.bytes()).expect("encrypted");
        let key = MasterObject::new("m", KeySource::File("/run/key".into())).expect("valid");
        let object = SecretObject::new("s", "m", ciphertext).expect("valid");
        for dialect in Dialect::ALL {
            key.render(*dialect).expect("rendered");
            object.render(*dialect).expect("rendered");
        }
    });
    assert_eq!(hits, 0);
}

/// The master key itself, through all that is done with it.
#[test]
fn master_keys() {
    let master = MasterKey::generate().expect("randomness");
    let Freed { hits, .. } = ALLOCATOR.during(&[&Vec::from(master.expose())], || {
        let ciphertext = encrypt(&master, b"a secret of some length").expect("encrypted");
        drop(ciphertext);
        let pipe = keyhaul_core::qemu::channel::PipeChannel::open(&master, None).expect("a pipe");
        drop((pipe, master));
    });
    assert_eq!(hits, 0);
}

#[test]
fn the_memory_store() {
    let hits = freed(|needle| {
        runtime().block_on(async {
            let store = MemoryStore::new("memory");
            for _ in 0..3 {
                let value = SecretBytes::copy_from(needle.bytes());
                store
                    .put(&path(), &value, &PutOptions::default())
                    .await
                    .expect("put");
                let got = store
                    .get(&path(), &GetOptions::default())
                    .await
                    .expect("got");
                assert!(got.value == value);
            }
        });
    });
    assert_eq!(hits, 0);
}

/// The file store, and the resolver with its layers over it, with and without an encoding.
#[test]
fn the_file_store_and_the_resolver() {
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path().display();
    let policy = format!(
        "version = 1\n[stores.s]\nurl = \"file://{root}/store\"\nidentity = \"file:{root}/id\"\n\
         create = true\n[[routes]]\nmatch = \"coded/**\"\nstore = \"s\"\nencoding = \"base64\"\n\
         [[routes]]\nmatch = \"**\"\nstore = \"s\"\n"
    );
    let hits = freed(|needle| {
        let policy = Policy::parse("policy", &policy).expect("valid");
        let registry = Registry::new().with(FileFactory);
        let resolver = Resolver::new(policy, registry, None).expect("valid");
        let runtime = runtime();
        runtime.block_on(async {
            for reference in ["web01/root", "coded/root"] {
                let reference = Reference::parse(reference).expect("valid");
                let value = SecretBytes::copy_from(needle.bytes());
                for _ in 0..3 {
                    let put = resolver
                        .put(&reference, &value, PutOptions::default())
                        .await;
                    put.expect("put");
                }
                let got = resolver.get(&reference, GetOptions::default()).await;
                assert!(got.expect("got").value == value);
                let references = [reference.clone(), reference];
                let resolved = resolver.resolve(&references, &Default::default()).await;
                assert!(
                    resolved
                        .iter()
                        .all(|one| one.as_ref().is_ok_and(|s| s.value == value))
                );
            }
        });
        drop((resolver, runtime));
    });
    assert_eq!(hits, 0);
}

#[test]
fn recipes() {
    // What it will make is not known beforehand: so the allocator looks for what it has made.
    let value = Recipe::default().make().expect("made");
    let Freed { hits, .. } = ALLOCATOR.during(&[&Vec::from(value.expose())], || drop(value));
    assert_eq!(hits, 0);
}

/// The keys of the file store pass through age, which is not ours: it leaves copies of the key in
/// what it frees, and the program's wiping allocator is there for them. The hunt through the
/// program's memory holds that to its promise; this one shows that there is something to hunt.
#[test]
fn age_leaves_copies_which_is_why_the_program_wipes_what_it_frees() {
    let folder = tempfile::tempdir().expect("folder");
    let (root, id) = (folder.path().join("store"), folder.path().join("id"));
    let policy = format!(
        "version = 1\n[stores.s]\nurl = \"file://{}\"\nidentity = \"file:{}\"\ncreate = true\n",
        root.display(),
        id.display()
    );
    let policy = Policy::parse("policy", &policy).expect("valid");
    let open = || FileFactory.open(&policy.stores["s"].config).expect("valid");
    let get = |store: Arc<dyn SecretStore>| {
        runtime().block_on(async {
            store
                .get(&path(), &GetOptions::default())
                .await
                .expect("got");
        });
    };
    runtime().block_on(async {
        let value = SecretBytes::copy_from(b"a value");
        open()
            .put(&path(), &value, &PutOptions::default())
            .await
            .expect("put");
    });
    let key = keyhaul_hygiene::store::store_key(&root, &id);
    let Freed { hits, .. } = ALLOCATOR.during(&[key.bytes()], || get(open()));
    // One of some 120 freed blocks, with age 0.12.
    assert!(hits > 0, "age leaves nothing any more: make this a promise");
    for needle in keyhaul_hygiene::store::identity(&id) {
        let Freed { hits, .. } = ALLOCATOR.during(&[needle.bytes()], || get(open()));
        assert_eq!(hits, 0, "{}", needle.name());
    }
}

/// How many blocks come back with the secret in them, when the store at a place is written to and read
/// from once.
fn freed_by(backend: Backend) -> usize {
    let folder = tempfile::tempdir().expect("folder");
    let place = backend.place(folder.path());
    let policy = place.policy();
    freed(|needle| {
        let policy = Policy::parse("policy", &policy).expect("valid");
        let registry = Registry::new().with(KeyringFactory).with(VaultFactory);
        let resolver = Resolver::new(policy, registry, None).expect("valid");
        let runtime = runtime();
        runtime.block_on(async {
            let reference = Reference::parse("web01/root").expect("valid");
            let value = SecretBytes::copy_from(needle.bytes());
            let put = resolver.put(&reference, &value, PutOptions::default());
            put.await.expect("put");
            let got = resolver.get(&reference, GetOptions::default()).await;
            assert!(got.expect("got").value == value);
        });
        drop((resolver, runtime));
    })
}

/// Calls of the kernel, with nobody's library in between that would keep a copy.
#[test]
fn the_kernels_keyring() {
    assert_eq!(freed_by(Backend::Kernel), 0);
}

/// Lines of JSON, in both directions, of a program's that is asked over pipes.
#[test]
fn a_plugin_that_is_a_program() {
    let example = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../plugins/examples/shell/folder.sh"
    );
    let text = std::fs::read_to_string(example).expect("the example");
    assert_eq!(freed_by_program(&text, async |_| {}), 0);
}

/// One that repeats values where none belongs: on its stderr, and in the words of a refusal.
#[test]
fn a_plugin_that_repeats_what_it_is_told() {
    let text = r#"#!/bin/sh
read -r line
printf '{"keyhaul":1,"name":"parrot","version":"1","capabilities":["read","write","delete"]}\n'
while read -r line; do
    id=${line#*\"id\":} id=${id%%,*}
    case $line in
    *'"do":"put"'*) kept=${line#*\"base64\":\"} kept=${kept%%\"*} value=$(printf %s "$kept" | base64 -d) rest= ;;
    *'"do":"get"'*) echo "$value, that is $kept" >&2; rest=",\"base64\":\"$kept\"" ;;
    *) rest=",\"error\":{\"kind\":\"conflict\",\"message\":\"still $value\",\"advice\":\"forget $kept\"}" ;;
    esac
    printf '{"id":%s%s}\n' "$id" "$rest"
done
"#;
    let hits = freed_by_program(text, async |resolver| {
        let reference = Reference::parse("web01/root").expect("valid");
        let refused = resolver.delete(&reference, DeleteOptions::default()).await;
        let error = refused.expect_err("refused");
        assert_eq!(error.message(), "still [redacted]");
        assert_eq!(error.advice(), Some("forget [redacted]"));
    });
    assert_eq!(hits, 0);
}

/// What is left of a secret that a plugin of this text is given and gives back, and of what is done
/// with it then.
fn freed_by_program(text: &str, then: impl AsyncFnOnce(&Resolver)) -> usize {
    let home = std::env::home_dir().expect("a home");
    let mut builder = tempfile::Builder::new();
    let place = builder.prefix(".keyhaul-test-").tempdir_in(home);
    let place = place.expect("folder");
    let program = place.path().join("plugin");
    keyhaul_servers::script(&program, text);
    let policy = format!(
        "version = 1\n[stores.s]\nurl = \"plugin+exec://{}\"\nargs = [\"{}\"]\n\
         [[routes]]\nmatch = \"**\"\nstore = \"s\"\n",
        program.display(),
        place.path().display()
    );
    freed(|needle| {
        let policy = Policy::parse("policy", &policy).expect("valid");
        let registry = Registry::new().with(ProcessFactory);
        let resolver = Resolver::new(policy, registry, None).expect("valid");
        let runtime = runtime();
        runtime.block_on(async {
            let reference = Reference::parse("web01/root").expect("valid");
            let value = SecretBytes::copy_from(needle.bytes());
            let put = resolver.put(&reference, &value, PutOptions::default());
            put.await.expect("put");
            let got = resolver.get(&reference, GetOptions::default()).await;
            assert!(got.expect("got").value == value);
            then(&resolver).await;
        });
        drop((resolver, runtime));
    })
}

/// HTTP and TLS pass through libraries, which leave copies in what they free: the program's wiping
/// allocator is there for them, and the hunt through its memory holds it to that.
#[test]
fn http_and_tls_leave_copies_which_is_why_the_program_wipes_what_it_frees() {
    for backend in [Backend::VaultHttp, Backend::VaultAppRole] {
        let hits = freed_by(backend);
        assert!(
            hits > 0,
            "{backend:?} leaves nothing any more: make this a promise"
        );
    }
}
