use std::time::Instant;

use keyhaul_core::{Page, SecretPath};

use super::*;
use crate::answers::{cancelled, entry, error, item, value};
use crate::contained::contained;

/// Somebody who waits.
fn waiting() -> Waiting {
    Waiting::until(Instant::now() + Duration::from_secs(60))
}

fn collect(call: impl FnOnce(abi::Sink) -> u32) -> Result<Answered> {
    Answered::new(&waiting())
        .about(2)
        .on(Listing::new(2, false, None))
        .collect(call)
}

fn bytes(bytes: &[u8]) -> abi::Bytes {
    abi::Bytes {
        ptr: bytes.as_ptr(),
        len: bytes.len(),
    }
}

/// Gives a value.
fn give(sink: abi::Sink, given: &[u8]) -> u32 {
    value(sink.context, bytes(given))
}

fn fault(call: impl FnOnce(abi::Sink) -> u32) -> Error {
    let error = collect(call).expect_err("a fault");
    assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
    error
}

#[test]
fn a_value_comes_through_to_the_byte() {
    let mut answered = collect(|sink| give(sink, b"\0hunter2\xff")).expect("given");
    let secret = answered.secret().expect("a value");
    assert_eq!(secret.value.expose(), b"\0hunter2\xff");
    let mut answered = collect(|sink| give(sink, b"")).expect("given");
    assert!(answered.secret().expect("a value").value.is_empty());
}

#[test]
fn a_value_given_twice_or_never_fails_the_call_whatever_its_status() {
    let twice = fault(|sink| {
        assert_eq!(give(sink, b"a"), abi::OK);
        assert_eq!(give(sink, b"a"), abi::INTERNAL);
        abi::OK
    });
    assert!(twice.message().contains("twice"), "{twice}");
    let mut never = collect(|_| abi::OK).expect("so far");
    let error = never.secret().expect_err("no value");
    assert!(error.message().contains("gave no value"), "{error}");
}

#[test]
fn an_answer_after_the_end_is_refused_and_so_is_one_to_another_call() {
    let mut kept = None;
    collect(|sink| {
        kept = Some(sink);
        abi::OK
    })
    .expect("nothing wrong yet");
    let kept = kept.expect("a sink");
    assert_eq!(give(kept, b"late"), abi::INTERNAL);
    let mut answered = collect(|sink| {
        assert_eq!(give(kept, b"late"), abi::INTERNAL);
        give(sink, b"in time")
    })
    .expect("the other call is not harmed");
    let secret = answered.secret().expect("a value");
    assert_eq!(secret.value.expose(), b"in time");
    assert_eq!(cancelled(kept.context), 1);
}

#[test]
fn an_answer_from_another_thread_is_refused() {
    let mut answered = collect(|sink| {
        let number = sink.context.addr();
        let elsewhere = std::thread::spawn(move || {
            let context = ptr::without_provenance_mut(number);
            value(context, bytes(b"elsewhere"))
        });
        assert_eq!(elsewhere.join().expect("no panic"), abi::INTERNAL);
        give(sink, b"here")
    })
    .expect("the call itself is not harmed");
    assert_eq!(answered.secret().expect("a value").value.expose(), b"here");
}

#[test]
fn lengths_and_addresses_that_cannot_be_are_refused_unread() {
    let given = |ptr, len| move |sink: abi::Sink| value(sink.context, abi::Bytes { ptr, len });
    let dangling = std::ptr::without_provenance::<u8>(64);
    for len in [MAX_VALUE + 1, isize::MAX as usize + 1, usize::MAX] {
        let error = collect(given(dangling, len)).expect_err("too long");
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }
    let error = fault(given(std::ptr::null(), 1));
    assert!(error.message().contains("at no address"), "{error}");
}

#[test]
fn a_status_brings_its_kind_and_words_and_an_unknown_one_is_internal() {
    for kind in ErrorKind::ALL {
        let error = collect(|sink| {
            error(
                sink.context,
                abi::Str::new("gone"),
                abi::Str::new("wait"),
                5,
            );
            kind.abi_status()
        });
        let error = error.expect_err("failed");
        assert_eq!((error.kind(), error.message()), (*kind, "gone"));
        assert_eq!(error.advice(), Some("wait"));
        assert_eq!(error.retry_after(), Some(Duration::from_millis(5)));
    }
    let error = fault(|_| 16);
    assert!(error.message().contains("status 16"), "{error}");
}

