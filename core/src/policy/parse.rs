//! From documents to a policy, with every error at once.

use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::document::{Document, Node};
use super::store::store;
use super::{Pattern, Policy, Route};
use crate::encoding::Encoding;
use crate::reference::Field;
use crate::registry::unknown;
use crate::{Error, ErrorKind, Result};

const TOP: &[&str] = &["version", "stores", "routes", "audit"];
const ROUTE: &[&str] = &["match", "store", "stores", "path", "field", "encoding"];
const AUDIT: &[&str] = &["path"];

/// The policy of a main file and its drop-ins, in this order.
pub(super) fn policy(name: &str, sources: &[(String, String)]) -> Result<Policy, Vec<Error>> {
    let policy = Policy {
        name: name.to_owned(),
        stores: Default::default(),
        routes: Vec::new(),
        audit: None,
    };
    let mut reader = Reader {
        policy,
        errors: Vec::new(),
    };
    for (name, text) in sources {
        let document = Document { name, text };
        match document.parse() {
            Ok(table) => reader.document(document, &table),
            Err(error) => reader.errors.push(error),
        }
    }
    // Only a policy whose parts are sound can be judged as a whole.
    if reader.errors.is_empty() {
        reader.judge();
    }
    if reader.errors.is_empty() {
        Ok(reader.policy)
    } else {
        Err(reader.errors)
    }
}

struct Reader {
    policy: Policy,
    errors: Vec<Error>,
}

impl Reader {
    fn document(&mut self, document: Document<'_>, table: &DeTable<'_>) {
        match table.get("version") {
            Some(node) => match document.integer("version", node) {
                Ok(1) => {}
                Ok(other) => self.errors.push(
                    document
                        .refuse(
                            node,
                            format!("policy version {other} is not known; known is: 1"),
                        )
                        .with_advice("a newer keyhaul wrote it; upgrade this one"),
                ),
                Err(error) => self.errors.push(error),
            },
            None => self.errors.push(
                Error::new(
                    ErrorKind::InvalidConfig,
                    "a policy file begins with `version = 1`",
                )
                .with_place(document.line(0)),
            ),
        }
        for (key, node) in table {
            match key.get_ref().as_ref() {
                "version" => {}
                "stores" => self.stores(document, node),
                "routes" => self.routes(document, node),
                "audit" => self.audit(document, node),
                _ => self.errors.push(document.unknown_key("key", key, TOP)),
            }
        }
    }

    fn stores(&mut self, document: Document<'_>, node: &Node<'_>) {
        let table = match document.table("`stores`", node) {
            Ok(table) => table,
            Err(error) => return self.errors.push(error),
        };
        for (key, node) in table {
            let name = key.get_ref();
            let place = document.place(key.span().start);
            if let Some(earlier) = self.policy.stores.get(name.as_ref()) {
                let rule = format!(
                    "store `{name}` is declared at {} already",
                    earlier.config.place
                );
                self.errors
                    .push(Error::new(ErrorKind::InvalidConfig, rule).with_place(place));
                continue;
            }
            match store(document, name, &place, node) {
                Ok(entry) => {
                    self.policy.stores.insert(name.to_string(), entry);
                }
                Err(error) => self.errors.push(error),
            }
        }
    }

    fn routes(&mut self, document: Document<'_>, node: &Node<'_>) {
        let DeValue::Array(items) = node.get_ref() else {
            return self
                .errors
                .push(document.refuse(node, "routes are written as [[routes]]"));
        };
        for item in items {
            match route(document, item) {
                Ok(route) => self.policy.routes.push(route),
                Err(error) => self.errors.push(error),
            }
        }
    }

    fn audit(&mut self, document: Document<'_>, node: &Node<'_>) {
        let read = || {
            let table = document.table("`audit`", node)?;
            if let Some((key, _)) = table
                .iter()
                .find(|(key, _)| !AUDIT.contains(&key.get_ref().as_ref()))
            {
                return Err(document.unknown_key("key of [audit]", key, AUDIT));
            }
            let path = table
                .get("path")
                .ok_or_else(|| document.refuse(node, "[audit] needs a `path`"))?;
            let text = document.text("path", path)?;
            if text.starts_with('/') {
                Ok(PathBuf::from(text))
            } else {
                Err(document.refuse(path, "the audit's `path` is absolute"))
            }
        };
        match read() {
            Ok(_) if self.policy.audit.is_some() => {
                self.errors
                    .push(document.refuse(node, "[audit] is set in another file already"));
            }
            Ok(path) => self.policy.audit = Some(path),
            Err(error) => self.errors.push(error),
        }
    }

