//! Bodies of requests and answers.

/// Declares bodies that are equal and printable. Requests are strict: a key that nobody knows is
/// refused, since it may ask for what is not done. Answers are not: a newer server may say more.
macro_rules! bodies {
    () => {};
    ($(#[$doc:meta])* request $name:ident $fields:tt $($rest:tt)*) => {
        bodies! { @body [$(#[$doc])* #[serde(deny_unknown_fields)]] $name $fields }
        bodies! { $($rest)* }
    };
    ($(#[$doc:meta])* answer $name:ident $fields:tt $($rest:tt)*) => {
        bodies! { @body [$(#[$doc])*] $name $fields }
        bodies! { $($rest)* }
    };
    (@body [$(#[$meta:meta])*] $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    }) => {
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        $(#[$meta])*
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
    };
}

mod grants;
mod metadata;
mod migrations;
mod reading;
mod service;
mod writing;

pub use grants::*;
pub use metadata::*;
pub use migrations::*;
pub use reading::*;
pub use service::*;
pub use writing::*;
