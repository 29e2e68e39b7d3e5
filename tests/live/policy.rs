//! The host policy of all live tests, one and the same: host rules and proxy are
//! shared by all instances of a host (ADR 0002), so tests that differed would
//! take each other's allow-lists away.
//!
//! It lets clones reach one network more than the default, the one in which
//! `git_server.rs` puts its server, and everybody another, in which
//! `model_server.rs` puts the API of agents. The images trust two authorities
//! more: one may speak for the first network only; the other for no name that
//! exists, but for any address, because the CLI of the agents takes no authority
//! that is bound to addresses.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use covibes::domain::settings::Settings;

/// Where clones may go although it is private: benchmarking's, so nobody's.
pub(crate) const GIT_NETWORK: &str = "198.19.77.0/29";

/// The Git server of a test.
pub(crate) const GIT_SERVER: &str = "198.19.77.2";

/// On the list of hosts, but at an address that is not allowed.
pub(crate) const GIT_DENIED: &str = "198.19.78.2";

/// Where agents may go although it is private.
pub(crate) const MODEL_NETWORK: &str = "198.19.77.8/29";

/// The API of agents.
pub(crate) const MODEL_SERVER: &str = "198.19.77.10";

/// Kept over all runs, or each would build all images anew.
const DIRECTORY: &str = "/var/cache/covibes/live-tests";

/// The Git hosts of the policy.
pub(crate) fn git_hosts() -> Vec<String> {
    let mut hosts = Settings::default().git.hosts;
    hosts.extend([GIT_SERVER, GIT_DENIED].map(str::to_owned));
    hosts
}

/// The policy as variables.
pub(crate) fn variables() -> [(&'static str, String); 5] {
    [
        ("COVIBES_AGENT_API_BASE_URL", format!("https://{MODEL_SERVER}")),
        ("COVIBES_EGRESS_ALLOW_PRIVATE", format!("{:?}", [MODEL_NETWORK])),
        ("COVIBES_GIT_HOSTS", format!("{:?}", git_hosts())),
        ("COVIBES_GIT_ALLOW_PRIVATE", format!("{:?}", [GIT_NETWORK])),
        ("COVIBES_IMAGES_CA_BUNDLE", ca_bundle().display().to_string()),
    ]
}

/// The policy as a file.
pub(crate) fn toml() -> String {
    format!(
        "git.hosts = {:?}\ngit.allow_private = {:?}\negress.allow_private = {:?}\n\
         agent.api_base_url = \"https://{MODEL_SERVER}\"\n",
        git_hosts(),
        [GIT_NETWORK],
        [MODEL_NETWORK]
    )
}

/// An authority of the tests; its key lies beside it.
struct Authority {
    name: &'static str,
    /// What it may speak for.
    constraint: &'static str,
}

const GIT: Authority = Authority {
    name: "ca",
    // Whoever finds the key can speak for the tests' network only.
    constraint: "permitted;IP:198.19.77.0/255.255.255.240",
};

const MODEL: Authority = Authority {
    name: "model-ca",
    // And this one for no name that exists.
    constraint: "permitted;DNS:covibes.invalid",
};

impl Authority {
    fn certificate(&self) -> PathBuf {
        Path::new(DIRECTORY).join(format!("{}.pem", self.name))
    }

    fn key(&self) -> PathBuf {
        Path::new(DIRECTORY).join(format!("{}.key", self.name))
    }

    /// Makes it if it is missing, or ends within a month, so that no run meets the end.
    fn ensure(&self) {
        let certificate = self.certificate();
        let check = ["x509", "-noout", "-checkend", "2592000", "-in"];
        let is_valid = certificate.exists()
            && Command::new("openssl")
                .args(check)
                .arg(&certificate)
                .output()
                .unwrap()
                .status
                .success();
        if is_valid {
            return;
        }
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
            &self.key().display().to_string(),
            "-out",
            &certificate.display().to_string(),
            "-addext",
            "keyUsage=critical,keyCertSign",
            "-addext",
            &format!("nameConstraints=critical,{}", self.constraint),
        ]);
    }
}

/// The authority of the Git server.
pub(crate) fn authority() -> PathBuf {
    GIT.certificate()
}

/// What this host trusts and the tests' authorities, made when they are missing.
pub(crate) fn ca_bundle() -> PathBuf {
    let directory = Path::new(DIRECTORY);
    std::fs::create_dir_all(directory).unwrap();
    let lock = File::create(directory.join("lock")).unwrap();
    lock.lock().unwrap();
    [GIT, MODEL].iter().for_each(Authority::ensure);
    let host = std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap();
    let own = [GIT, MODEL].map(|a| std::fs::read_to_string(a.certificate()).unwrap());
    let wanted = host + &own.concat();
    let bundle = directory.join("trusted.crt");
    if std::fs::read_to_string(&bundle).ok().as_ref() != Some(&wanted) {
        // In one step: another test may be reading it.
        let next = directory.join("trusted.next");
        std::fs::write(&next, wanted).unwrap();
        std::fs::rename(next, &bundle).unwrap();
    }
    bundle
}

/// Makes a certificate of the Git server's and its key in a directory.
pub(crate) fn certify_git(directory: &Path) {
    certify(directory, &GIT, GIT_SERVER);
}

/// The same for the API of agents.
pub(crate) fn certify_model(directory: &Path) {
    certify(directory, &MODEL, MODEL_SERVER);
}

fn certify(directory: &Path, authority: &Authority, address: &str) {
    let path = |name: &str| directory.join(name).display().to_string();
    openssl(&[
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=server",
        "-keyout",
        &path("server.key"),
        "-out",
        &path("server.csr"),
    ]);
    std::fs::write(path("server.ext"), format!("subjectAltName=IP:{address}\n")).unwrap();
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        &path("server.csr"),
        "-CA",
        &authority.certificate().display().to_string(),
        "-CAkey",
        &authority.key().display().to_string(),
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
