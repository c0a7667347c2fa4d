//! A plugin on the command line: where it is, and what a policy would give it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use keyhaul_core::policy::parse_options;
use keyhaul_core::registry::{OptionValue, Options, Value};
use keyhaul_core::{Error, ErrorKind, Result, StoreConfig};

use super::kind::Kind;

/// A plugin, and what it is given.
#[derive(Args, Debug)]
pub struct Given {
    /// The plugin: a shared library, or a program
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// What to take it for [default: a shared library is loaded, and what else can be executed is
    /// started]
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Option<Kind>,

    /// An argument of the program, as the policy's `args`; may be repeated
    #[arg(long = "arg", value_name = "ARG", allow_hyphen_values = true)]
    arguments: Vec<String>,

    /// An option of the plugin's own, as the policy's `options`: what is no TOML value is a text. A
    /// credential is its source, as pin=file:/etc/pin. May be repeated
    #[arg(long = "option", value_name = "KEY=VALUE")]
    options: Vec<String>,

    /// A TOML file of such options
    #[arg(long, value_name = "FILE")]
    options_file: Option<PathBuf>,
}

impl Given {
    /// The plugin's path, which is absolute as in a policy.
    ///
    /// # Errors
    /// Where there is no current folder.
    pub fn path(&self) -> Result<PathBuf> {
        std::path::absolute(&self.path).map_err(|error| Error::io(self.path.display(), error))
    }

    /// What the plugin is.
    ///
    /// # Errors
    /// `InvalidConfig` where it cannot be told.
    pub fn kind(&self) -> Result<Kind> {
        match self.kind {
            Some(kind) => Ok(kind),
            None => Kind::of(&self.path),
        }
    }

    /// The program's arguments.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Whether it is given any option.
    ///
    /// # Errors
    /// Those of [`config`](Self::config).
    pub fn has_options(&self) -> Result<bool> {
        Ok(!self.options()?.0.is_empty())
    }

    /// The store that a policy would have of it.
    ///
    /// # Errors
    /// `InvalidConfig` with the option.
    pub fn config(&self) -> Result<StoreConfig> {
        let kind = self.kind()?;
        let own = self.options()?;
        if kind == Kind::Library && !self.arguments.is_empty() {
            let rule = "a library has no arguments: --arg is for programs";
            return Err(Error::new(ErrorKind::InvalidConfig, rule));
        }
        let mut given = Vec::new();
        if !own.0.is_empty() {
            given.push(("options", Value::from(own)));
        }
        if !self.arguments.is_empty() {
            given.push(("args", self.arguments.clone().into()));
        }
        let place = "the command line";
        let options = Options::at(place, given);
        StoreConfig::new("trial", &url(kind, &self.path()?)?, options, place)
    }

    /// The same plugin on another command line of ours.
    pub fn to_words(&self) -> Result<Vec<OsString>> {
        let mut words = Vec::new();
        let mut add = |name: &str, value: &OsString| {
            let mut word = OsString::from(format!("--{name}="));
            word.push(value);
            words.push(word);
        };
        add("kind", &self.kind()?.name().into());
        self.arguments
            .iter()
            .for_each(|argument| add("arg", &argument.into()));
        self.options
            .iter()
            .for_each(|option| add("option", &option.into()));
        if let Some(file) = &self.options_file {
            add("options-file", &file.into());
        }
        words.extend(["--".into(), self.path()?.into()]);
        Ok(words)
    }

    fn options(&self) -> Result<Options> {
        let mut options = match &self.options_file {
            None => Options::default(),
            Some(path) => {
                let text = fs::read_to_string(path).map_err(|error| {
                    let rule = format!("{} cannot be read", path.display());
                    Error::new(ErrorKind::InvalidConfig, rule).with_source(error)
                })?;
                parse_options(&path.display().to_string(), &text)?
            }
        };
        for option in &self.options {
            let (key, value) = one(option)?;
            options.0.insert(key, value);
        }
        Ok(options)
    }
}

/// An option from `KEY=VALUE`.
fn one(option: &str) -> Result<(String, OptionValue)> {
    // What is refused is not repeated: it may be what no screen should show.
    let (key, value) = option.split_once('=').unwrap_or_default();
    if key.is_empty() {
        let error = Error::new(ErrorKind::InvalidConfig, "an option is KEY=VALUE");
        return Err(error.with_place("--option"));
    }
    let place = format!("--option {key}");
    let parsed = parse_options(&place, &format!("value = {value}"));
    let mut parsed = parsed.map(|options| options.0).unwrap_or_default();
    let value = match (parsed.len(), parsed.remove("value")) {
        (1, Some(option)) => option.value,
        _ => Value::Text(value.to_owned()),
    };
    Ok((key.to_owned(), OptionValue { value, place }))
}

fn url(kind: Kind, path: &Path) -> Result<String> {
    let url = url::Url::from_file_path(path).map_err(|()| {
        let rule = format!("{} is no path that a url can have", path.display());
        Error::new(ErrorKind::InvalidConfig, rule)
    })?;
    Ok(format!("{}://{}", kind.scheme(), url.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(option: &str) -> Value {
        one(option).expect("an option").1.value
    }

    #[test]
    fn an_option_is_a_toml_value_or_else_a_text() {
        assert_eq!(value("slots=7"), Value::Integer(7));
        assert_eq!(value("quick=true"), Value::Boolean(true));
        assert_eq!(
            value("hosts=['a', \"b\"]"),
            Value::Texts(vec!["a".into(), "b".into()])
        );
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(value("pin=file:/etc/pin"), text("file:/etc/pin"));
        assert_eq!(value("number=\"7\""), text("7"));
        assert_eq!(value("version=1.2"), text("1.2"));
        assert_eq!(value("equation=a=b"), text("a=b"));
        assert_eq!(value("empty="), text(""));
        assert_eq!(value("two=1\nother=2"), text("1\nother=2"));
    }

    #[test]
    fn what_is_no_option_is_refused_and_not_repeated() {
        for option in ["hunter2", "=hunter2", ""] {
            let error = one(option).expect_err(option);
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn a_path_is_a_url() {
        let path = Path::new("/usr/lib/key haul/a%b.so");
        let url = url(Kind::Library, path).expect("a url");
        assert_eq!(url, "plugin:///usr/lib/key%20haul/a%25b.so");
    }
}
