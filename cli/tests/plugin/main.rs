//! Plugins on the command line: the real examples, hostile ones, and the guide's.

mod broken;
mod end;
mod guide;
mod inspect;
mod list;
mod serve;
mod site;
mod stores;
mod trials;

// The exit codes, as the documentation lists them.
const MIXED: i32 = 1;
const INTERNAL: i32 = 13;
const INVALID_CONFIG: i32 = 14;
const NOT_FOUND: i32 = 16;
const PERMISSION_DENIED: i32 = 17;
const TIMEOUT: i32 = 20;
const TOO_LARGE: i32 = 21;
const UNAVAILABLE: i32 = 23;
