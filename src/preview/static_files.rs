//! A small file server for projects that need no other.
//!
//! It serves regular files below one directory. Links that lead out, dot files
//! and anything that is no regular file are "not found", and so is every trick
//! with `..`: a caller learns nothing about what lies outside. Pages load themselves again when
//! a file changes.

use std::fs::{File, OpenOptions};
use std::io::Cursor;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::live_reload::{self, Pages};
use crate::service::Scope;

/// What the server serves.
struct Site {
    root: PathBuf,
    pages: Pages,
}

/// Builds a server for the files below `root`.
pub(super) fn router(root: PathBuf, scope: Scope) -> Router {
    let site = Site { pages: Pages::new(root.clone(), scope), root };
    Router::new().route(live_reload::PATH, get(changes)).fallback(serve).with_state(Arc::new(site))
}

async fn changes(State(site): State<Arc<Site>>, RawQuery(seen): RawQuery) -> Response {
    let seen = seen.and_then(|seen| seen.parse().ok()).unwrap_or_default();
    site.pages.listen(seen).await.into_response()
}

/// What a path turns out to be.
#[derive(Debug)]
enum Found {
    File { file: File, length: u64, kind: &'static str },
    Directory,
    Nothing,
}

async fn serve(State(site): State<Arc<Site>>, method: Method, uri: Uri) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")]).into_response();
    }
    let Some(relative) = decode(uri.path()) else { return not_found() };
    let slash = uri.path().ends_with('/');
    let is_page = slash || is_html(&relative);
    // Before the file is opened, or a change in between would be lost.
    let script = if is_page { site.pages.script().await } else { String::new() };
    let root = site.root.clone();
    let found = tokio::task::spawn_blocking(move || find(&root, &relative, slash)).await;
    match found {
        Ok(Found::File { file, length, kind }) => {
            let script = if kind.starts_with("text/html") { script } else { String::new() };
            let length = length + script.len() as u64;
            let body = match method {
                Method::HEAD => Body::empty(),
                _ => {
                    let file = tokio::fs::File::from_std(file).chain(Cursor::new(script));
                    Body::from_stream(ReaderStream::new(file))
                }
            };
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
                (header::CONTENT_LENGTH, length.into()),
                // A preview shows what the file says now.
                (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
                (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            ];
            (headers, body).into_response()
        }
        Ok(Found::Directory) => {
            // Relative links of an index page only work below a slash. A path that
            // begins with two slashes would be taken for another host.
            let to = format!("/{}/", uri.path().trim_matches('/'));
            (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, to)]).into_response()
        }
        Ok(Found::Nothing) | Err(_) => not_found(),
    }
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "Not found\n").into_response()
}

/// Turns the path of a URL into a relative path, or refuses it.
fn decode(path: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    if text.contains(['\0', '\\']) {
        return None;
    }
    let relative = PathBuf::from(text.trim_start_matches('/'));
    is_public(&relative).then_some(relative)
}

/// Tells whether a path goes only downwards and passes no dot file.
fn is_public(relative: &Path) -> bool {
    relative.components().all(|component| match component {
        Component::Normal(name) => {
            name == ".well-known" || !name.as_encoded_bytes().starts_with(b".")
        }
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
            false
        }
    })
}

fn find(root: &Path, relative: &Path, slash: bool) -> Found {
    find_file(root, relative, slash).unwrap_or(Found::Nothing)
}

fn find_file(root: &Path, relative: &Path, slash: bool) -> Option<Found> {
    let root = root.canonicalize().ok()?;
    let mut path = root.join(relative).canonicalize().ok()?;
    if path.is_dir() {
        if !slash {
            return path.strip_prefix(&root).ok().map(|_| Found::Directory);
        }
        path = path.join("index.html").canonicalize().ok()?;
    } else if slash {
        return None;
    }
    // Asked again of the real path: a link may lead out, or to a dot file.
    if !is_public(path.strip_prefix(&root).ok()?) {
        return None;
    }
    // Not blocking: opening a FIFO would wait for its writer.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
    let file =
        OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&path).ok()?;
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    Some(Found::File { file, length: metadata.len(), kind: content_type(&path) })
}

fn is_html(path: &Path) -> bool {
    content_type(path).starts_with("text/html")
}

fn content_type(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" | "cjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "txt" | "md" | "log" => "text/plain; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "wav" => "audio/wav",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn check(url: &str, expected: Result<&str, &str>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        let root = dir.path().join("site");
        std::fs::create_dir_all(root.join("docs")).unwrap();
        for (name, text) in [
            ("index.html", "home"),
            ("docs/index.html", "docs"),
            ("a b.js", "script"),
            (".env", "KEY=1"),
        ] {
            std::fs::write(root.join(name), text).unwrap();
        }
        symlink("../secret", root.join("out")).unwrap();
        symlink(".env", root.join("env")).unwrap();
        symlink("docs/index.html", root.join("link.html")).unwrap();
        let fifo = std::process::Command::new("mkfifo").arg(root.join("fifo")).status().unwrap();
        assert!(fifo.success());

        let found = decode(url).map(|path| find(&root, &path, url.ends_with('/')));
        match (found, expected) {
            (Some(Found::File { mut file, kind, .. }), Ok(expected)) => {
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                let (kind, _) = kind.split_once(';').unwrap_or((kind, ""));
                assert_eq!(format!("{kind} {text}"), expected, "{url}");
            }
            (Some(Found::Directory), Err("directory")) => {}
            (Some(Found::Nothing) | None, Err("nothing")) => {}
            (other, expected) => panic!("{url}: {other:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn files_below_the_directory_are_served_with_their_type() {
        check("/", Ok("text/html home"));
        check("/docs/", Ok("text/html docs"));
        check("/docs", Err("directory"));
        check("/a%20b.js", Ok("text/javascript script"));
        check("/link.html", Ok("text/html docs"));
    }

    #[test]
    fn nothing_outside_hidden_or_special_is_served() {
        for url in [
            "/../secret",
            "/%2e%2e/secret",
            "/docs/..%2f..%2fsecret",
            "/..%5csecret",
            "//etc/passwd",
            "/out",
            "/env",
            "/.env",
            "/fifo",
            "/index.html/",
            "/a%00",
            "/a%",
            "/a%zz",
            "/missing",
        ] {
            check(url, Err("nothing"));
        }
    }
}
