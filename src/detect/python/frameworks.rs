//! The table of Python frameworks: one entry each, in order of priority.
//!
//! Django stands outside of it, because it is recognised by its files and not by its name. Where
//! the stable vocabulary has no word for a framework its entry has none either, and still knows
//! how it is run.

use crate::domain::findings::Framework;

/// How one framework is recognised and served.
pub(crate) struct Entry {
    pub(crate) id: Framework,
    /// Its names on PyPI, normalised.
    pub(crate) packages: &'static [&'static str],
    /// The module that code imports.
    pub(crate) module: &'static str,
    /// Calls that make its app; none if importing it is enough.
    pub(crate) makes: &'static [&'static str],
    /// What runs it. Besides `{host}` and `{port}` it may have `{module}`, `{app}` and `{file}`.
    pub(crate) command: &'static str,
    pub(crate) port: u16,
    pub(crate) env: &'static [(&'static str, &'static str)],
}

/// uvicorn, with reload.
pub(crate) const ASGI: &str =
    "python -m uvicorn {module}:{app} --host {host} --port {port} --reload";
/// Flask's own server, in debug mode.
pub(crate) const FLASK: &str =
    "python -m flask --app {flask} run --debug --host {host} --port {port}";
/// A server for apps of the older interface.
pub(crate) const WSGI: &str = "gunicorn --reload --bind {host}:{port} {module}:{app}";
/// Google's runner of functions.
pub(crate) const FUNCTION: &str =
    "functions-framework --target {app} --source {file} --host {host} --port {port} --debug";
/// The file itself, which starts its server.
pub(crate) const FILE: &str = "python {file}";

const BASE: Entry = Entry {
    id: Framework::None,
    packages: &[],
    module: "",
    makes: &[],
    command: ASGI,
    port: 8000,
    env: &[],
};

/// A server that its own file starts, and that may ask the environment for its port.
const STARTED: Entry = Entry { command: FILE, env: &[("PORT", "{port}")], ..BASE };

/// Every framework, the most specific first: FastAPI is built on Starlette.
pub(crate) static TABLE: &[Entry] = &[
    Entry {
        id: Framework::Fasthtml,
        packages: &["python-fasthtml"],
        module: "fasthtml",
        makes: &["fast_app(", "FastHTML("],
        ..BASE
    },
    Entry {
        id: Framework::Fastapi,
        packages: &["fastapi", "fastapi-slim"],
        module: "fastapi",
        makes: &["FastAPI("],
        ..BASE
    },
    // Django in one file, without a script that manages it.
    Entry {
        id: Framework::Django,
        packages: &["django"],
        module: "django",
        makes: &["settings.configure("],
        ..STARTED
    },
    Entry { packages: &["nicegui"], module: "nicegui", port: 8080, ..STARTED },
    Entry {
        packages: &["dash"],
        module: "dash",
        makes: &["Dash("],
        port: 8050,
        env: &[("HOST", "{host}"), ("PORT", "{port}")],
        ..STARTED
    },
    Entry {
        id: Framework::Flask,
        packages: &["flask"],
        module: "flask",
        makes: &["Flask(", "APIFlask("],
        command: FLASK,
        port: 5000,
        ..BASE
    },
    Entry {
        id: Framework::Streamlit,
        packages: &["streamlit"],
        module: "streamlit",
        command: "python -m streamlit run {file} --server.address {host} --server.port {port} \
                  --server.headless true",
        port: 8501,
        ..BASE
    },
    Entry {
        id: Framework::Gradio,
        packages: &["gradio"],
        module: "gradio",
        port: 7860,
        env: &[("GRADIO_SERVER_NAME", "{host}"), ("GRADIO_SERVER_PORT", "{port}")],
        ..STARTED
    },
    Entry {
        packages: &["quart"],
        module: "quart",
        makes: &["Quart("],
        command: "python -m quart --app {module}:{app} --debug run --host {host} --port {port}",
        port: 5000,
        ..BASE
    },
    Entry {
        packages: &["sanic"],
        module: "sanic",
        makes: &["Sanic("],
        command: "python -m sanic {module}:{app} --host {host} --port {port} --dev",
        ..BASE
    },
    Entry {
        packages: &["litestar", "starlite"],
        module: "litestar",
        makes: &["Litestar("],
        ..BASE
    },
    Entry {
        packages: &["chainlit"],
        module: "chainlit",
        command: "chainlit run {file} --host {host} --port {port} --headless",
        ..BASE
    },
    Entry {
        id: Framework::Starlette,
        packages: &["starlette"],
        module: "starlette",
        makes: &["Starlette("],
        ..BASE
    },
    Entry {
        packages: &["aiohttp"],
        module: "aiohttp",
        makes: &["web.Application("],
        port: 8080,
        ..STARTED
    },
    Entry {
        packages: &["tornado"],
        module: "tornado",
        makes: &["Application("],
        port: 8888,
        ..STARTED
    },
    Entry { packages: &["bottle"], module: "bottle", port: 8080, ..STARTED },
    Entry { packages: &["cherrypy"], module: "cherrypy", port: 8080, ..STARTED },
    Entry { packages: &["robyn"], module: "robyn", makes: &["Robyn("], port: 8080, ..STARTED },
    Entry {
        packages: &["web-py"],
        module: "web",
        makes: &["web.application("],
        port: 8080,
        ..STARTED
    },
    Entry { packages: &["falcon"], module: "falcon", makes: &["asgi.App("], command: ASGI, ..BASE },
    Entry {
        packages: &["falcon"],
        module: "falcon",
        makes: &["falcon.App(", "falcon.API("],
        command: WSGI,
        ..BASE
    },
    Entry {
        packages: &["functions-framework"],
        module: "functions_framework",
        command: FUNCTION,
        port: 8080,
        ..BASE
    },
    Entry {
        packages: &["chalice"],
        module: "chalice",
        command: "chalice local --host {host} --port {port}",
        ..BASE
    },
    Entry {
        packages: &["bokeh"],
        module: "bokeh",
        command: "bokeh serve --dev --address {host} --port {port} --allow-websocket-origin=* {file}",
        port: 5006,
        ..BASE
    },
    Entry {
        packages: &["marimo"],
        module: "marimo",
        command: "marimo edit --headless --no-token --host {host} --port {port} {file}",
        port: 2718,
        ..BASE
    },
    Entry {
        packages: &["shiny"],
        module: "shiny",
        command: "shiny run --reload --host {host} --port {port} {file}",
        ..BASE
    },
    Entry {
        packages: &["mesop"],
        module: "mesop",
        command: "mesop {file} --port {port}",
        port: 32123,
        ..BASE
    },
    Entry {
        packages: &["solara"],
        module: "solara",
        command: "solara run {file} --host {host} --port {port}",
        port: 8765,
        ..BASE
    },
    Entry {
        packages: &["connexion"],
        module: "connexion",
        makes: &["connexion.App(", "FlaskApp(", "AsyncApp("],
        port: 8080,
        ..STARTED
    },
    Entry { packages: &["blacksheep"], module: "blacksheep", makes: &["Application("], ..BASE },
    Entry {
        packages: &["panel"],
        module: "panel",
        command: "panel serve {file} --address {host} --port {port} --allow-websocket-origin=*",
        port: 5006,
        ..BASE
    },
];

