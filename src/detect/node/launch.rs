//! How the dev server of a Node app is started: through the project's own script where that
//! works, because it carries what the project needs; else the tool itself.

use std::collections::BTreeMap;

use crate::domain::findings::{PackageManager, Template};

use super::super::frameworks::{Entry, Kind, PLAIN};
use super::super::look::is_plain_word;
use super::super::rules::Subject;
use super::super::tree::join;
use super::super::{package_manager, script};

/// Programs that make files and serve nothing.
const COMPILERS: [&str; 22] = [
    "tsc",
    "tsup",
    "tsdown",
    "unbuild",
    "rollup",
    "babel",
    "swc",
    "esbuild",
    "microbundle",
    "tailwindcss",
    "postcss",
    "sass",
    "echo",
    "exit",
    "eslint",
    "prettier",
    "jest",
    "vitest",
    "rimraf",
    "mkdir",
    "cp",
    "husky",
];

/// A way to start the dev server.
pub(crate) struct Launch {
    pub(crate) command: Template,
    pub(crate) file: String,
    pub(crate) why: String,
    /// The text in which a port may be named: the script, and those that it runs.
    pub(crate) script: String,
}

pub(crate) fn environment(
    subject: &Subject<'_, '_>,
    entry: &Entry,
    launch: &Launch,
) -> BTreeMap<String, Template> {
    let own = own_file(subject, entry, &launch.script).is_some();
    let env = if own && entry.env.is_empty() { PLAIN.env } else { entry.env };
    env.iter()
        .map(|(name, value)| ((*name).to_owned(), Template::Slots((*value).to_owned())))
        .collect()
}

/// Decides how the dev server is started.
pub(crate) fn launch(
    subject: &Subject<'_, '_>,
    entry: &Entry,
    manager: PackageManager,
) -> Option<Launch> {
    match entry.kind {
        Kind::Server => own_server(subject, entry, manager),
        Kind::Meta | Kind::Bundler | Kind::Tool => tool(subject, entry, manager),
    }
}

/// The dev server of a framework.
fn tool(subject: &Subject<'_, '_>, entry: &Entry, manager: PackageManager) -> Option<Launch> {
    let scripts = &subject.manifest.scripts;
    let usual = entry.scripts.iter().chain(&script::USUAL).copied();
    let any = || scripts.keys().map(String::as_str);
    let others = any().filter(|name| name.starts_with("dev")).chain(any());
    let direct = usual.clone().chain(others).find_map(|name| {
        let (name, text) = scripts.get_key_value(name)?;
        script::takes_flags(text, entry.calls).then_some((name, text))
    });
    if let Some((name, text)) = direct {
        let flags: Vec<&str> = entry
            .flags
            .iter()
            .filter(|flag| {
                let pinned = flag.text.contains("{host}") && script::binds_loopback(text);
                pinned || !script::has_flag(text, flag.names)
            })
            .map(|flag| flag.text)
            .collect();
        return Some(by_script(subject, manager, name, &flags.join(" "), "runs its dev server"));
    }
    // A wrapper (`run-p`, `concurrently`, a server of its own) starts more than the tool, but
    // takes no flags: it is only good if the address can be given by environment.
    let wrapper = entry.scripts.iter().find_map(|name| {
        let text = script::expanded(scripts, name)?;
        let named_start = *name == "start" && !script::mentions(&text, entry.calls);
        (!named_start && !is_recursive(&text)).then_some((*name, text))
    });
    if let Some((name, text)) = wrapper {
        if entry.flags.is_empty()
            || !entry.env.is_empty()
            || own_file(subject, entry, &text).is_some()
        {
            return Some(by_script(subject, manager, name, "", "its dev script"));
        }
        subject.look.warn(format!(
            "{}: script {name} hands no flags on to its dev server, so that is run alone",
            subject.manifest.file
        ));
    }
    let call = entry.calls.first()?;
    let flags = entry
        .flags
        .iter()
        .filter(|flag| !flag.names.iter().any(|name| call.split(' ').any(|word| word == *name)));
    let flags = flags.map(|flag| format!(" {}", flag.text)).collect::<String>();
    Some(Launch {
        command: Template::Slots(package_manager::execute(manager, &format!("{call}{flags}"))),
        file: subject.manifest.file.clone(),
        why: "no script runs its dev server alone".into(),
        script: String::new(),
    })
}

