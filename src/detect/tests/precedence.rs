//! Who decides, when several files have a say.

use super::{line, look, why};

#[test]
fn the_language_is_what_the_files_mean() {
    const DJANGO: (&str, &str) = ("manage.py", "DJANGO_SETTINGS_MODULE");
    let check = |files: &[(&str, &str)], expected: &str| {
        let findings = look(files).unwrap();
        assert_eq!(format!("{} {}", findings.language, findings.framework), expected);
    };
    let vite = ("package.json", r#"{"scripts":{"dev":"vite"},"devDependencies":{"vite":"8"}}"#);
    let next = ("package.json", r#"{"scripts":{"dev":"next dev"},"dependencies":{"next":"16"}}"#);
    let tools = ("package.json", r#"{"devDependencies":{"husky":"9"}}"#);
    let flask = ("app.py", "app = Flask(__name__)");
    let requirements = ("requirements.txt", "flask");
    check(&[DJANGO, vite], "python django");
    check(&[flask, requirements, vite], "python flask");
    check(&[next, ("app.py", "print()")], "node nextjs");
    check(
        &[next, ("requirements.txt", "fastapi"), ("api/index.py", "app = FastAPI()")],
        "node nextjs",
    );
    check(&[tools, flask, requirements], "python flask");
    check(&[tools, ("main.py", ""), ("requirements.txt", "x")], "python none");
    check(&[vite, ("artisan", ""), ("composer.json", "{}")], "php laravel");
    check(&[vite, ("bin/rails", ""), ("Gemfile", "")], "ruby rails");
    check(&[vite, ("Gemfile", "")], "node vite-vanilla");
    check(&[tools, ("go.mod", "")], "go none");
    check(&[tools, ("index.html", "")], "static static-html");
    check(&[vite, ("index.html", "")], "node vite-vanilla");
    let findings = look(&[DJANGO, vite]).unwrap();
    assert!(findings.warnings.iter().any(|warning| warning.contains("also found there: node")));
}

#[test]
fn the_package_manager_by_precedence() {
    let check = |package: &str, files: &[(&str, &str)], manager: &str, install: &str| {
        let mut all = vec![("package.json", package)];
        all.extend(files);
        let findings = look(&all).unwrap();
        assert_eq!(findings.package_manager.as_str(), manager, "{package} {files:?}");
        assert_eq!(findings.install.as_deref(), Some(install), "{package} {files:?}");
    };
    const NEXT: &str = r#"{"dependencies":{"next":"16"}}"#;
    let with = |field: &str| format!(r#"{{{field},"dependencies":{{"next":"16"}}}}"#);
    let pnpm = ("pnpm-lock.yaml", "");
    let npm = ("package-lock.json", "");
    let yarn1 = ("yarn.lock", "# yarn lockfile v1\n");
    let berry = ("yarn.lock", "__metadata:\n  version: 8\n");
    let bun = ("bun.lock", "{}");
    const PNPM: &str = "pnpm install --frozen-lockfile";
    check(&with(r#""packageManager":"pnpm@10.1.0+sha512.abc""#), &[pnpm, npm], "pnpm", PNPM);
    check(&with(r#""packageManager":"yarn@1.22.22""#), &[npm], "yarn1", "yarn install");
    check(
        &with(r#""packageManager":"yarn@4.1.0""#),
        &[berry],
        "yarn-berry",
        "yarn install --immutable",
    );
    check(&with(r#""devEngines":{"packageManager":{"name":"bun"}}"#), &[npm], "bun", "bun install");
    check(
        &with(r#""devEngines":{"packageManager":[{"name":"what"},{"name":"pnpm"}]}"#),
        &[],
        "pnpm",
        "pnpm install",
    );
    check(NEXT, &[pnpm, bun, yarn1, npm], "pnpm", PNPM);
    check(NEXT, &[bun, yarn1], "bun", "bun install --frozen-lockfile");
    check(NEXT, &[yarn1, npm], "yarn1", "yarn install --frozen-lockfile");
    check(NEXT, &[berry], "yarn-berry", "yarn install --immutable");
    check(NEXT, &[npm], "npm", "npm ci");
    check(NEXT, &[("npm-shrinkwrap.json", "")], "npm", "npm ci");
    check(NEXT, &[("pnpm-workspace.yaml", "allowBuilds: {}")], "pnpm", "pnpm install");
    check(NEXT, &[(".yarnrc.yml", "")], "yarn-berry", "yarn install");
    check(&with(r#""engines":{"pnpm":">=9"}"#), &[], "pnpm", "pnpm install");
    check(&with(r#""engines":{"yarn":"^1.22"}"#), &[], "yarn1", "yarn install");
    check(r#"{"dependencies":{"next":"catalog:"}}"#, &[], "pnpm", "pnpm install");
    check(NEXT, &[], "npm", "npm install");
    // A packageManager that nobody knows does not hide the lockfile.
    check(&with(r#""packageManager":"vlt@1.0.0""#), &[pnpm], "pnpm", PNPM);
    let findings = look(&[("package.json", NEXT), pnpm, npm]).unwrap();
    assert!(findings.warnings.iter().any(|warning| warning.contains("package-lock.json")));
}

#[test]
fn scripts_are_called_as_each_manager_wants() {
    let check = |lock: (&str, &str), expected: &str| {
        let package = r#"{"scripts":{"dev":"astro dev"},"dependencies":{"astro":"5"}}"#;
        assert_eq!(line(&[("package.json", package), lock]), format!("astro 4321 | {expected}"));
    };
    const FLAGS: &str = "--host 0.0.0.0 --port 4321";
    check(("package-lock.json", ""), &format!("npm run dev -- {FLAGS}"));
    check(("pnpm-lock.yaml", ""), &format!("pnpm run dev {FLAGS}"));
    check(("yarn.lock", ""), &format!("yarn run dev {FLAGS}"));
    check(("bun.lock", ""), &format!("bun run dev {FLAGS}"));
}

#[test]
fn the_node_version_by_precedence() {
    let check = |package: &str, files: &[(&str, &str)], expected: &str| {
        let mut all = vec![("package.json", package)];
        all.extend(files);
        let runtime = look(&all).unwrap().runtime.unwrap();
        let range = runtime.range.unwrap_or("-".into());
        assert_eq!(format!("{} {range}", runtime.version), expected, "{package} {files:?}");
    };
    let engines = |range: &str| format!(r#"{{"engines":{{"node":"{range}"}},"volta":{{}}}}"#);
    check("{}", &[], "22 -");
    check(&engines(">=18"), &[], "22 >=18");
    check(&engines(">=22"), &[], "22 >=22");
    check(&engines("^22.12.0"), &[], "22 ^22.12.0");
    check(&engines("^20.19.0 || >=22.12.0"), &[], "22 ^20.19.0 || >=22.12.0");
    check(&engines("22.x"), &[], "22 22.x");
    check(&engines("*"), &[], "22 *");
    check(&engines(">=16 <21"), &[], "20 >=16 <21");
    check(&engines("22.12.0"), &[], "22.12.0 -");
    check(&engines("18.x"), &[], "18 18.x");
    check(&engines("nonsense"), &[], "22 -");
    check(&engines(">=22"), &[(".nvmrc", "v20.11.1\n")], "20.11.1 -");
    check("{}", &[(".nvmrc", "lts/iron")], "20 -");
    check("{}", &[(".nvmrc", "lts/*")], "24 -");
    check("{}", &[(".nvmrc", "# what\n\n22 # why\n")], "22 -");
    check("{}", &[(".nvmrc", "garbage"), (".tool-versions", "nodejs 20.1.0\n")], "22 -");
    check("{}", &[(".node-version", "18.x")], "18 18.x");
    check("{}", &[(".tool-versions", "python 3.12\nnodejs 22.1.0\n")], "22.1.0 -");
    check("{}", &[("mise.toml", "[tools]\nnode = '24'\n")], "24 -");
    check(r#"{"volta":{"node":"22.2.0"},"engines":{"node":">=24"}}"#, &[], "22.2.0 -");
    check(r#"{"devEngines":{"runtime":{"name":"node","version":">=23"}}}"#, &[], "24 >=23");
}

#[test]
fn the_python_version_by_precedence() {
    let check = |files: &[(&str, &str)], expected: &str| {
        let mut all = vec![("main.py", "")];
        all.extend(files);
        let runtime = look(&all).unwrap().runtime.unwrap();
        let range = runtime.range.unwrap_or("-".into());
        assert_eq!(format!("{} {range}", runtime.version), expected, "{files:?}");
    };
    check(&[], "3.11 -");
    check(&[(".python-version", "# mine\n3.12.4\n")], "3.12.4 -");
    check(&[("runtime.txt", "python-3.10.2")], "3.10.2 -");
    check(&[("runtime.txt", "hello")], "3.11 -");
    check(&[("Pipfile", "[requires]\npython_version = '3.12'")], "3.12 -");
    check(&[(".tool-versions", "python 3.13.1")], "3.13.1 -");
    check(&[("pyproject.toml", "[project]\nrequires-python = '>=3.10'")], "3.11 >=3.10");
    check(&[("pyproject.toml", "[project]\nrequires-python = '==3.12.*'")], "3.12 ==3.12.*");
    check(&[("pyproject.toml", "[project]\nrequires-python = '>=3.12'")], "3.14 >=3.12");
    check(
        &[("pyproject.toml", "[tool.poetry.dependencies]\npython = '^3.12,<3.13'")],
        "3.12 ^3.12,<3.13",
    );
}

#[test]
fn the_python_tool_by_precedence() {
    let check = |files: &[(&str, &str)], expected: &str, lockfile: Option<&str>| {
        let mut all = vec![("main.py", "")];
        all.extend(files);
        let findings = look(&all).unwrap();
        let install = findings.install.unwrap_or_default();
        assert_eq!(format!("{} {install}", findings.package_manager), expected);
        assert_eq!(findings.lockfile.as_deref(), lockfile);
    };
    let requirements = ("requirements.txt", "x");
    let project = ("pyproject.toml", "[project]\nname='x'");
    check(&[project, ("uv.lock", ""), requirements], "uv uv sync --locked", Some("uv.lock"));
    check(&[project, ("poetry.lock", "")], "poetry poetry install", Some("poetry.lock"));
    check(&[project, ("pdm.lock", "")], "pdm pdm install --frozen-lockfile", Some("pdm.lock"));
    check(
        &[("Pipfile", ""), ("Pipfile.lock", "{}"), requirements],
        "pipenv pipenv sync --dev",
        Some("Pipfile.lock"),
    );
    check(&[("Pipfile", "")], "pipenv pipenv install --dev", None);
    check(
        &[requirements, project],
        "pip pip install -r requirements.txt",
        Some("requirements.txt"),
    );
    check(
        &[("requirements/dev.txt", "x")],
        "pip pip install -r requirements/dev.txt",
        Some("requirements/dev.txt"),
    );
    check(&[project], "pip pip install -e .", None);
    check(&[("pyproject.toml", "[tool.poetry]\nname='x'")], "poetry poetry install", None);
    check(&[("pyproject.toml", "[tool.uv]\n")], "uv uv sync", None);
    check(&[], "none ", None);
}

#[test]
fn the_port_by_precedence() {
    let config = ("vite.config.ts", "export default defineConfig({ server: { port: 8081 } })");
    let check = |script: &str, files: &[(&str, &str)], expected: &str| {
        let package =
            format!(r#"{{"scripts":{{"dev":"{script}"}},"dependencies":{{"vite":"8"}}}}"#);
        let mut all = vec![("package.json", package.as_str())];
        all.extend(files);
        let findings = look(&all).unwrap();
        assert_eq!(why(&findings, "port"), expected);
    };
    check("vite --port 4000", &[config], "4000 package.json: named in the script");
    check("vite", &[config], "8081 vite.config.ts: its configuration");
    check("vite", &[], "5173 package.json: default of vite-vanilla");
}
