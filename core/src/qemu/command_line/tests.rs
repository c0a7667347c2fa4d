use super::*;
use crate::qemu::MasterKey;

fn words(line: &[&str]) -> Vec<OsString> {
    line.iter().map(OsString::from).collect()
}

pub(super) fn parse(line: &[&str]) -> CommandLine {
    CommandLine::parse(&words(line)).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

fn refused(line: &[&str]) -> Error {
    CommandLine::parse(&words(line)).expect_err("refused")
}

fn ids(command: &CommandLine) -> Vec<&str> {
    command.references().iter().map(|r| r.id.as_str()).collect()
}

pub(super) const SYSTEM: &str = "qemu-system-x86_64";

#[test]
fn references_are_found_in_both_forms_and_any_order() {
    for object in [
        "secret,id=root,ref=web01/root-disk",
        "secret,ref=web01/root-disk,id=root",
        "qom-type=secret,id=root,ref=secret:web01/root-disk",
        "id=root,ref=web01/root-disk,qom-type=secret",
        r#"{"qom-type":"secret","id":"root","ref":"web01/root-disk"}"#,
        "{ \"ref\" : \"web01\\/root-disk\", \"id\":\"root\", \"qom-type\": \"secret\" }",
    ] {
        for option in ["-object", "--object"] {
            let command = parse(&[SYSTEM, option, object]);
            let [found] = command.references() else {
                panic!("{object}: {:?}", command.references())
            };
            assert_eq!(found.id, "root");
            assert_eq!(found.reference.short(), "web01/root-disk");
            assert_eq!(found.place.to_string(), format!("argument 2 ({option})"));
        }
    }
}

#[test]
fn the_program_is_found_behind_wrappers() {
    let object = ["-object", "secret,id=a,ref=v/a"];
    for wrapper in [
        &["/usr/bin/qemu-system-aarch64"][..],
        &["sudo", "-u", "x", SYSTEM],
        &[
            "strace",
            "-f",
            "-o",
            "log,qemu-img",
            "/opt/qemu/bin/qemu-system-x86_64",
        ],
        &["env", "A=/x/qemu-img", "/usr/libexec/qemu-kvm"],
        &["./start-vm.sh", "web01"],
    ] {
        let command = parse(&[wrapper, &object].concat());
        assert_eq!(ids(&command), ["a"], "{wrapper:?}");
    }
}

#[test]
fn values_of_other_options_are_no_options() {
    let line = [
        SYSTEM,
        "-append",
        "-object",
        "-name",
        "secret,id=a,ref=v/a",
        "-S",
    ];
    assert_eq!(parse(&line).references(), []);
    let line = [SYSTEM, "-S", "-object", "secret,id=a,ref=v/a"];
    assert_eq!(ids(&parse(&line)), ["a"]);
}

#[test]
fn tools_spell_the_option_as_getopt_does() {
    for line in [
        &[
            "qemu-img",
            "create",
            "--object",
            "secret,id=a,ref=v/a",
            "-f",
            "luks",
            "x",
            "1M",
        ][..],
        &[
            "qemu-img",
            "create",
            "-f",
            "luks",
            "x",
            "1M",
            "--object=secret,id=a,ref=v/a",
        ],
        &[
            "qemu-img",
            "-T",
            "x",
            "info",
            "--obj",
            "secret,id=a,ref=v/a",
            "x",
        ],
        &[
            "qemu-img",
            "convert",
            "-cO",
            "luks",
            "--ob=secret,id=a,ref=v/a",
            "x",
            "y",
        ],
        &[
            "qemu-io",
            "-c",
            "read 0 512",
            "--object",
            "secret,id=a,ref=v/a",
            "x",
        ],
        &["qemu-nbd", "--fork", "--object", "secret,id=a,ref=v/a", "x"],
        &["qemu-storage-daemon", "--object", "secret,id=a,ref=v/a"],
    ] {
        let command = parse(line);
        assert_eq!(ids(&command), ["a"], "{line:?}");
        let rewritten = rewrite(&command, &["a"]);
        assert_eq!(rewritten.len(), line.len() + 2);
        assert_eq!(splice_out(&rewritten, &command), *line);
    }
    for line in [
        &["qemu-io", "-c", "--object", "secret,id=a,ref=v/a", "x"][..],
        &["qemu-img", "info", "--", "--object", "secret,id=a,ref=v/a"],
        &["qemu-nbd", "-f", "--object", "secret,id=a,ref=v/a"],
    ] {
        assert_eq!(parse(line).references(), [], "{line:?}");
    }
}

#[test]
fn what_holds_no_reference_stays_to_the_byte() {
    let odd = OsString::from_vec(b"file=\xff\xfe,,x=\n".to_vec());
    let mut line = words(&[
        SYSTEM,
        "-object",
        "secret,id=a,ref=v/a",
        "-object",
        "{'x':1}",
        "",
        "-drive",
    ]);
    line.push(odd);
    let command = CommandLine::parse(&line).expect("valid");
    let rewritten = rewrite(&command, &["a"]);
    assert_eq!(rewritten[0], line[0]);
    assert_eq!(rewritten[1], "-object");
    assert_eq!(rewritten[5..], line[3..]);
}

#[test]
fn an_object_keeps_its_form_and_its_other_properties() {
    let command = parse(&[
        SYSTEM,
        "--object",
        "id=a,x=1,,2,ref=v/a,qom-type=secret",
        "-object",
        r#"{"qom-type":"secret","x":{"y":[1]},"id":"b","ref":"v/b"}"#,
    ]);
    let rewritten = rewrite(&command, &["a", "b"]);
    let m = command.master_id();
    assert_eq!(rewritten[1], "--object");
    assert_eq!(
        rewritten[2],
        format!("secret,id={m},file=/dev/fd/3").as_str()
    );
    let zeros = "AAAAAAAAAAAAAAAAAAAAAA==";
    assert_eq!(
        rewritten[4],
        format!("id=a,x=1,,2,keyid={m},format=base64,iv={zeros},data={zeros},qom-type=secret")
            .as_str()
    );
    let json: serde_json::Value =
        serde_json::from_slice(rewritten[6].as_bytes()).expect("still JSON");
    assert_eq!(
        json,
        serde_json::json!({
            "qom-type": "secret", "x": {"y": [1]}, "id": "b", "keyid": m, "format": "base64", "iv": zeros, "data": zeros,
        })
    );
}

#[test]
fn a_place_in_a_store_is_a_reference_too() {
    let object = "secret,id=a,ref=vault:secret/web01/a,,b#pass";
    let command = parse(&[SYSTEM, "-object", object]);
    let [found] = command.references() else {
        panic!("{:?}", command.references())
    };
    assert_eq!(found.reference.short(), "vault:secret/web01/a,b#pass");
    assert!(found.reference.reference().is_none());
}

#[test]
fn what_cannot_be_a_reference_is_refused_with_place_and_rule() {
    for (object, rule) in [
        ("secret,id=a,ref=v/a,data=x", "`data` and `ref`"),
        ("secret,id=a,file=/x,ref=v/a", "`file` and `ref`"),
        ("secret,id=a,keyid=m,ref=v/a", "`keyid` and `ref`"),
        ("secret,id=a,ref=v/a,iv=x", "`iv` and `ref`"),
        ("secret,id=a,ref=v/a,format=raw", "`format` and `ref`"),
        ("secret,id=a,ref=v/a,ref=v/b", "one ref"),
        ("secret,ref=v/a", "needs an id"),
        ("secret,id=1a,ref=v/a", "no id of an object"),
        ("secret,id=a,ref=", "names no secret"),
        ("secret,id=a,ref=v", "column 2"),
        ("secret,id=a,ref=v/a,,b", "not `,`"),
        ("secret_keyring,id=a,ref=v/a", "secret_keyring"),
        (
            r#"{"qom-type":"secret","id":"a","ref":{"x":1}}"#,
            "names no secret",
        ),
        (
            "{'qom-type':'secret','id':'a','ref':'v/a'}",
            "no plain JSON",
        ),
    ] {
        let error = refused(&[SYSTEM, "-S", "-object", object]);
        assert_eq!(error.kind(), ErrorKind::InvalidReference);
        assert!(error.message().contains(rule), "{object}: {error}");
        assert_eq!(
            error.context().place.as_deref(),
            Some("argument 3 (-object)")
        );
    }
}

#[test]
fn an_id_that_is_taken_is_refused_and_other_objects_are_not_ours_to_judge() {
    let reference = "secret,id=a,ref=v/a";
    for other in [
        "secret,id=a,ref=v/b",
        "secret,id=a,data=x",
        "rng-random,id=a",
    ] {
        let error = refused(&[SYSTEM, "-object", reference, "-object", other]);
        assert!(error.message().contains("argument 2 (-object)"), "{error}");
        assert_eq!(
            error.context().place.as_deref(),
            Some("argument 4 (-object)")
        );
    }
    for other in [
        "rng-random,id=b,ref=x",
        "rng-random,id=b",
        "{'qom-type':'rng-random','id':'a'}",
    ] {
        let line = [
            SYSTEM, "-object", reference, "-object", other, "-object", other,
        ];
        assert_eq!(ids(&parse(&line)), ["a"]);
    }
}

#[test]
fn the_master_key_has_an_id_of_its_own() {
    let command = parse(&[SYSTEM, "-object", "secret,id=a,ref=v/a"]);
    let digits = command
        .master_id()
        .strip_prefix("keyhaul-")
        .expect("prefix");
    assert_eq!(digits.len(), 8);
    let other = parse(&[SYSTEM]);
    assert_ne!(command.master_id(), other.master_id());
}

#[test]
fn nothing_is_inserted_without_references_and_a_missing_secret_is_noticed() {
    let line = words(&[SYSTEM, "-S"]);
    let command = CommandLine::parse(&line).expect("valid");
    assert_eq!(rewrite(&command, &[]), line);
    let command = parse(&[SYSTEM, "-object", "secret,id=a,ref=v/a"]);
    let error = command
        .rewrite(&KeySource::Serial(1), &[])
        .expect_err("no secret");
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[test]
fn a_secret_too_long_for_an_argument_is_refused() {
    let command = parse(&[SYSTEM, "-object", "secret,id=big,ref=v/a"]);
    let master = MasterKey::generate().expect("randomness");
    let encrypted = |len| crate::qemu::encrypt(&master, &vec![0; len]).expect("encrypted");
    let rewritten = |len| command.rewrite(&KeySource::Serial(1), &[("big".into(), encrypted(len))]);
    rewritten(90_000).expect("fits");
    let error = rewritten(100_000).expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.message().contains("`big`"), "{error}");
}

#[test]
fn values_in_the_clear_are_noticed() {
    for line in [
        ["-object", "secret,id=a,data=hunter2"],
        [
            "-object",
            r#"{"qom-type":"secret","id":"a","data":"hunter2"}"#,
        ],
        ["-iscsi", "user=u,password=hunter2"],
        ["-spice", "port=1,password=hunter2"],
    ] {
        let command = parse(&[SYSTEM, line[0], line[1]]);
        let [finding] = command.findings() else {
            panic!("{line:?}: {:?}", command.findings())
        };
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.advice.contains("ref="));
        assert!(!format!("{command:?}").contains("hunter2"));
    }
    let fine = parse(&[
        SYSTEM,
        "-object",
        "secret,id=a,keyid=m,data=x,iv=y",
        "-object",
        "secret,id=b,file=/x",
    ]);
    assert_eq!(fine.findings(), []);
}

