//! Previews behind a reverse proxy with TLS: Debian's nginx with the configuration that
//! `ops/proxy/nginx.conf` gives operators, asked by a browser under the public name.

use std::path::Path;

use crate::browser::Browser;
use crate::docker::{beside, beside_label, docker, remove_beside};
use crate::edit::{Edit, Way, see_with};
use crate::place::{Place, STATE_MAX, free_port, is_full, until};

const CONFIGURATION: &str = include_str!("../../../ops/proxy/nginx.conf");

const DOCKERFILE: &str = "FROM covibes/debian:bookworm\n\
    RUN apt-get update && apt-get install --yes --no-install-recommends nginx-light\n";

/// An nginx in a container on the host's network; it goes with the place.
struct Proxy<'a> {
    place: &'a Place,
}

impl<'a> Proxy<'a> {
    async fn start(place: &'a Place, port: u16) -> Self {
        let directory = place.directory("proxy");
        let path = |name: &str| directory.join(name).display().to_string();
        std::fs::write(directory.join("Dockerfile"), DOCKERFILE).unwrap();
        // Debian's own configuration is left out: it listens on port 80.
        let own = CONFIGURATION
            .replace("listen 443 ssl", &format!("listen 127.0.0.1:{port} ssl"))
            .replace("preview\\.example\\.org", "preview\\.test")
            .replace("/etc/ssl/private/preview", "/etc/covibes/preview");
        assert!(own.contains("preview\\.test") && own.contains(&port.to_string()));
        let whole = format!(
            "daemon off; pid /tmp/nginx.pid; error_log stderr;\nevents {{}}\n\
             http {{\naccess_log off; server_names_hash_bucket_size 128;\n{own}\n}}\n"
        );
        std::fs::write(directory.join("nginx.conf"), whole).unwrap();
        let status = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-days", "2", "-subj", "/CN=*.preview.test", "-addext"])
            .args(["subjectAltName=DNS:*.preview.test", "-keyout", &path("preview.key")])
            .args(["-out", &path("preview.pem")])
            .output();
        assert!(status.unwrap().status.success());
        // One image for all runs: the builder's cache has it.
        docker(&["build", "--quiet", "--tag", "covibes-test/nginx", &path("")]).await;
        let (name, label) = (beside(&place.instance, "proxy"), beside_label(&place.instance));
        let mount = format!("{}:/etc/covibes:ro", directory.display());
        docker(&[
            "run",
            "--detach",
            "--network=host",
            "--name",
            &name,
            "--label",
            &label,
            "--volume",
            &mount,
            "covibes-test/nginx",
            "nginx",
            "-c",
            "/etc/covibes/nginx.conf",
        ])
        .await;
        until("the proxy listens", STATE_MAX, async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        Self { place }
    }
}

impl Drop for Proxy<'_> {
    fn drop(&mut self) {
        remove_beside(&self.place.instance);
    }
}

async fn check(example: &str, edit: &Edit) {
    let mut place = Place::new().await;
    let port = free_port();
    place.set(
        "COVIBES_PREVIEW_PUBLIC_URL",
        format!("https://{{host}}-{{port}}.preview.test:{port}"),
    );
    let proxy = Proxy::start(&place, port).await;
    let directory = place.example(example);
    let up = ["up", directory.to_str().unwrap(), "--team", "tls", "--agents", "0", "--json"];
    let link = place.done(&up).await.link("main");
    assert_eq!(link.scheme(), "https", "{link}");
    let host = link.host_str().unwrap();
    assert!(host.starts_with("main--tls-") && host.ends_with(".preview.test"), "{link}");
    let flags =
        ["--host-resolver-rules=MAP *.preview.test 127.0.0.1", "--ignore-certificate-errors"];
    let name = format!("{example}-behind-tls");
    see_with(Browser::start(&flags), &name, &link, Path::new(&directory), edit).await;
    place.done(&["destroy", "tls", "--json"]).await;
    place.assert_gone("tls").await;
    drop(proxy);
}

#[tokio::test]
async fn full_vite_behind_a_proxy_with_tls() {
    if !is_full("vite behind TLS") {
        return;
    }
    let edit = Edit {
        file: "src/App.jsx",
        before: "Covibes Vite React example",
        after: super::AFTER,
        way: Way::Hot,
        click: Some(("button", "Count: 1")),
        keeps: true,
    };
    check("vite-react", &edit).await;
}

#[tokio::test]
async fn full_next_behind_a_proxy_with_tls() {
    if !is_full("next behind TLS") {
        return;
    }
    let edit = Edit {
        file: "app/page.jsx",
        before: "Covibes Next.js example",
        after: super::AFTER,
        way: Way::Hot,
        click: Some(("button", "Count: 1")),
        keeps: true,
    };
    check("nextjs", &edit).await;
}
