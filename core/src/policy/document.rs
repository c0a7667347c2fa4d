//! A TOML document whose every key and value knows its line.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::registry::{OptionValue, Options, Value, unknown};
use crate::{Error, ErrorKind, Result};

/// A text with the name that errors call it by.
#[derive(Clone, Copy)]
pub(super) struct Document<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

pub(super) type Node<'a> = Spanned<DeValue<'a>>;
type Key<'a> = Spanned<Cow<'a, str>>;

impl<'a> Document<'a> {
    /// The document's root table.
    pub(super) fn parse(&self) -> Result<DeTable<'a>> {
        match DeTable::parse(self.text) {
            Ok(table) => Ok(table.into_inner()),
            // Only the parser's words: the line itself may hold what is nobody's business.
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                Err(Error::new(
                    ErrorKind::InvalidConfig,
                    error.message().replace('\n', ", "),
                )
                .with_place(self.place(at)))
            }
        }
    }

    /// `NAME:LINE:COLUMN` of a byte of the text, both counted from 1.
    pub(super) fn place(&self, at: usize) -> String {
        let before = self.text.get(..at).unwrap_or(self.text);
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |line| line.chars().count());
        format!(
            "{}:{}:{}",
            self.name,
            before.matches('\n').count() + 1,
            column + 1
        )
    }

    /// `NAME:LINE` of a byte of the text.
    pub(super) fn line(&self, at: usize) -> String {
        let place = self.place(at);
        place
            .rsplit_once(':')
            .map_or(place.clone(), |(line, _)| line.to_owned())
    }

    /// An error at a node.
    pub(super) fn refuse(&self, node: &Node<'_>, rule: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidConfig, rule.into()).with_place(self.place(node.span().start))
    }

    /// The error for an unknown key.
    pub(super) fn unknown_key(&self, what: &str, key: &Key<'_>, known: &[&str]) -> Error {
        unknown(what, key.get_ref(), known.iter().copied()).with_place(self.place(key.span().start))
    }

    pub(super) fn table<'n>(&self, what: &str, node: &'n Node<'a>) -> Result<&'n DeTable<'a>> {
        match node.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => Err(self.refuse(node, format!("{what} is a table"))),
        }
    }

    pub(super) fn text<'n>(&self, what: &str, node: &'n Node<'a>) -> Result<&'n str> {
        match node.get_ref() {
            DeValue::String(text) => Ok(text),
            _ => Err(self.refuse(node, format!("`{what}` is a text"))),
        }
    }

    pub(super) fn integer(&self, what: &str, node: &Node<'a>) -> Result<i64> {
        let number = match node.get_ref() {
            DeValue::Integer(integer) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).ok()
            }
            _ => None,
        };
        number.ok_or_else(|| self.refuse(node, format!("`{what}` is a whole number")))
    }

    pub(super) fn texts(&self, what: &str, node: &Node<'a>) -> Result<Vec<String>> {
        let DeValue::Array(items) = node.get_ref() else {
            return Err(self.refuse(node, format!("`{what}` is a list of texts")));
        };
        items
            .iter()
            .map(|item| self.text(what, item).map(str::to_owned))
            .collect()
    }

    /// A backend's option, of whatever kind: the backend's declaration decides later.
    pub(super) fn option(&self, key: &str, node: &Node<'a>) -> Result<OptionValue> {
        let value = match node.get_ref() {
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Integer(_) => Value::Integer(self.integer(key, node)?),
            DeValue::String(text) => Value::Text(text.clone().into_owned()),
            DeValue::Array(_) => Value::Texts(self.texts(key, node)?),
            DeValue::Table(table) => {
                let mut options = Options::default();
                for (key, node) in table {
                    options
                        .0
                        .insert(key.get_ref().to_string(), self.option(key.get_ref(), node)?);
                }
                Value::Table(options)
            }
            DeValue::Float(_) | DeValue::Datetime(_) => {
                let rule = format!("`{key}` cannot be a number with a point, nor a date");
                let error = self.refuse(node, rule);
                return Err(error.with_advice("in quotes it is a text"));
            }
        };
        Ok(OptionValue {
            value,
            place: self.place(node.span().start),
        })
    }
}
