//! References: whatever parses prints to text that parses to the same.
#![no_main]

use keyhaul_core::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(reference) = Reference::parse(text) else {
        return;
    };
    assert_eq!(
        Reference::parse(reference.as_str()).as_ref().ok(),
        Some(&reference)
    );
    assert_eq!(
        Reference::parse(reference.short()).as_ref().ok(),
        Some(&reference)
    );
    assert!(reference.as_str().len() <= 512);
    assert!(!reference.scope().contains('/') && !reference.name().is_empty());
});
