//! Java and Kotlin: Maven and Gradle, the frameworks in them, and where they put the port.

use std::collections::BTreeSet;

use crate::detect::Candidate;
use crate::detect::look::Look;
use crate::detect::tree::{TreeError, join, parent};
use crate::domain::findings::{Framework, Language, PackageManager, RuntimeName};

use super::listeners::{self, Shapes};
use super::rules::Rule::{self, All, Always, Any, Code, Dep, File, Slot};
use super::{
    BASE, DECLARED, Entry, PROGRAM, PROGRAM_ENTRY, Project, Said, offer, runtime, versions,
};

const SHAPES: Shapes = Shapes {
    comments: &["//"],
    calls: &[
        "port(",
        "setPort(",
        ".start(",
        "new Server(",
        "InetSocketAddress(",
        "new ServerSocket(",
        "embeddedServer(",
        ".listen(",
        ".bindAndHandle(",
        ".bind(",
        "asServer(",
    ],
    keys: &[],
};

const MAVEN: Rule = File(&["pom.xml"]);

const fn by_tool(maven: &'static str, gradle: &'static str) -> [(Rule, &'static str); 2] {
    [(MAVEN, maven), (Always, gradle)]
}

static SPRING: [(Rule, &str); 2] = by_tool("{tool} spring-boot:run", "{tool} bootRun");
static QUARKUS: [(Rule, &str); 2] = by_tool(
    "{tool} quarkus:dev -Dquarkus.http.host={host} -Dquarkus.http.port={port}",
    "{tool} quarkusDev -Dquarkus.http.host={host} -Dquarkus.http.port={port}",
);
static MICRONAUT: [(Rule, &str); 2] = by_tool("{tool} mn:run", "{tool} run");
static LIBERTY: [(Rule, &str); 2] = by_tool("{tool} liberty:dev", "{tool} libertyDev");
static RUN: [(Rule, &str); 5] = [
    (All(&[MAVEN, Dep(&["jetty-maven-plugin"])]), "{tool} jetty:run -Djetty.http.port={port}"),
    (All(&[MAVEN, Dep(&["tomcat7-maven-plugin"])]), "{tool} tomcat7:run"),
    (All(&[MAVEN, Dep(&["exec-maven-plugin"])]), "{tool} compile exec:java"),
    (All(&[MAVEN, Slot("class")]), "{tool} compile exec:java -Dexec.mainClass={class}"),
    (MAVEN, "{tool} compile exec:java"),
];
static GRADLE_RUN: [(Rule, &str); 1] = [(Always, "{tool} run")];

const SPRING_ENV: &[(&str, &str)] = &[("SERVER_ADDRESS", "{host}"), ("SERVER_PORT", "{port}")];

/// A framework that is run as the program that it is part of.
const fn program(rule: Rule, dev: &'static [(Rule, &'static str)], port: u16) -> Entry {
    Entry { rule, dev, port: Some(port), env: super::PORT_ENV, ..BASE }
}

static TABLE: &[Entry] = &[
    Entry {
        id: Framework::SpringBoot,
        rule: Any(&[
            Dep(&["org.springframework.boot", "spring-boot*"]),
            Code(&["@SpringBootApplication"]),
        ]),
        dev: &SPRING,
        port: Some(8080),
        health: None,
        env: SPRING_ENV,
        ..BASE
    },
    Entry { env: &[], ..program(Dep(&["io.quarkus*"]), &QUARKUS, 8080) },
    Entry {
        env: &[],
        ..program(Dep(&["liberty-maven-plugin", "io.openliberty.tools*"]), &LIBERTY, 9080)
    },
    Entry {
        env: &[("MICRONAUT_SERVER_HOST", "{host}"), ("MICRONAUT_SERVER_PORT", "{port}")],
        ..program(Dep(&["io.micronaut*"]), &MICRONAUT, 8080)
    },
    Entry {
        id: Framework::Sparkjava,
        ..program(All(&[MAVEN, Dep(&["spark-core", "spark-kotlin"]), SPARK]), &RUN, 4567)
    },
    Entry {
        id: Framework::Sparkjava,
        ..program(All(&[Dep(&["spark-core", "spark-kotlin"]), SPARK]), &GRADLE_RUN, 4567)
    },
    program(All(&[MAVEN, Any(&[KTOR, OTHERS])]), &RUN, 8080),
    program(Any(&[KTOR, OTHERS]), &GRADLE_RUN, 8080),
    program(All(&[MAVEN, Dep(&["jetty-maven-plugin", "tomcat7-maven-plugin"])]), &RUN, 8080),
    Entry {
        rule: All(&[
            MAVEN,
            Any(&[Dep(&["exec-maven-plugin"]), Code(&["static void main", "fun main("])]),
        ]),
        dev: &RUN,
        score: PROGRAM,
        ..PROGRAM_ENTRY
    },
    Entry {
        rule: All(&[File(&["build.gradle", "build.gradle.kts"]), Dep(&["application"])]),
        dev: &GRADLE_RUN,
        ..PROGRAM_ENTRY
    },
    Entry { rule: Always, score: DECLARED, ..BASE },
];

