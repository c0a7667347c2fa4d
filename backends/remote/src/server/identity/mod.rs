//! Who a certificate's holder is: the URI in it, matched with the configuration's rules.

mod rule;
mod scope_pattern;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use crate::protocol::Role;

pub(crate) use rule::Rule;
pub(crate) use scope_pattern::ScopePattern;

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
        self.scopes.iter().any(ScopePattern::is_all)
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
