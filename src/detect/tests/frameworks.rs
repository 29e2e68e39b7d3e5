//! One row for each framework, and for each way of starting one.

use super::{line, look};

/// A `package.json` with these dependencies and, if given, this dev script.
fn package(dependencies: &[(&str, &str)], scripts: &[(&str, &str)]) -> String {
    let object = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.to_string(), serde_json::Value::from(value.to_string())));
        serde_json::Value::Object(pairs.collect())
    };
    // Half of all frameworks stand among the development dependencies.
    let group =
        if dependencies.len().is_multiple_of(2) { "dependencies" } else { "devDependencies" };
    serde_json::json!({group: object(dependencies), "scripts": object(scripts)}).to_string()
}

fn check(
    dependencies: &[(&str, &str)],
    scripts: &[(&str, &str)],
    files: &[(&str, &str)],
    expected: &str,
) {
    let package = package(dependencies, scripts);
    let mut all = vec![("package.json", package.as_str())];
    all.extend(files);
    assert_eq!(line(&all), expected);
}

const VITE: &str = "--host 0.0.0.0 --port 5173 --strictPort";

#[test]
fn meta_frameworks() {
    let dev = |text: &'static str| [("dev", text)];
    check(
        &[("next", "16.4.6"), ("react", "19")],
        &dev("next dev"),
        &[],
        "nextjs 3000 | npm run dev -- -H 0.0.0.0 -p 3000 PORT=3000",
    );
    check(
        &[("nuxt", "^4.0.0")],
        &dev("nuxt dev"),
        &[],
        "nuxt 3000 | npm run dev -- --host 0.0.0.0 --port 3000 HOST=0.0.0.0 PORT=3000",
    );
    check(
        &[("nuxt", "^2.17.0")],
        &dev("nuxt"),
        &[],
        "nuxt 3000 | npm run dev -- --hostname 0.0.0.0 --port 3000 HOST=0.0.0.0 PORT=3000",
    );
    check(
        &[("@sveltejs/kit", "2"), ("vite", "8"), ("svelte", "5")],
        &dev("vite dev"),
        &[("vite.config.js", "")],
        &format!("sveltekit 5173 | npm run dev -- {VITE}"),
    );
    check(
        &[("astro", "5")],
        &dev("astro dev"),
        &[],
        "astro 4321 | npm run dev -- --host 0.0.0.0 --port 4321",
    );
    check(
        &[("astro", "^2.0.0"), ("hono", "4")],
        &dev("astro dev"),
        &[],
        "astro 3000 | npm run dev -- --host 0.0.0.0 --port 3000",
    );
    check(
        &[("@remix-run/react", "2"), ("@remix-run/dev", "2"), ("vite", "5")],
        &dev("remix vite:dev"),
        &[("vite.config.ts", "")],
        "remix 5173 | npm run dev -- --host 0.0.0.0 --port 5173",
    );
    check(
        &[("@remix-run/react", "1"), ("@remix-run/dev", "1")],
        &dev("remix dev"),
        &[("remix.config.js", "")],
        "remix 3000 | npm run dev HOST=0.0.0.0 PORT=3000",
    );
    check(
        &[("@react-router/dev", "7"), ("react-router", "7"), ("vite", "6")],
        &dev("react-router dev"),
        &[("vite.config.ts", "")],
        "react-router 5173 | npm run dev -- --host 0.0.0.0 --port 5173",
    );
    check(
        &[("@tanstack/react-start", "1"), ("vite", "7")],
        &dev("vite dev --port 3000"),
        &[],
        "tanstack-start 3000 | npm run dev -- --host 0.0.0.0 --strictPort",
    );
    check(
        &[("@solidjs/start", "^1.0.0"), ("vinxi", "0.5")],
        &dev("vinxi dev"),
        &[],
        "solidstart 3000 | npm run dev -- --host 0.0.0.0 --port 3000",
    );
    check(
        &[("gatsby", "5")],
        &[("develop", "gatsby develop"), ("start", "npm run develop")],
        &[],
        "gatsby 8000 | npm run develop -- -H 0.0.0.0 -p 8000",
    );
    check(
        &[("@docusaurus/core", "3")],
        &[("start", "docusaurus start")],
        &[],
        "docusaurus 3000 | npm run start -- --host 0.0.0.0 --port 3000",
    );
    check(&[("@11ty/eleventy", "3")], &[], &[], "eleventy 8080 | npx eleventy --serve --port 8080");
}

