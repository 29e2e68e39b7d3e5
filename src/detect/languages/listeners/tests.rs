//! How people write the port of a server, in every language.

use super::*;

const ANY: Shapes = Shapes {
    comments: &["//"],
    calls: &["ListenAndServe(", ".Run(", ".Start(", "bind(", "listen(", "run(", "scotty "],
    keys: &["port"],
};

fn check(text: &str) -> Option<u16> {
    let text = without_comments(text, ANY.comments);
    port(&[("main".into(), text)], &ANY).map(|(port, _)| port)
}

#[test]
fn addresses_are_read_where_calls_are_given_them() {
    assert_eq!(check("http.ListenAndServe(\":8080\", nil)"), Some(8080));
    assert_eq!(check("r.Run()"), None);
    assert_eq!(check("e.Logger.Fatal(e.Start(\":1323\"))"), Some(1323));
    assert_eq!(check(".bind((\"127.0.0.1\", 8081))?"), Some(8081));
    assert_eq!(check("TcpListener::bind(\"0.0.0.0:3000\").await"), Some(3000));
    assert_eq!(
        check("let addr = SocketAddr::from(([127, 0, 0, 1], 3001));\nbind(&addr)"),
        Some(3001)
    );
    assert_eq!(check("svr.listen(\"0.0.0.0\", 9090);"), Some(9090));
    assert_eq!(check("main = scotty 3002 $ do"), Some(3002));
    assert_eq!(check("run(host='127.0.0.1', port=5050)"), Some(5050));
}

#[test]
fn variables_and_the_environment_are_followed() {
    let go = "port := os.Getenv(\"PORT\")\nif port == \"\" {\n\tport = \"8082\"\n}\n\
        http.ListenAndServe(\":\"+port, nil)";
    assert_eq!(check(go), Some(8082));
    let rust = "let port: u16 = env::var(\"PORT\")\n    .unwrap_or_else(|_| \"3003\".into())\n\
        .parse().unwrap();\nlet addr = format!(\"0.0.0.0:{port}\");\nbind(addr)";
    assert_eq!(check(rust), Some(3003));
    assert_eq!(
        check("const addr = \":4040\"\nfunc main() { ListenAndServe(addr, nil) }"),
        Some(4040)
    );
    assert_eq!(check("run(port=int(os.environ.get('PORT', 8083)))"), Some(8083));
    assert_eq!(
        check("type C struct {\n Port int `env:\"PORT\" envDefault:\"8084\"`\n}"),
        Some(8084)
    );
}

#[test]
fn hostile_code_is_read_in_time() {
    // Each of these once took time that grows with the square, or with every variable.
    let lines = [
        "// x // y // \" // z",
        "run(port, addr, bind)",
        "port = addr\naddr = port",
        "_PORT",
        "port",
    ];
    for line in lines {
        let text = format!("{line}\n").repeat(100_000 / line.len());
        assert_eq!(check(&text), None);
        assert_eq!(check(&text.replace('\n', " ")), None);
        assert_eq!(check(&text.replace('\n', "")), None);
    }
}

#[test]
fn other_numbers_are_no_ports() {
    assert_eq!(check("// ListenAndServe(\":8080\")"), None);
    assert_eq!(check("/* listen(8080)\n listen(8081) */\nx()"), None);
    assert_eq!(check("redis.connect(\"localhost:6379\")"), None);
    assert_eq!(check("SMTP_PORT = 2525"), None);
    assert_eq!(check("run(workers=4)"), None);
    assert_eq!(check("ListenAndServe(\":\" + os.Getenv(\"PORT\"), nil)"), None);
}
