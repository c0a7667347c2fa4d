//! Messages, held against those of another implementation and against bytes that were written by
//! hand.

use kmip_protocol::types::common::{
    ApplicationData, ApplicationNamespace, AttributeName, Operation as Theirs,
    RevocationReasonCode, UniqueBatchItemID, UniqueIdentifier,
};
use kmip_protocol::types::request::{
    Attribute, Authentication, BatchCount, BatchItem, MaximumResponseSize, ProtocolVersion,
    ProtocolVersionMajor, ProtocolVersionMinor, RequestHeader, RequestMessage, RequestPayload,
    RevocationReason,
};

use crate::described::{Described, describe};
use crate::failure::Failure;
use crate::message::{self, MAX_ANSWER, Operation, Version};
use crate::operations::{self as ask, By, Located};
use crate::turn::Turn;
use keyhaul_core::{Error, ErrorKind, SecretBytes};

/// What kmip-protocol writes for one request.
fn theirs(operation: Theirs, payload: RequestPayload) -> Vec<u8> {
    let version = ProtocolVersion(ProtocolVersionMajor(1), ProtocolVersionMinor(2));
    let header = RequestHeader(
        version,
        Some(MaximumResponseSize(MAX_ANSWER as i32)),
        Option::<Authentication>::None,
        BatchCount(1),
    );
    let item = BatchItem(operation, Option::<UniqueBatchItemID>::None, payload);
    kmip_ttlv::ser::to_vec(&RequestMessage(header, vec![item])).expect("written")
}

#[test]
fn requests_without_a_value_are_as_another_implementation_writes_them() {
    let id = || Some(UniqueIdentifier("17".into()));
    let names = [
        "Application Specific Information",
        "Initial Date",
        "Name",
        "Object Group",
        "Object Type",
        "State",
    ];
    let names = names.map(|name| AttributeName(name.into())).to_vec();
    let located = vec![
        Attribute::Name("web01/röot".into()),
        Attribute::ObjectGroup("vms".into()),
    ];
    let noted = Attribute::ApplicationSpecificInformation(
        ApplicationNamespace("keyhaul-path".into()),
        ApplicationData("web01/r%C3%B6t".into()),
    );
    let renamed = Attribute::Name("web01/r%C3%B6t".into());
    let reason = RevocationReason(RevocationReasonCode::CessationOfOperation, None);
    let cases = [
        (
            ask::locate(Some(By::Name("web01/röot")), Some("vms"), None, None),
            theirs(Theirs::Locate, RequestPayload::Locate(located)),
        ),
        (
            ask::locate(Some(By::Path("web01/r%C3%B6t")), None, None, None),
            theirs(Theirs::Locate, RequestPayload::Locate(vec![noted])),
        ),
        (
            ask::rename("17", "web01/r%C3%B6t"),
            theirs(
                Theirs::ModifyAttribute,
                RequestPayload::ModifyAttribute(id(), renamed),
            ),
        ),
        (
            ask::get("17"),
            theirs(Theirs::Get, RequestPayload::Get(id(), None, None, None)),
        ),
        (
            describe("17"),
            theirs(
                Theirs::GetAttributes,
                RequestPayload::GetAttributes(id(), Some(names)),
            ),
        ),
        (
            ask::revoke("17"),
            theirs(Theirs::Revoke, RequestPayload::Revoke(id(), reason, None)),
        ),
        (
            ask::destroy("17"),
            theirs(Theirs::Destroy, RequestPayload::Destroy(id())),
        ),
        (
            ask::discover(),
            theirs(
                Theirs::DiscoverVersions,
                RequestPayload::DiscoverVersions(Vec::new()),
            ),
        ),
    ];
    for (ours, theirs) in cases {
        let operation = ours.0;
        let ours = message::encode(Version::DEFAULT, &[ours]);
        assert_eq!(ours.expose(), theirs, "{operation}");
    }
}

