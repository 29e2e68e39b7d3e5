//! The port of a Python server: what its code starts it with, then its configuration.

use crate::detect::languages::{hints, listeners};
use crate::detect::look::Look;
use crate::detect::tree::{join, parent};
use crate::domain::findings::Framework;

use super::SHAPES;
use super::entries::Python;
use super::frameworks::Entry;

/// The port that code or configuration names, and the file that decides.
pub(super) fn named(
    look: &Look<'_>,
    dir: &str,
    framework: &Entry,
    entry: &Python,
    made: &Python,
    entries: &[Python],
) -> (Option<u16>, String) {
    if framework.id == Framework::Streamlit {
        let configured = hints::table_port(look, dir, ".streamlit/config.toml", "server");
        return match configured {
            Some((port, file)) => (Some(port), file),
            None => (None, entry.file.clone()),
        };
    }
    let text = |python: &Python| {
        (python.file.clone(), listeners::without_comments(&python.text, SHAPES.comments))
    };
    // A script at the top that starts the same app names its port, too.
    let starters = entries.iter().filter(|python| {
        ["main", "run", "app", "server", "start", "__main__", "manage", "wsgi"]
            .contains(&python.stem.as_str())
            && (python.text.contains(".run(") || python.text.contains("serve("))
    });
    let mut files: Vec<_> = [entry, made].into_iter().chain(starters).map(text).collect();
    files.extend(settings(look, dir, entry, made));
    if let Some((port, file)) = listeners::port(&files, &SHAPES) {
        return (Some(port), file);
    }
    if framework.id == Framework::Fasthtml && entry.text.contains("serve(") {
        return (Some(5001), entry.file.clone());
    }
    let told = match framework.id {
        Framework::Flask => [".flaskenv", ".env"]
            .iter()
            .find_map(|file| hints::variable(look, dir, file, &["FLASK_RUN_PORT"]))
            .or_else(|| hints::command(look, dir, &["flask", "run"])),
        Framework::Fastapi | Framework::Starlette => {
            hints::command(look, dir, &["uvicorn", "--reload"])
        }
        _ => None,
    };
    told.map_or((None, entry.file.clone()), |(port, file)| (Some(port), file))
}

/// Files of settings beside the app and its package, in which a server's port may be a variable.
fn settings(look: &Look<'_>, dir: &str, entry: &Python, made: &Python) -> Vec<(String, String)> {
    let mut places = vec![dir.to_owned()];
    for inner in [&entry.inner, &made.inner] {
        places.push(join(dir, inner));
        places.push(join(dir, &join(inner, "core")));
    }
    places.sort();
    places.dedup();
    let names = ["config.py", "settings.py", "constants.py"];
    let files = places.iter().flat_map(|place| names.map(|name| (place, name)));
    files
        .filter(|(place, name)| {
            let above = parent(place).unwrap_or(".");
            let inner = place.rsplit('/').next().unwrap_or_default();
            (*place == dir || look.holds(above, inner)) && look.has(place, name)
        })
        .filter_map(|(place, name)| {
            let file = join(place, name);
            let text = look.hint(&file)?;
            Some((file, listeners::without_comments(&text, SHAPES.comments)))
        })
        .collect()
}