/// Apache Spark has an artifact of the same name.
const SPARK: Rule = Dep(&["com.sparkjava"]);
const KTOR: Rule = Dep(&["io.ktor*"]);
const OTHERS: Rule = Dep(&[
    "io.javalin",
    "io.dropwizard",
    "io.vertx",
    "io.helidon*",
    "org.eclipse.jetty",
    "org.apache.tomcat.embed",
    "org.http4k",
    "com.linecorp.armeria",
]);

/// Offers a candidate for a directory with a Maven or Gradle build.
pub(super) fn probe(look: &Look<'_>, dir: &str) -> Result<Option<Candidate>, TreeError> {
    let names = [
        "pom.xml",
        "build.gradle",
        "build.gradle.kts",
        "settings.gradle",
        "settings.gradle.kts",
        "gradlew",
        "pom.atom",
        "pom.clj",
        "pom.groovy",
        "pom.rb",
        "pom.scala",
        "pom.yaml",
        "pom.yml",
    ];
    let Some(name) = look.first(dir, &names) else { return Ok(None) };
    let maven = name.starts_with("pom.");
    let manager = if maven { PackageManager::Maven } else { PackageManager::Gradle };
    let mut project = Project::new(look, dir, Language::Java, manager, join(dir, name));
    project.shapes = &SHAPES;
    let path = join(dir, name);
    let text = look.manifest(&path)?.unwrap_or_default();
    let (wrapper, tool) = if maven { ("mvnw", "mvn") } else { ("gradlew", "gradle") };
    let root = root(look, dir, wrapper);
    if maven {
        let text = without_xml_comments(&text);
        project.dependencies = artifacts(&text);
        project.installs("{tool} dependency:go-offline", name);
    } else {
        let text = listeners::without_comments(&text, &["//"]);
        project.dependencies = plugins(&text);
        catalog(&mut project, &text, &root);
        project.installs("{tool} dependencies", name);
    }
    let tool = match wrapper_call(look, dir, &root, wrapper) {
        Some(call) => call,
        None => tool.to_owned(),
    };
    project.fill("tool", &tool);
    if let Some((command, _)) = &mut project.install {
        *command = command.replace("{tool}", &tool);
    }
    sources(&mut project);
    if let Some(class) = main_class(&project) {
        project.fill("class", &class);
    }
    project.port = configured(&project);
    let stated = stated(&text).map(|version| (version, path));
    let version = versions::file(look, dir, &[".java-version"])
        .or_else(|| versions::manager(look, dir, &["java"]))
        .or_else(|| properties(look, dir))
        .or(stated);
    let version = version.map(|(text, file)| (major(&text), file));
    project.runtime = runtime(RuntimeName::Java, version);
    Ok(offer(project, TABLE))
}

/// The nearest directory upward that has the wrapper.
fn root(look: &Look<'_>, dir: &str, wrapper: &str) -> String {
    let above = std::iter::successors(Some(dir), |place| parent(place));
    above.into_iter().find(|place| look.has(place, wrapper)).unwrap_or(dir).to_owned()
}

fn wrapper_call(look: &Look<'_>, dir: &str, root: &str, wrapper: &str) -> Option<String> {
    if !look.has(root, wrapper) {
        return None;
    }
    let depth = |place: &str| place.split('/').filter(|part| !matches!(*part, "" | ".")).count();
    let up = "../".repeat(depth(dir).saturating_sub(depth(root)));
    Some(if up.is_empty() { format!("./{wrapper}") } else { format!("{up}{wrapper}") })
}

