//! What Git's words mean, and the script that clones, with the real Git against
//! repositories that mean no good.

use std::path::Path;
use std::process::{Command, Output};

use super::*;

#[test]
fn gits_words_become_one_code_each() {
    let code = |line: &str| {
        git_failure(Ended { exit_code: 128, oom_killed: false, lines: vec![line.to_owned()] }).code
    };
    assert_eq!(code("fatal: Authentication failed for 'x'"), Code::GitAuthFailed);
    assert_eq!(
        code("warning: Could not find remote branch x; Remote branch x not found"),
        Code::GitInvalidRef
    );
    assert_eq!(code("The requested URL returned error: 302"), Code::GitRedirectRefused);
    assert_eq!(code("fatal: repository 'x' not found"), Code::GitNotFound);
    assert_eq!(code("Failed to connect to 127.0.0.1 port 1"), Code::GitUnreachable);
    assert_eq!(code("covibes-too-many-files"), Code::GitTooManyFiles);
    let text = "git count failed: the remote's commit holds more than 100000 files";
    assert_eq!(code(text), Code::GitTooManyFiles);
    let text = "git count failed: the remote's commit holds more than 10240 MB";
    assert_eq!(code(text), Code::GitTooLarge);
    // As Git says it: with the signal that ends a program, and where it is ignored.
    let text = "error: index-pack died of signal 25\nfatal: fetch-pack: invalid index-pack output";
    assert_eq!(code(text), Code::GitTooLarge);
    let text = "fatal: write error: File too large\nfatal: early EOF";
    assert_eq!(code(text), Code::GitTooLarge);
    assert_eq!(code("error: index-pack died of signal 9\nfatal: early EOF"), Code::GitTooLarge);
    let slow = "error: RPC failed; curl 28 Operation too slow. Less than 1 bytes/sec transferred \
                the last 45 seconds\nfatal: early EOF";
    assert_eq!(code(slow), Code::GitTimeout);
    let stalled = "git fetch was ended: the server sent nothing for 90 s";
    assert_eq!(code(stalled), Code::GitTimeout);
    assert_eq!(code("git fetch took longer than 1800 s"), Code::GitTimeout);
    let cut = "error: RPC failed; curl 18 transfer closed with outstanding read data remaining";
    assert_eq!(code(cut), Code::GitUnreachable);
    let both = "git@x: Permission denied (publickey).\nfatal: the remote end hung up unexpectedly";
    assert_eq!(code(both), Code::GitAuthFailed);
    assert_eq!(code("Host key verification failed."), Code::GitHostKey);
}

/// A hostile upstream, and the place that a clone fills.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Self { dir };
        for name in ["upstream", "clone"] {
            std::fs::create_dir(place.path(name)).unwrap();
        }
        place.git(&["init", "-q", "-b", "main"]);
        place.write("file", "one\n");
        place.commit();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path("upstream").join(name), text).unwrap();
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=t", "-c", "user.email=t@example.org"]).args(arguments);
        command.current_dir(self.path("upstream")).env("GIT_CONFIG_GLOBAL", "/dev/null");
        let output = command.output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {words}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "-q", "-m", "a commit"]);
    }

    /// Runs the script as the one-shot container does, but for the transport.
    fn clone(&self, url: &str, variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", &format!("{GIT}{CLONE}")])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .envs(GIT_ENV.iter().copied())
            .env("HOME", self.dir.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_ALLOW_PROTOCOL", "file")
            .env("GIT_URL", url)
            .env("CLONE_INTO", self.path("clone"))
            .env("FILES_MAX", "100000")
            .env("BYTES_MAX", "1000000")
            .envs(variables.iter().copied());
        command.output().unwrap()
    }

    fn clone_own(&self, variables: &[(&str, &str)]) -> Output {
        self.clone(&format!("file://{}", self.path("upstream").display()), variables)
    }
}

