//! The header that is checked in is the one that the Rust types make, and C and C++ understand it.

use std::path::{Path, PathBuf};
use std::process::Command;

use keyhaul_plugin_abi as abi;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn checked_in() -> PathBuf {
    root().join("include/keyhaul_plugin.h")
}

/// To make it anew after a change: `KEYHAUL_BLESS=1 cargo test -p keyhaul-plugin-abi`.
#[test]
fn the_header_is_made_from_the_types() {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("read");
    let mut made = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_crate(root())
        .generate()
        .expect("made")
        .write(&mut made);
    let made = String::from_utf8(made).expect("text");
    if std::env::var_os("KEYHAUL_BLESS").is_some() {
        std::fs::write(checked_in(), &made).expect("written");
    }
    let there = std::fs::read_to_string(checked_in()).expect("read");
    assert!(
        made == there,
        "include/keyhaul_plugin.h is not what the types make:\n{made}"
    );
}

/// Compiles `source` with `compiler`, and gives back what the program prints.
fn run(compiler: &str, standard: &str, source: &str) -> String {
    let folder = tempfile::tempdir().expect("folder");
    let language = if compiler == "cc" { "c" } else { "c++" };
    let file = folder.path().join("program.txt");
    std::fs::write(&file, source).expect("written");
    let program = folder.path().join("program");
    let compiled = Command::new(compiler)
        .args([
            standard,
            "-Wall",
            "-Wextra",
            "-pedantic",
            "-Werror",
            "-x",
            language,
        ])
        .arg(&file)
        .arg("-I")
        .arg(root().join("include"))
        .arg("-o")
        .arg(&program)
        .output()
        .unwrap_or_else(|error| panic!("{compiler}: {error}; apt-get install gcc g++"));
    let words = String::from_utf8_lossy(&compiled.stderr);
    assert!(compiled.status.success(), "{compiler} {standard}: {words}");
    let ran = Command::new(&program).output().expect("started");
    assert!(ran.status.success());
    String::from_utf8(ran.stdout).expect("text")
}

/// Each type with each of its fields: a line for C's word of its place, and Rust's.
macro_rules! layout {
    ($($c:literal $rust:ident { $($field:ident)* })*) => {{
        let mut c = String::new();
        let mut rust = String::new();
        $(
            c += &format!("printf(\"{0} %zu\\n\", sizeof({0}));\n", $c);
            rust += &format!("{} {}\n", $c, size_of::<abi::$rust>());
            $(
                c += &format!("printf(\"{0}.{1} %zu\\n\", offsetof({0}, {1}));\n", $c, stringify!($field));
                rust += &format!("{}.{} {}\n", $c, stringify!($field), std::mem::offset_of!(abi::$rust, $field));
            )*
        )*
        (c, rust)
    }};
}

#[test]
fn c_and_cpp_lay_every_table_out_as_rust_does() {
    let (lines, expected) = layout! {
        "keyhaul_head" Head { size major minor magic }
        "keyhaul_str" Str { ptr len }
        "keyhaul_bytes" Bytes { ptr len }
        "keyhaul_pair" Pair { name value }
        "keyhaul_call" Call { head deadline_ms request actor }
        "keyhaul_opening" Opening { head name options options_len context credential }
        "keyhaul_get_options" GetOptions { head version field expired reserved }
        "keyhaul_put_options" PutOptions {
            head mode reserved version field idempotency attributes attributes_len
        }
        "keyhaul_recipe" Recipe { head length alphabet reserved }
        "keyhaul_delete_options" DeleteOptions { head version force reserved }
        "keyhaul_list_options" ListOptions { head after limit shallow reserved }
        "keyhaul_sink" Sink { to context }
        "keyhaul_answers" Answers {
            head capabilities value metadata item entry next error cancelled
        }
        "keyhaul_host" Host { head version log }
        "keyhaul_option" PluginOption { name fallback help kind reserved }
        "keyhaul_plugin" Plugin {
            head name version summary options options_len option_size
            open close capabilities get get_many stat put generate remove list probe
        }
    };
    let source = format!(
        "#include <keyhaul_plugin.h>\n#include <stdio.h>\nint main(void) {{\n{lines}return 0;\n}}\n"
    );
    assert_eq!(run("cc", "-std=c99", &source), expected);
    assert_eq!(run("c++", "-std=c++11", &source), expected);
}

/// The words that the header adds of its own work in both languages, too.
#[test]
fn heads_and_texts_can_be_written_in_c_and_cpp() {
    let source = r#"
#include <keyhaul_plugin.h>
#include <stdio.h>
struct table { keyhaul_head head; keyhaul_str text; void (*later)(void); };
static const struct table table = { KEYHAUL_HEAD(struct table), KEYHAUL_STR("four"), NULL };
const keyhaul_plugin *keyhaul_plugin_entry(const keyhaul_host *host) { (void)host; return NULL; }
static void has(size_t size) {
    struct table older = table;
    const struct table *given = &older;
    older.head.size = size;
    printf("%d%d%d ", KEYHAUL_HAS(given, head), KEYHAUL_HAS(given, text), KEYHAUL_HAS(given, later));
}
int main(void) {
    printf("%d %d %d %d %.*s\n", table.head.size == sizeof table, table.head.major, table.head.minor,
           table.head.magic == KEYHAUL_MAGIC, (int)table.text.len, (const char *)table.text.ptr);
    has(sizeof table), has(sizeof table - 1), has(offsetof(struct table, later));
    has(offsetof(struct table, later) - 1), has(sizeof table + 8);
    return keyhaul_plugin_entry(NULL) == NULL ? 0 : 1;
}
"#;
    let has = "111 110 110 100 111 ";
    let expected = format!("1 {} {} 1 four\n{has}", abi::MAJOR, abi::MINOR);
    assert_eq!(run("cc", "-std=c99", source), expected);
    assert_eq!(run("c++", "-std=c++11", source), expected);
}