/// Group and artifact names of dependencies, plugins and the parent.
fn artifacts(text: &str) -> BTreeSet<String> {
    let named = ["groupId", "artifactId"].iter().flat_map(|element| elements(text, element));
    // The parent's and the own coordinates are among them; nobody calls an app like a framework.
    named.map(|name| name.trim().to_owned()).collect()
}

fn elements<'text>(text: &'text str, element: &str) -> Vec<&'text str> {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let parts = text.split(open.as_str()).skip(1);
    parts.filter_map(|part| Some(part.split_once(close.as_str())?.0)).collect()
}

fn without_xml_comments(text: &str) -> String {
    let mut parts = text.split("<!--");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        clean.push_str(part.split_once("-->").map_or("", |(_, rest)| rest));
    }
    clean
}

/// Plugins and dependencies of a Gradle build: everything quoted, split at the colons.
fn plugins(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in text.lines() {
        // Applied by the modules, not by this one.
        if line.contains("apply false") {
            continue;
        }
        for quoted in line.split(['"', '\'']).skip(1).step_by(2) {
            let mut parts = quoted.split(':');
            names.extend(parts.by_ref().take(2).map(str::to_owned));
        }
        // `application` among the plugins of a Kotlin script is no string.
        let word = line.trim().trim_matches('`');
        if ["application", "java", "war"].contains(&word) {
            names.insert(word.to_owned());
        }
        // `kotlin("jvm")`, `mainClass.set("x")`.
        if word.starts_with("mainClass") || word.contains("mainClassName") {
            names.insert("application".to_owned());
        }
    }
    names
}

/// What a version catalog means by the aliases that the build uses.
fn catalog(project: &mut Project<'_, '_>, build: &str, root: &str) {
    if !build.contains("libs.") {
        return;
    }
    let above = std::iter::successors(Some(project.dir.as_str()), |place| parent(place));
    let file = above
        .into_iter()
        .chain([root])
        .find_map(|place| super::read(project.look, place, "gradle/libs.versions.toml"));
    let Some(table) = file.and_then(|(text, _)| text.parse::<toml::Table>().ok()) else { return };
    for (group, prefix) in [("plugins", "libs.plugins."), ("libraries", "libs.")] {
        let entries = table.get(group).and_then(toml::Value::as_table);
        for (alias, value) in entries.into_iter().flatten() {
            let used = format!("{prefix}{}", alias.replace(['-', '_'], "."));
            let uses =
                build.lines().any(|line| line.contains(&used) && !line.contains("apply false"));
            if !uses {
                continue;
            }
            let id = value.get("id").or_else(|| value.get("module")).or_else(|| value.get("group"));
            let id = id.and_then(toml::Value::as_str).or_else(|| value.as_str());
            if let Some(id) = id {
                project.dependencies.extend(id.split(':').take(2).map(str::to_owned));
            }
        }
    }
}

/// Reads the sources near the root of the tree of packages: that is where programs begin.
fn sources(project: &mut Project<'_, '_>) {
    for root in
        ["src/main/java", "src/main/kotlin", "src", "app/src/main/java", "app/src/main/kotlin"]
    {
        let first = root.split('/').next().unwrap_or_default();
        if !project.look.directories(&project.dir).iter().any(|name| name == first) {
            continue;
        }
        let mut place = root.to_owned();
        // Packages are directories with one directory in them, until they branch.
        for _ in 0..5 {
            for ending in [".java", ".kt"] {
                project.add_code_in(&place, ending);
            }
            let inner = project.look.directories(&join(&project.dir, &place));
            let Some(next) = inner.first().filter(|_| inner.len() == 1 || project.code.is_empty())
            else {
                break;
            };
            place = join(&place, next);
        }
    }
}

/// The class that begins the program: its package, and the name of its file.
fn main_class(project: &Project<'_, '_>) -> Option<String> {
    let begins = |text: &str| text.contains("static void main") || text.contains("fun main(");
    let (file, text) = project.code.iter().find(|(_, text)| begins(text))?;
    let package = text.lines().find_map(|line| line.trim().strip_prefix("package "));
    let package = package.map(|name| name.trim().trim_end_matches(';').to_owned());
    let name = file.rsplit('/').next()?;
    // Kotlin keeps its functions in a class of the file's name.
    let class = match name.strip_suffix(".kt") {
        Some(stem) => format!("{stem}Kt"),
        None => name.trim_end_matches(".java").to_owned(),
    };
    Some(package.map_or(class.clone(), |package| format!("{package}.{class}")))
}

