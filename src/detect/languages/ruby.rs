//! Ruby: gems from the `Gemfile`, the frameworks that serve pages, and plain scripts.

use crate::detect::Candidate;
use crate::detect::look::Look;
use crate::detect::tree::{TreeError, join};
use crate::domain::findings::{Framework, Language, PackageManager, RuntimeName};

use super::listeners::Shapes;
use super::rules::Rule::{All, Always, Any, Code, Dep, Directory, File, Not, Slot};
use super::{BASE, DECLARED, Entry, PROGRAM_ENTRY, Project, WEAK, hints, listeners};
use super::{offer, runtime, versions};

const SHAPES: Shapes = Shapes {
    comments: &["#"],
    calls: &[
        "set :port,",
        "set(:port,",
        "TCPServer.new(",
        "TCPServer.open(",
        "HTTPServer.new(",
        "HTTPServer.new ",
        "server.listen(",
        "run!(",
        "run! ",
        "Port:",
        ":Port =>",
    ],
    keys: &[],
};

/// Scripts that may be the app, the most likely first.
const SCRIPTS: [&str; 8] = [
    "app.rb",
    "server.rb",
    "main.rb",
    "web.rb",
    "application.rb",
    "index.rb",
    "hello.rb",
    "start.rb",
];

const RAILS_DEV: &[(super::rules::Rule, &str)] = &[
    (File(&["bin/rails"]), "bin/rails server -b {host} -p {port}"),
    (Always, "bundle exec rails server -b {host} -p {port}"),
];

static TABLE: &[Entry] = &[
    Entry {
        id: Framework::Rails,
        rule: Any(&[
            All(&[
                Dep(&["rails", "railties"]),
                File(&["bin/rails", "config/application.rb", "config.ru", "script/rails"]),
            ]),
            File(&["bin/rails"]),
            All(&[File(&["config/application.rb"]), File(&["config/routes.rb"])]),
            // A Gemfile that asks for Rails and shows nothing else.
            All(&[Dep(&["rails"]), Not(&File(&["*.gemspec", "config.ru", "_config.yml"]))]),
        ]),
        dev: RAILS_DEV,
        port: Some(3000),
        env: &[("RAILS_ENV", "development")],
        ..BASE
    },
    Entry {
        id: Framework::Middleman,
        rule: Any(&[
            Dep(&["middleman", "middleman-core", "middleman-cli"]),
            All(&[File(&["config.rb"]), Directory(&["source"]), Dep(&["middleman-*"])]),
        ]),
        dev: &[(Always, "bundle exec middleman server --bind-address {host} -p {port}")],
        port: Some(4567),
        ..BASE
    },
    Entry {
        id: Framework::Jekyll,
        rule: Any(&[
            All(&[Dep(&["jekyll", "github-pages"]), Not(&File(&["config/application.rb"]))]),
            All(&[File(&["_config.yml", "_config.yaml", "_config.toml"]), Dep(&["jekyll-*"])]),
        ]),
        dev: &[(Always, "bundle exec jekyll serve --host {host} --port {port} --livereload")],
        port: Some(4000),
        ..BASE
    },
    // GitHub builds such a site without a Gemfile. Hexo has the same file name.
    Entry {
        id: Framework::Jekyll,
        rule: All(&[
            File(&["_config.yml", "_config.yaml", "_config.toml"]),
            Directory(&["_posts", "_layouts", "_includes", "_sass", "_data", "_drafts"]),
        ]),
        dev: &[(Always, "jekyll serve --host {host} --port {port} --livereload")],
        port: Some(4000),
        ..BASE
    },
    Entry {
        rule: Dep(&["bridgetown"]),
        dev: &[(Always, "bundle exec bridgetown start --bind {host} --port {port}")],
        port: Some(4000),
        ..BASE
    },
    Entry {
        rule: Dep(&["nanoc"]),
        dev: &[(Always, "bundle exec nanoc live --host {host} --port {port}")],
        port: Some(3000),
        ..BASE
    },
    Entry {
        rule: Dep(&["hanami", "hanami-router"]),
        dev: &[(Dep(&["hanami"]), "bundle exec hanami server --host {host} --port {port}")],
        port: Some(2300),
        ..BASE
    },
    Entry {
        id: Framework::Sinatra,
        rule: Any(&[
            Dep(&["sinatra"]),
            Code(&["require 'sinatra", "require \"sinatra", "Sinatra::Base"]),
        ]),
        dev: &[
            (All(&[File(&["config.ru"]), File(&["Gemfile"])]), RACKUP),
            (File(&["config.ru"]), "rackup -o {host} -p {port}"),
            (
                All(&[Slot("script"), File(&["Gemfile"])]),
                "bundle exec ruby {script} -o {host} -p {port}",
            ),
            (Slot("script"), "ruby {script} -o {host} -p {port}"),
        ],
        port: Some(4567),
        env: &[("APP_ENV", "development"), ("PORT", "{port}")],
        ..BASE
    },
    Entry {
        rule: File(&["config.ru"]),
        dev: &[(File(&["Gemfile"]), RACKUP), (Always, "rackup -o {host} -p {port}")],
        port: Some(9292),
        env: &[("PORT", "{port}")],
        ..BASE
    },
    Entry {
        rule: Slot("script"),
        dev: &[(File(&["Gemfile"]), "bundle exec ruby {script}"), (Always, "ruby {script}")],
        ..PROGRAM_ENTRY
    },
    Entry { rule: File(&["Gemfile", "gems.rb"]), score: DECLARED, ..BASE },
    Entry { rule: File(&["Rakefile", "*.gemspec"]), score: WEAK, ..BASE },
];

