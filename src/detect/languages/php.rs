//! PHP: packages from `composer.json`, Laravel, and whatever has a front controller.

use serde_json::Value;

use crate::detect::Candidate;
use crate::detect::look::Look;
use crate::detect::script;
use crate::detect::tree::{TreeError, join};
use crate::domain::findings::{Framework, Language, PackageManager, RuntimeName};

use super::rules::Rule::{All, Always, Any, Dep, File, Not, Slot};
use super::{BASE, DECLARED, Entry, Project, hints, offer, runtime, versions};

/// A front controller is a program as sure as any: nothing else has one.
const PAGES: u32 = 64;

const BUILT_IN: &[(super::rules::Rule, &str)] =
    &[(Slot("root"), "php -S {host}:{port} -t {root}"), (Always, "php -S {host}:{port}")];

static TABLE: &[Entry] = &[
    Entry {
        id: Framework::Laravel,
        rule: Any(&[
            All(&[
                Dep(&["laravel/framework"]),
                File(&["artisan", "server.php", "public/index.php"]),
            ]),
            All(&[File(&["artisan"]), Not(&Dep(&["laravel/lumen-framework"]))]),
        ]),
        dev: &[(Always, "php artisan serve --host={host} --port={port}")],
        port: Some(8000),
        ..BASE
    },
    // Everything else is served by PHP itself: its front controller, or its pages.
    Entry {
        rule: Dep(&[
            "laravel/lumen-framework",
            "symfony/framework-bundle",
            "symfony/symfony",
            "slim/slim",
            "cakephp/cakephp",
            "codeigniter4/framework",
            "yiisoft/yii2",
            "laminas/laminas-mvc",
            "drupal/core-recommended",
            "drupal/core",
            "drupal/drupal",
            "craftcms/cms",
            "roots/wordpress",
            "johnpbloch/wordpress",
            "typo3/cms-core",
            "getgrav/grav",
            "phalcon/devtools",
        ]),
        dev: BUILT_IN,
        port: Some(8000),
        ..BASE
    },
    Entry {
        rule: File(&[
            "index.php",
            "public/index.php",
            "pub/index.php",
            "webroot/index.php",
            "html/index.php",
            "web/index.php",
            "htdocs/index.php",
            "www/index.php",
            "src/index.php",
            "app/index.php",
            "wp-config.php",
            "wp-login.php",
        ]),
        dev: BUILT_IN,
        port: Some(8000),
        score: PAGES,
        ..BASE
    },
    Entry { rule: File(&["composer.json"]), score: DECLARED, ..BASE },
    Entry { rule: File(&["*.php"]), dev: BUILT_IN, port: Some(8000), score: DECLARED, ..BASE },
];

/// Offers a candidate for a directory with a `composer.json` or PHP pages.
pub(super) fn probe(look: &Look<'_>, dir: &str) -> Result<Option<Candidate>, TreeError> {
    let composer = look.has(dir, "composer.json").then(|| join(dir, "composer.json"));
    let page = ROOTS.iter().find_map(|root| {
        let file = join(root, "index.php");
        super::has(look, dir, &file).then_some((*root, file))
    });
    // Below the root classes lie about that are no pages.
    let any = || {
        let names = if dir == "." { look.files(dir) } else { Vec::new() };
        names.into_iter().find(|name| name.ends_with(".php"))
    };
    let Some(file) = composer
        .clone()
        .or_else(|| page.as_ref().map(|(_, file)| join(dir, file)))
        .or_else(|| any().map(|name| join(dir, &name)))
    else {
        return Ok(None);
    };
    let manager = if composer.is_some() { PackageManager::Composer } else { PackageManager::None };
    let mut project = Project::new(look, dir, Language::Php, manager, file);
    if let Some((root, _)) = page.filter(|(root, _)| *root != ".") {
        project.fill("root", root);
    }
    let mut required = None;
    if let Some(path) = composer {
        let text = look.manifest(&path)?.unwrap_or_default();
        let value = serde_json::from_str::<Value>(&text).unwrap_or_else(|error| {
            look.warn(format!(
                "{path} is not valid JSON (line {}, column {}); what it says was left out",
                error.line(),
                error.column()
            ));
            Value::Null
        });
        for group in ["require", "require-dev"] {
            let names = value[group].as_object().into_iter().flatten();
            project.dependencies.extend(names.map(|(name, _)| name.clone()));
        }
        required = value["config"]["platform"]["php"]
            .as_str()
            .or_else(|| value["require"]["php"].as_str())
            .map(|version| (version.to_owned(), path.clone()));
        // What installs itself there has no page before it is installed.
        let scaffold = value["extra"]["drupal-scaffold"]["locations"]["web-root"].as_str();
        if let Some(root) = scaffold.map(|root| root.trim_start_matches("./").trim_end_matches('/'))
            && !project.slots.contains_key("root")
        {
            project.fill("root", root);
        }
        project.port = served(&value).map(|port| (port, path));
        project.installs("composer install", "composer.json");
        project.locked_by("composer.lock");
    }
    project.port = project.port.take().or_else(|| {
        ["artisan"].iter().find(|name| look.has(dir, name))?;
        hints::variable(look, dir, ".env", &["SERVER_PORT"])
            .or_else(|| hints::command(look, dir, &["artisan", "serve"]))
    });
    let health = project.read("bootstrap/app.php").is_some_and(|(text, _)| text.contains("'/up'"));
    let version = versions::file(look, dir, &[".php-version"])
        .or_else(|| versions::manager(look, dir, &["php"]))
        .or(required);
    project.runtime = runtime(RuntimeName::Php, version);
    let mut candidate = offer(project, TABLE);
    if let Some(candidate) = candidate.as_mut().filter(|_| health) {
        candidate.findings.health =
            crate::domain::findings::Health::Http { path: "/up".to_owned() };
    }
    Ok(candidate)
}

/// Where the front controller lies, the directory that is meant to be public first.
const ROOTS: [&str; 10] =
    ["public", "pub", "web", "htdocs", "www", "webroot", "html", ".", "src", "app"];

/// The port of a script that serves by `php -S`.
fn served(value: &Value) -> Option<u16> {
    ["dev", "serve", "start", "server"].iter().find_map(|name| {
        let script = &value["scripts"][*name];
        let one = std::slice::from_ref(script);
        let lines = script.as_array().map_or(one, Vec::as_slice);
        lines.iter().filter_map(Value::as_str).find_map(|line| {
            let commands = script::commands(line);
            commands.iter().find_map(|words| {
                let at = words.iter().position(|word| word == "-S")?;
                words.get(at + 1)?.rsplit_once(':')?.1.parse().ok().filter(|port| *port != 0)
            })
        })
    })
}
