//! A store of the policy: its backend's options, and the settings of its layers.

use std::time::Duration;

use toml::de::DeValue;

use super::StoreEntry;
use super::document::{Document, Node};
use crate::layers::{Breaker, BreakerSettings, CacheSettings, LayerSettings};
use crate::registry::{Limits, OptionKind, OptionSpec, Options, StoreConfig, Value};
use crate::{Result, StoreFactory};

/// The keys of every store, whatever its backend.
pub fn store_keys() -> impl Iterator<Item = &'static str> + Clone {
    let layers = LAYERS.iter().map(|spec| spec.name);
    ["url", "breaker", "cache"].into_iter().chain(layers)
}

/// What the policy says of a store's layers, in the words that errors and docs use.
const LAYERS: &[OptionSpec] = &[
    spec("timeout", OptionKind::Duration),
    spec("retries", OptionKind::Integer),
    spec("deadline", OptionKind::Duration),
    spec("concurrency", OptionKind::Integer),
    spec("rate", OptionKind::Integer),
    spec("direct", OptionKind::Boolean),
];

const BREAKER: &[OptionSpec] = &[
    spec("failures", OptionKind::Integer),
    spec("pause", OptionKind::Duration),
];

const CACHE: &[OptionSpec] = &[
    spec("ttl", OptionKind::Duration),
    spec("entries", OptionKind::Integer),
    spec("bytes", OptionKind::Integer),
];

const fn spec(name: &'static str, kind: OptionKind) -> OptionSpec {
    OptionSpec {
        name,
        kind,
        default: "",
        help: "",
    }
}

/// What the policy says of a store's circuit breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerChoice {
    /// Nothing: there is one where the store has limits.
    #[default]
    Default,
    /// There is none.
    Off,
    /// There is one.
    On(BreakerSettings),
}

impl StoreEntry {
    /// The settings of the store's layers: the policy's, and where it is silent, `factory`'s.
    pub fn layers(&self, factory: &dyn StoreFactory) -> LayerSettings {
        let mut settings = LayerSettings::default();
        settings.timeout = self.timeout.unwrap_or(settings.timeout);
        settings.retries = self.retries.unwrap_or(settings.retries);
        settings.deadline = self.deadline.unwrap_or(settings.deadline);
        settings.limits = factory.limits();
        if self.concurrency.is_some() || self.rate.is_some() {
            let known = settings.limits.unwrap_or(Limits::new(CONCURRENCY, None));
            settings.limits = Some(Limits::new(
                self.concurrency.unwrap_or(known.concurrency),
                self.rate.or(known.rate),
            ));
        }
        settings.breaker = match self.breaker {
            BreakerChoice::Default => settings.limits.map(|_| BreakerSettings::default()),
            BreakerChoice::Off => None,
            BreakerChoice::On(breaker) => Some(breaker),
        };
        settings.cache = self.cache;
        settings
    }
}

/// How many requests may be under way where the policy only limits their rate.
const CONCURRENCY: u32 = 16;

pub(super) fn store(
    document: Document<'_>,
    name: &str,
    place: &str,
    node: &Node<'_>,
) -> Result<StoreEntry> {
    let table = document.table(&format!("store `{name}`"), node)?;
    let url = table
        .get("url")
        .ok_or_else(|| document.refuse(node, format!("store `{name}` needs a `url`")))?;
    let url_text = document.text("url", url)?;
    let mut options = Options::default();
    let mut layers = Options::default();
    let (mut breaker, mut cache) = (BreakerChoice::Default, None);
    for (key, node) in table {
        let key = key.get_ref().as_ref();
        match key {
            "url" => {}
            "breaker" => breaker = breaker_of(document, node)?,
            "cache" => cache = cache_of(document, node)?,
            _ => {
                let is_ours = LAYERS.iter().any(|spec| spec.name == key);
                let map = if is_ours { &mut layers } else { &mut options };
                map.0.insert(key.into(), document.option(key, node)?);
            }
        }
    }
    // First the numbers, whose errors tell more.
    let retries = number(&layers, "retries", 0, 100)?;
    let concurrency = number(&layers, "concurrency", 1, 1024)?;
    let rate = number(&layers, "rate", 1, 1_000_000)?;
    layers.check(LAYERS)?;
    let config = StoreConfig::new(name, url_text, options, place)
        .map_err(|error| error.with_place(document.place(url.span().start)))?;
    Ok(StoreEntry {
        config,
        timeout: limit(&layers, "timeout")?,
        retries,
        deadline: limit(&layers, "deadline")?,
        concurrency,
        rate,
        breaker,
        cache,
        direct: layers.boolean("direct").unwrap_or_default(),
    })
}

