//! What the egress proxy costs: `cargo bench --bench egress`.
//!
//! The real image with the real configuration, but for the network that it takes
//! for a team's: its own, made and removed here. The other end of each tunnel is
//! this process, on the network's gateway. Needs root and the Docker daemon, on
//! which the host was prepared (`covibes host prepare`).
//!
//! Prints each figure with its bound; exits 1 when one does not hold.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends here")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// Sent through one tunnel.
const BYTES: u64 = 1 << 30;

/// Connections that are timed, each way.
const CONNECTIONS: usize = 200;

/// Nobody's network: of the range for benchmarks.
const NETWORK: &str = "198.18.77.0/29";
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 1);
const PROXY: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 2);

const NAME: &str = "covibes-bench-egress";

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {words}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The proxy and its network, gone with this.
struct Proxy(tempfile::TempDir);

impl Drop for Proxy {
    fn drop(&mut self) {
        for arguments in [["rm", "-f", NAME].as_slice(), &["network", "rm", NAME]] {
            let _ = Command::new("docker").args(arguments).output();
        }
    }
}

impl Proxy {
    fn start() -> Self {
        let image = docker(&["image", "ls", "--format={{.Repository}}:{{.Tag}}", "covibes/egress"]);
        let image = image.lines().next().expect("the host is prepared").to_owned();
        let directory = tempfile::tempdir().unwrap();
        let configuration = include_str!("../../ops/images/egress/squid.conf.template");
        let teams = "acl teams src 172.21.0.0/16 172.22.0.0/16";
        assert!(configuration.contains(teams));
        let configuration = configuration.replace(teams, &format!("acl teams src {NETWORK}"));
        for (name, content) in [
            ("squid.conf", configuration.as_str()),
            ("allowed-hosts.txt", "198.18.77.1\n"),
            ("allow-private.txt", "198.18.77.1\n"),
            ("teams.conf", "# none\n"),
        ] {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), mode).unwrap();
        let proxy = Self(directory);
        docker(&["network", "create", &format!("--subnet={NETWORK}"), NAME]);
        let volume = format!("{}:/etc/covibes:ro", proxy.0.path().display());
        let address = PROXY.to_string();
        let mut run = vec!["run", "--detach", "--name", NAME, "--network", NAME, "--ip", &address];
        // As the product runs it.
        run.extend(["--read-only", "--cap-drop=ALL", "--memory=256m", "--cpus=1"]);
        for place in ["/run", "/tmp", "/var/log/squid", "/var/spool/squid"] {
            run.extend(["--tmpfs", place]);
        }
        run.extend(["--volume", &volume, &image]);
        run.extend(["squid", "-N", "-d", "1", "-f", "/etc/covibes/squid.conf"]);
        docker(&run);
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect((PROXY, 3128)).is_err() {
            assert!(Instant::now() < end, "the proxy does not listen: {}", docker(&["logs", NAME]));
            std::thread::yield_now();
        }
        proxy
    }
}

/// Serves whoever asks: `b` for a byte, `m` for many.
fn serve(listener: TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        std::thread::spawn(move || {
            let _ = stream.set_nodelay(true);
            let mut word = [0];
            while stream.read_exact(&mut word).is_ok() {
                let chunk = vec![7; 256 << 10];
                let mut left = if word[0] == b'm' { BYTES } else { 1 };
                while left > 0 {
                    let length = left.min(chunk.len() as u64);
                    if stream.write_all(&chunk[..length as usize]).is_err() {
                        return;
                    }
                    left -= length;
                }
            }
        });
    }
}

fn open(through: Option<SocketAddr>, target: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(through.unwrap_or(target)).unwrap();
    stream.set_nodelay(true).unwrap();
    if through.is_some() {
        write!(stream, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
    stream
}

/// From the first packet to the first byte of the other end.
fn connect_time(through: Option<SocketAddr>, target: SocketAddr) -> Duration {
    let began = Instant::now();
    let mut stream = open(through, target);
    stream.write_all(b"b").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    began.elapsed()
}

/// Megabytes a second of one stream.
fn rate(through: Option<SocketAddr>, target: SocketAddr) -> f64 {
    let mut stream = open(through, target);
    let began = Instant::now();
    stream.write_all(b"m").unwrap();
    let mut buffer = vec![0; 256 << 10];
    let mut left = BYTES;
    while left > 0 {
        let length = stream.read(&mut buffer).unwrap() as u64;
        assert!(length > 0, "it was cut");
        left -= length.min(left);
    }
    BYTES as f64 / 1e6 / began.elapsed().as_secs_f64()
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

fn main() {
    let _proxy = Proxy::start();
    let listener = TcpListener::bind((GATEWAY, 443)).expect("port 443 of the gateway is free");
    std::thread::spawn(move || serve(listener));
    let (target, proxy) = ((GATEWAY, 443).into(), Some((PROXY, 3128).into()));
    let (mut direct, mut tunnelled) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        direct.push(connect_time(None, target));
        tunnelled.push(connect_time(proxy, target));
    }
    let (direct, tunnelled) = (median(&mut direct), median(&mut tunnelled));
    let added = tunnelled - direct;
    println!("connection, direct      {direct:8.2} ms   median of {CONNECTIONS}");
    println!("connection, proxy       {tunnelled:8.2} ms");
    println!("added                   {added:8.2} ms   at most 2");
    let (bare, through) = (rate(None, target), rate(proxy, target));
    println!("one stream, direct      {bare:8.0} MB/s");
    println!("one tunnel              {through:8.0} MB/s   at least 100");
    if added > 2.0 || through < 100.0 {
        std::process::exit(1);
    }
}
