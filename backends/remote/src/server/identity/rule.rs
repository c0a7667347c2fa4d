//! One rule of the configuration: which URIs it matches, and what it says of them.

use std::sync::Arc;

use keyhaul_core::policy::matches_segment;

use super::{Identity, NAME, Refusal, ScopePattern};
use crate::protocol::{NODE_NAME, Role, is_node_name};

/// URIs of this form have this role.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    uri: Vec<String>,
    pub(super) role: Role,
    scopes: Arc<[ScopePattern]>,
    pub(super) name: Option<Arc<str>>,
    /// Whether a node of it may have other certificates too.
    pub(super) shared: bool,
    pub(super) place: String,
}

impl Rule {
    /// A rule; the error is what is wrong with the URI.
    pub(crate) fn new(uri: &str, role: Role, place: String) -> Result<Self, String> {
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
            scopes: Arc::from([ScopePattern::all()]),
            name: None,
            shared: false,
            place,
        })
    }

    /// Names whom it matches.
    pub(crate) fn named(mut self, name: &str) -> Result<Self, String> {
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
    pub(crate) fn shared(mut self) -> Result<Self, String> {
        if self.role != Role::Node {
            return Err("only nodes can be shared: grants know nobody else by a name".into());
        }
        self.shared = true;
        Ok(self)
    }

    /// Limits it to scopes.
    pub(crate) fn scoped(mut self, scopes: Vec<ScopePattern>) -> Result<Self, String> {
        if self.role == Role::Node {
            return Err("a node takes no `scopes`: its grants say what it reads".into());
        }
        if scopes.is_empty() {
            return Err("`scopes` names one pattern at least; left out, it is all".into());
        }
        self.scopes = scopes.into();
        Ok(self)
    }

    pub(super) fn captures(&self) -> bool {
        self.uri.iter().any(|segment| segment == NAME)
    }

    /// Whether URIs that differ are the same node by it.
    pub(super) fn is_many(&self) -> bool {
        self.uri.iter().any(|segment| segment.contains('*'))
    }

    /// Whether some URI of one and another of the other are the same node, and not both rules say
    /// that this is meant.
    pub(super) fn confuses(&self, other: &Self) -> bool {
        let nodes = self.role == Role::Node && other.role == Role::Node;
        // `{name}` is any name.
        let same = match (&self.name, &other.name) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        nodes && same && !(self.shared && other.shared)
    }

    /// Who it is, where the rule matches.
    pub(super) fn matches(&self, uri: &str) -> Option<Result<Identity, Refusal>> {
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
    pub(super) fn overlaps(&self, other: &Self) -> bool {
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
