//! The certificate that all proxies of a measurement show: ECDSA P-256, for one host. Made by openssl.

use std::path::Path;
use std::process::Command;

/// Its files: the certificate, its key, and both in one.
pub(super) const CERTIFICATE: &str = "cert.pem";
pub(super) const KEY: &str = "key.pem";
pub(super) const PAIR: &str = "pair.pem";

/// Make it in `dir`, for `host`.
pub(super) fn make(dir: &Path, host: &str) -> Result<(), String> {
    let name = format!("subjectAltName=DNS:{host}");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=kakei-bench", "-addext", &name, "-keyout", KEY, "-out", CERTIFICATE])
        .current_dir(dir)
        .output()
        .map_err(|error| format!("openssl: {error}"))?;
    if !made.status.success() {
        return Err(format!("openssl: {}", String::from_utf8_lossy(&made.stderr)));
    }
    let read = |name| std::fs::read(dir.join(name)).map_err(|error| format!("{name}: {error}"));
    let pair = [read(CERTIFICATE)?, read(KEY)?].concat();
    std::fs::write(dir.join(PAIR), pair).map_err(|error| format!("{PAIR}: {error}"))
}
