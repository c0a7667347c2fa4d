use super::tests::{SYSTEM, parse};
use super::*;

#[test]
fn consumers_are_known_by_their_options() {
    use Consumer::*;
    for (line, expected) in [
        (
            &[
                "-blockdev",
                r#"{"driver":"luks","key-secret":"s","file":{"driver":"file"}}"#,
            ][..],
            Luks,
        ),
        (&["-blockdev", "luks,key-secret=s,file.driver=file"], Luks),
        (
            &["-blockdev", "driver=raw,file.driver=luks,file.key-secret=s"],
            Luks,
        ),
        (
            &[
                "-blockdev",
                "qcow2,file=x,encrypt.format=luks,encrypt.key-secret=s",
            ],
            Qcow2Luks,
        ),
        (
            &[
                "-blockdev",
                "qcow2,backing.driver=qcow2,backing.encrypt.key-secret=s",
            ],
            Qcow2Luks,
        ),
        (
            &["-blockdev", "qcow2,encrypt.format=aes,encrypt.key-secret=s"],
            QcowAes,
        ),
        (&["-blockdev", "qcow,encrypt.key-secret=s"], QcowAes),
        (&["-blockdev", "rbd,pool=p,key-secret=s"], RbdKey),
        (
            &["-blockdev", "rbd,encrypt.format=luks2,encrypt.key-secret=s"],
            RbdEncryption,
        ),
        (
            &[
                "-blockdev",
                r#"{"driver":"raw","file":{"driver":"https","password-secret":"s"}}"#,
            ],
            CurlPassword,
        ),
        (
            &["-blockdev", "http,proxy-password-secret=s"],
            CurlProxyPassword,
        ),
        (&["-blockdev", "https,cookie-secret=s"], CurlCookie),
        (&["-blockdev", "iscsi,password-secret=s"], Iscsi),
        (&["-drive", "file=x,format=luks,key-secret=s"], Luks),
        (&["-drive", "file=x,encrypt.key-secret=s"], Qcow2Luks),
        (
            &["-drive", "file=rbd:p/i,format=raw,file.password-secret=s"],
            RbdKey,
        ),
        (
            &[
                "-drive",
                "format=raw,file.driver=http,file.password-secret=s",
            ],
            CurlPassword,
        ),
        (
            &["-drive", "file=iscsi://h/t/0,file.password-secret=s"],
            Iscsi,
        ),
        (
            &["-drive", r#"file=json:{"driver":"luks",,"key-secret":"s"}"#],
            Luks,
        ),
        (&["-iscsi", "user=u,password-secret=s"], Iscsi),
        (&["-vnc", ":0,password-secret=s"], Vnc),
        (&["-display", "vnc=:0,password-secret=s"], Vnc),
        (&["-spice", "port=1,password-secret=s"], Spice),
        (
            &["-object", "tls-creds-x509,id=t,dir=/x,passwordid=s"],
            TlsKey,
        ),
        (&["-object", "secret,id=t,keyid=s,data=x,iv=y"], SecretKey),
    ] {
        let line = [&[SYSTEM][..], line].concat();
        assert_eq!(uses(&line), [("s".to_owned(), expected)], "{line:?}");
    }
    for (line, expected) in [
        (
            &[
                "qemu-img",
                "create",
                "-f",
                "luks",
                "-o",
                "key-secret=s",
                "x",
                "1M",
            ][..],
            Luks,
        ),
        (
            &[
                "qemu-img",
                "create",
                "-fqcow2",
                "-oencrypt.format=luks,encrypt.key-secret=s",
                "x",
            ],
            Qcow2Luks,
        ),
        (
            &[
                "qemu-img",
                "create",
                "-f",
                "qcow2",
                "-o",
                "encrypt.format=aes",
                "-o",
                "encrypt.key-secret=s",
                "x",
            ],
            QcowAes,
        ),
        (
            &[
                "qemu-img",
                "create",
                "-o",
                "password-secret=s",
                "rbd:p/i",
                "1M",
            ],
            RbdKey,
        ),
        (
            &[
                "qemu-img",
                "convert",
                "-f",
                "raw",
                "-O",
                "luks",
                "-o",
                "key-secret=s",
                "x",
                "y",
            ],
            Luks,
        ),
        (
            &[
                "qemu-img",
                "amend",
                "-o",
                "state=active,new-secret=s",
                "-f",
                "luks",
                "x",
            ],
            Luks,
        ),
        (
            &[
                "qemu-img",
                "amend",
                "-f",
                "qcow2",
                "-o",
                "encrypt.old-secret=s",
                "x",
            ],
            Qcow2Luks,
        ),
        (
            &[
                "qemu-img",
                "info",
                "--image-opts",
                "driver=luks,key-secret=s,file.filename=x",
            ],
            Luks,
        ),
        (
            &[
                "qemu-io",
                "--image-opts",
                "encrypt.key-secret=s,file.filename=x",
            ],
            Qcow2Luks,
        ),
        (
            &["qemu-io", r#"json:{"driver":"luks","key-secret":"s"}"#],
            Luks,
        ),
        (
            &["qemu-nbd", "--image-opts", "driver=luks,key-secret=s"],
            Luks,
        ),
        (
            &[
                "qemu-storage-daemon",
                "--blockdev",
                "luks,key-secret=s,file=x",
            ],
            Luks,
        ),
    ] {
        assert_eq!(uses(line), [("s".to_owned(), expected)], "{line:?}");
    }
    assert_eq!(
        uses(&[
            SYSTEM,
            "-object",
            "rng-random,id=a,keyid=s",
            "-name",
            "key-secret=s"
        ]),
        []
    );
}

fn uses(line: &[&str]) -> Vec<(String, Consumer)> {
    let command = parse(line);
    command
        .consumers()
        .iter()
        .map(|user| (user.secret_id.clone(), user.consumer))
        .collect()
}