const RACKUP: &str = "bundle exec rackup -o {host} -p {port}";

/// Offers a candidate for a directory with a `Gemfile`, a rackup file or a Ruby script.
pub(super) fn probe(look: &Look<'_>, dir: &str) -> Result<Option<Candidate>, TreeError> {
    let gemfile = look.first(dir, &["Gemfile", "gems.rb"]);
    let declared = gemfile
        .or_else(|| look.first(dir, &["config.ru", "_config.yml", "_config.yaml", "_config.toml"]));
    let script = SCRIPTS.iter().copied().find(|name| look.has(dir, name));
    let Some(file) = declared.or(script).or_else(|| look.first(dir, &["Rakefile"])) else {
        return Ok(None);
    };
    let manager = match gemfile {
        Some(_) => PackageManager::Bundler,
        None => PackageManager::None,
    };
    let mut project = Project::new(look, dir, Language::Ruby, manager, join(dir, file));
    project.shapes = &SHAPES;
    let mut pinned = None;
    if let Some(file) = gemfile {
        let path = join(dir, file);
        let text = look.manifest(&path)?.unwrap_or_default();
        let text = listeners::without_comments(&text, SHAPES.comments);
        project.dependencies = gems(&text);
        if text.lines().any(|line| line.trim_start().starts_with("gemspec")) {
            own_gems(&mut project);
        }
        pinned = text.lines().find_map(|line| {
            let version = line.trim().strip_prefix("ruby ")?.trim_start_matches('(');
            Some((first_quoted(version)?.to_owned(), path.clone()))
        });
        project.installs("bundle install", file);
        project.locked_by("Gemfile.lock");
    }
    // Only the lockfile of a Gemfile knows what a gem of one's own depends on.
    if let Some(name) = script {
        project.fill("script", name);
    }
    project.add_code(SCRIPTS.iter().map(|name| (*name).to_owned()));
    project.add_code(["config.ru".to_owned(), "config/app.rb".to_owned()]);
    project.port = port(&project);
    let version = versions::file(look, dir, &[".ruby-version"])
        .or_else(|| versions::manager(look, dir, &["ruby"]))
        .map(|(text, file)| (text.trim_start_matches("ruby-").to_owned(), file))
        .or(pinned);
    project.runtime = runtime(RuntimeName::Ruby, version);
    Ok(offer(project, TABLE))
}

/// The names of `gem "name"` lines.
fn gems(text: &str) -> std::collections::BTreeSet<String> {
    let lines = text.lines().filter_map(|line| {
        let line = line.trim_start();
        let rest = line.strip_prefix("gem ").or_else(|| line.strip_prefix("gem("))?;
        first_quoted(rest)
    });
    lines.map(str::to_owned).collect()
}

/// What the project's own gemspec depends on, where the Gemfile refers to it.
fn own_gems(project: &mut Project<'_, '_>) {
    let specs = project.look.files(&project.dir);
    let Some(spec) = specs.into_iter().find(|name| name.ends_with(".gemspec")) else { return };
    let Some((text, _)) = project.read(&spec) else { return };
    for line in text.lines() {
        let named = ["add_dependency", "add_runtime_dependency", "add_development_dependency"]
            .iter()
            .find_map(|call| line.split_once(call));
        if let Some(name) = named.and_then(|(_, rest)| first_quoted(rest)) {
            project.dependencies.insert(name.to_owned());
        }
    }
}

fn first_quoted(text: &str) -> Option<&str> {
    let text = text.trim_start().trim_start_matches('(').trim_start();
    let quote = text.chars().next().filter(|letter| ['"', '\''].contains(letter))?;
    text[1..].split(quote).next().filter(|name| !name.is_empty())
}

/// What puma or Jekyll's configuration, or the process file for development, says.
fn port(project: &Project<'_, '_>) -> Option<super::Said<u16>> {
    let jekyll = ["_config.yml", "_config.yaml"].iter().find_map(|name| {
        let (text, path) = project.read(name)?;
        let line = text.lines().find_map(|line| line.strip_prefix("port:"))?;
        Some((listeners::number(line)?, path))
    });
    let puma = || {
        let (text, path) = project.read("config/puma.rb")?;
        let text = listeners::without_comments(&text, SHAPES.comments);
        let port = listeners::port(&[(path, text)], &PUMA)?;
        Some(port)
    };
    let started = || {
        hints::command(project.look, &project.dir, &["rails", "server"])
            .or_else(|| hints::command(project.look, &project.dir, &["rackup"]))
            .or_else(|| hints::command(project.look, &project.dir, &["ruby", "-p"]))
    };
    let rack = || {
        // Rack's own usual port, unless the code names one.
        let named = listeners::port(&project.code, project.shapes);
        (project.has("config.ru")
            && !project.depends("rails")
            && named.is_none()
            && project.depends("sinatra"))
        .then(|| (9292, join(&project.dir, "config.ru")))
    };
    jekyll.or_else(started).or_else(puma).or_else(rack)
}

const PUMA: Shapes = Shapes { comments: &["#"], calls: &["port ", "port(", "bind "], keys: &[] };