impl Entry {
    /// Says whether Python text uses this framework to make an app: it imports it, or a package
    /// that is known to be there stands for the import, and makes its app by a call.
    pub(crate) fn makes(&self, text: &str, listed: bool) -> bool {
        let imported = imports(text, self.module);
        if self.makes.is_empty() {
            return imported;
        }
        (imported || listed) && self.makes.iter().any(|call| calls(text, call))
    }

    /// Returns the name that the app is given at the top level: `api` of `api = FastAPI()`.
    pub(crate) fn name_in(&self, text: &str) -> Option<String> {
        text.lines().find_map(|line| {
            let (name, value) = assignment(line)?;
            let makes = |call: &str| value.starts_with(call) || value.contains(&format!(".{call}"));
            let factory = FACTORIES.iter().any(|call| value.starts_with(&format!("{call}(")));
            // `app, rt = fast_app()` makes the app first.
            let name = name.split(',').next().unwrap_or_default().trim();
            (self.makes.iter().any(|call| makes(call)) || factory).then(|| name.to_owned())
        })
    }
}

/// Functions that make an app, as people call them.
pub(crate) const FACTORIES: [&str; 8] = [
    "create_app",
    "make_app",
    "create_application",
    "get_app",
    "get_application",
    "build_app",
    "init_app",
    "app_factory",
];

/// The factory that a file defines, if it does.
pub(crate) fn factory_in(text: &str) -> Option<&'static str> {
    FACTORIES.iter().copied().find(|name| {
        text.lines().any(|line| {
            line.strip_prefix("def ").is_some_and(|rest| {
                rest.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('('))
            })
        })
    })
}

/// The name and the value of an assignment at the top level.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    let name = name.split(':').next().unwrap_or_default().trim_end();
    let plain = !name.is_empty()
        && !name.starts_with(' ')
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_, ".contains(letter));
    plain.then(|| (name, value.trim_start()))
}

/// Says whether code calls this, and not something whose name only ends like it.
fn calls(text: &str, call: &str) -> bool {
    text.lines().any(|line| {
        let code = line.split('#').next().unwrap_or_default();
        code.match_indices(call).any(|(at, _)| {
            let before = code[..at].chars().next_back();
            !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
                && !code.trim_start().starts_with("class ")
                && !code.trim_start().starts_with("def ")
        })
    })
}

/// Says whether code imports a module or something from it.
pub(crate) fn imports(text: &str, module: &str) -> bool {
    !module.is_empty()
        && text.lines().any(|line| {
            let line = line.trim_start();
            let named = |rest: &str| {
                rest.split(',').any(|name| {
                    let name = name.split_whitespace().next().unwrap_or_default();
                    name == module || name.strip_prefix(module).is_some_and(|r| r.starts_with('.'))
                })
            };
            match (line.strip_prefix("import "), line.strip_prefix("from ")) {
                (Some(rest), _) => named(rest),
                (_, Some(rest)) => named(rest.split(" import").next().unwrap_or_default()),
                _ => false,
            }
        })
}
