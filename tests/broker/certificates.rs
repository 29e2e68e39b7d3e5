//! Certificates of a test's own, made by `openssl`, and a broker's TLS in front
//! of the real one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::task::AbortOnDropHandle;

/// An authority and a broker's certificate signed by it.
pub(crate) struct Certificates {
    dir: tempfile::TempDir,
}

impl Certificates {
    /// For a broker of this name.
    pub(crate) fn new(host: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let openssl = |arguments: &str| {
            let mut command = Command::new("openssl");
            let ended = command.args(arguments.split(' ')).current_dir(dir.path()).output();
            let ended = ended.expect("openssl is installed (it comes with ca-certificates)");
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"));
        openssl(&format!("req -new {key} -keyout broker.key -out broker.csr -subj /CN={host}"));
        let extensions = format!("subjectAltName=DNS:{host}\nextendedKeyUsage=serverAuth\n");
        std::fs::write(dir.path().join("extensions"), extensions).unwrap();
        openssl(
            "x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
             -extfile extensions -out broker.pem",
        );
        Self { dir }
    }

    /// The authority's certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.path("ca.pem")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> ServerConfig {
        let chain = CertificateDer::from_pem_file(self.path("broker.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path("broker.key")).unwrap();
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .unwrap()
    }
}

/// Takes TLS and passes it on in plain text.
pub(crate) struct TlsRelay {
    pub(crate) port: u16,
    _accepting: AbortOnDropHandle<()>,
}

impl TlsRelay {
    /// In front of the broker at `target`.
    pub(crate) async fn new(certificates: &Certificates, target: &str) -> Self {
        let url = url::Url::parse(target).unwrap();
        let target = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5672));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(certificates.config()));
        let accepting = async move {
            while let Ok((near, _)) = listener.accept().await {
                let (acceptor, target) = (acceptor.clone(), target.clone());
                tokio::spawn(async move {
                    let Ok(mut near) = acceptor.accept(near).await else { return };
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        };
        Self { port, _accepting: AbortOnDropHandle::new(tokio::spawn(accepting)) }
    }

    /// The address through this relay, with an authority to trust or none.
    pub(crate) fn address(&self, target: &str, host: &str, authority: Option<&Path>) -> String {
        let mut url = url::Url::parse(&target.replacen("amqp://", "amqps://", 1)).unwrap();
        url.set_host(Some(host)).unwrap();
        url.set_port(Some(self.port)).unwrap();
        if let Some(path) = authority {
            url.query_pairs_mut().append_pair("cacertfile", path.to_str().unwrap());
        }
        url.into()
    }
}
