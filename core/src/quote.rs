//! Words as a shell reads them back.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// A path in a command that somebody is advised to type.
pub fn typed(path: impl AsRef<Path>) -> String {
    shell_quoted(path.as_ref().as_os_str())
        .display()
        .to_string()
}

/// The word in single quotes where a shell would read it as anything else.
pub fn shell_quoted(word: &OsStr) -> OsString {
    let bytes = word.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./,:=@%+~^".contains(byte);
    // A leading `~` would be a home folder.
    if !bytes.is_empty() && bytes.iter().all(plain) && bytes[0] != b'~' && bytes[0] != b'=' {
        return word.to_owned();
    }
    let mut quoted = vec![b'\''];
    for byte in bytes {
        match byte {
            b'\'' => quoted.extend(b"'\\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    OsString::from_vec(quoted)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_real_shell_reads_back_every_word() {
        assert_eq!(typed("/a b;c"), "'/a b;c'");
        for word in [
            "",
            "plain",
            "two words",
            "it's",
            "$HOME",
            "a\nb",
            "~root",
            "`id`",
            "\\",
            "a,b=c",
            "*",
            "{a,b}",
            "a;b",
            "=ls",
        ] {
            let script = format!("printf %s {}", shell_quoted(OsStr::new(word)).display());
            let output = Command::new("sh")
                .arg("-c")
                .arg(script)
                .output()
                .expect("sh");
            assert_eq!(output.stdout, word.as_bytes(), "{word:?}");
        }
    }
}