    /// What only shows when all files are read: routes that lead nowhere or are never reached.
    fn judge(&mut self) {
        let policy = &self.policy;
        for (index, route) in policy.routes.iter().enumerate() {
            for name in &route.stores {
                if !policy.stores.contains_key(name) {
                    let known = policy.stores.keys().map(String::as_str);
                    self.errors
                        .push(unknown("store", name, known).with_place(&route.place));
                }
            }
            let earlier = policy.routes[..index]
                .iter()
                .find(|e| e.pattern.shadows(&route.pattern));
            if let Some(earlier) = earlier {
                let rule = format!(
                    "route `{}` is never reached: `{}` at {} comes first",
                    route.pattern, earlier.pattern, earlier.place
                );
                self.errors.push(
                    Error::new(ErrorKind::InvalidConfig, rule)
                        .with_place(&route.place)
                        .with_advice("put the narrower route first, or remove it"),
                );
            }
        }
    }
}

fn route(document: Document<'_>, node: &Node<'_>) -> Result<Route> {
    let table = document.table("a route", node)?;
    if let Some((key, _)) = table
        .iter()
        .find(|(key, _)| !ROUTE.contains(&key.get_ref().as_ref()))
    {
        return Err(document.unknown_key("key of a route", key, ROUTE));
    }
    let text = |key: &str| {
        table
            .get(key)
            .map(|node| Ok((node, document.text(key, node)?)))
            .transpose()
    };
    let (at, matches) =
        text("match")?.ok_or_else(|| document.refuse(node, "a route needs a `match`"))?;
    let pattern = Pattern::parse(matches)
        .map_err(|rule| document.refuse(at, format!("the pattern `{matches}` {rule}")))?;
    let stores = match (text("store")?, table.get("stores")) {
        (Some((_, name)), None) => vec![name.to_owned()],
        (None, Some(list)) => document.texts("stores", list)?,
        _ => return Err(document.refuse(node, "a route has either `store` or `stores`")),
    };
    if stores.is_empty() {
        return Err(document.refuse(node, "`stores` names one store at least"));
    }
    let path = match text("path")? {
        None => super::rules::PLAIN.to_owned(),
        Some((at, path)) => {
            template(path).map_err(|rule| document.refuse(at, rule))?;
            path.to_owned()
        }
    };
    let field = match text("field")? {
        None => None,
        Some((_, Field::ALL)) => Some(Field::all()),
        Some((at, field)) => {
            Some(Field::new(field).map_err(|error| document.refuse(at, error.message()))?)
        }
    };
    let encoding = match text("encoding")? {
        None => Encoding::default(),
        Some((at, name)) => Encoding::from_name(name).ok_or_else(|| {
            unknown(
                "encoding",
                name,
                Encoding::ALL.iter().map(|encoding| encoding.name()),
            )
            .with_place(document.place(at.span().start))
        })?,
    };
    let place = document.line(at.span().start);
    Ok(Route {
        pattern,
        stores,
        path,
        field,
        encoding,
        place,
    })
}

/// Checks a route's `path` with stand-ins for what it will be filled with.
fn template(path: &str) -> Result<(), String> {
    let filled = path.replace("{scope}", "s").replace("{name}", "n");
    if filled.contains(['{', '}']) {
        return Err("a `path` may hold {scope} and {name}, and no other braces".into());
    }
    if !path.contains("{name}") && !path.contains("{scope}") {
        // One fixed path for all references that match: rarely meant, but sound.
        tracing::debug!(path, "a route's path names neither {{scope}} nor {{name}}");
    }
    crate::SecretPath::new(filled)
        .map(|_| ())
        .map_err(|error| error.message().to_owned())
}