#[test]
fn each_of_many_has_its_own_outcome() {
    let answered = collect(|sink| {
        give(sink, b"second");
        item(sink.context, 1, abi::OK);
        error(sink.context, abi::Str::new("gone"), abi::Str::ABSENT, 0);
        item(sink.context, 0, abi::NOT_FOUND)
    });
    let items = answered.expect("answered").items;
    let [Some(Err(first)), Some(Ok(second))] = &items[..] else {
        panic!("{items:?}");
    };
    assert_eq!(
        (first.kind(), first.message()),
        (ErrorKind::NotFound, "gone")
    );
    assert_eq!(second.value.expose(), b"second");
    fault(|sink| item(sink.context, 2, abi::NOT_FOUND));
    fault(|sink| {
        item(sink.context, 0, abi::NOT_FOUND);
        item(sink.context, 0, abi::NOT_FOUND)
    });
}

/// Words are about what they came before, and not about what comes next.
#[test]
fn words_that_came_with_a_success_are_not_those_of_the_next_failure() {
    let answered = collect(|sink| {
        give(sink, b"first");
        error(sink.context, abi::Str::new("slow"), abi::Str::ABSENT, 7);
        item(sink.context, 0, abi::OK);
        item(sink.context, 1, abi::UNAVAILABLE);
        abi::OK
    });
    let items = answered.expect("answered").items;
    let [Some(Ok(_)), Some(Err(second))] = &items[..] else {
        panic!("{items:?}");
    };
    assert!(second.message().contains("says no more"), "{second}");
    assert_eq!(second.retry_after(), None);
}

#[test]
fn nothing_is_called_for_nobody() {
    let ended = waiting();
    ended.end();
    for nobody in [ended, Waiting::until(Instant::now())] {
        let called = Answered::new(&nobody).collect(|_| panic!("called"));
        assert_eq!(called.expect_err("too late").kind(), ErrorKind::Timeout);
    }
}

/// What a panic of ours in a plugin's call comes to: `extern "C"` would make it the process's end.
#[test]
fn a_panic_ends_at_the_plugins_call() {
    let error = collect(|sink| {
        let status = contained(abi::INTERNAL, || answer(sink.context, |_| panic!("ours")));
        assert_eq!(status, abi::INTERNAL);
        give(sink, b"goes on")
    });
    error.expect("no fault of the plugin's");
}

#[test]
fn a_page_longer_than_asked_for_and_what_is_no_path_are_faults() {
    let list = |paths: &'static [&str]| {
        move |sink: abi::Sink| {
            let list = |path: &&str| entry(sink.context, abi::Str::new(path), 0);
            paths.iter().map(list).max().unwrap_or(abi::OK)
        }
    };
    let answered = collect(list(&["a", "b"])).expect("two");
    let path = |path| SecretPath::new(path).expect("valid");
    assert_eq!(
        answered.listing.page().expect("a page"),
        Page::new(vec![path("a"), path("b")], vec![], None)
    );
    fault(list(&["a", "b", "c"]));
    fault(list(&["b", "a"]));
    fault(list(&["../a"]));
    fault(list(&[""]));
}

/// The interface's numbers are the core's.
#[test]
fn statuses_and_bits_are_those_of_the_core() {
    let statuses = [
        abi::ALREADY_EXISTS,
        abi::CONFLICT,
        abi::CORRUPT,
        abi::INTERNAL,
        abi::INVALID_CONFIG,
        abi::INVALID_REFERENCE,
        abi::NOT_FOUND,
        abi::PERMISSION_DENIED,
        abi::RATE_LIMITED,
        abi::STORAGE_FULL,
        abi::TIMEOUT,
        abi::TOO_LARGE,
        abi::UNAUTHENTICATED,
        abi::UNAVAILABLE,
        abi::UNSUPPORTED,
    ];
    let kinds: Vec<u32> = ErrorKind::ALL
        .iter()
        .map(|kind| kind.abi_status())
        .collect();
    assert_eq!(kinds, statuses);
    let bits = [
        ("READ", abi::CAN_READ),
        ("WRITE", abi::CAN_WRITE),
        ("CREATE", abi::CAN_CREATE),
        ("UPDATE", abi::CAN_UPDATE),
        ("DELETE", abi::CAN_DELETE),
        ("LIST", abi::CAN_LIST),
        ("GENERATE", abi::CAN_GENERATE),
        ("VERSIONS", abi::CAN_VERSIONS),
        ("LABELS", abi::CAN_LABELS),
        ("EXPIRY", abi::CAN_EXPIRY),
        ("FIELDS", abi::CAN_FIELDS),
        ("IDEMPOTENT", abi::CAN_IDEMPOTENT),
        ("GENERATES_REMOTELY", abi::CAN_GENERATES_REMOTELY),
    ];
    let core: Vec<(&str, u64)> = Capability::all()
        .iter_names()
        .map(|(name, bit)| (name, u64::from(bit.bits())))
        .collect();
    assert_eq!(core, bits);
}