/// An item, by hand: a tag's last two bytes, a type, a value.
fn item(tag: u16, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x42];
    bytes.extend(tag.to_be_bytes());
    bytes.push(kind);
    bytes.extend((value.len() as u32).to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn number(tag: u16, kind: u8, value: u32) -> Vec<u8> {
    item(tag, kind, &value.to_be_bytes())
}

fn structure(tag: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    item(tag, 1, &parts.concat())
}

fn answer(items: &[Vec<u8>]) -> Vec<u8> {
    let version = structure(0x69, &[number(0x6a, 2, 1), number(0x6b, 2, 2)]);
    let date = item(0x92, 9, &1_205_495_800_i64.to_be_bytes());
    let header = structure(0x7a, &[version, date, number(0x0d, 2, items.len() as u32)]);
    structure(0x7b, &[header, items.concat()])
}

fn succeeded(operation: u32, payload: &[Vec<u8>]) -> Vec<u8> {
    let parts = [
        number(0x5c, 5, operation),
        number(0x7f, 5, 0),
        structure(0x7c, payload),
    ];
    structure(0x0f, &parts)
}

fn refused(operation: u32, reason: u32) -> Vec<u8> {
    let parts = [
        number(0x5c, 5, operation),
        number(0x7f, 5, 1),
        number(0x7e, 5, reason),
        item(0x7d, 7, b"hunter2"),
    ];
    structure(0x0f, &parts)
}

/// What a key block holds.
fn object(tag: u16, format: u32, material: Vec<u8>, more: &[Vec<u8>]) -> Vec<u8> {
    let mut block = vec![number(0x42, 5, format), structure(0x45, &[material])];
    block.extend_from_slice(more);
    let mut parts = vec![structure(0x40, &block)];
    if tag == 0x85 {
        parts.insert(0, number(0x86, 5, 1));
    }
    structure(tag, &parts)
}

fn got(object_type: u32, object: Vec<u8>) -> Vec<u8> {
    let payload = [number(0x57, 5, object_type), item(0x94, 7, b"17"), object];
    answer(&[succeeded(0x0a, &payload)])
}

fn value(answer: &[u8]) -> Result<Option<SecretBytes>, Failure> {
    let answer = SecretBytes::copy_from(answer);
    let mut outcomes = message::outcomes(&answer, &[Operation::Get])?;
    ask::value(&outcomes.pop().expect("one")?)
}

#[test]
fn values_are_read_from_secret_data_and_symmetric_keys() {
    let bytes = || item(0x43, 8, b"hunter2");
    for (answer, what) in [
        (got(7, object(0x85, 2, bytes(), &[])), "opaque secret data"),
        (got(7, object(0x85, 1, bytes(), &[])), "raw secret data"),
        (got(2, object(0x8f, 1, bytes(), &[])), "a raw key"),
        (
            got(
                2,
                object(0x8f, 7, structure(0x43, &[item(0x3f, 8, b"hunter2")]), &[]),
            ),
            "a transparent key",
        ),
    ] {
        let value = value(&answer).unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
        let value = value.unwrap_or_else(|| panic!("{what} is no secret"));
        assert_eq!(value.expose(), b"hunter2", "{what}");
    }
    // The same bytes are a key to another implementation: so they are no invention of ours.
    let more = [number(0x28, 5, 3), number(0x2a, 2, 56)];
    let key = got(2, object(0x8f, 1, bytes(), &more));
    let theirs: kmip_protocol::types::response::ResponseMessage =
        kmip_protocol::response::from_slice(&key).expect("theirs");
    assert!(format!("{theirs:?}").contains("104, 117, 110, 116, 101, 114, 50"));
}

#[test]
fn what_cannot_be_read_is_corrupt_and_says_why() {
    let bytes = || item(0x43, 8, b"hunter2");
    let wrapping = structure(0x46, &[number(0x9e, 5, 1)]);
    let empty = structure(0x85, &[structure(0x40, &[number(0x42, 5, 2)])]);
    for (answer, why) in [
        (got(7, object(0x85, 3, bytes(), &[])), "its format"),
        (got(7, object(0x85, 2, bytes(), &[wrapping])), "wrapped"),
        (got(7, empty), "no value"),
    ] {
        let error = Error::from(value(&answer).expect_err(why));
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains(why), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    // A certificate is no secret at all.
    let certificate = got(1, structure(0x13, &[item(0x1e, 8, b"hunter2")]));
    assert!(value(&certificate).expect("read").is_none());
}

#[test]
fn refusals_tell_the_reason_and_nothing_that_the_server_says_in_words() {
    let error = |answer: &[u8]| Error::from(value(answer).expect_err("refused"));
    for (reason, kind) in [
        (0x01, ErrorKind::NotFound),
        (0x0c, ErrorKind::PermissionDenied),
        (0xbeef, ErrorKind::Internal),
    ] {
        let error = error(&answer(&[refused(0x0a, reason)]));
        assert_eq!(error.kind(), kind);
        assert!(error.message().contains(&format!("{reason:#x}")), "{error}");
        assert!(error.advice().is_some());
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    // A message that is refused as a whole names no operation.
    let whole = structure(0x0f, &[number(0x7f, 5, 1), number(0x7e, 5, 3)]);
    assert_eq!(error(&answer(&[whole])).kind(), ErrorKind::Unauthenticated);
}

#[test]
fn answers_find_their_requests_in_any_order() {
    let of = |index: u32, id: &str| {
        let parts = [
            number(0x5c, 5, 8),
            item(0x93, 8, &index.to_be_bytes()),
            number(0x7f, 5, 0),
            structure(0x7c, &[item(0x94, 7, id.as_bytes())]),
        ];
        structure(0x0f, &parts)
    };
    let located = |items: &[Vec<u8>]| {
        let answer = SecretBytes::copy_from(&answer(items));
        let outcomes = message::outcomes(&answer, &[Operation::Locate; 2])?;
        let ids = outcomes
            .into_iter()
            .map(|outcome| Located::of(&outcome.expect("found")).map(|located| located.ids));
        ids.collect::<Result<Vec<_>, _>>()
    };
    let turned = located(&[of(1, "b"), of(0, "a")]).expect("both");
    assert_eq!(turned, [vec!["a".to_owned()], vec!["b".to_owned()]]);
    for wrong in [
        &[of(0, "a")][..],
        &[of(0, "a"), of(0, "a")],
        &[of(0, "a"), of(2, "c")],
        &[of(0, "a"), of(1, "b"), of(2, "c")],
        &[of(0, "a"), succeeded(0x0a, &[])],
        &[],
    ] {
        located(wrong).expect_err("no answer to two requests");
    }
}

#[test]
fn what_is_known_of_an_object_is_read_and_what_is_unknown_passed_over() {
    let attribute =
        |name: &str, value: Vec<u8>| structure(0x08, &[item(0x0a, 7, name.as_bytes()), value]);
    let information = |namespace: &[u8], data: &[u8]| {
        let parts = [item(0x03, 7, namespace), item(0x02, 7, data)];
        attribute("Application Specific Information", structure(0x0b, &parts))
    };
    let name = |name: &str| {
        let parts = [item(0x55, 7, name.as_bytes()), number(0x54, 5, 1)];
        attribute("Name", structure(0x0b, &parts))
    };
    let turn = Turn::default().next().expect("a turn");
    let payload = [
        item(0x94, 7, b"17"),
        name("a"),
        name("b"),
        information(b"ssh", b"ffffffffffffffffffffffffffffffff"),
        information(b"keyhaul", turn.to_string().as_bytes()),
        information(b"keyhaul-path", b"c"),
        attribute("Object Group", item(0x0b, 7, b"vms")),
        attribute("Object Type", number(0x0b, 5, 7)),
        attribute("State", number(0x0b, 5, 2)),
        attribute("Initial Date", item(0x0b, 9, &5_i64.to_be_bytes())),
        attribute("x-more", item(0x0b, 8, b"whatever")),
    ];
    let answer = SecretBytes::copy_from(&answer(&[succeeded(0x0b, &payload)]));
    let mut outcomes = message::outcomes(&answer, &[Operation::GetAttributes]).expect("read");
    let payload = outcomes.pop().expect("one").expect("success");
    let described = Described::of(&payload).expect("read");
    assert_eq!(described.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(described.is_found_by("c") && !described.is_found_by("A"));
    assert!(described.is_in(Some("vms")) && described.is_in(None));
    assert!(!described.is_in(Some("vm")));
    assert_eq!(described.turn, turn);
    assert!(described.is_active() && described.is_secret() && !described.is_gone());
    let seconds = std::time::Duration::from_secs(5);
    assert_eq!(
        described.created,
        Some(std::time::SystemTime::UNIX_EPOCH + seconds)
    );
}

#[test]
fn a_server_says_how_many_it_found() {
    let located = |payload: &[Vec<u8>]| {
        let answer = SecretBytes::copy_from(&answer(&[succeeded(8, payload)]));
        let mut outcomes = message::outcomes(&answer, &[Operation::Locate]).expect("read");
        Located::of(&outcomes.pop().expect("one").expect("success")).expect("located")
    };
    let id = || item(0x94, 7, b"17");
    let count = |count: u32| number(0xd5, 2, count);
    assert_eq!(located(&[count(3), id()]).all, Some(3));
    assert_eq!(located(&[count(3), id()]).ids, ["17"]);
    assert_eq!(located(&[id()]).all, None);
    assert_eq!(located(&[count(u32::MAX)]).all, None);
}

#[test]
fn no_damage_to_an_answer_panics() {
    let bytes = || item(0x43, 8, b"hunter2");
    let whole = got(7, object(0x85, 2, bytes(), &[]));
    for at in 0..whole.len() {
        crate::every_way::read_any_answer(&whole[..at]);
        for damage in [0, 1, 0x42, 0x7f, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] = damage;
            crate::every_way::read_any_answer(&damaged);
        }
    }
}