/// The port in the configuration of Spring, Quarkus, Micronaut, Ktor or Liberty.
fn configured(project: &Project<'_, '_>) -> Option<Said<u16>> {
    if let Some((text, path)) = project.read("src/main/liberty/config/server.xml") {
        let port = text.split("httpPort=\"").nth(1).and_then(|rest| rest.split('"').next());
        return Some((listeners::number(port?)?, path));
    }
    let places = ["src/main/resources", "src/main/resources/config", "config", "conf"];
    places.iter().find_map(|place| {
        let files = [
            "application.properties",
            "application.yml",
            "application.yaml",
            "application-dev.properties",
            "META-INF/microprofile-config.properties",
            "application.conf",
            "bootstrap.yml",
        ];
        files.iter().find_map(|file| {
            let (text, path) = project.read(&join(place, file))?;
            let port = if file.ends_with("properties") {
                of_properties(&text)
            } else if file.ends_with("conf") {
                listeners::keyed(&listeners::without_comments(&text, &["#", "//"]), "port")
            } else {
                of_yaml(&text)
            };
            Some((port?, path))
        })
    })
}

fn of_properties(text: &str) -> Option<u16> {
    let keys =
        ["%dev.quarkus.http.port", "server.port", "quarkus.http.port", "micronaut.server.port"];
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(['=', ':'])?;
        keys.contains(&key.trim()).then(|| listeners::number(value))?
    })
}

/// `server:` with `port:` below it, or the path in one line; also inside of other keys.
fn of_yaml(text: &str) -> Option<u16> {
    let mut server: Option<usize> = None;
    // The port of the management pages is another one.
    let mut aside: Option<usize> = None;
    for line in text.lines() {
        let clean = line.split(" #").next().unwrap_or_default().trim_end();
        let body = clean.trim_start();
        if body.is_empty() || body.starts_with('#') {
            continue;
        }
        let indent = clean.len() - body.len();
        if server.is_some_and(|above| indent <= above) {
            server = None;
        }
        if aside.is_some_and(|above| indent <= above) {
            aside = None;
        }
        if aside.is_some() {
            continue;
        }
        let Some((key, value)) = body.split_once(':') else { continue };
        match (key.trim().trim_matches('"'), server) {
            ("server" | "http" | "deployment", None) if value.trim().is_empty() => {
                server = Some(indent);
            }
            ("management", _) => aside = Some(indent),
            ("server.port", _) | ("port", Some(_)) => return listeners::number(value),
            _ => {}
        }
    }
    None
}

/// The Java version in a build: properties and the compiler's settings of Maven, the toolchain
/// and compatibility of Gradle.
fn stated(text: &str) -> Option<String> {
    let names = [
        "java.version",
        "maven.compiler.release",
        "maven.compiler.target",
        "maven.compiler.source",
        "release",
        "jdk.version",
    ];
    let maven = names.iter().find_map(|name| {
        elements(text, name).into_iter().map(str::trim).find(|value| !value.starts_with('$'))
    });
    let gradle = || {
        ["JavaLanguageVersion.of(", "jvmToolchain(", "sourceCompatibility", "targetCompatibility"]
            .iter()
            .find_map(|call| {
                let (_, rest) = text.split_once(call)?;
                let line = rest.lines().next()?;
                let digits = line.trim_start_matches(|letter: char| !letter.is_ascii_digit());
                let end = digits.find(|letter: char| {
                    !letter.is_ascii_digit() && letter != '_' && letter != '.'
                });
                let version = digits[..end.unwrap_or(digits.len())].trim_end_matches(['.', '_']);
                (!version.is_empty()).then_some(version)
            })
    };
    maven.or_else(gradle).map(|version| version.replace('_', "."))
}

/// Heroku's file, which others read as well.
fn properties(look: &Look<'_>, dir: &str) -> Option<Said<String>> {
    let (text, path) = super::read(look, dir, "system.properties")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("java.runtime.version"))?;
    Some((line.trim_start_matches(['=', ' ']).to_owned(), path))
}

/// `1.8` is 8, `temurin-21.0.2` and `21.0.2-tem` are 21.
fn major(text: &str) -> String {
    let digits = text.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    let mut parts = digits.split(|letter: char| !letter.is_ascii_digit());
    match (parts.next(), parts.next()) {
        (Some("1"), Some(minor)) => minor.to_owned(),
        (Some(major), _) => major.to_owned(),
        _ => String::new(),
    }
}
