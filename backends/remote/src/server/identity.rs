//! Who a certificate's holder is: the URI in it, matched with the configuration's rules.

use std::fmt;
use std::sync::Arc;

use keyhaul_core::policy::matches_segment;
use rustls::pki_types::CertificateDer;

use crate::protocol::{NODE_NAME, Role, is_node_name};

/// Where a node's name stands in a rule's URI.
const NAME: &str = "{name}";
/// The longest URI that is looked at.
pub(super) const MAX_URI: usize = 2048;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The URI in the certificate: the actor of the audit.
    pub(crate) uri: Arc<str>,
    /// The name that grants know a node by.
    pub(crate) name: Arc<str>,
    pub(crate) role: Role,
    /// The scopes of a manager or an operator.
    pub(crate) scopes: Arc<[ScopePattern]>,
}

impl Identity {
    /// Whether the role reaches this scope. A node's grants say more.
    pub(crate) fn covers(&self, scope: &str) -> bool {
        self.scopes.iter().any(|pattern| pattern.matches(scope))
    }

    /// Whether the role reaches every scope.
    pub(crate) fn covers_all(&self) -> bool {
        self.scopes.iter().any(|pattern| &*pattern.0 == "*")
    }
}

/// Why a certificate is nobody's. For the audit: the far end learns only that it is refused.
pub(crate) type Refusal = &'static str;

/// The configuration's rules, none of which matches what another does.
#[derive(Clone, Debug, Default)]
pub struct Roles(Vec<Rule>);

impl Roles {
    /// Adds a rule; the error says what is missing, or which other one matches the same.
    pub(super) fn add(&mut self, rule: Rule) -> Result<(), String> {
        if rule.role == Role::Node && rule.name.is_none() && !rule.captures() {
            return Err(format!(
                "a node's rule has {NAME} in its URI, or a `name`: grants know the node by it"
            ));
        }
        if let Some(other) = self.0.iter().find(|other| other.overlaps(&rule)) {
            return Err(format!(
                "a certificate can match this rule and the one at {}: each has one role",
                other.place
            ));
        }
        if rule.role == Role::Node && !rule.shared && rule.is_many() {
            return Err(
                "several certificates can be the same node by this rule, as `*` stands for \
                 anything: write it out, or say `shared = true` where each of them may read what \
                 the others may"
                    .into(),
            );
        }
        if let Some(other) = self.0.iter().find(|other| other.confuses(&rule)) {
            return Err(format!(
                "a certificate of this rule and one of the rule at {} can be the same node, which \
                 grants know by its name alone: have one rule for both, give them different \
                 `name`s, or say `shared = true` in both where each may read what the other may",
                other.place
            ));
        }
        self.0.push(rule);
        Ok(())
    }

    /// Who the holder of a verified certificate is.
    pub(crate) fn holder(&self, certificate: &CertificateDer<'_>) -> Result<Identity, Refusal> {
        let parsed = webpki::EndEntityCert::try_from(certificate)
            .map_err(|_| "the certificate cannot be read")?;
        let mut uris = parsed.valid_uri_names();
        match (uris.next(), uris.next()) {
            (Some(uri), None) => self.identify(uri),
            (None, _) => Err("the certificate names no URI"),
            (Some(_), Some(_)) => Err("the certificate names more than one URI"),
        }
    }

    /// Whose URI it is.
    pub(crate) fn identify(&self, uri: &str) -> Result<Identity, Refusal> {
        let printable = uri.bytes().all(|byte| byte.is_ascii_graphic());
        if uri.len() > MAX_URI || !printable {
            return Err("the certificate's URI is none");
        }
        let mut found = self.0.iter().filter_map(|rule| rule.matches(uri));
        let identity = found
            .next()
            .ok_or("no rule matches the certificate's URI")?;
        match found.next() {
            None => identity,
            Some(_) => Err("two rules match the certificate's URI"),
        }
    }
}

/// One rule: URIs of this form have this role.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    uri: Vec<String>,
    role: Role,
    scopes: Arc<[ScopePattern]>,
    name: Option<Arc<str>>,
    /// Whether a node of it may have other certificates too.
    shared: bool,
    place: String,
}

