//! Rules about a policy as a whole, beyond what each line says.

use super::{Policy, Route};
use crate::registry::Registry;
use crate::{Error, ErrorKind, StoreFactory};

/// What a route's path is where none is named, and all that a key service takes.
pub(super) const PLAIN: &str = "{scope}/{name}";

/// What would get round a key service, or ask it for what it cannot judge.
pub(super) fn key_services(policy: &Policy, registry: &Registry) -> Vec<Error> {
    let is_key_service = |name: &String| {
        let entry = policy.stores.get(name);
        let factory = entry.and_then(|entry| registry.factory(&entry.config).ok());
        factory.is_some_and(StoreFactory::is_key_service)
    };
    let mut errors = Vec::new();
    for route in &policy.routes {
        if route.stores.len() > 1 && route.stores.first().is_some_and(is_key_service) {
            let rule =
                "a key service has no stand-in: whoever blocks it would get round a revocation";
            let advice = "name the key service alone, as `store`";
            errors.push(refused(route, rule).with_advice(advice));
        }
        if route.path != PLAIN && route.stores.iter().any(is_key_service) {
            let rule = "a key service takes no `path`: it grants by scope and name, and its own \
                        policy says where they lead";
            let advice = "leave `path` out here; the server's policy may have one";
            errors.push(refused(route, rule).with_advice(advice));
        }
    }
    errors
}

impl Policy {
    /// Whether no two subjects, `SCOPE/NAME`, can share a secret: what a key service must know of
    /// the policy it serves, since it grants by scope and name, and deletes what a name leads to.
    ///
    /// Every route's `path` holds `{scope}` as a segment of its own, unless its `match` names one
    /// scope, and `{name}`, unless its `match` names one name; and no two routes to one store lead
    /// different subjects to one path, be it for different fields.
    ///
    /// # Errors
    /// `InvalidConfig` for each route that could, with its line.
    pub fn keeps_scopes_apart(&self) -> Result<(), Vec<Error>> {
        let mut errors = Vec::new();
        for (index, route) in self.routes.iter().enumerate() {
            if !route.is_of_one_scope() && !route.path.split('/').any(|s| s == "{scope}") {
                let rule = format!(
                    "route `{}` leads several scopes to one secret: its `path` lacks `{{scope}}` \
                     as a segment of its own",
                    route.pattern
                );
                let advice = "write the path as \"FOLDER/{scope}/{name}\", or name one scope in \
                              `match`";
                errors.push(refused(route, rule).with_advice(advice));
                continue;
            }
            if route.pattern.pinned_name().is_none() && !route.path.contains("{name}") {
                let rule = format!(
                    "route `{}` leads several names to one secret: its `path` lacks `{{name}}`",
                    route.pattern
                );
                let advice = "write the path as \"FOLDER/{scope}/{name}\", or name one secret in \
                              `match`, as \"*/root-disk\"";
                errors.push(refused(route, rule).with_advice(advice));
                continue;
            }
            let earlier = self.routes[..index].iter().find(|e| e.may_meet(route));
            if let Some(earlier) = earlier {
                let rule = format!(
                    "route `{}` and route `{}` at {} can lead different secrets to one path",
                    route.pattern, earlier.pattern, earlier.place
                );
                let advice = "begin each path with a folder of its own, as \"vms/{scope}/{name}\" \
                              and \"shared/{name}\"; fields of one map are no secrets of their own \
                              here: store them apart";
                errors.push(refused(route, rule).with_advice(advice));
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }
}

impl Route {
    fn is_of_one_scope(&self) -> bool {
        self.pattern.pinned_scope().is_some()
    }

    /// Whether it may lead one subject to the path to which `other` leads another. May say yes where
    /// it is not so, never no where it is.
    fn may_meet(&self, other: &Route) -> bool {
        if !self.stores.iter().any(|name| other.stores.contains(name)) {
            return false;
        }
        let (ours, theirs) = (self.template(), other.template());
        let mut ours = Walk::of(self, &ours);
        let mut theirs = Walk::of(other, &theirs);
        ours.may_end_with(&mut theirs) && !ours.is_of_one_subject_with(&theirs)
    }

    /// The path, with what `match` says of scope and name filled in.
    fn template(&self) -> String {
        let mut path = self.path.clone();
        if let Some(scope) = self.pattern.pinned_scope() {
            path = path.replace("{scope}", scope);
        }
        if let Some(name) = self.pattern.pinned_name() {
            path = path.replace("{name}", name);
        }
        path
    }
}

/// A walk along the segments of a route's path.
struct Walk<'a> {
    route: &'a Route,
    template: &'a str,
    segments: std::str::Split<'a, char>,
    /// The scope, where it is known.
    scope: Option<&'a str>,
}

enum Step<'a> {
    /// This text.
    Plain(&'a str),
    /// Any scope of the route's.
    Scope,
    /// Anything: a name has any number of segments, one at least.
    Name,
}

impl<'a> Walk<'a> {
    fn of(route: &'a Route, template: &'a str) -> Self {
        Self {
            route,
            template,
            segments: template.split('/'),
            scope: route.pattern.pinned_scope(),
        }
    }

