//! Single rules of the explicit inputs; whole projects are in `tests/projects/explicit`.

use super::command::Command;
use super::server::Kind;
use super::*;
use crate::detect::tree::MemoryTree;

fn found(files: &[(&str, &str)]) -> Findings {
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
    crate::detect::detect(&MemoryTree::new(files), None).unwrap()
}

fn kind(text: &str) -> Kind {
    let scripts = BTreeMap::from(
        [("dev", "next dev"), ("start", "next start"), ("up", "npm run dev"), ("x", "npm run x")]
            .map(|(name, text)| (name.to_owned(), text.to_owned())),
    );
    Command::parse(text).unwrap().kind(&scripts)
}

#[test]
fn commands_are_told_apart_by_what_they_run() {
    for text in [
        "npm run dev",
        "yarn dev",
        "npm run up",
        "npx vite --host",
        "python manage.py runserver",
        "poetry run uvicorn a:b --reload",
        "flask --app a run",
        "bundle exec rails s",
        "go run .",
        "sh -c 'npm ci && npm run dev'",
        "exec php artisan serve",
        "bin/dev",
        "node --watch a.js",
        "npm run start:docker",
        "./mvnw spring-boot:run",
    ] {
        assert_eq!(kind(text), Kind::Dev, "{text}");
    }
    for text in [
        "npm start",
        "gunicorn a:b",
        "nginx -g x",
        "node dist/main.js",
        "vite preview",
        "java -jar a",
    ] {
        assert_eq!(kind(text), Kind::Production, "{text}");
    }
    for text in ["npm run x", "python app.py", "node server.js", "uvicorn a:b"] {
        assert_eq!(kind(text), Kind::Unclear, "{text}");
    }
}

#[test]
fn what_is_no_chain_of_plain_commands_is_not_taken_apart() {
    for text in
        ["a | b", "a & b", "a > b", "a $(b)", "a `b`", "a \"$(b)\"", "(a)", "'a", "a \\", ""]
    {
        assert_eq!(Command::parse(text), None, "{text}");
    }
    // Only installs are left out, because they are a step of their own.
    assert_eq!(Command::parse("npm ci && pip install -r a.txt"), None);
    let text =
        Command::parse("sh -c \"npm i; A='x y' npm run dev -- -p ${PORT:-1}\"").unwrap().text();
    assert_eq!(text, "A='x y' npm run dev -- -p \"${PORT:-1}\"");
}

#[test]
fn ports_are_read_where_servers_are_told_them() {
    let port = |text: &str| Command::parse(text).unwrap().port();
    for text in [
        "npm run dev -- --port 4000",
        "x --port=4000",
        "x -p 4000",
        "PORT=4000 x",
        "python manage.py runserver 0.0.0.0:4000",
        "python manage.py runserver 4000",
        "gunicorn -b :4000 a",
        "php -S localhost:4000 -t public",
        "x --port ${PORT:-4000}",
        "dotnet watch run --urls http://0.0.0.0:4000",
        "rails s -b 0.0.0.0 -p 4000",
    ] {
        assert_eq!(port(text), Some(4000), "{text}");
    }
    for text in ["tsc -p .", "uvicorn app.main:app", "x db:5432", "x -p 0", "x -p 99999"] {
        assert_eq!(port(text), None, "{text}");
    }
}

#[test]
fn a_script_that_is_not_there_is_not_run() {
    let compose = |command: &str| {
        format!("services:\n  a:\n    build: .\n    command: {command}\n    ports: ['5000:5000']\n")
    };
    let dev = |command: &str| {
        let findings = found(&[
            ("requirements.txt", "flask"),
            ("app.py", "from flask import Flask\napp = Flask(__name__)"),
            ("tools/serve.py", ""),
            ("compose.yaml", &compose(command)),
        ]);
        findings.dev_command().unwrap()
    };
    let detected = dev("nothing");
    assert!(detected.contains("flask"), "{detected}");
    assert_eq!(dev("python tools/serve.py --reload runserver"), detected);
    for command in [
        "uvicorn other.module:app --reload",
        "watchmedo auto-restart python /srv/app.py",
        "./entrypoint.sh",
        "sudo flask run",
        "docker compose up",
    ] {
        assert_eq!(dev(command), detected, "{command}");
    }
    assert_eq!(dev("uvicorn tools.serve:app --reload"), "uvicorn tools.serve:app --reload");
}