/// A server that the project wrote itself; it is told its address by environment.
fn own_server(subject: &Subject<'_, '_>, entry: &Entry, manager: PackageManager) -> Option<Launch> {
    let scripts = &subject.manifest.scripts;
    let usual = entry.scripts.iter().chain(&script::USUAL).find_map(|name| {
        let (name, text) = scripts.get_key_value(*name)?;
        (!is_recursive(text) && !is_compiler(text)).then_some((name, text))
    });
    match usual {
        Some((name, text)) if name == "start" && script::is_bare_node(text) => {
            let file = served(subject, text);
            match file.filter(|file| is_plain_word(file)) {
                Some(file) => Some(by_node(subject, &file, "script start, restarted on a change")),
                None => Some(by_script(subject, manager, name, "", "its start script")),
            }
        }
        Some((name, _)) => Some(by_script(subject, manager, name, "", "its dev script")),
        None => {
            let (file, _) = subject.sources.near().first()?;
            let file = below(subject.dir, file);
            is_plain_word(file).then(|| by_node(subject, file, "no dev script; its entry file"))
        }
    }
}

/// The file that a `node FILE` runs, as the script names it, if it is there.
fn served(subject: &Subject<'_, '_>, script: &str) -> Option<String> {
    let named = script::served_files(script);
    let found = named.iter().find_map(|file| subject.sources.find(file))?;
    Some(below(subject.dir, &found).to_owned())
}

fn below<'path>(dir: &str, path: &'path str) -> &'path str {
    match dir {
        "." => path,
        dir => path.strip_prefix(dir).map_or(path, |rest| rest.trim_start_matches('/')),
    }
}

fn by_script(
    subject: &Subject<'_, '_>,
    manager: PackageManager,
    name: &str,
    flags: &str,
    why: &str,
) -> Launch {
    let command = match &subject.manifest.nx {
        Some(nx) => {
            // Its executors know flags by their long names only.
            let flags =
                format!(" {flags}").replace(" -H ", " --hostname ").replace(" -p ", " --port ");
            let flags = flags.trim_end();
            package_manager::execute(manager, &format!("nx run {}{flags}", nx.target))
        }
        None => package_manager::run(manager, name, flags),
    };
    Launch {
        command: Template::Slots(command),
        file: subject.manifest.file.clone(),
        why: format!("script {name}: {why}"),
        script: script::expanded(&subject.manifest.scripts, name).unwrap_or_default(),
    }
}

fn by_node(subject: &Subject<'_, '_>, file: &str, why: &str) -> Launch {
    let typed = [".ts", ".mts", ".cts", ".tsx"].iter().any(|ending| file.ends_with(ending));
    let runner = if typed { "npx tsx watch" } else { "node --watch" };
    Launch {
        command: Template::Literal(format!("{runner} {file}")),
        file: join(subject.dir, file),
        why: why.to_owned(),
        script: format!("node {file}"),
    }
}

/// The file of a server that a script runs in place of the framework's dev server.
pub(crate) fn own_file(subject: &Subject<'_, '_>, entry: &Entry, script: &str) -> Option<String> {
    if !entry.calls.is_empty() && script::mentions(script, entry.calls) {
        return None;
    }
    script::served_files(script).iter().find_map(|file| subject.sources.find(file))
}

/// Scripts of hosting tools that would run this detection, or themselves, again.
fn is_recursive(script: &str) -> bool {
    let tools = [&["netlify", "dev"], &["vercel", "dev"], &["covibes", "up"]];
    let commands = script::commands(script);
    commands.iter().any(|command| {
        tools.iter().any(|tool| command.windows(2).any(|words| words == tool.as_slice()))
    })
}

/// `tsc --watch` is no server, and neither is a text.
fn is_compiler(script: &str) -> bool {
    script::commands(script).iter().all(|command| {
        let waits = command.iter().any(|word| word.contains("onSuccess") || word.contains("serve"));
        !waits && command.first().is_some_and(|program| COMPILERS.contains(&program.as_str()))
    })
}