/// `false`, `true`, or `{ failures = …, pause = … }`.
fn breaker_of(document: Document<'_>, node: &Node<'_>) -> Result<BreakerChoice> {
    let option = document.option("breaker", node)?;
    let mut settings = BreakerSettings::default();
    match &option.value {
        Value::Boolean(false) => return Ok(BreakerChoice::Off),
        Value::Boolean(true) => {}
        Value::Table(table) => {
            if let Some(failures) = number(table, "failures", 1, 1000)? {
                settings.failures = failures;
            }
            table.check(BREAKER)?;
            settings.pause = limit(table, "pause")?.unwrap_or(settings.pause);
            if settings.pause > Breaker::LONGEST {
                let rule = format!("`pause` is at most {} s", Breaker::LONGEST.as_secs());
                return Err(table.invalid("pause", rule));
            }
        }
        _ => {
            let rule = "`breaker` is true, false or { failures = …, pause = … }";
            return Err(document.refuse(node, rule));
        }
    }
    Ok(BreakerChoice::On(settings))
}

/// A duration, `false`, or `{ ttl = …, entries = …, bytes = … }`.
fn cache_of(document: Document<'_>, node: &Node<'_>) -> Result<Option<CacheSettings>> {
    let rule = "`cache` is a duration as \"30s\", false, or { ttl = …, entries = …, bytes = … }";
    let refuse = || document.refuse(node, rule);
    let table = match node.get_ref() {
        DeValue::Boolean(false) => return Ok(None),
        DeValue::Table(_) => match document.option("cache", node)?.value {
            Value::Table(table) => table,
            _ => return Err(refuse()),
        },
        DeValue::String(_) | DeValue::Integer(_) => {
            let mut table = Options::default();
            table
                .0
                .insert("ttl".into(), document.option("cache", node)?);
            table
        }
        _ => return Err(refuse()),
    };
    let entries = number(&table, "entries", 1, 10_000)?;
    let bytes = number(&table, "bytes", 1, 64 * 1024 * 1024)?;
    table.check(CACHE)?;
    let default = CacheSettings::new(limit(&table, "ttl")?.ok_or_else(refuse)?);
    Ok(Some(default.bounded(
        entries.map_or(default.entries, |number| number as usize),
        bytes.map_or(default.bytes, |number| number as usize),
    )))
}

fn number(options: &Options, name: &str, least: u32, most: u32) -> Result<Option<u32>> {
    let number = match options.0.get(name).map(|option| &option.value) {
        Some(Value::Integer(number)) => *number,
        // Of another kind, as the check of all kinds says.
        _ => return Ok(None),
    };
    match u32::try_from(number) {
        Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
        _ => Err(options.invalid(name, format!("`{name}` is {least} to {most}"))),
    }
}

fn limit(options: &Options, name: &str) -> Result<Option<Duration>> {
    let limit = options.duration(name)?;
    if limit.is_some_and(|limit| limit.is_zero()) {
        let rule = format!("`{name}` is longer than nothing");
        return Err(options.invalid(name, rule));
    }
    Ok(limit)
}
