//! What a plugin answers: whatever it calls, in whatever order and with whatever pointers, the call
//! ends in an answer within the limits or in an error that can be shown.
#![no_main]

#[rustfmt::skip]
#[path = "../../../plugins/host/src/answers.rs"]
#[allow(dead_code, reason = "the host's own, of which this uses a part")]
mod answers;
#[rustfmt::skip]
#[path = "../../../plugins/host/src/attributes.rs"]
#[allow(dead_code, reason = "the host's own, of which this uses a part")]
mod attributes;
#[rustfmt::skip]
#[path = "../../../plugins/host/src/contained.rs"]
#[allow(dead_code, reason = "the host's own, of which this uses a part")]
mod contained;
#[rustfmt::skip]
#[path = "../../../plugins/host/src/copy.rs"]
#[allow(dead_code, reason = "the host's own, of which this uses a part")]
mod copy;
#[rustfmt::skip]
#[path = "../../../plugins/host/src/credential.rs"]
#[allow(dead_code, reason = "the host's own, of which this uses a part")]
mod credential;
#[rustfmt::skip]
#[path = "../../../plugins/host/src/lent.rs"]
#[allow(dead_code, reason = "the host's own, of which this uses a part")]
mod lent;
#[rustfmt::skip]
#[path = "../../../plugins/host/src/listing.rs"]
#[allow(dead_code, reason = "the host's own, of which this uses a part")]
mod listing;
#[rustfmt::skip]
#[path = "../../../plugins/host/src/log.rs"]
#[allow(dead_code, reason = "the host's own, of which this uses a part")]
mod log;
#[rustfmt::skip]
#[path = "../../../plugins/host/src/offered.rs"]
#[allow(dead_code, reason = "the host's own, of which this uses a part")]
mod offered;
#[rustfmt::skip]
#[path = "../../../plugins/host/src/sink.rs"]
#[allow(dead_code, reason = "the host's own, of which this uses a part")]
mod sink;
#[rustfmt::skip]
#[path = "../../../plugins/host/src/waiting.rs"]
#[allow(dead_code, reason = "the host's own, of which this uses a part")]
mod waiting;

use std::ffi::c_void;
use std::ptr;
use std::time::{Duration, Instant};

use keyhaul_core::Error;
use keyhaul_core::credential::CredentialSource;
use keyhaul_plugin_abi as abi;
use libfuzzer_sys::fuzz_target;
use listing::{Cursor, Listing};
use sink::Answered;
use waiting::Waiting;

const PATHS: usize = 3;
const ENTRIES: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let waiting = Waiting::until(Instant::now() + Duration::from_secs(60));
    let pin = credential::Credential {
        name: "pin".to_owned(),
        source: CredentialSource::Env("PATH".into()),
        place: "p.toml:1:1".to_owned(),
    };
    let answered = Answered::new(&waiting)
        .about(PATHS)
        .on(Listing::new(ENTRIES, true, None))
        .with_credentials(vec![pin])
        .collect(|sink| {
            Plugin {
                script: bytes,
                sink,
            }
            .run()
        });
    match answered {
        Ok(mut answered) => {
            assert_eq!(answered.items.len(), PATHS);
            answered.items.iter().flatten().for_each(|item| {
                if let Err(error) = item {
                    can_be_shown(error);
                }
            });
            if let Err(error) = answered.secret() {
                can_be_shown(&error);
            }
            match answered.listing.page() {
                Ok(page) => {
                    assert!(page.secrets.len() + page.folders.len() <= ENTRIES);
                    assert!(page.secrets.is_sorted_by(|one, next| one < next));
                    assert!(page.folders.is_sorted_by(|one, next| one < next));
                    let next = page.next.as_deref().map(Cursor::parse);
                    assert!(next.is_none_or(|next| next.is_ok()), "{page:?}");
                }
                Err(error) => can_be_shown(&error),
            }
        }
        Err(error) => can_be_shown(&error),
    }
});

fn can_be_shown(error: &Error) {
    for words in [Some(error.message()), error.advice()]
        .into_iter()
        .flatten()
    {
        assert!(words.chars().count() <= 1001, "{} bytes", words.len());
        assert!(!words.chars().any(char::is_control), "{words:?}");
    }
}

/// A plugin that does what its script says.
struct Plugin<'a> {
    script: &'a [u8],
    sink: abi::Sink,
}

