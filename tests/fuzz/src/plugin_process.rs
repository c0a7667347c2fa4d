//! What a plugin writes: whatever it is, the host takes only what it asked for, and no word of an
//! error repeats a value that has passed, or disturbs a terminal.
#![no_main]

use keyhaul_core::SecretBytes;
use keyhaul_plugin_process::fuzz::{LIMIT, hear};
use libfuzzer_sys::fuzz_target;

const PASSED: &str = "hunter2";

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, written) = input;
    let taken = hear(
        written,
        usize::from(piece),
        &SecretBytes::copy_from(PASSED.as_bytes()),
    );
    assert!(taken.values.len() <= 4, "more values than were asked for");
    for error in &taken.errors {
        for words in [Some(error.message()), error.advice()]
            .into_iter()
            .flatten()
        {
            assert!(!words.contains(PASSED), "{words}");
            assert!(!words.contains(char::is_control), "{words:?}");
            assert!(words.chars().count() <= 600, "{words}");
        }
    }
    for page in &taken.pages {
        assert!(page.secrets.len() + page.folders.len() <= LIMIT);
        assert!(page.secrets.is_sorted() && page.folders.is_empty());
        let below = |path: &keyhaul_core::SecretPath| path.as_str().starts_with("p/");
        assert!(page.secrets.iter().all(below), "{:?}", page.secrets);
    }
});