    /// Whether both may end at one path. What that says of their scopes, they know then.
    fn may_end_with(&mut self, other: &mut Walk<'a>) -> bool {
        loop {
            match (self.next(), other.next()) {
                (None, None) => return true,
                // Without a name before, paths of different lengths never meet.
                (None, Some(_)) | (Some(_), None) => return false,
                (Some(Step::Name), _) | (_, Some(Step::Name)) => return true,
                (Some(Step::Scope), Some(Step::Scope)) => {}
                (Some(Step::Scope), Some(Step::Plain(text))) => {
                    if !self.takes(text) {
                        return false;
                    }
                }
                (Some(Step::Plain(text)), Some(Step::Scope)) => {
                    if !other.takes(text) {
                        return false;
                    }
                }
                (Some(Step::Plain(a)), Some(Step::Plain(b))) if a != b => return false,
                (Some(Step::Plain(_)), Some(Step::Plain(_))) => {}
            }
        }
    }

    /// Whether two ways to one path begin at one subject: they do where both fill in the same
    /// template, since a path says then what was filled in.
    fn is_of_one_subject_with(&self, other: &Walk<'_>) -> bool {
        if self.scope != other.scope {
            return false;
        }
        let names = (
            self.route.pattern.pinned_name(),
            other.route.pattern.pinned_name(),
        );
        let name = match names {
            (Some(ours), Some(theirs)) if ours != theirs => return false,
            (ours, theirs) => ours.or(theirs),
        };
        let filled = |template: &str| {
            let scope = self.scope.unwrap_or("{scope}");
            let name = name.unwrap_or("{name}");
            template.replace("{scope}", scope).replace("{name}", name)
        };
        filled(self.template) == filled(other.template)
    }

    /// Whether the scope can be `text`; it is, from here on.
    fn takes(&mut self, text: &'a str) -> bool {
        let can = match self.scope {
            Some(scope) => scope == text,
            None => self.route.pattern.has_scope(text),
        };
        self.scope = Some(text);
        can
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let segment = self.segments.next()?;
        Some(match (segment, self.scope) {
            ("{scope}", Some(scope)) => Step::Plain(scope),
            ("{scope}", None) => Step::Scope,
            // A scope among other characters is as unknown as a name.
            (segment, _) if segment.contains('{') => Step::Name,
            (segment, _) => Step::Plain(segment),
        })
    }
}

fn refused(route: &Route, rule: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, rule).with_place(&route.place)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::registry::{Limits, OptionSpec};
    use crate::{Result, SecretStore, StoreConfig};

