//! The encoding, by the examples of the standard and by what is none.

use super::*;

/// The standard's own examples (KMIP 1.2, 9.1.2), each with the tag 420020.
#[test]
fn items_are_as_the_standard_has_them() {
    const TAG: u32 = 0x42_0020;
    let cases: [(Field<'_>, &[u8]); 4] = [
        (
            Field::Integer(TAG, 8),
            b"\x42\0\x20\x02\0\0\0\x04\0\0\0\x08\0\0\0\0",
        ),
        (
            Field::Enumeration(TAG, 255),
            b"\x42\0\x20\x05\0\0\0\x04\0\0\0\xff\0\0\0\0",
        ),
        (
            Field::Text(TAG, "Hello World"),
            b"\x42\0\x20\x07\0\0\0\x0bHello World\0\0\0\0\0",
        ),
        (
            Field::Bytes(TAG, &[1, 2, 3]),
            b"\x42\0\x20\x08\0\0\0\x03\x01\x02\x03\0\0\0\0\0",
        ),
    ];
    for (field, bytes) in &cases {
        assert_eq!(field.encode().expose(), *bytes);
        assert_eq!(Item::only(bytes).expect("an item").tag, TAG);
    }
    // A structure of an enumeration, 420004: 254, and an integer, 420005: 255.
    let structure = Field::Structure(
        TAG,
        vec![
            Field::Enumeration(0x42_0004, 254),
            Field::Integer(0x42_0005, 255),
        ],
    );
    let bytes = b"\x42\0\x20\x01\0\0\0\x20\
        \x42\0\x04\x05\0\0\0\x04\0\0\0\xfe\0\0\0\0\
        \x42\0\x05\x02\0\0\0\x04\0\0\0\xff\0\0\0\0";
    assert_eq!(structure.encode().expose(), bytes);
    let read = Item::only(bytes).expect("an item");
    let read = read.structure().expect("a structure");
    let first = read.need(0x42_0004).expect("there");
    assert_eq!(first.enumeration(), Ok(254));
    assert!(first.integer().is_err() && first.structure().is_err());
    assert_eq!(read.need(0x42_0005).expect("there").integer(), Ok(255));
    assert!(read.need(0x42_0006).is_err());
    // A date, the one of the standard's example: 14 March 2008, 11:56:40.
    let date = b"\x42\0\x20\x09\0\0\0\x08\0\0\0\0\x47\xda\x67\xf8";
    assert_eq!(Item::only(date).expect("an item").date(), Ok(1_205_495_800));
}

#[test]
fn empty_values_have_a_header_alone() {
    let bytes = Field::Bytes(0x42_0043, b"").encode();
    assert_eq!(bytes.expose(), b"\x42\0\x43\x08\0\0\0\0");
    let item = Item::only(bytes.expose()).expect("an item");
    assert_eq!(item.bytes(), Ok(&b""[..]));
}

#[test]
fn lengths_that_lie_are_refused() {
    let whole = Field::Structure(
        0x42_007b,
        vec![
            Field::Text(0x42_0094, "17"),
            Field::Bytes(0x42_0043, b"hunter2"),
        ],
    )
    .encode();
    let whole = whole.expose();
    Item::only(whole)
        .expect("an item")
        .check()
        .expect("the control");
    for end in 0..whole.len() {
        assert!(Item::only(&whole[..end]).is_err(), "cut at {end}");
    }
    let more = [whole, &[0]].concat();
    assert!(Item::only(&more).is_err());
    // The inner lengths: longer than what is around them, and the longest there is.
    for (at, len) in [
        (12, 25_u32),
        (12, u32::MAX),
        (28, 9),
        (28, u32::MAX),
        (28, u32::MAX - 7),
    ] {
        let mut lying = whole.to_vec();
        lying[at..at + 4].copy_from_slice(&len.to_be_bytes());
        let outer = Item::only(&lying).expect("the outer one holds");
        outer.check().expect_err("the inner one does not");
        let inner = outer.structure().expect("a structure");
        let refused = inner.items().last().expect("one").err();
        let refused = refused.expect("a length that lies").to_string();
        assert!(refused.starts_with("the bytes end"), "{refused}");
    }
}

#[test]
fn numbers_have_the_length_of_their_type() {
    let short = b"\x42\0\x20\x02\0\0\0\x03\0\0\0\0\0\0\0\0";
    assert!(Item::only(short).expect("an item").integer().is_err());
    let text = b"\x42\0\x20\x07\0\0\0\x02\xff\xfe\0\0\0\0\0\0";
    assert!(Item::only(text).expect("an item").text().is_err());
}

#[test]
fn structures_nest_so_deeply_and_no_deeper() {
    // By hand: each structure around the one before.
    let check = |depth| {
        let mut bytes = Field::Integer(0x42_0020, 8).encode().expose().to_vec();
        for _ in 0..depth {
            let len = (bytes.len() as u32).to_be_bytes();
            bytes = [&[0x42, 0, 0x20, 1][..], &len, &bytes].concat();
        }
        Item::only(&bytes).expect("an item").check()
    };
    check(16).expect("deep");
    check(17).expect_err("too deep");
    check(10_000).expect_err("far too deep");
}
