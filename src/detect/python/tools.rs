//! Which tool installs a Python project's dependencies, and how.

use crate::detect::look::Look;
use crate::detect::tree::{join, parent};
use crate::domain::findings::{Findings, Framework, PackageManager};

use super::dependencies;

/// How each tool is recognised and installs, the strongest statement first: a lockfile says more
/// than a `requirements.txt`, which may be exported from it.
const TOOLS: [(&str, PackageManager, &str, bool); 20] = {
    use PackageManager::{Conda, Pdm, Pip, Pipenv, Poetry, Uv};
    [
        ("uv.lock", Uv, "uv sync --locked", true),
        ("poetry.lock", Poetry, "poetry install", true),
        ("pdm.lock", Pdm, "pdm install --frozen-lockfile", true),
        ("Pipfile.lock", Pipenv, "pipenv sync --dev", true),
        ("Pipfile", Pipenv, "pipenv install --dev", false),
        ("requirements.txt", Pip, "pip install -r requirements.txt", true),
        ("requirements/dev.txt", Pip, "pip install -r requirements/dev.txt", true),
        ("requirements/local.txt", Pip, "pip install -r requirements/local.txt", true),
        ("requirements/base.txt", Pip, "pip install -r requirements/base.txt", true),
        (
            "requirements/requirements.txt",
            Pip,
            "pip install -r requirements/requirements.txt",
            true,
        ),
        ("requirements/common.txt", Pip, "pip install -r requirements/common.txt", true),
        ("requirements-dev.txt", Pip, "pip install -r requirements-dev.txt", true),
        ("pyproject.toml", Pip, "pip install -e .", false),
        ("setup.py", Pip, "pip install -e .", false),
        ("setup.cfg", Pip, "pip install -e .", false),
        ("environment.yml", Conda, "conda env update -f environment.yml", false),
        ("environment.yaml", Conda, "conda env update -f environment.yaml", false),
        ("conda.yml", Conda, "conda env update -f conda.yml", false),
        ("requirements.in", Pip, "pip install -r requirements.in", false),
        ("pip-requirements.txt", Pip, "pip install -r pip-requirements.txt", true),
    ]
};

/// Files with what only development needs, installed beside `requirements.txt`.
const DEVELOPMENT: [&str; 5] = [
    "requirements-dev.txt",
    "requirements_dev.txt",
    "dev-requirements.txt",
    "requirements.dev.txt",
    "requirements-local.txt",
];

/// How people misspell `requirements.txt`; no tool finds these.
pub(super) const MISSPELT: [&str; 10] = [
    "requirement.txt",
    "Requirements.txt",
    "requirments.txt",
    "requirememts.txt",
    "requirements",
    "requirements.text",
    "requirements.txt.txt",
    "requierments.txt",
    "requriements.txt",
    "REQUIREMENTS.txt",
];

/// Decides tool and command by the nearest directory upward that says one. `dir` holds the
/// manifest; the app may lie below it.
pub(super) fn install(findings: &mut Findings, look: &Look<'_>, dir: &str) {
    let places = std::iter::successors(Some(findings.app_dir.as_str()), |place| parent(place));
    let found = places.map(str::to_owned).find_map(|place| {
        let tool = TOOLS.iter().find(|(name, ..)| has(look, &place, name))?;
        Some((place, tool))
    });
    let Some((place, (name, manager, command, locked))) = found else {
        misspelt(findings, look, dir);
        return;
    };
    let file = join(&place, name);
    let (mut manager, mut command) = (*manager, (*command).to_owned());
    if *name == "pyproject.toml" {
        (manager, command) = dependencies::tool_of(look, &file).unwrap_or((manager, command));
        // The lockfile of a workspace lies at its root.
        let above = std::iter::successors(parent(&place), |place| parent(place));
        let root = above.into_iter().find(|place| look.has(place, "uv.lock"));
        if let Some(root) =
            root.filter(|_| manager == PackageManager::Pip || manager == PackageManager::Uv)
        {
            findings.package_manager = PackageManager::Uv;
            findings.install_dir = root.to_owned();
            findings.install = Some("uv sync --locked --all-packages".to_owned());
            findings.lockfile = Some(join(root, "uv.lock"));
            findings.decide("package_manager", "uv", join(root, "uv.lock"), "its lockfile");
            let file = join(root, "uv.lock");
            findings.decide("install", "uv sync --locked --all-packages", file, "its lockfile");
            return;
        }
    }
    if *name == "requirements.txt"
        && let Some(more) = look.first(&place, &DEVELOPMENT)
    {
        command = format!("{command} -r {more}");
    }
    findings.package_manager = manager;
    findings.install_dir = place;
    findings.install = Some(command.clone());
    findings.lockfile = locked.then(|| file.clone());
    findings.decide("package_manager", manager.as_str(), file.clone(), "its file");
    findings.decide("install", command, file, "its file");
}

/// Nothing that a tool would find: perhaps only the name is wrong.
fn misspelt(findings: &mut Findings, look: &Look<'_>, dir: &str) {
    let Some(name) = look.first(dir, &MISSPELT) else {
        // Something has to install a framework that nobody wrote down.
        if findings.framework != Framework::None {
            findings.package_manager = PackageManager::Pip;
            findings.decide("package_manager", "pip", dir, "nothing names another");
        }
        return;
    };
    let file = join(dir, name);
    findings
        .warnings
        .push(format!("{file} is taken for requirements.txt, which it should be called"));
    findings.package_manager = PackageManager::Pip;
    findings.install = Some(format!("pip install -r {name}"));
    findings.lockfile = Some(file.clone());
    findings.decide("package_manager", "pip", file.clone(), "nearly its file");
    findings.decide("install", format!("pip install -r {name}"), file, "nearly its file");
}

fn has(look: &Look<'_>, place: &str, name: &str) -> bool {
    match name.split_once('/') {
        Some((inner, name)) => {
            look.directories(place).iter().any(|known| known == inner)
                && look.has(&join(place, inner), name)
        }
        None => look.has(place, name),
    }
}
