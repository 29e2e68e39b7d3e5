//! Who may ask the worker's HTTP for more than metrics and health.
//!
//! One word opens everything: as `Authorization: Bearer` for programs, and by
//! HTTP Basic for people, whose browsers keep it for this port only (ADR 0054).
//! Pages of other origins are let in if the operator named them, and then only
//! with the bearer's form, which no browser adds by itself.

use std::path::Path as FilePath;
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::server::{LetIn, Peer};
use crate::app::configuration::HttpSettings;
use crate::app::office::Caller;
use crate::app::page;
use crate::wire::text::{cut, plain_prose};

/// A shorter word could be guessed over the network.
const TOKEN_BYTES_MIN: usize = 16;

/// Characters of the name that a caller gives.
const NAME_CHARS_MAX: usize = 40;

/// Where a worker without `http.token_file` keeps the word that it made.
const MADE_TOKEN: &str = "http-token";

/// What a page may ask with, and what it may read of an answer.
const ALLOWED_METHODS: &str = "GET, POST, DELETE";
const ALLOWED_HEADERS: &str = "authorization, content-type, idempotency-key, last-event-id";
const EXPOSED_HEADERS: &str = "location, retry-after";

/// How long a browser remembers a preflight, in seconds.
const PREFLIGHT_SECONDS: &str = "600";

/// Lets in whoever knows the word.
pub struct Gate {
    token: [u8; 32],
    origins: Vec<String>,
    /// Where the word is, for whoever is turned away.
    place: String,
}

/// By what a request was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// A program, or a page that was given the word.
    Bearer,
    /// A browser, perhaps by itself.
    Basic,
}

impl Gate {
    /// Reads the word, or makes one in `state_dir` if the operator named none.
    ///
    /// # Errors
    /// The word's file is missing, holds none, or cannot be made.
    pub fn open(settings: &HttpSettings, state_dir: &FilePath) -> anyhow::Result<Self> {
        let origins = settings.cors_origins.clone();
        let (token, place) = match &settings.token_file {
            Some(path) => (read_token(path, "`http.token_file`")?, path.clone()),
            None => {
                let path = state_dir.join(MADE_TOKEN);
                if !path.exists() {
                    make_token(&path).with_context(|| {
                        format!("cannot make {}; or name one in `http.token_file`", path.display())
                    })?;
                }
                (read_token(&path, "the worker's own token")?, path)
            }
        };
        Ok(Self { token, origins, place: place.display().to_string() })
    }

    /// The word of the worker with these settings, for its own host's terminal; none if
    /// there is none yet, or this user may not read it.
    #[must_use]
    pub fn word(settings: &HttpSettings, state_dir: &FilePath) -> Option<String> {
        let made = || state_dir.join(MADE_TOKEN);
        let path = settings.token_file.clone().unwrap_or_else(made);
        Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
    }

    /// Where the word is.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    fn key(&self, headers: &HeaderMap) -> Option<Key> {
        let value = headers.get(header::AUTHORIZATION)?.as_bytes();
        if let Some(word) = after(value, b"bearer ") {
            return self.is_word(word).then_some(Key::Bearer);
        }
        let decoded = base64::engine::general_purpose::STANDARD.decode(after(value, b"basic ")?);
        let decoded = decoded.ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        self.is_word(&decoded[colon + 1..]).then_some(Key::Basic)
    }

    fn is_word(&self, word: &[u8]) -> bool {
        let presented: [u8; 32] = Sha256::digest(word).into();
        // Hashes of equal length and no early exit: time tells nothing of the token.
        let difference = presented.iter().zip(self.token).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

/// What follows a scheme, in any case.
fn after<'a>(value: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (head, word) = value.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then(|| word.trim_ascii())
}

fn read_token(path: &FilePath, name: &str) -> anyhow::Result<[u8; 32]> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {name} {}", path.display()))?;
    let word = text.trim();
    if word.len() < TOKEN_BYTES_MIN || !word.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("{name} must hold one word of at least 16 printable characters");
    }
    Ok(Sha256::digest(word).into())
}

fn make_token(path: &FilePath) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    // Under another name first: a crash in between leaves no half a word.
    let unfinished = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    let word = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(|id| id.simple().to_string());
    writeln!(file, "{}", word.concat())?;
    file.sync_all()?;
    std::fs::rename(unfinished, path)
}

/// An answer that refuses, for programs.
pub(super) fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({"error": {"code": code, "message": message}}))).into_response()
}

/// Whether a request comes from a page that this worker served.
fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    // The scheme is the gateway's, where there is one.
    matches!((host, origin), (Some(host), Some((_, of))) if of.eq_ignore_ascii_case(host))
}

