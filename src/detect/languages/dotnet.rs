//! .NET: which project of a solution is the app, what its SDK makes it, and its launch settings.

use crate::detect::Candidate;
use crate::detect::json5;
use crate::detect::look::Look;
use crate::detect::tree::{TreeError, join, names};
use crate::domain::findings::{Framework, Language, PackageManager, RuntimeName};

use super::listeners::Shapes;
use super::rules::Rule::{All, Always, Any, Code, Dep, Slot};
use super::{BASE, Entry, PROGRAM_ENTRY, Project, Said, WEAK, offer, runtime, versions};

const SHAPES: Shapes = Shapes {
    comments: &["//"],
    calls: &[
        "UseUrls(",
        "Urls.Add(",
        "app.Run(\"",
        "ListenAnyIP(",
        "ListenLocalhost(",
        "Prefixes.Add(",
    ],
    keys: &[],
};

const PROJECTS: [&str; 3] = [".csproj", ".fsproj", ".vbproj"];

const WATCH: &[(super::rules::Rule, &str)] =
    &[(Always, "dotnet watch run --urls http://{host}:{port}")];

const DEVELOPMENT: &[(&str, &str)] =
    &[("ASPNETCORE_ENVIRONMENT", "Development"), ("ASPNETCORE_URLS", "http://{host}:{port}")];

/// Projects of a solution that are looked at.
const MEMBERS_MAX: usize = 24;

static TABLE: &[Entry] = &[
    Entry {
        id: Framework::AzureFunctions,
        rule: Dep(&[
            "Microsoft.NET.Sdk.Functions",
            "Microsoft.Azure.Functions.Worker",
            "AzureFunctionsVersion",
        ]),
        dev: &[(Always, "func start --port {port}")],
        port: Some(7071),
        ..BASE
    },
    Entry {
        id: Framework::Blazor,
        rule: Any(&[
            Dep(&[
                "Microsoft.NET.Sdk.BlazorWebAssembly",
                "Microsoft.AspNetCore.Components.WebAssembly",
                "Microsoft.AspNetCore.Components.WebAssembly.Server",
                "Microsoft.AspNetCore.Blazor*",
            ]),
            All(&[
                Dep(WEB),
                Code(&[
                    "AddServerSideBlazor",
                    "AddRazorComponents",
                    "AddInteractiveServerComponents",
                    "MapBlazorHub",
                    "MapRazorComponents",
                ]),
            ]),
        ]),
        dev: WATCH,
        port: Some(5000),
        env: DEVELOPMENT,
        ..BASE
    },
    Entry {
        id: Framework::Aspnet,
        rule: Dep(WEB),
        dev: WATCH,
        port: Some(5000),
        env: DEVELOPMENT,
        ..BASE
    },
    Entry {
        rule: All(&[Slot("runs"), Dep(&["Suave"])]),
        dev: &[(Always, "dotnet watch run")],
        port: Some(8080),
        ..PROGRAM_ENTRY
    },
    Entry { rule: Slot("runs"), dev: &[(Always, "dotnet watch run")], ..PROGRAM_ENTRY },
    Entry { rule: Always, score: WEAK, ..BASE },
];

const WEB: &[&str] = &[
    "Microsoft.NET.Sdk.Web",
    "Microsoft.AspNetCore.App",
    "Microsoft.AspNetCore.All",
    "Microsoft.AspNetCore",
    "Microsoft.AspNetCore.Mvc",
    "{349c5851-65df-11da-9384-00065b846f21}",
];

