//! A headless Chromium, spoken to over its own debugging protocol.
//!
//! Chromium takes the protocol's messages from two inherited pipes (`--remote-debugging-pipe`),
//! each a JSON object that ends with a NUL. So no port is opened, nothing else speaks in between,
//! and no crate is needed for it (docs/adr/0037).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

use crate::place::until;

/// One call: the first waits for the whole browser, on two cores that are busy.
const CALL_MAX: Duration = Duration::from_secs(90);

/// How long a page may take to become as expected: Next compiles it, on half a core.
pub(crate) const PAGE_MAX: Duration = Duration::from_secs(90);

/// A browser that ends with the test.
pub(crate) struct Browser {
    child: Child,
    profile: tempfile::TempDir,
    line: Arc<Line>,
}

/// The pipes, and what came through them.
struct Line {
    to: tokio::sync::Mutex<ChildStdin>,
    waiting: Mutex<Waiting>,
    events: Mutex<Vec<Value>>,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    answers: HashMap<u64, oneshot::Sender<Value>>,
}

impl Browser {
    /// Starts one with a profile of its own, and more flags.
    pub(crate) fn start(flags: &[&str]) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            // The pipes that we can give are stdin and stdout; Chromium wants them as 3 and 4.
            .args(["-c", "exec chromium \"$@\" 3<&0 4>&1 0</dev/null 1>&2", "chromium"])
            .args([
                "--headless",
                "--remote-debugging-pipe",
                // Its sandbox refuses root; the pages are the tests' own.
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
                "--no-proxy-server",
                "--window-size=1000,700",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("sh is there");
        let to = tokio::sync::Mutex::new(child.stdin.take().unwrap());
        let from = child.stdout.take().unwrap();
        let line = Arc::new(Line { to, waiting: Mutex::default(), events: Mutex::default() });
        tokio::spawn(read(from, Arc::clone(&line)));
        Self { child, profile, line }
    }

    /// Opens an empty page.
    pub(crate) async fn page(&self) -> Page {
        let line = Arc::clone(&self.line);
        let target = line.call(None, "Target.createTarget", json!({"url": "about:blank"})).await;
        let target = target.expect("a page opens");
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = line.call(None, "Target.attachToTarget", attach).await.expect("it is there");
        let session = attached["sessionId"].as_str().expect("a session has an id").to_owned();
        let page = Page { line, session };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({})).await;
        }
        page
    }

    /// Lets it end by itself, with the processes that write into its profile.
    pub(crate) async fn end(mut self) {
        self.line.call(None, "Browser.close", json!({})).await.expect("it ends when asked");
        let ended = tokio::time::timeout(CALL_MAX, self.child.wait()).await;
        ended.expect("it ends in time").unwrap();
        // What a helper of it still writes is the temporary directory's to keep.
        let _ = self.profile.close();
    }
}

/// Hands every message to whom it belongs, until the browser ends.
async fn read(from: ChildStdout, line: Arc<Line>) {
    let mut from = BufReader::new(from);
    let mut message = Vec::new();
    while let Ok(1..) = from.read_until(0, &mut message).await {
        message.pop();
        let value: Value = serde_json::from_slice(&message).expect("the browser writes JSON");
        message.clear();
        match value["id"].as_u64() {
            Some(id) => {
                let waiting = line.waiting.lock().unwrap().answers.remove(&id);
                // Whoever asked may have stopped waiting.
                let _ = waiting.map(|answer| answer.send(value));
            }
            None => line.events.lock().unwrap().push(value),
        }
    }
    // Whoever still waits is told at once.
    line.waiting.lock().unwrap().answers.clear();
}

impl Line {
    /// Asks for something; an error is the page's, which may just be on its way elsewhere.
    async fn call(
        &self,
        session: Option<&str>,
        method: &str,
        params: Value,
    ) -> Result<Value, Value> {
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut waiting = self.waiting.lock().unwrap();
            waiting.last += 1;
            let id = waiting.last;
            waiting.answers.insert(id, answer);
            id
        };
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut text = message.to_string();
        text.push('\0');
        let told = self.to.lock().await.write_all(text.as_bytes()).await;
        told.expect("the browser listens; `ops/setup.sh --tests` installs chromium");
        let answer = tokio::time::timeout(CALL_MAX, answered).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer to {method}"));
        let answer = answer.expect("the browser lives; `ops/setup.sh --tests` installs chromium");
        match answer.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(answer["result"].clone()),
        }
    }
}

/// A page of a browser.
pub(crate) struct Page {
    line: Arc<Line>,
    session: String,
}

/// A websocket that a page opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) url: String,
    /// The server agreed.
    pub(crate) open: bool,
    /// The server said something.
    pub(crate) heard: bool,
}

