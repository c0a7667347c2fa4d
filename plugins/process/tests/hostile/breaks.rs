//! Programs that say what they must not.

use super::*;

#[tokio::test]
async fn a_program_that_breaks_the_protocol_is_killed() {
    for (body, rule) in [
        // Never a newline.
        ("read -r line; exec cat /dev/zero\n", "a line of more than"),
        // Lines without end, none of them asked for.
        (
            "read -r line; exec yes '{\"id\":9}'\n",
            "what was not asked, or twice",
        ),
        ("read -r line; answer; answer; exec sleep 60\n", ""),
        (
            "read -r line; printf '{\"id\":1,\"value\":\"\\377\"}\\n'; exec sleep 60\n",
            "no answer",
        ),
        ("read -r line; echo hunter2; exec sleep 60\n", "no answer"),
        ("read -r line; echo; exec sleep 60\n", "no answer"),
        (
            "read -r line; echo '{\"id\":18446744073709551616,\"value\":\"x\"}'; exec sleep 60\n",
            "no answer",
        ),
        (
            "read -r line; echo '{\"id\":1e999,\"value\":\"x\"}'; exec sleep 60\n",
            "no answer",
        ),
        (
            "read -r line; answer ',\"index\":99999999999999999999'; exec sleep 60\n",
            "no answer",
        ),
        // Lists in lists, never ended.
        (
            "read -r line; head -c 500000 /dev/zero | tr '\\0' '['; echo; exec sleep 60\n",
            "no answer",
        ),
        ("echo '{\"id\":7}'; exec sleep 60\n", "what was not asked"),
        (
            "read -r line; answer ',\"index\":0'; exec sleep 60\n",
            "one of many",
        ),
    ] {
        let hostile = Hostile::new(body);
        let error = match rule {
            // Its first answer is right: it is the second that kills it.
            "" => {
                assert_eq!(hostile.fails().await.kind(), ErrorKind::Corrupt);
                hostile.nothing_is_left().await;
                hostile.recovers().await;
                continue;
            }
            _ => hostile.fails().await,
        };
        assert_eq!(error.kind(), ErrorKind::Internal, "{body}: {error:?}");
        assert!(error.message().contains(rule), "{body}: {error:?}");
        assert!(!format!("{error:?}").contains("hunter2"));
        hostile.nothing_is_left().await;
        hostile.recovers().await;
    }
}

#[tokio::test]
async fn a_value_over_the_plugins_own_limit_is_refused_and_the_plugin_goes_on() {
    let hostile = Hostile::new(
        "while read -r line; do case $line in *long*) long=$(head -c 1001 /dev/zero | tr '\\0' x);; *) long=hunter2;; esac
        answer \",\\\"value\\\":\\\"$long\\\"\"; done\n",
    );
    let (long, options) = (path("long"), GetOptions::default());
    let answer = hostile.store.get(&long, &options).await;
    let error = answer.expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error:?}");
    assert!(error.message().contains("1000 bytes"), "{error:?}");
    assert_eq!(hostile.get().await.expect("served"), b"hunter2");
    assert_eq!(hostile.processes().len(), 1);
}

#[tokio::test]
async fn a_program_that_is_no_plugin_is_refused_by_the_rule() {
    let hello =
        |text: &str| format!("#!/bin/sh\necho $$ >>\"$0.pids\"\necho '{text}'\nexec sleep 60\n");
    for (text, rule) in [
        (hello("hello hunter2"), "first line is no hello"),
        (
            hello(r#"{"keyhaul":2,"name":"x"}"#),
            "version 2 of the protocol",
        ),
        (hello(r#"{"keyhaul":1}"#), "hello is not of the right form"),
        (
            "#!/bin/sh\necho $$ >>\"$0.pids\"\nexec cat /dev/zero\n".to_owned(),
            "more than 65536 bytes",
        ),
        (hello(r#"{"keyhaul":99999999999999999999}"#), "no hello"),
        (hello(r#"{"keyhaul":-1}"#), "no hello"),
        (
            hello(r#"{"keyhaul":1,"name":"x","version":"1","capabilities":[],"max-value":1e999}"#),
            "hello is not of the right form",
        ),
        (
            hello(r#"{"keyhaul":1,"name":"x","version":"1","capabilities":[],"batch":-1}"#),
            "hello is not of the right form",
        ),
        (
            hello(r#"{"keyhaul":1,"name":"x","version":"1","capabilities":"read"}"#),
            "right form",
        ),
        (
            "#!/no/such/interpreter\n".to_owned(),
            "is run by another program, and the plugin is not there: /no/such/interpreter",
        ),
    ] {
        let hostile = Hostile::of(&text);
        let error = hostile.fails().await;
        let kinds = [ErrorKind::InvalidConfig, ErrorKind::Internal];
        assert!(kinds.contains(&error.kind()), "{error:?}");
        assert!(error.message().contains(rule), "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2"));
        if text.contains("pids") {
            hostile.nothing_is_left().await;
        }
        hostile.recovers().await;
    }
    let silent = Hostile::of("#!/bin/sh\necho $$ >>\"$0.pids\"\nexec sleep 60\n");
    let error = silent.fails().await;
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    silent.nothing_is_left().await;
    silent.recovers().await;
}