/// Offers a candidate for a directory with a project, a solution, or `global.json`.
pub(super) fn probe(look: &Look<'_>, dir: &str) -> Result<Option<Candidate>, TreeError> {
    let files = look.files(dir);
    let solution = files
        .iter()
        .find(|name| [".sln", ".slnx", ".slnf"].iter().any(|ending| name.ends_with(ending)));
    let own: Vec<String> = files.iter().filter(|name| is_project(name)).cloned().collect();
    let mut found = own;
    if found.is_empty() {
        let declared = solution.is_some() || look.has(dir, "global.json");
        if !declared {
            return Ok(None);
        }
        found = members(look, dir, solution.map(String::as_str));
    }
    let Some((file, text)) = chosen(look, dir, &found) else {
        // A solution of nothing that is there is still .NET.
        let Some(file) = solution else { return Ok(None) };
        let project =
            Project::new(look, dir, Language::Dotnet, PackageManager::Nuget, join(dir, file));
        return Ok(offer(project, TABLE));
    };
    let place = match file.rsplit_once('/') {
        Some((inner, _)) => join(dir, inner),
        None => dir.to_owned(),
    };
    let mut project =
        Project::new(look, &place, Language::Dotnet, PackageManager::Nuget, join(dir, &file));
    project.shapes = &SHAPES;
    project.dependencies = references(&text).into_iter().collect();
    if is_program(&text) {
        project.fill("runs", "run");
    }
    for file in ["Program.cs", "Startup.cs", "Program.fs", "Startup.fs", "Program.vb"] {
        project.add_code([file.to_owned()]);
    }
    project.install_dir = dir.to_owned();
    project.install = Some(("dotnet restore".to_owned(), project.file.clone()));
    project.locked_by("packages.lock.json");
    project.port = launch(&project).or_else(|| kestrel(&project));
    let target = ["TargetFramework", "TargetFrameworks"].iter().find_map(|element| {
        let (_, rest) = text.split_once(&format!("<{element}>"))?;
        let value = rest.split(['<', ';']).next()?.trim();
        let value = value.strip_prefix("netcoreapp").or_else(|| value.strip_prefix("net"))?;
        let value = value.split('-').next()?;
        value.contains('.').then(|| (value.to_owned(), project.file.clone()))
    });
    let version = pinned(look, dir)
        .or_else(|| versions::manager(look, dir, &["dotnet", "dotnet-core"]))
        .or(target);
    project.runtime = runtime(RuntimeName::Dotnet, version);
    let warning = found.len() > 1;
    let mut candidate = offer(project, TABLE);
    if let Some(candidate) = candidate.as_mut().filter(|_| warning) {
        candidate.findings.warnings.push(format!("chose {file} among {} projects", found.len()));
    }
    Ok(candidate)
}

fn is_project(name: &str) -> bool {
    PROJECTS.iter().any(|ending| name.ends_with(ending))
}

/// The projects that a solution names, or that lie one or two directories down.
pub(super) fn members(look: &Look<'_>, dir: &str, solution: Option<&str>) -> Vec<String> {
    let text = solution.and_then(|name| look.hint(&join(dir, name))).unwrap_or_default();
    let named = text.split('"').map(|part| part.replace('\\', "/"));
    let mut found: Vec<String> = named
        .filter(|path| is_project(path) && names(path).is_ok() && super::has(look, dir, path))
        .take(MEMBERS_MAX)
        .collect();
    if found.is_empty() {
        for name in look.directories(dir) {
            let inner = look.directories(&join(dir, &name));
            let places = std::iter::once(name.clone()).chain(
                inner
                    .iter()
                    .map(|inner| join(&name, inner))
                    .filter(|_| SHELVES.contains(&name.as_str())),
            );
            for place in places {
                let files = look.files(&join(dir, &place));
                found.extend(
                    files.iter().filter(|file| is_project(file)).map(|file| join(&place, file)),
                );
            }
            if found.len() >= MEMBERS_MAX {
                break;
            }
        }
    }
    found
}

const SHELVES: [&str; 3] = ["src", "source", "apps"];

