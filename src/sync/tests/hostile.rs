//! Servers that lie, stall and lead elsewhere, and repositories whose
//! configuration does.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

use super::*;

const SECRET: &str = "hunter2-canary-9b1c";

/// A server of files, as Git reads without its own protocol.
struct Files {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    /// Every `Authorization` that came.
    shown: Arc<std::sync::Mutex<Vec<String>>>,
    _served: JoinHandle<()>,
}

impl Files {
    /// Serves what is below a directory; with a word, only to who says it.
    async fn serve(root: PathBuf, word: Option<&'static str>) -> Self {
        Self::answer(move |request: &Request, shown: &str| {
            if word.is_some_and(|word| shown != word) {
                let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"git\"")];
                let words = format!("who are you, {shown}?");
                return (StatusCode::UNAUTHORIZED, ask, words).into_response();
            }
            let path = root.join(request.uri().path().trim_start_matches('/'));
            match std::fs::read(path) {
                Ok(bytes) => bytes.into_response(),
                Err(_) => StatusCode::NOT_FOUND.into_response(),
            }
        })
        .await
    }

    async fn answer(
        answer: impl Fn(&Request, &str) -> Response + Send + std::marker::Sync + Clone + 'static,
    ) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let shown = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (count, words) = (asked.clone(), shown.clone());
        let router = Router::new().fallback(move |request: Request| {
            count.fetch_add(1, Ordering::Relaxed);
            let word = request.headers().get(header::AUTHORIZATION);
            let word = word.and_then(|w| w.to_str().ok()).unwrap_or_default().to_owned();
            if !word.is_empty() {
                words.lock().unwrap().push(word.clone());
            }
            let response = answer(&request, &word);
            async move { response }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, asked, shown, _served: served }
    }

    fn url(&self, path: &str) -> RemoteUrl {
        RemoteUrl::unchecked(format!("http://{}/{path}", self.address))
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn over_http(place: &Place, url: RemoteUrl) -> SyncSettings {
    git(&place.path("upstream"), &["update-server-info"]);
    let branch = Some(Branch::parse("main").unwrap());
    let mut settings = place.settings(Source::Remote(Remote { url, branch }));
    settings.git.protocols = "http";
    settings
}

/// With the file that holds a token.
fn with_token(place: &Place, mut settings: SyncSettings, token: &str) -> SyncSettings {
    place.write("credentials/token", token);
    let read = SyncSettings::from_environment(&Environment::from_pairs([
        ("COVIBES_TOKEN_FILE", place.path("token")),
        ("COVIBES_GIT_TOKEN_FILE", place.path("credentials/token")),
    ]));
    settings.git.token_file = read.unwrap().git.token_file;
    settings
}

async fn outcome(settings: SyncSettings) -> (String, String) {
    let service = Service::start(settings).await;
    let status = service.sync().await;
    service.end().await;
    let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
    (text("outcome"), text("detail"))
}

#[tokio::test]
async fn a_redirect_is_not_followed_whatever_the_repository_says() {
    let place = Place::cloned();
    let inside = Files::serve(place.path(""), None).await;
    let to = format!("http://{}", inside.address);
    let outside = Files::answer(move |request: &Request, _: &str| {
        let place = format!("{to}{}", request.uri());
        (StatusCode::FOUND, [(header::LOCATION, place)]).into_response()
    })
    .await;
    let url = outside.url("upstream/.git");
    let workspace = place.path("workspace");
    // A setting for the address would win over one for all addresses.
    let key = format!("http.{}.followRedirects", url.as_str());
    git(&workspace, &["config", &key, "true"]);
    let (outcome, detail) = outcome(over_http(&place, url)).await;
    assert_eq!(outcome, "failed");
    assert!(detail.contains("302"), "{detail}");
    assert!(outside.asked() > 0);
    assert_eq!(inside.asked(), 0);
}

#[tokio::test]
async fn a_token_is_shown_to_its_own_host_and_written_nowhere() {
    let place = Place::cloned();
    // `user:hunter2-canary-9b1c`
    let server = Files::serve(place.path(""), Some("Basic dXNlcjpodW50ZXIyLWNhbmFyeS05YjFj")).await;
    place.write("upstream/file", "two\n");
    let head = commit(&place.path("upstream"), "second");
    let url = server.url("upstream/.git");
    // An agent's own helper would run, and would be told the token.
    let spy = place.path("spy");
    let helper = format!("!f() {{ cat >> {}; }}; f", spy.display());
    let workspace = place.path("workspace");
    git(&workspace, &["config", "credential.helper", &helper]);
    let key = format!("credential.http://{}.helper", server.address);
    git(&workspace, &["config", &key, &helper]);
    let settings = over_http(&place, url);
    let settings = with_token(&place, settings, &format!("user:{SECRET}\n"));
    let service = Service::start(settings).await;
    let status = service.sync().await;
    assert_eq!(status["head"], head.as_str(), "{status}");
    let metrics = service.client.get("/metrics").await.text;
    service.end().await;
    assert!(!spy.exists(), "the helper of the repository was run");
    for text in [status.to_string(), metrics] {
        assert!(!text.contains(SECRET), "{text}");
    }
    let found = Command::new("grep").args(["-r", SECRET]).arg(&workspace).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

#[tokio::test]
async fn a_server_that_says_the_token_back_is_not_repeated() {
    let place = Place::cloned();
    let server = Files::answer(|_: &Request, shown: &str| {
        if shown.is_empty() {
            let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"git\"")];
            return (StatusCode::UNAUTHORIZED, ask).into_response();
        }
        let words = format!("remote says {SECRET} and http://user:{SECRET}@host/");
        (StatusCode::FORBIDDEN, [(header::CONTENT_TYPE, "text/plain")], words).into_response()
    })
    .await;
    let settings = over_http(&place, server.url("upstream/.git"));
    let (outcome, detail) = outcome(with_token(&place, settings, SECRET)).await;
    assert_eq!(outcome, "failed");
    assert!(detail.contains("403") && !detail.contains(SECRET), "{detail}");
    assert!(!server.shown.lock().unwrap().is_empty(), "it was shown to its own host");
}