/// The command with a block of zeros for each secret.
fn rewrite(command: &CommandLine, ids: &[&str]) -> Vec<OsString> {
    let zeros = Ciphertext {
        iv: [0; 16],
        data: vec![0; 16],
    };
    let secrets: Vec<_> = ids
        .iter()
        .map(|id| ((*id).to_owned(), zeros.clone()))
        .collect();
    let source = KeySource::File("/dev/fd/3".into());
    command.rewrite(&source, &secrets).expect("rewritten")
}

/// The rewritten command with what was put in taken out again.
fn splice_out(rewritten: &[OsString], command: &CommandLine) -> Vec<String> {
    let mut words: Vec<_> = rewritten
        .iter()
        .map(|word| word.to_str().expect("UTF-8").to_owned())
        .collect();
    let master = format!("secret,id={},file=/dev/fd/3", command.master_id());
    let at = words
        .iter()
        .position(|word| *word == master)
        .expect("a master key");
    words.drain(at - 1..=at);
    let put = format!(
        "keyid={},format=base64,iv=AAAAAAAAAAAAAAAAAAAAAA==,data=AAAAAAAAAAAAAAAAAAAAAA==",
        command.master_id()
    );
    words
        .iter()
        .map(|word| word.replace(&put, "ref=v/a"))
        .collect()
}