/// The project that serves, else the one that runs, else the first.
fn chosen(look: &Look<'_>, dir: &str, found: &[String]) -> Option<(String, String)> {
    let mut read: Vec<(u32, &String, String)> = found
        .iter()
        .filter_map(|file| {
            let text = look.hint(&join(dir, file))?;
            let references = references(&text);
            let serves = |name: &&str| references.iter().any(|known| known == *name);
            let is_test = references.iter().any(|name| name == "Microsoft.NET.Test.Sdk");
            let rank = match () {
                () if is_test => 5,
                // A hosted client is served by its server.
                () if WEB.iter().any(serves) => 0,
                () if references.iter().any(|name| name.contains("Functions")) => 1,
                () if references.iter().any(|name| name.contains("BlazorWebAssembly")) => 2,
                () if is_program(&text) => 3,
                () => 4,
            };
            Some((rank, file, text))
        })
        .collect();
    // The sort is stable, so the order of the solution decides among equals.
    read.sort_by_key(|(rank, ..)| *rank);
    read.into_iter().next().map(|(_, file, text)| (file.clone(), text))
}

fn is_program(text: &str) -> bool {
    text.contains("<OutputType>Exe")
        || text.contains("<OutputType>WinExe")
        || text.contains("Microsoft.NET.Sdk.Worker")
}

/// SDKs, packages, frameworks and kinds that a project names.
fn references(text: &str) -> Vec<String> {
    let mut parts = text.split("<!--");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        clean.push_str(part.split_once("-->").map_or("", |(_, rest)| rest));
    }
    let mut found: Vec<String> = Vec::new();
    for attribute in ["Sdk=\"", "Include=\"", "Sdk Name=\""] {
        let values = clean.split(attribute).skip(1).filter_map(|rest| rest.split('"').next());
        // The SDK may carry a version.
        found.extend(values.filter_map(|value| value.split('/').next()).map(str::to_owned));
    }
    if clean.contains("<AzureFunctionsVersion>") {
        found.push("AzureFunctionsVersion".to_owned());
    }
    if let Some((_, rest)) = clean.split_once("<ProjectTypeGuids>") {
        let kinds = rest.split('<').next().unwrap_or_default();
        found.extend(kinds.split(';').map(|kind| kind.trim().to_ascii_lowercase()));
    }
    found
}

/// The address that `dotnet run` would take: the first profile that runs the project itself.
fn launch(project: &Project<'_, '_>) -> Option<Said<u16>> {
    let (text, path) = project.read("Properties/launchSettings.json")?;
    let text = text.trim_start_matches('\u{feff}');
    let value = json5::parse(text).ok()?;
    let profiles = value["profiles"].as_object()?;
    // The order of an object is not kept, so the text gives the order of the profiles.
    let mut profiles: Vec<_> = profiles.iter().collect();
    profiles.sort_by_key(|(name, _)| text.find(&format!("\"{name}\"")));
    let (mut plain, mut secure) = (None, None);
    for (_, profile) in profiles {
        if profile["commandName"].as_str() != Some("Project") {
            continue;
        }
        for address in profile["applicationUrl"].as_str().unwrap_or_default().split(';') {
            let port = address.rsplit_once(':').and_then(|(_, port)| {
                port.trim_end_matches('/').parse::<u16>().ok().filter(|port| *port != 0)
            });
            match address.trim().starts_with("https") {
                true => secure = secure.or(port),
                false => plain = plain.or(port),
            }
        }
    }
    Some((plain.or(secure)?, path))
}

/// What the settings of the app give its server.
fn kestrel(project: &Project<'_, '_>) -> Option<Said<u16>> {
    ["appsettings.Development.json", "appsettings.json"].iter().find_map(|file| {
        let (text, path) = project.read(file)?;
        let value = json5::parse(text.trim_start_matches('\u{feff}')).ok()?;
        let url = value["Urls"]
            .as_str()
            .or_else(|| value["urls"].as_str())
            .or_else(|| value["Kestrel"]["Endpoints"]["Http"]["Url"].as_str())
            .or_else(|| value["Kestrel"]["EndPoints"]["Http"]["Url"].as_str())?;
        let first = url.split(';').next()?;
        Some((first.trim_end_matches('/').rsplit_once(':')?.1.parse().ok()?, path))
    })
}

fn pinned(look: &Look<'_>, dir: &str) -> Option<Said<String>> {
    let (text, path) = super::read(look, dir, "global.json")?;
    let value = json5::parse(text.trim_start_matches('\u{feff}')).ok()?;
    Some((value["sdk"]["version"].as_str()?.to_owned(), path))
}
