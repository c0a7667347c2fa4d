//! The words of a store's `auth` table, as data.

use keyhaul_core::registry::{OptionKind, OptionSpec};

/// What `auth = { … }` takes.
pub(crate) const AUTH: &[OptionSpec] = &[
    OptionSpec {
        name: "method",
        kind: OptionKind::Text,
        default: "required",
        help: "How to log in: approle, cert, jwt, kubernetes, token or userpass.",
    },
    OptionSpec {
        name: "mount",
        kind: OptionKind::Text,
        default: "the method's name",
        help: "Where the method is mounted, below auth/.",
    },
    OptionSpec {
        name: "role",
        kind: OptionKind::Text,
        default: "the mount's default role, where it has one; kubernetes needs it",
        help: "The role to log in as: cert, jwt, kubernetes.",
    },
    OptionSpec {
        name: "role-id",
        kind: OptionKind::Credential,
        default: "required by approle",
        help: "approle: the role's id.",
    },
    OptionSpec {
        name: "secret-id",
        kind: OptionKind::Credential,
        default: "none, for a role that is bound otherwise",
        help: "approle: the secret id.",
    },
    OptionSpec {
        name: "wrapped-secret-id",
        kind: OptionKind::Credential,
        default: "none",
        help: "approle: the token that a secret id is wrapped in. The first login spends it.",
    },
    OptionSpec {
        name: "jwt",
        kind: OptionKind::Credential,
        default: "required by jwt; kubernetes takes the pod's own",
        help: "jwt, kubernetes: the JSON web token.",
    },
    OptionSpec {
        name: "username",
        kind: OptionKind::Text,
        default: "required by userpass",
        help: "userpass: who logs in.",
    },
    OptionSpec {
        name: "password",
        kind: OptionKind::Credential,
        default: "none: keyhaul login asks for it",
        help: "userpass: the password.",
    },
    OptionSpec {
        name: "token",
        kind: OptionKind::Credential,
        default: "BAO_TOKEN, else VAULT_TOKEN, else a kept login, else ~/.vault-token",
        help: "token: the token itself.",
    },
];
