use super::*;

const CLIENT: [u8; 32] = [7; 32];

fn binding<'a>() -> Binding<'a> {
    Binding {
        client: &CLIENT,
        nonce: "bm9uY2Vub25jZW5vbmNlMQ==",
        secret: "web01/root-disk",
        version: None,
        field: None,
    }
}

#[test]
fn what_is_sealed_opens_and_shows_nothing() {
    let recipient = Recipient::new().expect("a key");
    let sender = Sender::to(recipient.public()).expect("agreed");
    let value = SecretBytes::copy_from(b"correct horse");
    let receiver = recipient.meet(sender.enc()).expect("met");
    let mut seen = Vec::new();
    for _ in 0..3 {
        let sealer = sender.sealer(Purpose::Read).expect("a sealer");
        let opener = receiver
            .opener(Purpose::Read, sealer.salt())
            .expect("an opener");
        for index in 0..3 {
            let sealed = sealer.seal(&binding(), index, &value).expect("sealed");
            assert!(!seen.contains(&sealed));
            let opened = opener.open(&binding(), index, &sealed).expect("opened");
            assert_eq!(opened, value);
            seen.push(sealed);
        }
    }
}

#[test]
fn a_value_opens_for_nothing_it_is_not_bound_to() {
    let recipient = Recipient::new().expect("a key");
    let sender = Sender::to(recipient.public()).expect("agreed");
    let value = SecretBytes::copy_from(b"correct horse");
    let sealer = sender.sealer(Purpose::Read).expect("a sealer");
    let sealed = sealer.seal(&binding(), 0, &value).expect("sealed");
    let receiver = recipient.meet(sender.enc()).expect("met");
    let open = |purpose, salt: &str, binding: &Binding<'_>, index, sealed: &str| {
        let opener = receiver.opener(purpose, salt).expect("an opener");
        opener.open(binding, index, sealed).map(drop)
    };
    let salt = sealer.salt();
    open(Purpose::Read, salt, &binding(), 0, &sealed).expect("the control opens");

    let other_salt = sender.sealer(Purpose::Read).expect("another");
    let mut bent = sealed.clone();
    let swap = if bent.starts_with('A') { "B" } else { "A" };
    bent.replace_range(..1, swap);
    let attempts = [
        ("way", open(Purpose::Write, salt, &binding(), 0, &sealed)),
        (
            "message",
            open(Purpose::Read, other_salt.salt(), &binding(), 0, &sealed),
        ),
        ("place", open(Purpose::Read, salt, &binding(), 1, &sealed)),
        ("text", open(Purpose::Read, salt, &binding(), 0, &bent)),
        ("nothing", open(Purpose::Read, salt, &binding(), 0, "")),
    ];
    for (what, attempt) in attempts {
        let error = attempt.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}");
    }
    let others = [
        Binding {
            client: &[8; 32],
            ..binding()
        },
        Binding {
            nonce: "b3RoZXI=",
            ..binding()
        },
        Binding {
            secret: "web02/root-disk",
            ..binding()
        },
        Binding {
            version: Some("1"),
            ..binding()
        },
        Binding {
            field: Some("1"),
            ..binding()
        },
    ];
    for other in others {
        let error = open(Purpose::Read, salt, &other, 0, &sealed).expect_err("bound");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{other:?}");
    }
    let stranger = Recipient::new().expect("a key");
    let opener = stranger
        .meet(sender.enc())
        .and_then(|receiver| receiver.opener(Purpose::Read, salt))
        .expect("an opener of nothing");
    assert!(opener.open(&binding(), 0, &sealed).is_err());
}

#[test]
fn what_is_no_key_is_refused() {
    for text in ["", "AAAA", "not base64!", &"A".repeat(44)] {
        assert!(Sender::to(text).is_err(), "{text}");
    }
    let recipient = Recipient::new().expect("a key");
    assert!(recipient.meet("AAAA").is_err());
    // The point of order one, with which every agreement gives the same key.
    let zero = Base64::encode_string(&[0; 32]);
    assert!(Sender::to(&zero).is_err());
    assert!(recipient.meet(&zero).is_err());
}

#[test]
fn a_name_cannot_reach_into_the_next_line() {
    let recipient = Recipient::new().expect("a key");
    let sender = Sender::to(recipient.public()).expect("agreed");
    let sealer = sender.sealer(Purpose::Read).expect("a sealer");
    let binding = Binding {
        secret: "web01/a\n1",
        ..binding()
    };
    let value = SecretBytes::copy_from(b"x");
    assert!(sealer.seal(&binding, 0, &value).is_err());
}
