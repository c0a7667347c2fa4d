//! Warns whoever builds without this repository's `.cargo/config.toml`, from another folder or of
//! an unpacked package: the first TLS handshake of every process is slower then.

fn main() {
    let name = "AWS_LC_SYS_NO_JITTER_ENTROPY";
    println!("cargo::rerun-if-env-changed={name}");
    if std::env::var_os(name).is_none() {
        println!(
            "cargo::warning={name} is not set: every process spends tens of milliseconds before its first TLS handshake; build with {name}=1 (docs/adr/0011-tls.md)"
        );
    }
}
