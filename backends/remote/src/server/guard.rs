//! What there is to be asked for, and which role may ask: the table of the whole service.

use http::Method;

use crate::protocol::{Role, path};

/// Declares each operation once: its name in the audit, what it does in words, its method and path,
/// and who may ask.
macro_rules! operations {
    ($($name:ident $word:literal $does:literal $method:ident $path:ident [$($role:ident)*];)*) => {
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

            /// What it does, as words that follow "can".
            pub(super) const fn does(self) -> &'static str {
                match self { $(Self::$name => $does,)* }
            }

            /// Who may ask at all. About which scopes is decided when they are known.
            pub(super) const fn roles(self) -> &'static [Role] {
                match self { $(Self::$name => &[$(Role::$role),*],)* }
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
    Read "read" "read values" POST READ [Node];
    Stat "stat" "see metadata" POST STAT [Manager Node Operator];
    Service "service" "see what the service is" GET SERVICE [Manager Node Operator];
    OpenApi "openapi" "see the interface" GET OPENAPI [Manager Node Operator];
    Write "write" "set values" POST WRITE [Operator];
    Generate "generate" "have values made" POST GENERATE [Manager];
    Delete "delete" "delete secrets" POST DELETE [Manager];
    Restore "restore" "bring secrets back" POST RESTORE [Manager];
    List "list" "list names" GET SECRETS [Manager];
    Grants "grants" "see grants" GET GRANTS [Manager];
    Grant "grant" "grant" POST GRANTS [Manager];
    Revoke "revoke" "revoke" POST REVOKE [Manager];
    WhoCan "who-can" "see grants" GET WHO_CAN [Manager];
    WhatCan "what-can" "see grants" GET WHAT_CAN [Manager];
    Migrations "migrations" "see migrations" GET MIGRATIONS [Manager];
    Begin "migrate-begin" "begin migrations" POST MIGRATIONS [Manager];
    Commit "migrate-commit" "end migrations" POST COMMIT [Manager];
    Abort "migrate-abort" "end migrations" POST ABORT [Manager];
    Nodes "nodes" "see nodes" GET NODES [Manager];
    Quarantine "quarantine" "quarantine nodes" POST QUARANTINE [Manager];
    Release "release" "release nodes" POST RELEASE [Manager];
    Audit "audit" "read the audit" GET AUDIT [Operator];
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
                .filter(|role| operation.roles().contains(role))
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
