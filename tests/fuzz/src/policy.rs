//! Policies: every text is a policy or a list of errors with places, and whatever a sound policy
//! routes is a path that cannot escape.
#![no_main]

use keyhaul_core::{Policy, Reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Policy::parse("p.toml", text) {
        Err(errors) => {
            assert!(!errors.is_empty());
            assert!(
                errors.iter().all(|error| error.context().place.is_some()),
                "{errors:?}"
            );
        }
        Ok(policy) => {
            for name in [
                "web01/root",
                "@site/a/b/c",
                "prod-1/luks/root~next?version=1#f",
            ] {
                let Ok(reference) = Reference::parse(name) else {
                    return;
                };
                if let Ok(target) = policy.target(&reference) {
                    assert!(
                        target
                            .path
                            .segments()
                            .all(|part| !matches!(part, "" | "." | ".."))
                    );
                    assert!(
                        target
                            .stores
                            .iter()
                            .all(|name| policy.stores.contains_key(name))
                    );
                }
            }
        }
    }
});