impl<'a> Plugin<'a> {
    fn run(mut self) -> u32 {
        // SAFETY: the host's table, which lives as long as the process.
        let to = unsafe { &*self.sink.to };
        let mut status = abi::OK;
        while let Some(verb) = self.byte() {
            let context = self.context();
            // SAFETY: the functions take whatever they are given: that is what is tried here.
            unsafe {
                match verb % 10 {
                    0 => {
                        let (can, max) = (self.number(), self.number());
                        call(to.capabilities)(context, can, max);
                    }
                    1 => {
                        let (ptr, len) = self.memory();
                        call(to.value)(context, abi::Bytes { ptr, len });
                    }
                    2 | 3 => {
                        let count = usize::from(self.byte().unwrap_or(0)) % 8;
                        let pairs: Vec<abi::Pair> = (0..count).map(|_| self.pair()).collect();
                        let (ptr, len) = match verb {
                            250.. => (ptr::without_provenance(self.number() as usize), count),
                            240.. => (pairs.as_ptr(), self.number() as usize),
                            _ => (pairs.as_ptr(), count),
                        };
                        call(to.metadata)(context, ptr, len);
                    }
                    4 => {
                        let index = usize::from(self.byte().unwrap_or(0)) % (PATHS + 1);
                        let status = u32::from(self.byte().unwrap_or(0)) % 18;
                        call(to.item)(context, index, status);
                    }
                    5 => {
                        let path = self.text();
                        call(to.entry)(context, path, u32::from(verb / 128));
                    }
                    6 => {
                        let after = self.text();
                        call(to.next)(context, after);
                    }
                    7 | 8 => {
                        let (message, advice) = (self.text(), self.text());
                        let wait = self.number();
                        call(to.error)(context, message, advice, wait);
                    }
                    _ if verb >= 128 => {
                        let mut bytes = abi::Bytes {
                            ptr: ptr::null(),
                            len: 0,
                        };
                        let name = match verb {
                            240.. => self.text(),
                            _ => abi::Str::new("pin"),
                        };
                        let place = match self.byte() {
                            Some(byte @ 128..) => ptr::without_provenance_mut(usize::from(byte)),
                            _ => &raw mut bytes,
                        };
                        let given = answers::credential(context, name, place);
                        assert!(given != abi::OK || !bytes.ptr.is_null());
                    }
                    _ => {
                        call(to.cancelled)(context);
                        status = u32::from(self.byte().unwrap_or(0)) % 18;
                    }
                }
            }
        }
        status
    }

    /// Nearly always the call's own.
    fn context(&mut self) -> *mut c_void {
        match self.byte() {
            Some(255) => ptr::without_provenance_mut(self.number() as usize),
            Some(254) => ptr::null_mut(),
            _ => self.sink.context,
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.script.split_first()?;
        self.script = rest;
        Some(*first)
    }

    fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        bytes.fill_with(|| self.byte().unwrap_or(0));
        u64::from_le_bytes(bytes)
    }

    /// A piece of the script, or what only says that it is one.
    fn memory(&mut self) -> (*const u8, usize) {
        let kind = self.byte().unwrap_or(0);
        let len = usize::from(self.byte().unwrap_or(0)).min(self.script.len());
        let (piece, rest): (&'a [u8], _) = self.script.split_at(len);
        self.script = rest;
        match kind {
            // Longer than what is said is never longer than what is there by much, for speed's sake.
            255 => (piece.as_ptr(), len + 0xffff),
            254 => (ptr::without_provenance(self.number() as usize), len),
            253 => (piece.as_ptr(), usize::MAX - len),
            252 => (ptr::null(), len),
            _ => (piece.as_ptr(), len),
        }
    }

    fn text(&mut self) -> abi::Str {
        let (ptr, len) = self.memory();
        abi::Str { ptr, len }
    }

    fn pair(&mut self) -> abi::Pair {
        let known = [
            "version",
            "created",
            "expires",
            "lease-id",
            "lease-duration",
            "lease-renewable",
            "label:a",
            "recoverable-until",
        ];
        let name = match self.byte().unwrap_or(0) {
            255 => self.text(),
            byte => abi::Str::new(known[usize::from(byte) % known.len()]),
        };
        abi::Pair {
            name,
            value: self.text(),
        }
    }
}

/// A function that every host's table has.
fn call<T>(function: Option<T>) -> T {
    function.unwrap_or_else(|| unreachable!("the host's table is whole"))
}