#[test]
fn single_page_tools() {
    check(
        &[("@angular/core", "20"), ("@angular/cli", "20"), ("express", "5")],
        &[("start", "ng serve")],
        &[("angular.json", "{}")],
        "angular 4200 | npm run start -- --host 0.0.0.0 --port 4200",
    );
    check(
        &[("@angular/core", "20"), ("@angular/cli", "20")],
        &[("start", "ng serve")],
        &[("angular.json", r#"{"architect":{"serve":{"options":{"port":4300}}}}"#)],
        "angular 4300 | npm run start -- --host 0.0.0.0 --port 4300",
    );
    check(
        &[("@ionic/angular", "8"), ("@angular/cli", "20")],
        &[("start", "ng serve")],
        &[],
        "ionic-angular 4200 | npm run start -- --host 0.0.0.0 --port 4200",
    );
    check(
        &[("react-scripts", "5"), ("react", "18")],
        &[("start", "react-scripts start"), ("build", "react-scripts build")],
        &[],
        "cra 3000 | npm run start BROWSER=none DANGEROUSLY_DISABLE_HOST_CHECK=true \
         HOST=0.0.0.0 PORT=3000 WDS_SOCKET_PORT=0",
    );
    check(
        &[("react-scripts", "5"), ("@craco/craco", "7")],
        &[("start", "craco start")],
        &[],
        "cra 3000 | npm run start BROWSER=none DANGEROUSLY_DISABLE_HOST_CHECK=true \
         HOST=0.0.0.0 PORT=3000 WDS_SOCKET_PORT=0",
    );
    check(
        &[("@vue/cli-service", "5"), ("vue", "3")],
        &[("serve", "vue-cli-service serve")],
        &[],
        "vue-cli 8080 | npm run serve -- --host 0.0.0.0 --port 8080",
    );
    check(
        &[("parcel", "2")],
        &[("start", "parcel src/index.html")],
        &[],
        "parcel 1234 | npm run start -- --host 0.0.0.0 --port 1234",
    );
}

#[test]
fn vite_by_plugin_then_by_library() {
    for (dependencies, name) in [
        (&["react", "@vitejs/plugin-react"][..], "vite-react"),
        (&["react", "@vitejs/plugin-react-swc"], "vite-react"),
        (&["react"], "vite-react"),
        (&["vue", "@vitejs/plugin-vue"], "vite-vue"),
        (&["vue"], "vite-vue"),
        (&["svelte", "@sveltejs/vite-plugin-svelte"], "vite-svelte"),
        (&["solid-js", "vite-plugin-solid"], "vite-solid"),
        (&["solid-js"], "vite-solid"),
        (&["preact", "@preact/preset-vite", "react"], "vite-preact"),
        (&["preact"], "vite-preact"),
        (&["lit"], "vite-lit"),
        (&["@builder.io/qwik"], "vite-qwik"),
        (&["typescript"], "vite-vanilla"),
        (&["react-router", "react"], "vite-react"),
        (&["express", "hono"], "vite-vanilla"),
    ] {
        let mut all: Vec<_> = dependencies.iter().map(|name| (*name, "*")).collect();
        all.push(("vite", "^8.0.0"));
        let expected = format!("{name} 5173 | npm run dev -- {VITE}");
        check(&all, &[("dev", "vite")], &[], &expected);
    }
    check(
        &[("vite", "^2.9.0"), ("react", "17")],
        &[("dev", "vite")],
        &[],
        "vite-react 3000 | npm run dev -- --host 0.0.0.0 --port 3000 --strictPort",
    );
}

#[test]
fn own_servers() {
    for (name, code) in [
        ("express", "import express from 'express'"),
        ("fastify", "const fastify = require('fastify')()"),
        ("koa", "const Koa = require('koa')"),
        ("hono", "import { Hono } from 'hono'"),
    ] {
        let code = if name == "hono" { "import {Hono} from 'hono'; port: 3100" } else { code };
        let code = format!("{code};\nconst port = process.env.PORT || 3100;\napp.listen(port)");
        check(
            &[(name, "*")],
            &[("dev", "node --watch src/server.js"), ("start", "node src/server.js")],
            &[("src/server.js", &code)],
            &format!("{name} 3100 | npm run dev HOST=0.0.0.0 PORT=3100"),
        );
    }
    check(
        &[("@nestjs/core", "11"), ("express", "5"), ("vite", "8")],
        &[("start", "nest start"), ("start:dev", "nest start --watch")],
        &[("src/main.ts", "await app.listen(process.env.PORT ?? 3000);")],
        "nestjs 3000 | npm run start:dev HOST=0.0.0.0 PORT=3000",
    );
    check(
        &[("express", "5")],
        &[("start", "node ./bin/www")],
        &[
            ("bin/www", "var port = normalizePort(process.env.PORT || '3300');"),
            ("app.js", "var express = require('express');"),
        ],
        "express 3300 | node --watch bin/www HOST=0.0.0.0 PORT=3300",
    );
    check(
        &[("koa", "2"), ("express", "5")],
        &[("dev", "nodemon server.js")],
        &[("server.js", "const Koa = require('koa');\nnew Koa().listen(4444);")],
        "koa 4444 | npm run dev HOST=0.0.0.0 PORT=4444",
    );
    check(
        &[("fastify", "5")],
        &[("dev", "PORT=3456 tsx watch src/index.ts")],
        &[("src/index.ts", "import Fastify from 'fastify'; app.listen({ port: 1 })")],
        "fastify 3456 | npm run dev HOST=0.0.0.0 PORT=3456",
    );
    check(
        &[("lodash", "4")],
        &[],
        &[("index.js", "require('http').createServer().listen(8088)")],
        "none 8088 | node --watch index.js HOST=0.0.0.0 PORT=8088",
    );
    check(
        &[("typescript", "5")],
        &[("dev", "tsc --watch"), ("start", "node dist/index.js --prod")],
        &[],
        "none - | npm run start HOST=0.0.0.0",
    );
}

#[test]
fn scripts_that_take_no_flags() {
    // `start` of Next is a production server and needs a build.
    check(
        &[("next", "16")],
        &[("start", "next start"), ("build", "next build")],
        &[],
        "nextjs 3000 | npx next dev -H 0.0.0.0 -p 3000 PORT=3000",
    );
    // A wrapper around Next can be told its port by environment; one around Vite cannot.
    check(
        &[("next", "16")],
        &[("dev", "run-p dev:*"), ("css", "tailwind")],
        &[],
        "nextjs 3000 | npm run dev PORT=3000",
    );
    check(
        &[("vite", "8")],
        &[("dev", "concurrently \"vite\" \"node api.js\"")],
        &[],
        &format!("vite-vanilla 5173 | npx vite {VITE}"),
    );
    check(
        &[("vite", "8")],
        &[("dev", "run-p dev:*"), ("dev:api", "node api.js"), ("dev:web", "vite")],
        &[],
        &format!("vite-vanilla 5173 | npm run dev:web -- {VITE}"),
    );
    // A server of its own inside a framework listens where its code says.
    check(
        &[("@react-router/dev", "7")],
        &[("dev", "node ./server.js")],
        &[("server.js", "const PORT = process.env.PORT || 3000; app.listen(PORT)")],
        "react-router 3000 | npm run dev HOST=0.0.0.0 PORT=3000",
    );
    // What the script says already is not said twice, except a loopback address.
    check(
        &[("vite", "8")],
        &[("dev", "vite --host localhost --port 4000 --strictPort")],
        &[],
        "vite-vanilla 4000 | npm run dev -- --host 0.0.0.0",
    );
    check(
        &[("vite", "8")],
        &[("dev", "netlify dev")],
        &[],
        &format!("vite-vanilla 5173 | npx vite {VITE}"),
    );
}

#[test]
fn python_frameworks() {
    const MANAGE: &str = "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'x.settings')";
    let check = |files: &[(&str, &str)], expected: &str| assert_eq!(line(files), expected);
    check(
        &[("manage.py", MANAGE), ("requirements.txt", "Django==5.2.19")],
        "django 8000 | python manage.py runserver 0.0.0.0:8000",
    );
    check(
        &[("requirements.txt", "django"), ("site/wsgi.py", ""), ("site/settings.py", "")],
        "django 8000 | python -m django runserver 0.0.0.0:8000 --settings=site.settings",
    );
    check(
        &[("requirements.txt", "fastapi\nuvicorn"), ("main.py", "app = FastAPI()")],
        "fastapi 8000 | python -m uvicorn main:app --host 0.0.0.0 --port 8000 --reload",
    );
    check(
        &[
            ("pyproject.toml", "[project]\ndependencies=['fastapi[standard]']"),
            ("app/main.py", "api: FastAPI = FastAPI(\n)"),
        ],
        "fastapi 8000 | python -m uvicorn app.main:api --host 0.0.0.0 --port 8000 --reload",
    );
    check(
        &[("requirements.txt", "fastapi\nuvicorn"), ("src/main.py", "app = FastAPI()")],
        "fastapi 8000 | python -m uvicorn main:app --host 0.0.0.0 --port 8000 --reload \
         --app-dir src",
    );
    check(
        &[("requirements.txt", "Flask"), ("app.py", "app = Flask(__name__)\napp.run(port=5050)")],
        "flask 5050 | python -m flask --app app run --debug --host 0.0.0.0 --port 5050",
    );
    check(
        &[
            ("Pipfile", "[packages]\nflask='*'"),
            ("wsgi.py", "app = create_app()"),
            ("app.py", "def create_app():\n    app = Flask(__name__)\n    return app"),
        ],
        "flask 5000 | python -m flask --app wsgi run --debug --host 0.0.0.0 --port 5000",
    );
    check(
        &[("requirements.txt", "starlette\nuvicorn"), ("main.py", "app = Starlette(routes=[])")],
        "starlette 8000 | python -m uvicorn main:app --host 0.0.0.0 --port 8000 --reload",
    );
    check(&[("main.py", "print('hello')")], "none - | python main.py");
    check(
        &[("server.py", "from flask import Flask\napp = Flask(__name__)")],
        "flask 5000 | python -m flask --app server run --debug --host 0.0.0.0 --port 5000",
    );
}

#[test]
fn names_are_exact() {
    assert_eq!(
        look(&[("requirements.txt", "fastapi-ipware\n# django\n"), ("main.py", "")])
            .unwrap()
            .framework
            .as_str(),
        "none"
    );
    // Flask-Script has a manage.py too.
    let files = [
        ("manage.py", "Manager(app)"),
        ("requirements.txt", "flask"),
        ("app.py", "app = Flask(__name__)"),
    ];
    assert_eq!(look(&files).unwrap().framework.as_str(), "flask");
    // A manage.py that leaves the settings to a module of its own.
    let files = [("manage.py", "from shop.start import main"), ("requirements.txt", "django")];
    assert_eq!(look(&files).unwrap().framework.as_str(), "django");
}

#[test]
fn static_pages() {
    assert_eq!(
        line(&[("index.html", ""), ("style.css", "")]),
        "static-html 8080 | python3 -m http.server 8080 --bind 0.0.0.0"
    );
    assert_eq!(
        line(&[
            ("public/index.html", ""),
            ("package.json", r#"{"devDependencies":{"prettier":"3"}}"#)
        ]),
        "static-html 8080 | python3 -m http.server 8080 --bind 0.0.0.0 --directory public"
    );
}
