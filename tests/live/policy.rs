//! The host policy of all live tests, one and the same: host rules and proxy are
//! shared by all instances of a host (ADR 0002), so tests that differed would
//! take each other's allow-lists away.
//!
//! It lets clones reach one network more than the default, the one in which
//! `git_server.rs` puts its server, and lets the images trust one authority more,
//! which may speak for that network only. Previews reach neither.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use covibes::domain::settings::Settings;

/// Where clones may go although it is private: benchmarking's, so nobody's.
pub(crate) const GIT_NETWORK: &str = "198.19.77.0/28";

/// The Git server of a test.
pub(crate) const GIT_SERVER: &str = "198.19.77.2";

/// On the list of hosts, but at an address that is not allowed.
pub(crate) const GIT_DENIED: &str = "198.19.78.2";

/// Kept over all runs, or each would build all images anew.
const DIRECTORY: &str = "/var/cache/covibes/live-tests";

/// The Git hosts of the policy.
pub(crate) fn git_hosts() -> Vec<String> {
    let mut hosts = Settings::default().git.hosts;
    hosts.extend([GIT_SERVER, GIT_DENIED].map(str::to_owned));
    hosts
}

/// The policy as variables.
pub(crate) fn variables() -> [(&'static str, String); 3] {
    [
        ("COVIBES_GIT_HOSTS", format!("{:?}", git_hosts())),
        ("COVIBES_GIT_ALLOW_PRIVATE", format!("{:?}", [GIT_NETWORK])),
        ("COVIBES_IMAGES_CA_BUNDLE", ca_bundle().display().to_string()),
    ]
}

/// The policy as a file.
pub(crate) fn toml() -> String {
    format!("git.hosts = {:?}\ngit.allow_private = {:?}\n", git_hosts(), [GIT_NETWORK])
}

/// The authority of the tests; its key lies beside it.
pub(crate) fn authority() -> PathBuf {
    Path::new(DIRECTORY).join("ca.pem")
}

/// What this host trusts and the tests' authority, made when it is missing.
pub(crate) fn ca_bundle() -> PathBuf {
    let directory = Path::new(DIRECTORY);
    std::fs::create_dir_all(directory).unwrap();
    let lock = File::create(directory.join("lock")).unwrap();
    lock.lock().unwrap();
    let certificate = authority();
    // A month before it ends, so that no run meets the end.
    let check = ["x509", "-noout", "-checkend", "2592000", "-in"];
    let is_valid = certificate.exists()
        && Command::new("openssl").args(check).arg(&certificate).output().unwrap().status.success();
    if !is_valid {
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "3650",
            "-subj",
            "/CN=Covibes live tests",
            "-keyout",
            &key().display().to_string(),
            "-out",
            &certificate.display().to_string(),
            "-addext",
            "keyUsage=critical,keyCertSign",
            // Whoever finds the key can speak for the tests' network only.
            "-addext",
            "nameConstraints=critical,permitted;IP:198.19.77.0/255.255.255.240",
        ]);
    }
    let host = std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap();
    let wanted = host + &std::fs::read_to_string(&certificate).unwrap();
    let bundle = directory.join("ca-bundle.crt");
    if std::fs::read_to_string(&bundle).ok().as_ref() != Some(&wanted) {
        // In one step: another test may be reading it.
        let next = directory.join("ca-bundle.next");
        std::fs::write(&next, wanted).unwrap();
        std::fs::rename(next, &bundle).unwrap();
    }
    bundle
}

fn key() -> PathBuf {
    Path::new(DIRECTORY).join("ca.key")
}

/// Makes a certificate of the Git server's and its key in a directory.
pub(crate) fn certify(directory: &Path) {
    let path = |name: &str| directory.join(name).display().to_string();
    openssl(&[
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=git",
        "-keyout",
        &path("server.key"),
        "-out",
        &path("server.csr"),
    ]);
    std::fs::write(path("server.ext"), format!("subjectAltName=IP:{GIT_SERVER}\n")).unwrap();
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        &path("server.csr"),
        "-CA",
        &authority().display().to_string(),
        "-CAkey",
        &key().display().to_string(),
        "-set_serial",
        "1",
        "-extfile",
        &path("server.ext"),
        "-out",
        &path("server.pem"),
    ]);
}

/// It comes with Debian's ca-certificates.
fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is installed");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments:?}: {words}");
}