/// Lets pages of the own and the configured origins in, and no others.
pub(super) async fn origins(
    State(gate): State<Arc<Gate>>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let Some(origin) = headers.get(header::ORIGIN).cloned() else {
        return next.run(request).await;
    };
    if is_own(&origin, headers) {
        return next.run(request).await;
    }
    let known = origin.to_str().is_ok_and(|origin| gate.origins.iter().any(|o| o == origin));
    if !known {
        let message = "Pages of this origin may not ask; see `http.cors_origins`";
        return vary(refuse(StatusCode::FORBIDDEN, "origin.denied", message));
    }
    let is_preflight = request.method() == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_preflight {
        let headers = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
            (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS),
        ];
        (StatusCode::NO_CONTENT, headers).into_response()
    } else if gate.key(headers) == Some(Key::Basic) {
        // A browser adds it by itself: the page need not know the word.
        refuse(StatusCode::FORBIDDEN, "origin.denied", "Other pages send `Authorization: Bearer`")
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    let exposed = HeaderValue::from_static(EXPOSED_HEADERS);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    vary(response)
}

/// The answer differs by origin, which caches must know.
fn vary(mut response: Response) -> Response {
    response.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
    response
}

/// Answers 401 without the word, and 403 to a browser that was sent here by
/// another page to change something.
pub(super) async fn token(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let caller = caller(&request);
    match gate.key(headers) {
        Some(Key::Bearer) => pass(request, caller, next).await,
        Some(Key::Basic) => {
            // Browsers name the origin of whatever changes something. A page of
            // another site may make one follow a link, and nothing else.
            let own = headers.get(header::ORIGIN).is_some_and(|origin| is_own(origin, headers));
            let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
            let of_own_page = site.is_none_or(|site| matches!(site, "same-origin" | "none"));
            let follows_a_link =
                headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
            if (reads && (of_own_page || follows_a_link)) || (own && of_own_page) {
                pass(request, caller, next).await
            } else {
                let message = "This is done from the worker's own page only";
                refuse(StatusCode::FORBIDDEN, "origin.denied", message)
            }
        }
        None => unauthorized(&gate, &request),
    }
}

async fn pass(mut request: Request, caller: Caller, next: Next) -> Response {
    request.extensions_mut().insert(caller);
    let mut response = next.run(request).await;
    response.extensions_mut().insert(LetIn);
    response
}

/// Who asks: a name that anybody may give, and where from.
fn caller(request: &Request) -> Caller {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let value = request.headers().get(header::AUTHORIZATION);
    let name = value.and_then(|value| {
        let decoded = base64::engine::general_purpose::STANDARD;
        let decoded = decoded.decode(after(value.as_bytes(), b"basic ")?).ok()?;
        let name = decoded.split(|byte| *byte == b':').next()?;
        Some(cut(&plain_prose(&String::from_utf8_lossy(name)), NAME_CHARS_MAX))
    });
    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| "somebody".to_owned());
    Caller { name, peer }
}

fn unauthorized(gate: &Gate, request: &Request) -> Response {
    let accepts = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accepts.is_some_and(|accepts| accepts.contains("text/html")) {
        let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"covibes\", charset=\"UTF-8\"")];
        return (StatusCode::UNAUTHORIZED, ask, page::locked(&gate.place)).into_response();
    }
    let refused = refuse(StatusCode::UNAUTHORIZED, "unauthorized", "This needs the worker's token");
    ([(header::WWW_AUTHENTICATE, "Bearer")], refused).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        let token = Sha256::digest("the-word-of-sixteen").into();
        Gate { token, origins: Vec::new(), place: "/nowhere".to_owned() }
    }

    fn check(authorization: &str, expected: Option<Key>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(authorization).unwrap());
        assert_eq!(gate().key(&headers), expected, "{authorization}");
    }

    #[test]
    fn the_word_opens_in_either_form() {
        let basic = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        check("Bearer the-word-of-sixteen", Some(Key::Bearer));
        check("bearer  the-word-of-sixteen ", Some(Key::Bearer));
        check(&format!("Basic {}", basic(":the-word-of-sixteen")), Some(Key::Basic));
        check(&format!("basic {}", basic("anybody:the-word-of-sixteen")), Some(Key::Basic));
        check(&format!("Basic {}", basic("the-word-of-sixteen:")), None);
        check(&format!("Basic {}", basic("the-word-of-sixteen")), None);
        check("Basic the-word-of-sixteen", None);
        check("Bearer", None);
        check("Bearer the-word-of-sixtee", None);
        check("the-word-of-sixteen", None);
    }

    #[test]
    fn an_origin_is_own_if_it_names_the_host_that_was_asked() {
        let check = |origin: &str, host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            is_own(&HeaderValue::from_str(origin).unwrap(), &headers)
        };
        assert!(check("http://127.0.0.1:9464", "127.0.0.1:9464"));
        assert!(check("https://covibes.example", "covibes.example"));
        assert!(!check("http://127.0.0.1:5000", "127.0.0.1:9464"));
        assert!(!check("http://127.0.0.1", "127.0.0.1:9464"));
        assert!(!check("null", "127.0.0.1:9464"));
    }

    #[test]
    fn a_made_word_is_kept_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let settings = HttpSettings {
            listen: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
            hosts: Vec::new(),
            token_file: None,
            cors_origins: Vec::new(),
        };
        let first = Gate::open(&settings, directory.path()).unwrap();
        let again = Gate::open(&settings, directory.path()).unwrap();
        assert_eq!(first.token, again.token);
        let mode = std::fs::metadata(first.place()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(first.place(), "short").unwrap();
        assert!(Gate::open(&settings, directory.path()).is_err());
    }
}