impl Page {
    async fn call(&self, method: &str, params: Value) -> Value {
        let answer = self.line.call(Some(&self.session), method, params).await;
        answer.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Goes to an address.
    pub(crate) async fn open(&self, url: &str) {
        let went = self.call("Page.navigate", json!({"url": url})).await;
        assert!(went.get("errorText").is_none(), "{url}: {}", went["errorText"]);
    }

    /// What an expression is in the page; of a promise, what it becomes.
    pub(crate) async fn value(&self, expression: &str) -> Value {
        let params = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true,
        });
        let said = self.call("Runtime.evaluate", params).await;
        assert!(said.get("exceptionDetails").is_none(), "{expression}: {said}");
        said["result"]["value"].clone()
    }

    /// The text that a reader sees.
    pub(crate) async fn text(&self) -> String {
        let params = json!({"expression": "document.body?.innerText ?? ''", "returnByValue": true});
        // A page that is being left has no text.
        let said = self.line.call(Some(&self.session), "Runtime.evaluate", params).await;
        let said = said.unwrap_or_default();
        said["result"]["value"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a reader sees a text.
    pub(crate) async fn until_shows(&self, text: &str) {
        let mut last = String::new();
        let seen = until("the page shows it", 2 * PAGE_MAX, async || {
            last = self.text().await;
            last.contains(text).then_some(())
        });
        if tokio::time::timeout(PAGE_MAX, seen).await.is_err() {
            panic!("the page never showed {text:?} but {last:?}; {:?}", self.problems());
        }
    }

    /// Clicks what a selector names.
    pub(crate) async fn click(&self, selector: &str) {
        let click = format!("document.querySelector({selector:?}).click()");
        self.value(&click).await;
    }

    /// Sets the size of the page, and whether its user likes the dark.
    pub(crate) async fn look(&self, width: u32, height: u32, dark: bool) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500,
        });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let value = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// What the page asks for at these addresses fails from now on.
    pub(crate) async fn block(&self, addresses: &[&str]) {
        self.call("Network.setBlockedURLs", json!({"urls": addresses})).await;
    }

    /// Whether the page has a network.
    pub(crate) async fn connect(&self, on: bool) {
        let how = json!({
            "offline": !on, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1,
        });
        self.call("Network.emulateNetworkConditions", how).await;
    }

    /// From now on no script of a page runs.
    pub(crate) async fn forbid_scripts(&self) {
        self.call("Emulation.setScriptExecutionDisabled", json!({"value": true})).await;
    }

    fn events(&self) -> Vec<Value> {
        let all = self.line.events.lock().unwrap();
        all.iter().filter(|event| event["sessionId"] == self.session.as_str()).cloned().collect()
    }

    /// Forgets what the page said so far.
    pub(crate) fn forget(&self) {
        self.line
            .events
            .lock()
            .unwrap()
            .retain(|event| event["sessionId"] != self.session.as_str());
    }

    /// Errors of the console, exceptions, and what could not be loaded.
    pub(crate) fn problems(&self) -> Vec<String> {
        let events = self.events();
        let problems = events.iter().filter_map(|event| {
            let params = &event["params"];
            match event["method"].as_str()? {
                "Runtime.consoleAPICalled" if params["type"] == "error" => {
                    let words = params["args"].as_array()?.iter();
                    let words = words.map(|word| match word["value"].as_str() {
                        Some(word) => word.to_owned(),
                        None => word["description"].to_string(),
                    });
                    Some(words.collect::<Vec<_>>().join(" "))
                }
                "Runtime.exceptionThrown" => Some(params["exceptionDetails"].to_string()),
                "Log.entryAdded" if params["entry"]["level"] == "error" => {
                    let (text, url) = (&params["entry"]["text"], &params["entry"]["url"]);
                    // A browser asks for it whether the page has one or not.
                    let icon = url.as_str().is_some_and(|url| url.ends_with("/favicon.ico"));
                    (!icon).then(|| format!("{text} {url}"))
                }
                _ => None,
            }
        });
        problems.collect()
    }

    /// Websockets, in the order in which they were opened.
    pub(crate) fn sockets(&self) -> Vec<Socket> {
        let mut sockets: Vec<(Value, Socket)> = Vec::new();
        for event in self.events() {
            let params = &event["params"];
            let known = sockets.iter_mut().find(|(id, _)| *id == params["requestId"]);
            match (event["method"].as_str(), known) {
                (Some("Network.webSocketCreated"), _) => {
                    let url = params["url"].as_str().unwrap_or_default().to_owned();
                    let socket = Socket { url, ..Socket::default() };
                    sockets.push((params["requestId"].clone(), socket));
                }
                (Some("Network.webSocketHandshakeResponseReceived"), Some((_, socket))) => {
                    socket.open = params["response"]["status"] == 101;
                }
                (Some("Network.webSocketFrameReceived"), Some((_, socket))) => socket.heard = true,
                _ => {}
            }
        }
        sockets.into_iter().map(|(_, socket)| socket).collect()
    }

    /// Waits until the page has a websocket on which the server spoke.
    pub(crate) async fn until_connected(&self) -> Socket {
        until("the page hears from its server", PAGE_MAX, async || {
            self.sockets().into_iter().find(|socket| socket.open && socket.heard)
        })
        .await
    }

    /// Keeps what is seen, as `target/screenshots/NAME.png`.
    pub(crate) async fn screenshot(&self, name: &str) -> PathBuf {
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        let picture = picture["data"].as_str().expect("a picture has data");
        let bytes = base64::engine::general_purpose::STANDARD.decode(picture).unwrap();
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let path = target.join("screenshots").join(format!("{name}.png"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }
}
