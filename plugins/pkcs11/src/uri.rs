//! PKCS#11 URIs, as RFC 7512 has them: `pkcs11:token=vms;serial=42?module-path=/usr/lib/m.so`.
//!
//! They say the same as options do, and become options before anybody reads these. No I/O.

use std::fmt::Write as _;

use keyhaul_core::registry::{OptionValue, Options, Value, unknown};
use keyhaul_core::{Error, ErrorKind, Result, StoreConfig, percent};

use crate::config::SCHEME;

/// Attributes of the path, which say what a token is like. The rest of RFC 7512's are of libraries,
/// slots and objects: a URI that names such a thing names no store.
const OF_TOKEN: [&str; 4] = ["manufacturer", "model", "serial", "token"];
const OF_QUERY: [&str; 2] = ["module-path", "pin-source"];

/// What stands in an attribute's value as it is, beside letters and digits: in both parts, and in
/// the path or in the query alone (RFC 7512, section 2.3).
const AS_IT_IS: &str = "-._~:[]@!$'()*+,=";
const IN_PATH: &str = "&";
const IN_QUERY: &str = "/?|";

/// The options of a store, with what its url says among them.
///
/// # Errors
/// `InvalidConfig` where the url is no such URI, or says other than an option.
pub(crate) fn options(config: &StoreConfig) -> Result<Options> {
    let mut options = config.options.clone();
    let url = &config.url;
    if url.scheme() != SCHEME {
        return Err(refused("a pkcs11 store's url begins with `pkcs11:`"));
    }
    let path = url.path();
    // A plugin is given its scheme and the store's name, which says nothing of the token.
    let is_bare = path == config.name && url.query().is_none();
    if url.has_authority() || path.starts_with('/') || url.fragment().is_some() {
        return Err(refused("a pkcs11 URI has no host and no fragment"));
    }
    if !is_bare && !path.is_empty() {
        for attribute in path.split(';') {
            let (name, value) = named(attribute)?;
            if !OF_TOKEN.contains(&name) {
                return Err(unknown("attribute of a token", name, OF_TOKEN));
            }
            add(
                &mut options,
                config,
                (name, name),
                read(name, value, IN_PATH)?,
            )?;
        }
    }
    for attribute in url.query().into_iter().flat_map(|query| query.split('&')) {
        let (name, value) = named(attribute)?;
        match name {
            "module-path" => {
                let value = read(name, value, IN_QUERY)?;
                add(&mut options, config, (name, "module"), value)?;
            }
            "module-name" => {
                return Err(refused("a library is not looked for by `module-name`")
                    .with_advice("name the file by `module-path`"));
            }
            "pin-source" => {
                let value = file(&read(name, value, IN_QUERY)?)?;
                add(&mut options, config, (name, "pin"), value)?;
            }
            // Not looked at any further: what it says is said to nobody.
            "pin-value" => {
                return Err(
                    refused("a PKCS#11 URI holds no PIN here: it has `pin-value`").with_advice(
                        "name its source by the option `pin`, as file:/etc/keyhaul/pin",
                    ),
                );
            }
            _ => return Err(unknown("attribute of a query", name, OF_QUERY)),
        }
    }
    Ok(options)
}

/// The URI of a token that is like this.
pub(crate) fn of_token<'a>(attributes: impl Iterator<Item = (&'static str, &'a str)>) -> String {
    let mut uri = format!("{SCHEME}:");
    for (n, (name, value)) in attributes.enumerate() {
        let between = if n == 0 { "" } else { ";" };
        // Writing to a text cannot fail.
        let _ = write!(uri, "{between}{name}=");
        for byte in value.bytes() {
            let _ = match byte {
                b'-' | b'.' | b'_' | b'~' => write!(uri, "{}", char::from(byte)),
                _ if byte.is_ascii_alphanumeric() => write!(uri, "{}", char::from(byte)),
                _ => write!(uri, "%{byte:02X}"),
            };
        }
    }
    uri
}

fn named(attribute: &str) -> Result<(&str, &str)> {
    attribute.split_once('=').ok_or_else(|| {
        refused("an attribute of a pkcs11 URI is NAME=VALUE")
            .with_advice("as in pkcs11:token=vms, or `pkcs11:` and the options alone")
    })
}

fn read(name: &str, value: &str, also: &str) -> Result<String> {
    let stands =
        |c: char| c == '%' || c.is_ascii_alphanumeric() || AS_IT_IS.contains(c) || also.contains(c);
    let wrong = |rule: &str| refused(format!("`{name}` in the url: {rule}"));
    match value.chars().find(|c| !stands(*c)) {
        Some(c) => Err(wrong(&format!("{c:?} is written as %{:02X}", u32::from(c)))),
        None => percent::decoded(value).map_err(wrong),
    }
}

/// Adds an attribute as the option that says the same. What stands twice agrees.
fn add(
    options: &mut Options,
    config: &StoreConfig,
    (name, option): (&str, &str),
    value: String,
) -> Result<()> {
    let value = Value::Text(value);
    match options.0.get(option) {
        None => {
            let place = config.place.clone();
            options
                .0
                .insert(option.to_owned(), OptionValue { value, place });
            Ok(())
        }
        Some(given) if given.value == value => Ok(()),
        Some(given) => Err(refused(format!(
            "`{name}` in the url and `{option}` do not say the same"
        ))
        .with_advice("say it once")
        .with_place(&given.place)),
    }
}

