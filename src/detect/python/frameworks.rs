//! The table of Python frameworks: one entry each, in order of priority.
//!
//! Django stands outside of it, because it is recognised by its files and not by its name.

use crate::domain::findings::Framework;

/// How one framework is recognised and served.
pub(crate) struct Entry {
    pub(crate) id: Framework,
    /// Its name on PyPI, normalised.
    pub(crate) package: &'static str,
    /// The class whose instance is the app.
    pub(crate) class: &'static str,
    pub(crate) serve: Serve,
    pub(crate) port: u16,
}

/// What runs the app.
#[derive(Clone, Copy)]
pub(crate) enum Serve {
    /// uvicorn, with reload.
    Asgi,
    /// Flask's own server, in debug mode.
    Flask,
}

/// Every framework, the most specific first: FastAPI is built on Starlette.
pub(crate) static TABLE: &[Entry] = &[
    Entry {
        id: Framework::Fastapi,
        package: "fastapi",
        class: "FastAPI",
        serve: Serve::Asgi,
        port: 8000,
    },
    Entry {
        id: Framework::Flask,
        package: "flask",
        class: "Flask",
        serve: Serve::Flask,
        port: 5000,
    },
    Entry {
        id: Framework::Starlette,
        package: "starlette",
        class: "Starlette",
        serve: Serve::Asgi,
        port: 8000,
    },
];

impl Entry {
    /// Says whether Python text makes this framework's app, also inside a function.
    pub(crate) fn makes(&self, text: &str) -> bool {
        let call = format!("{}(", self.class);
        text.lines().any(|line| {
            let code = line.split('#').next().unwrap_or_default();
            code.match_indices(&call).any(|(at, _)| {
                let before = code[..at].trim_end();
                before.ends_with('=') || before.ends_with('.') || before.ends_with("return")
            })
        })
    }

    /// Returns the name that the app is given at the top level: `api` of `api = FastAPI()`.
    pub(crate) fn name_in(&self, text: &str) -> Option<String> {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            let name = name.split(':').next().unwrap_or_default().trim_end();
            let plain = !name.is_empty()
                && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
            let value = value.trim_start();
            let made = value.starts_with(&format!("{}(", self.class))
                || value.contains(&format!(".{}(", self.class))
                || value.starts_with("create_app(");
            (plain && made).then(|| name.to_owned())
        })
    }
}