fn said(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn a_plain_repository_is_cloned_and_its_head_told() {
    let place = Place::new();
    let output = place.clone_own(&[("GIT_REF", "main")]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("covibes-head main "), "{}", said(&output));
    assert_eq!(std::fs::read_to_string(place.path("clone/file")).unwrap(), "one\n");
}

#[test]
fn too_many_files_and_too_many_bytes_are_not_checked_out() {
    let place = Place::new();
    for number in 0..20 {
        place.write(&format!("f{number}"), &"x".repeat(1000));
    }
    place.commit();
    for (variable, word) in [
        (("FILES_MAX", "10"), "covibes-too-many-files"),
        (("BYTES_MAX", "8192"), "covibes-too-large"),
    ] {
        let output = place.clone_own(&[variable]);
        assert!(!output.status.success() && said(&output).contains(word), "{}", said(&output));
        assert!(!place.path("clone/file").exists());
        std::fs::remove_dir_all(place.path("clone")).unwrap();
        std::fs::create_dir(place.path("clone")).unwrap();
    }
}

#[test]
fn what_a_server_sends_may_be_no_larger_than_a_workspace() {
    let place = Place::new();
    // It does not get smaller.
    let noise: Vec<u8> =
        (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(place.path("upstream").join("noise"), noise).unwrap();
    place.commit();
    let output = place.clone_own(&[("BYTES_MAX", "102400")]);
    assert!(!output.status.success(), "{}", said(&output));
    let lines = said(&output).lines().map(str::to_owned).collect();
    let failure = git_failure(Ended { exit_code: 128, oom_killed: false, lines });
    assert_eq!(failure.code, Code::GitTooLarge, "{}", said(&output));
}

#[test]
fn neither_a_transport_nor_an_option_runs_a_program() {
    let place = Place::new();
    let ran = place.path("ran");
    let touch = format!("touch {}", ran.display());
    for url in [
        format!("ext::sh -c touch% {}", ran.display()),
        format!("--upload-pack={touch}"),
        format!("-u{touch}"),
        format!("ssh://-oProxyCommand={touch}/x"),
        "http://127.0.0.1:9/x".to_owned(),
        "git://127.0.0.1:9/x".to_owned(),
    ] {
        let output = place.clone(&url, &[]);
        assert!(!output.status.success(), "{url}: {}", said(&output));
        assert!(!ran.exists(), "{url}");
    }
    // A branch that looks like an option is none.
    let output = place.clone_own(&[("GIT_REF", &format!("--upload-pack={touch}"))]);
    assert!(!output.status.success() && !ran.exists(), "{}", said(&output));
}

#[test]
fn nothing_of_the_repository_is_run_or_fetched_besides() {
    let place = Place::new();
    let upstream = place.path("upstream");
    let ran = place.path("ran");
    let module = format!("[submodule \"x\"]\n\tpath = x\n\turl = file://{}\n", upstream.display());
    place.write(".gitmodules", &module);
    place.write(".gitattributes", "* filter=lfs\n");
    place.write("large", "version https://git-lfs.github.com/spec/v1\n");
    std::os::unix::fs::symlink("/etc", upstream.join("outside")).unwrap();
    place.commit();
    let head = place.git(&["rev-parse", "HEAD"]);
    place.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{head},x")]);
    place.git(&["commit", "-q", "-m", "module"]);
    // A list of bundles, which a clone would fetch first.
    let bundle = place.path("bundle");
    place.git(&["bundle", "create", "-q", bundle.to_str().unwrap(), "main"]);
    let uri = format!("file://{}", bundle.display());
    for (key, value) in [
        ("uploadpack.advertiseBundleURIs", "true"),
        ("bundle.version", "1"),
        ("bundle.mode", "all"),
        ("bundle.one.uri", &uri),
    ] {
        place.git(&["config", key, value]);
    }
    // What a person's own configuration would run.
    let config =
        format!("[filter \"lfs\"]\n\tsmudge = touch {0}\n\tprocess = touch {0}\n", ran.display());
    std::fs::write(place.path(".gitconfig"), config).unwrap();
    let template = place.path("template/hooks");
    std::fs::create_dir_all(&template).unwrap();
    let output = place.clone_own(&[("GIT_TEMPLATE_DIR", place.path("template").to_str().unwrap())]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(!ran.exists());
    let clone = place.path("clone");
    assert!(!clone.join(".git/modules").exists() && !clone.join(".git/hooks").exists());
    let refs = Command::new("git").arg("for-each-ref").current_dir(&clone).output().unwrap();
    let refs = String::from_utf8_lossy(&refs.stdout).into_owned();
    assert!(!refs.contains("refs/bundles"), "{refs}");
    // A link is a link: whoever reads it does not follow it.
    assert!(Path::new(&clone.join("outside")).symlink_metadata().unwrap().is_symlink());
}

/// A server that answers with some bytes and then says nothing more; or with one
/// after the other, so many times after such a pause, and is gone then.
async fn slow_server(pieces: Option<(usize, Duration)>) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/app.git", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: \
                        application/x-git-upload-pack-advertisement\r\nContent-Length: 9000\r\n\r\n\
                        001e# service=git-upload-pack\n0000";
            let _ = stream.write_all(head.as_bytes()).await;
            let Some((count, pause)) = pieces else {
                // Until the other side has had enough.
                let _ = stream.read_to_end(&mut Vec::new()).await;
                continue;
            };
            for _ in 0..count {
                // The pace is what is tested.
                tokio::time::sleep(pause).await;
                let _ = stream.write_all(b"0").await;
            }
        }
    });
    url
}