/// A file that holds a PIN, as the option `pin` names one.
fn file(source: &str) -> Result<String> {
    let path = source.strip_prefix("file:").unwrap_or(source);
    let path = match path.strip_prefix("//") {
        Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
        None => path,
    };
    if !path.starts_with('/') {
        return Err(
            refused("`pin-source` in the url is a file: by its absolute path")
                .with_advice("other sources are named by the option `pin`"),
        );
    }
    Ok(format!("file:{path}"))
}

fn refused(rule: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    /// The options that a url and others make.
    fn options_of(url: &str, given: &[(&str, &str)]) -> Result<Vec<(String, Value)>> {
        let given = given.iter().map(|(name, value)| {
            let (value, place) = (text(value), "keyhaul.toml:9:9".to_owned());
            ((*name).to_owned(), OptionValue { value, place })
        });
        let options = Options(given.collect());
        let config = StoreConfig::new("hsm", url, options, "keyhaul.toml:2:1")?;
        let options = super::options(&config)?;
        Ok(options.0.into_iter().map(|(k, o)| (k, o.value)).collect())
    }

    #[test]
    fn a_uri_says_what_options_say() {
        let whole = "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;serial=a%3Bb%3Dc?module-path=/usr/lib/a%26b.so&pin-source=file:/etc/token_pin";
        let expected = [
            ("manufacturer", "Snake Oil, Inc."),
            ("model", "1.0"),
            ("module", "/usr/lib/a&b.so"),
            ("pin", "file:/etc/token_pin"),
            ("serial", "a;b=c"),
            ("token", "The Software PKCS#11 Softtoken"),
        ]
        .map(|(name, value)| (name.to_owned(), text(value)));
        assert_eq!(options_of(whole, &[]).expect("valid"), expected);
        for url in ["pkcs11:", "pkcs11:hsm"] {
            assert_eq!(options_of(url, &[]).expect(url), []);
        }
        for source in ["file:///etc/pin", "file://localhost/etc/pin", "/etc/pin"] {
            let came = options_of(&format!("pkcs11:?pin-source={source}"), &[]);
            let expected = [("pin".to_owned(), text("file:/etc/pin"))];
            assert_eq!(came.expect(source), expected);
        }
        // What is not ASCII, a policy may write as it is: it is one with what RFC 7512 wants.
        let expected = [("token".to_owned(), text("Grüße"))];
        for url in ["pkcs11:token=Grüße", "pkcs11:token=Gr%C3%BC%C3%9Fe"] {
            assert_eq!(options_of(url, &[]).expect(url), expected);
        }
    }

    #[test]
    fn what_stands_in_both_agrees() {
        let url = "pkcs11:token=vms?module-path=/lib/m.so";
        let expected = [("module", "/lib/m.so"), ("token", "vms")];
        let came = options_of(url, &expected).expect("the same");
        assert_eq!(
            came,
            expected.map(|(name, value)| (name.to_owned(), text(value)))
        );
        for (name, value) in [("module", "/lib/n.so"), ("token", "VMS")] {
            let error = options_of(url, &[(name, value)]).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains("keyhaul.toml:9:9"), "{error}");
        }
        // The url says one thing twice, and not the same.
        options_of("pkcs11:token=a;token=b", &[]).expect_err("twice");
    }

    #[test]
    fn what_is_no_such_uri_is_refused_with_the_rule_and_never_the_pin() {
        let cases = [
            ("pkcs11:vms", "NAME=VALUE"),
            ("pkcs11:token=a;", "NAME=VALUE"),
            ("pkcs11:?", "NAME=VALUE"),
            ("pkcs11:tokn=a", "did you mean `token`"),
            ("pkcs11:object=a", "known are"),
            ("pkcs11:module-path=/lib/m.so", "unknown attribute"),
            ("pkcs11:?token=a", "unknown attribute"),
            ("pkcs11:token=a b;serial=1", "%20"),
            ("pkcs11:token=a/b", "%2F"),
            ("pkcs11:token=%2", "hexadecimal"),
            ("pkcs11:token=%FF", "UTF-8"),
            ("pkcs11:token=a#b", "fragment"),
            ("pkcs11:/token=a", "no host"),
            ("pkcs11://host/token=a", "no host"),
            ("pkcs11:?module-name=softhsm2", "module-path"),
            ("pkcs11:?pin-source=|hunter2", "`pin`"),
            ("pkcs11:?pin-source=file:pin", "absolute"),
            ("pkcs11:?pin-source=file://host/pin", "absolute"),
            ("pkcs11:token=a?pin-value=hunter2", "`pin`"),
            ("pkcs11:?pin-value=%zz", "`pin`"),
            ("pkcs12:token=a", "begins with"),
        ];
        for (url, rule) in cases {
            let error = options_of(url, &[]).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            let said = format!("{error} {:?}", error.advice());
            assert!(said.contains(rule), "{url}: {said}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn a_tokens_uri_is_escaped_and_reads_as_the_same_token() {
        let attributes = [("token", "My token; 50% é"), ("serial", "42")];
        let uri = of_token(attributes.into_iter());
        assert_eq!(uri, "pkcs11:token=My%20token%3B%2050%25%20%C3%A9;serial=42");
        let mut read = options_of(&uri, &[]).expect("valid");
        read.reverse();
        let expected = attributes.map(|(name, value)| (name.to_owned(), text(value)));
        assert_eq!(read, expected);
        assert_eq!(of_token(std::iter::empty()), "pkcs11:");
    }
}