    /// A backend, and whether its stores are key services.
    #[derive(Debug)]
    struct Backend(&'static [&'static str], bool);

    impl StoreFactory for Backend {
        fn schemes(&self) -> &[&'static str] {
            self.0
        }
        fn summary(&self) -> &'static str {
            "a backend made by a test"
        }
        fn options(&self) -> &[OptionSpec] {
            &[]
        }
        fn is_key_service(&self) -> bool {
            self.1
        }
        fn limits(&self) -> Option<Limits> {
            None
        }
        fn alias(&self) -> Option<&'static str> {
            None
        }
        fn open(&self, _: &StoreConfig) -> Result<Arc<dyn SecretStore>> {
            Ok(Arc::new(crate::MemoryStore::new("memory")))
        }
    }

    fn policy(routes: &[&str]) -> Policy {
        let mut text = "version = 1\n[stores.k]\nurl = \"keys://a\"\n[stores.f]\nurl = \"plain://a\"\n[stores.g]\nurl = \"plain://b\"\n".to_owned();
        for route in routes {
            text.push_str(&format!("[[routes]]\n{route}\n"));
        }
        Policy::parse("p.toml", &text).expect(&text)
    }

    #[test]
    fn a_key_service_takes_no_path_and_has_no_stand_in() {
        let registry = Registry::new()
            .with(Backend(&["keys"], true))
            .with(Backend(&["plain"], false));
        let check = |route: &str| policy(&[route]).check(&registry);
        for good in [
            "match = \"**\"\nstore = \"k\"",
            "match = \"**\"\nstore = \"k\"\nencoding = \"hex\"\nfield = \"f\"",
            "match = \"**\"\nstore = \"f\"\npath = \"x/{name}\"",
            "match = \"**\"\nstores = [\"f\", \"g\"]",
        ] {
            check(good).expect(good);
        }
        for (bad, rule) in [
            (
                "match = \"**\"\nstore = \"k\"\npath = \"x/{scope}/{name}\"",
                "no `path`",
            ),
            ("match = \"**\"\nstores = [\"k\", \"f\"]", "no stand-in"),
            (
                "match = \"**\"\nstores = [\"f\", \"k\"]\npath = \"x/{name}\"",
                "no `path`",
            ),
        ] {
            let errors = check(bad).expect_err(bad);
            assert_eq!(errors.len(), 1, "{bad}");
            assert_eq!(errors[0].kind(), ErrorKind::InvalidConfig);
            assert!(errors[0].message().contains(rule), "{bad}: {}", errors[0]);
            assert_eq!(errors[0].context().place.as_deref(), Some("p.toml:9"));
        }
    }

    #[test]
    fn no_two_subjects_share_a_secret() {
        for good in [
            &["match = \"**\"\nstore = \"f\""][..],
            &["match = \"**\"\nstore = \"f\"\npath = \"x/{name}/of/{scope}\""],
            &["match = \"@site/**\"\nstore = \"f\"\npath = \"shared/{name}\""],
            &[
                "match = \"@site/**\"\nstore = \"f\"\npath = \"shared/{name}\"",
                "match = \"**\"\nstore = \"f\"\npath = \"vms/{scope}/{name}\"",
            ],
            &[
                "match = \"@site/**\"\nstore = \"f\"\npath = \"site/{name}\"",
                "match = \"**\"\nstore = \"g\"",
            ],
            // Another field or encoding of the same scopes.
            &[
                "match = \"*/tls\"\nstore = \"f\"\nencoding = \"hex\"",
                "match = \"**\"\nstore = \"f\"",
            ],
            &[
                "match = \"web01/a\"\nstore = \"f\"\npath = \"x\"",
                "match = \"web01/**\"\nstore = \"f\"\npath = \"x/{name}\"",
            ],
            // One name, at the place where it would be anyhow.
            &[
                "match = \"*/tls\"\nstore = \"f\"\npath = \"{scope}/tls\"\nfield = \"pem\"",
                "match = \"web01/**\"\nstore = \"f\"\nfield = \"own\"",
                "match = \"**\"\nstore = \"f\"",
            ],
            &[
                "match = \"*/disk\"\nstore = \"f\"\npath = \"vms/{scope}\"",
                "match = \"*/tls\"\nstore = \"g\"\npath = \"vms/{scope}\"",
            ],
            &[
                "match = \"a*/**\"\nstore = \"f\"\npath = \"x/{name}/of/{scope}\"",
                "match = \"**\"\nstore = \"f\"\npath = \"x/{name}/of/{scope}\"",
            ],
            // The second route's scopes do not include the first's folder.
            &[
                "match = \"@site/**\"\nstore = \"f\"\npath = \"site/{name}\"",
                "match = \"prod-*/**\"\nstore = \"f\"",
            ],
        ] {
            policy(good).keeps_scopes_apart().expect("kept apart");
        }
        for (bad, line) in [
            (
                &["match = \"**\"\nstore = \"f\"\npath = \"all/{name}\""][..],
                9,
            ),
            (
                // a-b/c and a/b-c would be one.
                &["match = \"**\"\nstore = \"f\"\npath = \"{scope}-{name}\""],
                9,
            ),
            (&["match = \"prod-*/**\"\nstore = \"f\"\npath = \"x\""], 9),
            (
                // @site/tls and site/tls would be one.
                &[
                    "match = \"@site/**\"\nstore = \"f\"\npath = \"site/{name}\"",
                    "match = \"**\"\nstore = \"f\"",
                ],
                13,
            ),
            (
                // x/web01/root of the first and web01/root of the second.
                &[
                    "match = \"prod-*/**\"\nstore = \"f\"",
                    "match = \"web01/**\"\nstore = \"f\"\npath = \"prod-1/{name}\"",
                ],
                12,
            ),
            (
                // The second store of the first route.
                &[
                    "match = \"@site/**\"\nstores = [\"g\", \"f\"]\npath = \"site/{name}\"",
                    "match = \"**\"\nstore = \"f\"",
                ],
                13,
            ),
            (
                &[
                    "match = \"a/n\"\nstore = \"f\"\npath = \"x\"",
                    "match = \"b/n\"\nstore = \"f\"\npath = \"x\"",
                ],
                13,
            ),
            // One map, and a field for each name: who is granted one name asks for another's field.
            (
                &[
                    "match = \"*/disk\"\nstore = \"f\"\npath = \"vms/{scope}\"\nfield = \"disk\"",
                    "match = \"*/tls\"\nstore = \"f\"\npath = \"vms/{scope}\"\nfield = \"tls\"",
                ],
                14,
            ),
            (
                &["match = \"*/*\"\nstore = \"f\"\npath = \"vms/{scope}\""],
                9,
            ),
            // It may be of any length, with `**` before it.
            (
                &["match = \"**/tls\"\nstore = \"f\"\npath = \"vms/{scope}\""],
                9,
            ),
            (&["match = \"web01/d*\"\nstore = \"f\"\npath = \"x\""], 9),
            (
                // web01/tls and web01/disk would be one.
                &[
                    "match = \"*/tls\"\nstore = \"f\"\npath = \"{scope}/disk\"",
                    "match = \"**\"\nstore = \"f\"",
                ],
                13,
            ),
            (
                // web01/a/b and web01/b would be one.
                &[
                    "match = \"web01/a/**\"\nstore = \"f\"\npath = \"x/{name}\"",
                    "match = \"web01/**\"\nstore = \"f\"\npath = \"x/a/{name}\"",
                ],
                13,
            ),
        ] {
            let errors = policy(bad).keeps_scopes_apart().expect_err("shared");
            assert_eq!(errors.len(), 1, "{bad:?}");
            let place = format!("p.toml:{line}");
            assert_eq!(errors[0].context().place.as_deref(), Some(place.as_str()));
        }
    }
}