#[test]
fn bombs_in_other_tools_files_do_not_go_off() {
    let laughs = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n\
        d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nservices: *e\n";
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let page = ("index.html", "");
    for (path, text) in [
        ("compose.yaml", laughs),
        ("compose.yaml", deep.as_str()),
        (".devcontainer.json", deep.as_str()),
    ] {
        let findings = found(&[page, (path, text)]);
        assert!(findings.warnings.iter().any(|warning| warning.contains(path)), "{path}");
    }
}

#[test]
fn services_of_other_directories_say_nothing() {
    let package = r#"{"scripts":{"dev":"vite"},"devDependencies":{"vite":"7"}}"#;
    for build in ["../other", "/srv", "https://example.org/x.git", "./docs", "${DIR}"] {
        let compose = format!(
            "services:\n  a:\n    build: {build}\n    command: npm run dev\n    ports: [4000]\n"
        );
        let findings = found(&[("package.json", package), ("compose.yaml", &compose)]);
        assert_eq!(findings.port, Some(5173), "{build}");
    }
}

#[test]
fn a_dockerfile_is_read_with_its_variables() {
    let text = "ARG V=22\nFROM --platform=x node:${V}-alpine AS Base\nARG V\nENV A=1\nENV PORT=40$A\n\
        FROM base as dev\nEXPOSE ${PORT}/tcp 9229 53/udp\nENTRYPOINT [\"tini\", \"--\"]\nCMD [\"npm\",\"run\",\"dev\"]\n";
    let stages = dockerfile::stages(text);
    let dev = stages.last().unwrap();
    assert!(dev.is_for_development());
    assert_eq!(dev.runtime().as_deref(), Some("node@22"));
    assert_eq!(dev.command().unwrap().text(), "npm run dev");
    assert_eq!(dev.ports().into_iter().map(|(port, _)| port).collect::<Vec<_>>(), [401]);
}

#[test]
fn another_services_address_is_not_taken() {
    let compose = "services:\n  web:\n    build: .\n    command: npm run dev\n    ports: ['${P}:4000']\n    \
        environment:\n      DATABASE_URL: postgres://u:p@db:5432/x\n      CACHE: cache\n      LEVEL: debug\n  \
        db: {image: postgres}\n  cache: {image: redis}\n";
    let package = r#"{"scripts":{"dev":"vite"},"devDependencies":{"vite":"7"}}"#;
    let findings = found(&[("package.json", package), ("compose.yaml", compose)]);
    assert_eq!(findings.port, Some(4000), "only the host's side is unknown");
    let env: Vec<_> = findings.env.keys().map(String::as_str).collect();
    assert_eq!(env, ["LEVEL"]);
}

#[test]
fn web_servers_and_bundlers_beside_an_app_are_not_it() {
    let sail = "services:\n  laravel.test:\n    build: {context: ./vendor/laravel/sail/runtimes/8.4}\n    \
        ports: ['${APP_PORT:-80}:80', '${VITE_PORT:-5173}:${VITE_PORT:-5173}']\n    volumes: ['.:/var/www/html']\n";
    let findings = found(&[
        ("requirements.txt", "flask"),
        ("app.py", "from flask import Flask\napp = Flask(__name__)"),
        ("vendor/laravel/sail/runtimes/8.4/Dockerfile", "FROM ubuntu\n"),
        ("compose.yaml", sail),
    ]);
    assert_eq!(findings.port, Some(5000));
    let rails = "FROM ruby:3.4 AS base\nENV RAILS_ENV=\"production\"\nFROM base\n\
        ENTRYPOINT [\"/rails/bin/docker-entrypoint\"]\nEXPOSE 80\nCMD [\"./bin/thrust\", \"./bin/rails\", \"server\"]\n";
    let package = r#"{"scripts":{"dev":"vite"},"devDependencies":{"vite":"7"}}"#;
    let findings = found(&[("package.json", package), ("Dockerfile", rails)]);
    assert_eq!((findings.port, findings.source), (Some(5173), Source::Framework));
}

#[test]
fn an_entrypoint_is_the_beginning_of_the_command() {
    let command = |text: &str| dockerfile::stages(text).pop().unwrap().command().map(|c| c.text());
    let text = "FROM python\nENTRYPOINT [\"python3\"]\nCMD [\"manage.py\", \"runserver\", \"0.0.0.0:8001\"]\n";
    assert_eq!(command(text).as_deref(), Some("python3 manage.py runserver 0.0.0.0:8001"));
    assert_eq!(command("FROM a\nENTRYPOINT npm run dev\nCMD x\n").as_deref(), Some("npm run dev"));
    assert_eq!(command("FROM a\n"), None);
}