async fn clone_from_slow(pieces: Option<(usize, Duration)>) -> Failure {
    let url = slow_server(pieces).await;
    let cloned = tokio::task::spawn_blocking(move || {
        let variables = [("GIT_ALLOW_PROTOCOL", "http"), ("STALL_SECONDS", "2")];
        Place::new().clone(&url, &variables)
    });
    let output = cloned.await.unwrap();
    assert!(!output.status.success());
    let lines = said(&output).lines().map(str::to_owned).collect();
    git_failure(Ended { exit_code: 128, oom_killed: false, lines })
}

#[tokio::test]
async fn a_clone_from_a_server_that_stalls_is_ended_and_from_a_slow_one_is_not() {
    let stalled = clone_from_slow(None).await;
    assert_eq!(stalled.code, Code::GitTimeout, "{stalled:?}");
    // It moved for three times as long, and then it was the server that went.
    let began = Instant::now();
    let slow = clone_from_slow(Some((14, Duration::from_millis(500)))).await;
    assert_eq!(slow.code, Code::GitUnreachable, "{slow:?}");
    assert!(began.elapsed() >= Duration::from_secs(7));
}

#[test]
fn a_token_is_handed_to_its_host_only_and_kept_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    let ask = |word: &str, question: &str, written: &str| {
        std::fs::write(&token, written).unwrap();
        let helper = CREDENTIAL_HELPER.trim_end().strip_prefix('!').unwrap();
        let question_file = dir.path().join("question");
        std::fs::write(&question_file, question).unwrap();
        let output = Command::new("/bin/sh")
            .args(["-c", &format!("{helper} {word}")])
            .env("COVIBES_GIT_TOKEN_FILE", &token)
            .env("COVIBES_TOKEN_FOR", "https://git.example:8443")
            .stdin(std::fs::File::open(question_file).unwrap())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let own = "protocol=https\nhost=git.example:8443\n\n";
    assert_eq!(ask("get", own, "abc\n"), "username=x-access-token\npassword=abc\n");
    assert_eq!(ask("get", own, "me:a:b"), "username=me\npassword=a:b\n");
    assert_eq!(ask("store", own, "abc"), "");
    assert_eq!(ask("erase", own, "abc"), "");
    for other in [
        "protocol=https\nhost=git.example\n\n",
        "protocol=http\nhost=git.example:8443\n\n",
        "protocol=https\nhost=evil.example\nhost=git.example:8443.evil\n\n",
        "",
    ] {
        assert_eq!(ask("get", other, "abc"), "", "{other:?}");
    }
}