#[tokio::test]
async fn an_address_that_the_repository_leads_elsewhere_is_not_asked() {
    let place = Place::cloned();
    let own = Files::serve(place.path(""), None).await;
    let evil = Files::serve(place.path(""), None).await;
    let url = own.url("upstream/.git");
    let (own_base, evil_base) =
        (format!("http://{}/", own.address), format!("http://{}/", evil.address));
    let workspace = place.path("workspace");
    for (key, value, word) in [
        (format!("url.{evil_base}.insteadOf"), own_base, "rewrites"),
        (format!("remote.{}.url", url.as_str()), format!("{evil_base}x"), "named like"),
        (format!("remote.{}.uploadpack", url.as_str()), "touch x".to_owned(), "named like"),
    ] {
        git(&workspace, &["config", &key, &value]);
        let settings = over_http(&place, url.clone());
        let (outcome, detail) = outcome(with_token(&place, settings, SECRET)).await;
        assert_eq!(outcome, "failed", "{key}");
        assert!(detail.contains(word), "{key}: {detail}");
        git(&workspace, &["config", "--unset", &key]);
    }
    assert_eq!((own.asked(), evil.asked()), (0, 0));
    assert!(evil.shown.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_the_repository_adds_to_requests_is_not_sent() {
    let place = Place::cloned();
    let server = Files::serve(place.path(""), None).await;
    let url = server.url("upstream/.git");
    let workspace = place.path("workspace");
    let header = "Authorization: Basic bGVha2Vk";
    git(&workspace, &["config", &format!("http.{}.extraHeader", url.as_str()), header]);
    git(&workspace, &["config", "http.extraHeader", header]);
    let (outcome, detail) = outcome(over_http(&place, url)).await;
    assert_eq!((outcome.as_str(), detail.as_str()), ("up_to_date", ""));
    assert!(server.asked() > 0);
    assert_eq!(*server.shown.lock().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_server_that_never_answers_ends_with_the_service() {
    let place = Place::cloned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = RemoteUrl::unchecked(format!("http://{}/x", listener.local_addr().unwrap()));
    let service = Service::start(over_http(&place, url)).await;
    let (_held, _) = listener.accept().await.unwrap();
    // The commands of this service only: its workspace is in their directory.
    let own = place.path("workspace");
    let children = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let own = own.clone();
        processes.filter(move |p| std::fs::read_link(p.path().join("cwd")).is_ok_and(|d| d == own))
    };
    assert!(children().count() > 0, "Git asks");
    tokio::time::timeout(Duration::from_secs(2), service.end()).await.unwrap();
    eventually("no Git is left", || async { (children().count() == 0).then_some(()) }).await;
}

/// A repository of a few hundred bytes that checks out to a million files.
fn bomb(place: &Place) {
    let upstream = place.path("upstream");
    place.write("boom", "boom");
    let blob = git(&upstream, &["hash-object", "-w", place.path("boom").to_str().unwrap()]);
    let (mut object, mut kind) = (blob, "100644 blob");
    for _ in 0..6 {
        let entries: String = (0..10).map(|n| format!("{kind} {object}\tf{n}\n")).collect();
        place.write("entries", &entries);
        let input = std::fs::File::open(place.path("entries")).unwrap();
        let made = Command::new("git").arg("mktree").current_dir(&upstream).stdin(input).output();
        object = String::from_utf8(made.unwrap().stdout).unwrap().trim().to_owned();
        kind = "040000 tree";
    }
    let commit = git(&upstream, &["commit-tree", "-p", "main", "-m", "boom", &object]);
    git(&upstream, &["update-ref", "refs/heads/main", &commit]);
}

#[tokio::test]
async fn a_bomb_is_counted_and_not_checked_out() {
    let place = Place::cloned();
    let head = git(&place.path("workspace"), &["rev-parse", "HEAD"]);
    bomb(&place);
    let (outcome, detail) = outcome(place.settings(place.remote())).await;
    assert_eq!(outcome, "failed");
    assert!(detail.contains("more than 100000 files"), "{detail}");
    assert_eq!(git(&place.path("workspace"), &["rev-parse", "HEAD"]), head);
    // Nor as a worktree of a preview.
    git(&place.path("upstream"), &["branch", "staging", "main"]);
    let failed = run_once(place.settings_with(&[("stage", "staging")])).await.unwrap_err();
    assert!(failed.contains("more than 100000 files"), "{failed}");
    assert!(!place.exists("worktrees/stage"));
}

#[tokio::test]
async fn submodules_are_not_fetched() {
    let place = Place::cloned();
    let upstream = place.path("upstream");
    let module = format!("[submodule \"x\"]\n\tpath = x\n\turl = file://{}\n", upstream.display());
    place.write("upstream/.gitmodules", &module);
    let head = git(&upstream, &["rev-parse", "HEAD"]);
    let entry = format!("160000,{head},x");
    git(&upstream, &["update-index", "--add", "--cacheinfo", &entry]);
    git(&upstream, &["add", ".gitmodules"]);
    git(&upstream, &["commit", "-q", "-m", "module"]);
    git(&place.path("workspace"), &["config", "submodule.recurse", "true"]);
    git(&place.path("workspace"), &["config", "fetch.recurseSubmodules", "true"]);
    let service = Service::start(place.settings(place.remote())).await;
    assert_eq!(service.sync().await["outcome"], "up_to_date");
    assert!(place.exists("workspace/.gitmodules") && !place.exists("workspace/.git/modules"));
    // And what would run something does not even come in.
    let evil = format!("{module}\tupdate = !touch {}\n", place.path("ran-submodule").display());
    place.write("upstream/.gitmodules", &evil);
    git(&upstream, &["commit", "-q", "-a", "-m", "evil"]);
    let status = service.sync().await;
    let detail = status["detail"].as_str().unwrap();
    assert!(detail.contains("disallowed submodule update setting"), "{status}");
    service.end().await;
    assert!(!place.exists("ran-submodule"));
}

/// A program that leaves a file when it is run.
fn trap(place: &Place, name: &str) -> String {
    let path = place.path(&format!("trap-{name}"));
    let script = format!("#!/bin/sh\ntouch {}\nexec cat\n", place.path(name).display());
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn merge_drivers_of_the_repository_are_not_run() {
    let place = Place::cloned();
    let workspace = place.path("workspace");
    git(&workspace, &["config", "merge.evil.driver", &trap(&place, "ran-driver")]);
    git(&workspace, &["config", "merge.default", "evil"]);
    place.write("workspace/.git/info/attributes", "* merge=evil\n");
    place.write("workspace/file", "mine\n");
    commit(&workspace, "mine");
    place.write("upstream/file", "theirs\n");
    commit(&place.path("upstream"), "theirs");
    let service = Service::start(place.settings(place.remote())).await;
    for strategy in ["merge", "rebase"] {
        let status = service.join(strategy).await;
        assert_eq!(status["outcome"], "conflict", "{status}");
    }
    service.end().await;
    assert!(!place.exists("ran-driver"));
    assert_eq!(place.read("workspace/file"), "mine\n");
}

#[tokio::test]
async fn filters_of_a_worktree_and_of_a_commit_are_not_run() {
    let place = Place::cloned();
    let (workspace, upstream) = (place.path("workspace"), place.path("upstream"));
    git(&upstream, &["branch", "staging"]);
    run_once(place.settings_with(&[("stage", "staging")])).await.unwrap();
    git(&workspace, &["config", "extensions.worktreeConfig", "true"]);
    let (clean, smudge) = (trap(&place, "ran-clean"), trap(&place, "ran-smudge"));
    let worktree = place.path("worktrees/stage");
    git(&worktree, &["config", "--worktree", "filter.evil.clean", &clean]);
    git(&worktree, &["config", "--worktree", "filter.evil.smudge", &smudge]);
    git(&workspace, &["config", "filter.lfs.clean", &clean]);
    git(&workspace, &["config", "filter.lfs.smudge", &smudge]);
    git(&workspace, &["config", "filter.lfs.process", &clean]);
    git(&upstream, &["checkout", "-q", "staging"]);
    place.write("upstream/.gitattributes", "* filter=evil\n*.bin filter=lfs\n");
    place.write("upstream/page", "new\n");
    place.write("upstream/x.bin", "version https://git-lfs.github.com/spec/v1\n");
    commit(&upstream, "with filters");
    let service = Service::start(place.settings_with(&[("stage", "staging")])).await;
    let status = service.sync().await;
    assert_ne!(status["worktrees"][0]["state"], "failed", "{status}");
    assert_eq!(place.read("worktrees/stage/page"), "new\n");
    place.write("workspace/y.bin", "mine\n");
    place.write("workspace/.gitattributes", "*.bin filter=lfs\n");
    let body = json!({"agent": "one", "message": "m"});
    let answer = service.client.post("/commit", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    service.end().await;
    assert!(!place.exists("ran-clean") && !place.exists("ran-smudge"));
}
