//! `%XX` in URLs and in names of files.

/// Why a text does not decode: the rule it breaks.
pub type Rule = &'static str;

/// The text with each `%XX` as the byte it stands for.
///
/// # Errors
/// The rule that is broken: a `%` followed by anything but two hexadecimal digits, or bytes that
/// are no UTF-8.
pub fn decoded(text: &str) -> Result<String, Rule> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            // A sign, which Rust's own reading of numbers takes, is no digit.
            let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
            let (Some(high), Some(low)) = (digit(0), digit(1)) else {
                return Err("`%` is followed by two hexadecimal digits");
            };
            bytes.extend(u8::try_from(high * 16 + low));
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).map_err(|_| "what `%` stands for is no UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_digits_are_a_byte_and_nothing_else_is() {
        assert_eq!(decoded("a%2Fb%c3%A9").as_deref(), Ok("a/bé"));
        assert_eq!(decoded("").as_deref(), Ok(""));
        for text in ["%", "%2", "%+1", "%g0", "%é"] {
            let rule = decoded(text).expect_err(text);
            assert!(rule.contains("two hexadecimal digits"), "{text}: {rule}");
        }
        let rule = decoded("%ff").expect_err("one byte of two");
        assert!(rule.contains("no UTF-8"), "{rule}");
    }
}
