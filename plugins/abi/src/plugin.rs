//! The tables that the two sides show each other first.

use core::ffi::c_void;

use crate::{
    Bytes, Call, DeleteOptions, GetOptions, Head, ListOptions, Opening, PutOptions, Recipe, Sink,
    Str,
};

/// What the host shows a plugin. It lives as long as the process.
#[repr(C)]
pub struct Host {
    /// How the table begins.
    pub head: Head,
    /// The program's version, in words.
    pub version: Str,
    /// Takes a line for the log, at a KEYHAUL_LOG_ level, from any thread at any time. It is marked
    /// as a plugin's, and on the thread of a call with the store. Never a byte of a secret. Of more
    /// than 100 lines in 5 seconds the rest is left out.
    pub log: Option<unsafe extern "C" fn(level: u32, text: Str)>,
}

/// An option that a plugin takes in the policy.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PluginOption {
    /// Its key in the table `options` of the policy.
    pub name: Str,
    /// What holds where it is left out, in words.
    pub fallback: Str,
    /// What it is for, as a sentence.
    pub help: Str,
    /// What it takes: KEYHAUL_OPTION_TEXT and its like.
    pub kind: u32,
    /// 0.
    pub reserved: u32,
}

/// A plugin. The table and all that it points to live as long as the process and never change.
///
/// `open`, `close` and `capabilities` are needed. A capability needs its function: reading needs
/// `get` and `stat`.
#[repr(C)]
pub struct Plugin {
    /// How the table begins.
    pub head: Head,
    /// What it is called, as `jar`.
    pub name: Str,
    /// Its version, in words.
    pub version: Str,
    /// What it is, in one line.
    pub summary: Str,
    /// The options that it takes.
    pub options: *const PluginOption,
    /// How many there are.
    pub options_len: usize,
    /// The size of one, as the plugin knows it.
    pub option_size: usize,
    /// Opens a store and sets `store` to what every later call is given. Waits for nobody: the
    /// first real request may. A plugin can have several stores, open at the same time.
    ///
    /// With KEYHAUL_OK, and only then, the store is open and will be closed: also where the host
    /// refused an answer on the way and goes on as if it had failed. With another status, what
    /// `store` is set to is passed over, and what was made for it is the plugin's to take back.
    pub open: Option<
        unsafe extern "C" fn(
            call: *const Call,
            opening: *const Opening,
            sink: Sink,
            store: *mut *mut c_void,
        ) -> u32,
    >,
    /// Closes a store. No call is under way then, and none follows. It may block, as any call may.
    pub close: Option<unsafe extern "C" fn(store: *mut c_void)>,
    /// Answers with `capabilities`.
    pub capabilities:
        Option<unsafe extern "C" fn(store: *mut c_void, call: *const Call, sink: Sink) -> u32>,
    /// Answers with `value`, and `metadata` where there is any. KEYHAUL_NOT_FOUND where there is no
    /// such secret, version or field, or the secret has expired.
    pub get: Option<
        unsafe extern "C" fn(
            store: *mut c_void,
            call: *const Call,
            path: Str,
            options: *const GetOptions,
            sink: Sink,
        ) -> u32,
    >,
    /// Answers for each path as `get` and `error` do, and then with `item`, in any order. Its own status
    /// is about all of them. Where it is not there, the host calls `get` for each.
    pub get_many: Option<
        unsafe extern "C" fn(
            store: *mut c_void,
            call: *const Call,
            paths: *const Str,
            paths_len: usize,
            options: *const GetOptions,
            sink: Sink,
        ) -> u32,
    >,
    /// Answers with `metadata`, without a pair where nothing is known. KEYHAUL_NOT_FOUND where there
    /// is no such secret; one that has expired still has metadata where it is kept.
    pub stat: Option<
        unsafe extern "C" fn(
            store: *mut c_void,
            call: *const Call,
            path: Str,
            options: *const GetOptions,
            sink: Sink,
        ) -> u32,
    >,
    /// Writes: atomic and durable before it returns. Answers with `metadata`, of what is there now.
    pub put: Option<
        unsafe extern "C" fn(
            store: *mut c_void,
            call: *const Call,
            path: Str,
            value: Bytes,
            options: *const PutOptions,
            sink: Sink,
        ) -> u32,
    >,
    /// Makes a value and writes it as `put` does. Answers with `metadata`.
    pub generate: Option<
        unsafe extern "C" fn(
            store: *mut c_void,
            call: *const Call,
            path: Str,
            recipe: *const Recipe,
            options: *const PutOptions,
            sink: Sink,
        ) -> u32,
    >,
    /// Deletes, with all versions (`delete` is a word of C++). What is not there is deleted already,
    /// also where a version is given; KEYHAUL_CONFLICT where another version is there.
    pub remove: Option<
        unsafe extern "C" fn(
            store: *mut c_void,
            call: *const Call,
            path: Str,
            options: *const DeleteOptions,
            sink: Sink,
        ) -> u32,
    >,
    /// Answers with `entry` for each secret below the folder `prefix`, in byte order, a secret before
    /// a folder of the same path; and with `next` where there is more. The root is an empty prefix.
    /// The secret at `prefix` itself is not listed. Where nothing is below it, the page is empty.
    /// Nothing is listed twice, and each page goes on behind the one before: what does not is
    /// refused, since it might have no end.
    pub list: Option<
        unsafe extern "C" fn(
            store: *mut c_void,
            call: *const Call,
            prefix: Str,
            options: *const ListOptions,
            sink: Sink,
        ) -> u32,
    >,
    /// Reaches the store and authenticates, changes nothing and reads no value.
    pub probe:
        Option<unsafe extern "C" fn(store: *mut c_void, call: *const Call, sink: Sink) -> u32>,
}

// SAFETY: it points to what lives as long as the process and never changes, by its contract.
unsafe impl Send for Plugin {}
// SAFETY: as above.
unsafe impl Sync for Plugin {}
// SAFETY: texts are two numbers, and the function is called from any thread, by its contract.
unsafe impl Sync for PluginOption {}

/// What a plugin exports under the name `keyhaul_plugin_entry`. Null refuses: the host is not to its liking.
pub type Entry = unsafe extern "C" fn(host: *const Host) -> *const Plugin;