impl Rule {
    /// A rule; the error is what is wrong with the URI.
    pub(super) fn new(uri: &str, role: Role, place: String) -> Result<Self, String> {
        let segments: Vec<String> = uri.split('/').map(str::to_owned).collect();
        let scheme = uri.split_once(':').map_or("", |(scheme, _)| scheme);
        if scheme.is_empty() || scheme.contains(['*', '{', '/']) {
            return Err("begins with a scheme, as spiffe://SITE/node/{name}".into());
        }
        if let Some(found) = uri.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(format!("has {found:?}, which no URI holds"));
        }
        let names = segments.iter().filter(|segment| *segment == NAME).count();
        let braces = segments
            .iter()
            .any(|segment| segment != NAME && segment.contains(['{', '}']));
        if names > 1 || braces {
            return Err(format!("has {NAME} once at most, as a segment of its own"));
        }
        Ok(Self {
            uri: segments,
            role,
            scopes: Arc::from([ScopePattern("*".into())]),
            name: None,
            shared: false,
            place,
        })
    }

    /// Names whom it matches.
    pub(super) fn named(mut self, name: &str) -> Result<Self, String> {
        if self.captures() {
            return Err(format!("takes no name: {NAME} in the URI is it"));
        }
        if !is_node_name(name) {
            return Err(format!("a name is {NODE_NAME}"));
        }
        self.name = Some(name.into());
        Ok(self)
    }

    /// Lets several certificates be the same node.
    pub(super) fn shared(mut self) -> Result<Self, String> {
        if self.role != Role::Node {
            return Err("only nodes can be shared: grants know nobody else by a name".into());
        }
        self.shared = true;
        Ok(self)
    }

    /// Limits it to scopes.
    pub(super) fn scoped(mut self, scopes: Vec<ScopePattern>) -> Result<Self, String> {
        if self.role == Role::Node {
            return Err("a node takes no `scopes`: its grants say what it reads".into());
        }
        if scopes.is_empty() {
            return Err("`scopes` names one pattern at least; left out, it is all".into());
        }
        self.scopes = scopes.into();
        Ok(self)
    }

    fn captures(&self) -> bool {
        self.uri.iter().any(|segment| segment == NAME)
    }

    /// Whether URIs that differ are the same node by it.
    fn is_many(&self) -> bool {
        self.uri.iter().any(|segment| segment.contains('*'))
    }

    /// Whether some URI of one and another of the other are the same node, and not both rules say
    /// that this is meant.
    fn confuses(&self, other: &Self) -> bool {
        let nodes = self.role == Role::Node && other.role == Role::Node;
        // `{name}` is any name.
        let same = match (&self.name, &other.name) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        nodes && same && !(self.shared && other.shared)
    }

    /// Who it is, where the rule matches.
    fn matches(&self, uri: &str) -> Option<Result<Identity, Refusal>> {
        let mut name = self.name.as_deref();
        let mut segments = uri.split('/');
        for pattern in &self.uri {
            let segment = segments.next()?;
            if pattern == NAME {
                name = Some(segment);
            } else if !matches_segment(pattern, segment) {
                return None;
            }
        }
        if segments.next().is_some() {
            return None;
        }
        let identity = |name: &str| Identity {
            uri: uri.into(),
            name: name.into(),
            role: self.role,
            scopes: Arc::clone(&self.scopes),
        };
        Some(match (self.role, name) {
            (_, Some(name)) if is_node_name(name) => Ok(identity(name)),
            (_, Some(_)) => Err("the name in the certificate's URI is none"),
            (Role::Node, None) => Err("the rule gives the node no name"),
            (_, None) => Ok(identity(uri)),
        })
    }

    /// Whether some URI matches both.
    fn overlaps(&self, other: &Self) -> bool {
        let wild = |segment: &str| {
            if segment == NAME {
                "*".into()
            } else {
                segment.to_owned()
            }
        };
        self.uri.len() == other.uri.len()
            && self
                .uri
                .iter()
                .zip(&other.uri)
                .all(|(ours, theirs)| meet(wild(ours).as_bytes(), wild(theirs).as_bytes()))
    }
}

