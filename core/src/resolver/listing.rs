//! Listing by reference: from a store's paths back to the references that lead to them.

use std::collections::BTreeSet;

use super::Resolver;
use crate::policy::Route;
use crate::store::Request;
use crate::{ErrorKind, GetOptions, Reference, Result, SecretPath, SecretStoreExt as _};

impl Resolver {
    /// Every reference that the policy serves and a store holds, in order; with `scope`, those of
    /// that scope.
    ///
    /// A secret that no route leads to is not listed: no VM could name it.
    ///
    /// # Errors
    /// As [`SecretStore::list`](crate::SecretStore::list), with the route.
    pub async fn list(&self, scope: Option<&str>, request: &Request) -> Result<Vec<Reference>> {
        let mut found = BTreeSet::new();
        for route in &self.policy().routes {
            if scope.is_none_or(|scope| route.pattern.has_scope(scope)) {
                let listed = self.list_route(route, scope, request).await;
                found.extend(listed.map_err(|error| error.with_route(&route.place))?);
            }
        }
        let wanted = |reference: &Reference| scope.is_none_or(|scope| reference.scope() == scope);
        Ok(found.into_iter().filter(wanted).collect())
    }

    /// What a route's first store holds.
    async fn list_route(
        &self,
        route: &Route,
        scope: Option<&str>,
        request: &Request,
    ) -> Result<Vec<Reference>> {
        let Some(store) = route.stores.first() else {
            return Ok(Vec::new());
        };
        // One that is known by name: what else is in its folder is nobody's business here.
        if let Some(reference) = route.pattern.pinned_reference() {
            let target = self.policy().target(&reference)?;
            let options = GetOptions::default().request(request.clone());
            return match self.store(store)?.stat(&target.path, &options).await {
                Ok(_) if target.route == route.place => Ok(vec![reference]),
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => Ok(Vec::new()),
            };
        }
        let prefix = fixed_folder(&route.path, scope.or(route.pattern.pinned_scope()));
        let paths = self.store(store)?.list_for(&prefix, request).await?;
        let references = paths.iter();
        Ok(references
            .filter_map(|path| self.reference_to(route, path))
            .collect())
    }

    /// The reference that `route` leads to `path`, if it is this route that serves it.
    fn reference_to(&self, route: &Route, path: &SecretPath) -> Option<Reference> {
        let filled = invert(&route.path, path.as_str())?;
        let scope = filled.scope.or(route.pattern.pinned_scope())?;
        let text = format!("{scope}/{}", filled.name?);
        let reference = Reference::parse(&text).ok()?;
        let target = self.policy().target(&reference).ok()?;
        (target.route == route.place && target.path == *path).then_some(reference)
    }
}

/// The folder that all of a template's paths lie below.
fn fixed_folder(template: &str, scope: Option<&str>) -> SecretPath {
    let filled = scope.map_or(template.to_owned(), |scope| {
        template.replace("{scope}", scope)
    });
    let fixed = filled.split('{').next().unwrap_or_default();
    let folder = fixed.rsplit_once('/').map_or("", |(folder, _)| folder);
    SecretPath::new(folder).unwrap_or(SecretPath::root())
}

#[derive(Clone, Copy, Default)]
struct Filled<'a> {
    scope: Option<&'a str>,
    name: Option<&'a str>,
}

/// What a template's placeholders must have been for it to give `path`.
fn invert<'a>(template: &str, path: &'a str) -> Option<Filled<'a>> {
    fn step<'a>(template: &str, path: &'a str, filled: Filled<'a>) -> Option<Filled<'a>> {
        let Some(open) = template.find('{') else {
            return (template == path).then_some(filled);
        };
        let path = path.strip_prefix(&template[..open])?;
        let (key, rest) = template[open + 1..].split_once('}')?;
        let is_scope = key == "scope";
        let known = if is_scope { filled.scope } else { filled.name };
        let ends = (1..=path.len()).filter(|end| path.is_char_boundary(*end));
        ends.map(|end| path.split_at(end))
            .filter(|(part, _)| known.is_none_or(|known| known == *part))
            .filter(|(part, _)| !is_scope || !part.contains('/'))
            .find_map(|(part, after)| {
                let mut filled = filled;
                *(if is_scope {
                    &mut filled.scope
                } else {
                    &mut filled.name
                }) = Some(part);
                step(rest, after, filled)
            })
    }
    step(template, path, Filled::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_inverted() {
        for (template, path, expected) in [
            (
                "{scope}/{name}",
                "web01/luks/root",
                Some((Some("web01"), Some("luks/root"))),
            ),
            (
                "vms/{scope}/{name}",
                "vms/web01/root",
                Some((Some("web01"), Some("root"))),
            ),
            ("vms/{scope}/{name}", "web01/root", None),
            (
                "{name}/of/{scope}",
                "a/of/b/of/c",
                Some((Some("c"), Some("a/of/b"))),
            ),
            (
                "{scope}/{scope}-{name}",
                "w/w-root",
                Some((Some("w"), Some("root"))),
            ),
            ("{scope}/{scope}-{name}", "w/v-root", None),
            ("all/{name}", "all/root", Some((None, Some("root")))),
        ] {
            let found = invert(template, path).map(|filled| (filled.scope, filled.name));
            assert_eq!(found, expected, "{template} {path}");
        }
        assert_eq!(
            fixed_folder("vms/{scope}/{name}", Some("w")).as_str(),
            "vms/w"
        );
        assert_eq!(fixed_folder("vms/v-{scope}/{name}", None).as_str(), "vms");
        assert!(fixed_folder("{scope}/{name}", None).is_root());
    }
}
