//! What there is to be asked for, and which role may ask: the table of the whole service.

use http::Method;

use crate::protocol::{Role, path};

/// Declares each operation once: its name in the audit, its method and path, and who may ask.
macro_rules! operations {
    ($($name:ident $word:literal $method:ident $path:ident [$($role:ident)*];)*) => {
        /// What is asked.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Operation { $($name,)* }

        impl Operation {
            /// Every operation.
            #[cfg(test)]
            pub(super) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in the audit.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// Whether `role` may ask at all. About which scopes is decided when they are known.
            pub(super) fn is_for(self, role: Role) -> bool {
                match self { $(Self::$name => [$(Role::$role),*].contains(&role),)* }
            }

            /// Whether it changes grants, migrations or nodes, and asks no store.
            pub(super) const fn is_of_state(self) -> bool {
                matches!(
                    self,
                    Self::Grant
                        | Self::Revoke
                        | Self::Begin
                        | Self::Commit
                        | Self::Abort
                        | Self::Quarantine
                        | Self::Release
                )
            }

            /// The operation at a path, which is matched to the byte; or the methods that the path
            /// has, which are none where nothing is there.
            pub(super) fn find(method: &Method, at: &str) -> Result<Self, &'static str> {
                let mut allow = "";
                $(if at == path::$path {
                    if method == Method::$method {
                        return Ok(Self::$name);
                    }
                    allow = match allow { "" => stringify!($method), _ => "GET, POST" };
                })*
                Err(allow)
            }

            #[cfg(test)]
            const fn at(self) -> (Method, &'static str) {
                match self { $(Self::$name => (Method::$method, path::$path),)* }
            }
        }
    };
}

// The hot one first.
operations! {
    Read "read" POST READ [Node];
    Stat "stat" POST STAT [Manager Node Operator];
    Service "service" GET SERVICE [Manager Node Operator];
    OpenApi "openapi" GET OPENAPI [Manager Node Operator];
    Write "write" POST WRITE [Operator];
    Generate "generate" POST GENERATE [Manager];
    Delete "delete" POST DELETE [Manager];
    Restore "restore" POST RESTORE [Manager];
    List "list" GET SECRETS [Manager];
    Grants "grants" GET GRANTS [Manager];
    Grant "grant" POST GRANTS [Manager];
    Revoke "revoke" POST REVOKE [Manager];
    WhoCan "who-can" GET WHO_CAN [Manager];
    WhatCan "what-can" GET WHAT_CAN [Manager];
    Migrations "migrations" GET MIGRATIONS [Manager];
    Begin "migrate-begin" POST MIGRATIONS [Manager];
    Commit "migrate-commit" POST COMMIT [Manager];
    Abort "migrate-abort" POST ABORT [Manager];
    Nodes "nodes" GET NODES [Manager];
    Quarantine "quarantine" POST QUARANTINE [Manager];
    Release "release" POST RELEASE [Manager];
    Audit "audit" GET AUDIT [Operator];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_matched_to_the_byte() {
        for operation in Operation::ALL {
            let (method, at) = operation.at();
            assert_eq!(Operation::find(&method, at), Ok(*operation));
            for other in [
                format!("{at}/"),
                format!("/{at}"),
                format!("{at}/../service"),
                at.replace("v1", "%761"),
                at.to_uppercase(),
                at[1..].to_owned(),
            ] {
                assert_eq!(Operation::find(&method, &other), Err(""), "{other}");
            }
        }
    }

    #[test]
    fn a_wrong_method_says_which_are_right() {
        let find = |method, at| Operation::find(&method, at);
        assert_eq!(find(Method::GET, path::READ), Err("POST"));
        assert_eq!(find(Method::HEAD, path::SERVICE), Err("GET"));
        assert_eq!(find(Method::OPTIONS, path::GRANTS), Err("GET, POST"));
        assert_eq!(find(Method::PUT, path::MIGRATIONS), Err("GET, POST"));
    }

    #[test]
    fn nobody_reads_values_but_nodes_and_nobody_writes_but_operators() {
        let who = |operation: Operation| -> Vec<Role> {
            [Role::Manager, Role::Node, Role::Operator]
                .into_iter()
                .filter(|role| operation.is_for(*role))
                .collect()
        };
        for operation in Operation::ALL {
            let expected: &[Role] = match operation {
                Operation::Read => &[Role::Node],
                Operation::Write | Operation::Audit => &[Role::Operator],
                Operation::Stat | Operation::Service | Operation::OpenApi => {
                    &[Role::Manager, Role::Node, Role::Operator]
                }
                _ => &[Role::Manager],
            };
            assert_eq!(who(*operation), expected, "{operation:?}");
        }
    }
}
