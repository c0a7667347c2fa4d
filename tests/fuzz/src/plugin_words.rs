//! A plugin's words on their way to the log: wherever a value stands in them, and in whichever of
//! the forms that have a name, it is taken out.
#![no_main]

use base64ct::{Base64, Encoding as _};
use keyhaul_plugin_process::fuzz::shown;
use libfuzzer_sys::fuzz_target;

/// What is put around the value is none of its letters, so that what is left of it can be told.
const AROUND: &[u8] = b"~";

fuzz_target!(|input: (&[u8], &[u8])| {
    let (words, value) = input;
    let Ok(text) = shown(words, value, 200) else {
        return;
    };
    assert!(text.chars().count() <= 201 && !text.contains(char::is_control));
    if value.len() < 4 || value.len() > 1000 || value.contains(&b'~') {
        return;
    }
    let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![
        value.to_vec(),
        Base64::encode_string(value).into_bytes(),
        hex.into_bytes(),
    ];
    if let Ok(text) = std::str::from_utf8(value) {
        let json = serde_json::to_string(text).expect("text");
        // Pieces of a longer value are escaped apart, and may end within a letter.
        if value.len() <= 96 {
            forms.push(json.as_bytes()[1..json.len() - 1].to_vec());
        }
    }
    for form in forms {
        let words = [AROUND, &form, AROUND].concat();
        assert_eq!(
            shown(&words, value, 9999).ok().as_deref(),
            Some("~[redacted]~")
        );
    }
});
