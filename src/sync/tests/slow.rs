//! Servers that stall, servers that are slow, and remotes that send too much.

use std::os::unix::fs::PermissionsExt;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Short enough for a test, in the whole seconds that Git knows.
const STALL: Duration = Duration::from_secs(2);

/// How a server gives its answer.
#[derive(Clone, Copy)]
enum Pace {
    /// Some bytes of it, and then nothing.
    Stalls,
    /// All of it, in pieces of so many bytes, each after this.
    Slow(usize, Duration),
}

/// Serves the upstream's files as Git reads them without its own protocol.
async fn serve(place: &Place, pace: Pace) -> RemoteUrl {
    let upstream = place.path("upstream");
    git(&upstream, &["update-server-info"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/.git", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, upstream.clone(), pace));
        }
    });
    RemoteUrl::unchecked(url)
}

async fn answer(mut stream: TcpStream, root: PathBuf, pace: Pace) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8(request).unwrap();
    let path = request.split(' ').nth(1).unwrap().split('?').next().unwrap();
    let body = std::fs::read(root.join(path.trim_start_matches('/'))).ok();
    let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
    let body = body.unwrap_or_default();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).await;
    match pace {
        Pace::Stalls => {
            let _ = stream.write_all(&body[..body.len().min(7)]).await;
            // Until the other side has had enough.
            let _ = stream.read_u8().await;
        }
        Pace::Slow(bytes, pause) => {
            for piece in body.chunks(bytes) {
                // The pace is what is tested.
                tokio::time::sleep(pause).await;
                if stream.write_all(piece).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn settings(place: &Place, url: RemoteUrl) -> SyncSettings {
    let branch = Some(Branch::parse("main").unwrap());
    let mut settings = place.settings(Source::Remote(Remote { url, branch }));
    settings.git.protocols = "http";
    settings.git.stall = STALL;
    settings
}

#[tokio::test]
async fn a_server_that_stalls_in_its_answer_is_left() {
    let place = Place::cloned();
    let url = serve(&place, Pace::Stalls).await;
    let service = Service::start(settings(&place, url)).await;
    let status = service.sync().await;
    assert_eq!(status["outcome"], "failed", "{status}");
    let detail = status["detail"].as_str().unwrap();
    assert!(detail.contains("too slow"), "{detail}");
    service.end().await;
}

#[tokio::test]
async fn a_server_that_is_slow_and_moves_is_not_cut() {
    let place = Place::cloned();
    place.write("upstream/file", &"so much text that it takes its time\n".repeat(3));
    let head = commit(&place.path("upstream"), "second");
    let url = serve(&place, Pace::Slow(10, Duration::from_millis(400))).await;
    let began = std::time::Instant::now();
    let service = Service::start(settings(&place, url)).await;
    let status = service.sync().await;
    assert_eq!((&status["outcome"], &status["head"]), (&json!("up_to_date"), &json!(head)));
    assert!(began.elapsed() > 3 * STALL, "it was too quick to show anything");
    service.end().await;
}

/// Has a script stand before Git; `$@` are its arguments.
fn with_git(place: &Place, script: &str) -> SyncSettings {
    place.write("bin/git", &format!("#!/bin/sh\n{script}\nexec /usr/bin/git \"$@\"\n"));
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(place.path("bin/git"), executable).unwrap();
    let mut settings = place.settings(place.remote());
    let mut path = place.path("bin").into_os_string();
    path.push(":");
    path.push(&settings.git.path);
    settings.git.path = path;
    settings.git.stall = STALL;
    settings
}

#[tokio::test]
async fn a_transport_that_falls_silent_is_left_and_one_that_talks_is_not() {
    // Over SSH nobody but this service notices.
    let place = Place::cloned();
    let silent =
        "case $1 in ls-remote) printf 'remote: Counting objects: 1%%\\r' >&2; sleep 600 ;; esac";
    let service = Service::start(with_git(&place, silent)).await;
    let status = service.sync().await;
    let detail = status["detail"].as_str().unwrap();
    assert!(detail.contains("the server sent nothing for 4 s"), "{status}");
    service.end().await;

    let talks = "case $1 in ls-remote) for n in 1 2 3 4 5 6; do \
                 printf 'remote: Counting objects: 1%%\\r' >&2; sleep 1; done ;; esac";
    let service = Service::start(with_git(&place, talks)).await;
    let status = service.sync().await;
    assert_eq!(status["outcome"], "up_to_date", "{status}");
    service.end().await;
}

#[tokio::test]
async fn what_is_too_large_is_said_and_leaves_nothing_behind() {
    let place = Place::cloned();
    // A file that does not become smaller in a pack.
    let mut noise = Vec::new();
    let mut state = 1_u32;
    while noise.len() < 300_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.extend_from_slice(&state.to_le_bytes());
    }
    std::fs::write(place.path("upstream/large"), noise).unwrap();
    let head = commit(&place.path("upstream"), "large");
    let packs = place.path("workspace/.git/objects/pack");
    let unfinished = || {
        let names = std::fs::read_dir(&packs).unwrap().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().starts_with("tmp_")).count()
    };
    // As `limit_file_size` does it, in the 512 bytes of a shell.
    git(&place.path("workspace"), &["config", "fetch.unpackLimit", "1"]);
    let small = "case $1 in fetch) ulimit -f 200 ;; esac";
    let service = Service::start(with_git(&place, small)).await;
    let status = service.sync().await;
    let detail = status["detail"].as_str().unwrap();
    assert!(detail.contains("holds more than 10240 MB"), "{detail}");
    // One at most, however often it is tried.
    for _ in 0..3 {
        service.sync().await;
        assert!(unfinished() <= 1, "{} unfinished packs", unfinished());
    }
    service.end().await;

    let service = Service::start(place.settings(place.remote())).await;
    let status = service.sync().await;
    assert_eq!(status["head"], head.as_str(), "{status}");
    service.end().await;
}