/// A pattern of scopes, with `*` for any run of characters.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ScopePattern(Box<str>);

impl ScopePattern {
    /// Reads one; the error is the rule it breaks.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-*@".contains(c);
        if let Some(found) = text.chars().find(|c| !legal(*c)) {
            return Err(format!(
                "a pattern of scopes has {found:?}, which no scope holds"
            ));
        }
        if text.is_empty() || text.len() > 256 {
            return Err("a pattern of scopes has 1 to 256 characters".into());
        }
        Ok(Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn matches(&self, scope: &str) -> bool {
        matches_segment(&self.0, scope)
    }
}

impl fmt::Debug for ScopePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether some text matches both patterns.
fn meet(ours: &[u8], theirs: &[u8]) -> bool {
    // Row by row over the beginnings of `ours`: whether they meet each beginning of `theirs`.
    let mut row = vec![false; theirs.len() + 1];
    for at in 0..=ours.len() {
        let above = row.clone();
        for other in 0..=theirs.len() {
            let (mine, its) = (at.checked_sub(1), other.checked_sub(1));
            let (mine, its) = (mine.map(|at| ours[at]), its.map(|at| theirs[at]));
            row[other] = match (mine, its) {
                (None, None) => true,
                (Some(b'*'), _) if above[other] => true,
                (_, Some(b'*')) if row[other - 1] => true,
                (Some(b'*'), Some(_)) => row[other - 1],
                (Some(_), Some(b'*')) => above[other],
                (Some(mine), Some(its)) => mine == its && above[other - 1],
                _ => false,
            };
        }
    }
    row[theirs.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(uri: &str, role: Role) -> Rule {
        Rule::new(uri, role, "server.toml:1:1".into()).expect(uri)
    }

    fn roles() -> Roles {
        let mut roles = Roles::default();
        for (uri, role) in [
            ("spiffe://site/node/{name}", Role::Node),
            ("spiffe://site/manager/*", Role::Manager),
            ("spiffe://site/operator", Role::Operator),
        ] {
            roles.add(rule(uri, role)).expect(uri);
        }
        roles
    }

    #[test]
    fn a_uri_has_the_role_and_the_name_of_its_rule() {
        let roles = roles();
        let node = roles
            .identify("spiffe://site/node/y.example")
            .expect("a node");
        assert_eq!((node.role, &*node.name), (Role::Node, "y.example"));
        let manager = roles
            .identify("spiffe://site/manager/a")
            .expect("a manager");
        assert_eq!(manager.role, Role::Manager);
        assert_eq!(manager.name, manager.uri);
        let operator = roles.identify("spiffe://site/operator").expect("one");
        assert_eq!(operator.role, Role::Operator);
    }

    #[test]
    fn what_only_resembles_a_rule_is_nobody() {
        let roles = roles();
        for uri in [
            "",
            "spiffe://site/node/",
            "spiffe://site/node",
            "spiffe://site/node/y/z",
            "spiffe://site/node/y/",
            "spiffe://site/node/-y",
            "spiffe://site/node/..",
            "spiffe://site/node/y%2f",
            "spiffe://site/node/y?z",
            "spiffe://site/node/y#z",
            "spiffe://site/node/@y",
            "spiffe://site/node/{name}",
            "SPIFFE://site/node/y",
            "spiffe://site/Node/y",
            "spiffe://other/node/y",
            "spiffe://site//node/y",
            "spiffe://site/operator/x",
            "spiffe://site/node/y\n",
            "xspiffe://site/node/y",
            &format!("spiffe://site/node/{}", "y".repeat(124)),
        ] {
            assert!(roles.identify(uri).is_err(), "{uri}");
        }
        let longest = format!("spiffe://site/node/{}", "y".repeat(123));
        assert!(roles.identify(&longest).is_ok(), "the control");
    }

    #[test]
    fn rules_that_meet_are_refused() {
        for (one, other, expected) in [
            ("a:b/*", "a:b/{name}", true),
            ("a:b/x*", "a:b/*y", true),
            ("a:b/x*y", "a:b/x*z", false),
            ("a:b/x*", "a:b/y*", false),
            ("a:b/*", "a:b/*/c", false),
            ("a:b/c", "a:b/c", true),
            ("a:b/*c*", "a:b/d", false),
            ("a:b/*c*", "a:b/dce", true),
            ("a:b/a*a", "a:b/a", false),
        ] {
            let mut roles = Roles::default();
            roles.add(rule(one, Role::Operator)).expect("the first");
            let added = roles.add(rule(other, Role::Manager));
            assert_eq!(added.is_err(), expected, "{one} {other}");
        }
    }

    #[test]
    fn rules_by_which_two_certificates_are_one_node_are_refused_unless_that_is_meant() {
        let named = |uri: &str, name: Option<&str>| {
            let rule = rule(uri, Role::Node);
            match name {
                None => rule,
                Some(name) => rule.named(name).expect(name),
            }
        };
        let first = ("spiffe://a/node/{name}", None);
        let fixed = ("spiffe://a/y", Some("y"));
        for (one, other, refused) in [
            (first, ("spiffe://b/node/{name}", None), true),
            (first, ("spiffe://b/y", Some("y")), true),
            (fixed, ("spiffe://b/y", Some("y")), true),
            (fixed, ("spiffe://b/z", Some("z")), false),
        ] {
            let (one, other) = (named(one.0, one.1), named(other.0, other.1));
            let mut roles = Roles::default();
            roles.add(one.clone()).expect("the first");
            let added = roles.add(other.clone());
            assert_eq!(added.is_err(), refused, "{one:?} {other:?}");
            if let Err(rule) = added {
                assert!(rule.contains("server.toml:1:1") && rule.contains("`shared = true`"));
            }
            // Both have to say so.
            let both = |one: Rule, other: Rule| {
                let mut roles = Roles::default();
                roles.add(one).and_then(|()| roles.add(other)).is_ok()
            };
            let shared = |rule: &Rule| rule.clone().shared().expect("a node's");
            assert!(both(shared(&one), shared(&other)));
            assert_eq!(both(shared(&one), other), !refused);
        }
        for many in [
            rule("spiffe://*/node/{name}", Role::Node),
            named("spiffe://a/y*", Some("y")),
        ] {
            let refused = Roles::default().add(many.clone());
            assert!(refused.is_err_and(|rule| rule.contains("`shared = true`")));
            let shared = many.shared().expect("a node's");
            Roles::default().add(shared).expect("meant");
        }
        // Who is no node is known by the whole URI.
        assert!(rule("spiffe://a/manager", Role::Manager).shared().is_err());
        Roles::default()
            .add(rule("spiffe://*/manager/*", Role::Manager))
            .expect("many managers");
    }

    #[test]
    fn rules_that_say_nonsense_are_refused() {
        for uri in [
            "",
            "node",
            "*:x",
            "a:{name}/{name}",
            "a:x{name}",
            "a:b c",
            "a:{other}",
        ] {
            assert!(Rule::new(uri, Role::Node, String::new()).is_err(), "{uri}");
        }
        let node = || rule("a:b/*", Role::Node);
        assert!(node().named("y").is_ok());
        assert!(node().named("y z").is_err());
        let all = ScopePattern::parse("*").expect("a pattern");
        assert!(node().scoped(vec![all]).is_err());
        assert!(rule("a:b/{name}", Role::Node).named("y").is_err());
        assert!(Roles::default().add(node()).is_err());
    }

    #[test]
    fn scopes_are_matched_whole() {
        let covers = |pattern: &str, scope: &str| {
            ScopePattern::parse(pattern).expect(pattern).matches(scope)
        };
        assert!(covers("*", "@site"));
        assert!(covers("acme.*", "acme.web01"));
        assert!(!covers("acme.*", "acme"));
        assert!(!covers("acme.*", "xacme.web01"));
        assert!(covers("a*b*c", "a-b-b-c") && !covers("a*b*c", "a-b-b"));
        for text in ["", "a/b", "a b", "a~"] {
            assert!(ScopePattern::parse(text).is_err(), "{text}");
        }
    }
}
