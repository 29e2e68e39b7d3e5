//! A project that no image of Covibes runs, from its own Dockerfile: where the host allows it,
//! held, built once, and shown; refused with a word about who may change that elsewhere.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::docker::{self, docker};
use crate::net::until_page_holds;
use crate::place::Place;
use crate::projects::give;

/// Perl is in every Debian; nothing is fetched.
const SERVER: &str = r#"
use IO::Socket::INET;
my $server = IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => 4000, Listen => 5,
  ReuseAddr => 1) or die $!;
sub text { open my $file, '<', $_[0] or return "no $_[0]"; local $/; return <$file> }
while (my $client = $server->accept) {
  while (defined(my $line = <$client>)) { last if $line =~ /^\r?\n/ }
  my $body = join ', ', map { text($_) } ('/opt/greeting', '/opt/limit', '/opt/way', 'page.txt');
  print $client "HTTP/1.1 200 OK\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
  close $client;
}
"#;

/// What each instruction may use is seen from within.
const DOCKERFILE: &str = r#"
FROM covibes/debian:bookworm
COPY greeting /opt/greeting
RUN cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null \
    | head -1 | tr -d '\n' >/opt/limit
RUN perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(PeerAddr => "1.1.1.1:80", Timeout => 3) \
    ? "out" : "no way out"' >/opt/way
EXPOSE 4000
CMD ["perl", "server.pl"]
"#;

fn project(place: &Place, name: &str, dockerfile: &str) -> PathBuf {
    let path = place.directory(name);
    let files = [
        ("server.pl", SERVER),
        ("greeting", "hello"),
        ("page.txt", "first"),
        ("Dockerfile", dockerfile),
    ];
    for (file, text) in files {
        std::fs::write(path.join(file), text).unwrap();
    }
    let file = "preview: {command: exec perl server.pl, port: 4000}\n";
    std::fs::write(path.join(".covibes.yml"), file).unwrap();
    give(&path);
    path
}

/// How a start fails.
async fn refused(place: &Place, path: &Path) -> Value {
    let team = path.file_name().unwrap().to_str().unwrap();
    let up = ["up", path.to_str().unwrap(), "--team", team, "--agents", "0", "--json"];
    let ended = place.run(&up).await;
    let failure = ended.events().one("job.failed")["data"]["failure"].clone();
    place.assert_gone(team).await;
    failure
}

async fn own_images() -> Vec<String> {
    let mut all = Vec::new();
    for name in ["covibes/own", "covibes/own-base"] {
        let listed = docker(&["image", "ls", "--format={{.Repository}}:{{.Tag}}", name]).await;
        all.extend(listed.lines().map(str::to_owned));
    }
    all
}

#[tokio::test]
async fn a_dockerfile_of_the_repositorys_own_is_built_once_where_the_host_allows_it() {
    let mut place = Place::new().await;
    let before = own_images().await;
    let app = project(&place, "app", DOCKERFILE);
    let failure = refused(&place, &app).await;
    assert_eq!(failure["code"], "build.dockerfile_not_allowed", "{failure}");
    assert!(failure["hint"].as_str().unwrap().contains("`preview.dockerfile_bases`"), "{failure}");

    place.set("COVIBES_PREVIEW_DOCKERFILE_BASES", r#"["covibes/debian"]"#);
    for (name, line, word) in [
        ("other-base", "FROM evil.example/x\n", "evil.example/x"),
        ("frontend", "# syntax=evil.example/x\nFROM covibes/debian:bookworm\n", "# syntax="),
    ] {
        let failure = refused(&place, &project(&place, name, line)).await;
        assert_eq!(failure["code"], "build.dockerfile_refused", "{failure}");
        assert!(failure["message"].as_str().unwrap().contains(word), "{failure}");
    }
    let broken = "FROM covibes/debian:bookworm\nRUN echo 'it gives up' && exit 3\n";
    let failure = refused(&place, &project(&place, "broken", broken)).await;
    assert_eq!(
        (&failure["code"], &failure["fault"]),
        (&"build.dockerfile_failed".into(), &"tenant".into())
    );
    assert!(failure["log"].to_string().contains("it gives up"), "{failure}");

    let up = ["up", app.to_str().unwrap(), "--team", "own", "--agents", "0", "--json"];
    let link = place.done(&up).await.link("main");
    let limit = 1 << 30;
    until_page_holds(&link, "/", &format!("hello, {limit}, no way out, first")).await;
    // The workspace is shown, and not the copy that the image holds.
    std::fs::write(app.join("page.txt"), "second").unwrap();
    until_page_holds(&link, "/", "second").await;
    let all = docker::ids(&place.instance, "own").await;
    let preview = all.keys().find(|name| name.contains("_preview_")).unwrap().clone();
    let inspected = docker::inspect(&preview).await;
    assert_eq!(inspected["Config"]["User"].as_str().unwrap().split(':').next(), Some("1000"));
    assert_eq!(inspected["HostConfig"]["ReadonlyRootfs"], true);
    let image = inspected["Config"]["Image"].clone();

    // Its content is its name: the same is there already, another is built.
    std::fs::write(app.join("page.txt"), "first").unwrap();
    assert!(!place.done(&up).await.changed());
    std::fs::write(app.join("greeting"), "good day").unwrap();
    let link = place.done(&up).await.link("main");
    until_page_holds(&link, "/", "good day").await;
    assert_ne!(docker::inspect(&preview).await["Config"]["Image"], image);

    place.done(&["destroy", "own", "--json"]).await;
    place.assert_gone("own").await;
    for image in own_images().await.iter().filter(|image| !before.contains(image)) {
        docker(&["image", "rm", "--force", image]).await;
    }
}
