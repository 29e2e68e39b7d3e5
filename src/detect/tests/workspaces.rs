//! Several packages in one workspace: which is run, and where it installs.

use super::super::detect;
use super::super::tree::MemoryTree;
use super::look;
use crate::domain::findings::Findings;

const NEXT: &str = r#"{"name":"web","scripts":{"dev":"next dev"},"dependencies":{"next":"16"}}"#;
const VITE: &str = r#"{"name":"admin","scripts":{"dev":"vite"},"devDependencies":{"vite":"8"}}"#;
const LIBRARY: &str = r#"{"name":"ui","dependencies":{"react":"19"}}"#;
const EXPRESS: &str = r#"{"scripts":{"dev":"node a.js"},"dependencies":{"express":"5"}}"#;

/// The chosen app, where it installs, and all apps.
fn summary(findings: &Findings) -> String {
    let apps: Vec<_> = findings
        .apps
        .iter()
        .map(|app| format!("{}:{}:{}", app.dir, app.framework, app.port.unwrap_or(0)))
        .collect();
    let mono = if findings.monorepo { "mono" } else { "single" };
    format!("{mono} {} @{} [{}]", findings.app_dir, findings.install_dir, apps.join(" "))
}

fn check(files: &[(&str, &str)], expected: &str) {
    assert_eq!(summary(&look(files).unwrap()), expected);
}

#[test]
fn the_app_of_a_workspace_is_chosen_and_the_others_listed() {
    check(
        &[
            ("package.json", r#"{"workspaces":["apps/*","packages/*"]}"#),
            ("package-lock.json", ""),
            ("apps/admin/package.json", VITE),
            ("apps/web/package.json", NEXT),
            ("packages/ui/package.json", LIBRARY),
        ],
        "mono apps/web @. [apps/web:nextjs:3000 apps/admin:vite-vanilla:5173]",
    );
    let findings = look(&[
        ("package.json", "{}"),
        ("pnpm-workspace.yaml", "packages:\n  - apps/*\n"),
        ("pnpm-lock.yaml", ""),
        ("apps/web/package.json", NEXT),
        ("apps/docs/package.json", NEXT),
    ])
    .unwrap();
    assert_eq!(findings.app_dir, "apps/web");
    assert_eq!(findings.lockfile.as_deref(), Some("pnpm-lock.yaml"));
    assert_eq!(findings.dev_command().unwrap(), "pnpm run dev -H 0.0.0.0 -p 3000");
    assert!(findings.warnings.iter().any(|warning| warning.contains("apps/docs")));
}

#[test]
fn the_roots_dev_script_names_the_app() {
    check(
        &[
            (
                "package.json",
                r#"{"workspaces":["apps/*"],"scripts":{"dev":"turbo dev --filter=admin"}}"#,
            ),
            ("apps/admin/package.json", VITE),
            ("apps/web/package.json", NEXT),
        ],
        "mono apps/admin @. [apps/admin:vite-vanilla:5173 apps/web:nextjs:3000]",
    );
}

#[test]
fn a_root_that_is_an_app_is_the_app() {
    check(
        &[
            ("package.json", r#"{"workspaces":["packages/*"],"dependencies":{"next":"16"}}"#),
            ("packages/a/package.json", LIBRARY),
            ("packages/b/package.json", LIBRARY),
        ],
        "mono . @. [.:nextjs:3000]",
    );
    // turbo.json or settings of pnpm alone make no monorepo.
    check(
        &[("package.json", NEXT), ("turbo.json", "{}"), ("pnpm-workspace.yaml", "catalog: {}")],
        "single . @. [.:nextjs:3000]",
    );
}

#[test]
fn apps_lie_below_a_root_that_is_none() {
    check(
        &[("frontend/package.json", VITE), ("backend/package.json", EXPRESS)],
        "mono frontend @frontend [frontend:vite-vanilla:5173 backend:express:3000]",
    );
    check(
        &[
            ("frontend/package.json", VITE),
            ("backend/requirements.txt", "django"),
            ("backend/manage.py", "DJANGO_SETTINGS_MODULE"),
        ],
        "mono frontend @frontend [frontend:vite-vanilla:5173 backend:django:8000]",
    );
    check(
        &[("README.md", ""), ("website/package.json", NEXT), ("website/package-lock.json", "")],
        "single website @website [website:nextjs:3000]",
    );
    check(
        &[
            ("package.json", r#"{"devDependencies":{"husky":"9"}}"#),
            ("package-lock.json", ""),
            ("client/package.json", VITE),
        ],
        "single client @client [client:vite-vanilla:5173]",
    );
    check(
        &[("apps/a/package.json", NEXT), ("apps/b/package.json", VITE)],
        "mono apps/a @apps/a [apps/a:nextjs:3000 apps/b:vite-vanilla:5173]",
    );
    check(
        &[("requirements.txt", "django"), ("backend/manage.py", "DJANGO_SETTINGS_MODULE")],
        "single backend @. [backend:django:8000]",
    );
}

#[test]
fn an_app_that_is_named_is_the_app() {
    let tree = MemoryTree::new([
        ("package.json", r#"{"workspaces":["apps/*"],"packageManager":"pnpm@10.0.0"}"#),
        ("pnpm-lock.yaml", ""),
        ("apps/admin/package.json", VITE),
        ("apps/web/package.json", NEXT),
    ]);
    let findings = detect(&tree, Some("./apps/admin/")).unwrap();
    assert_eq!(summary(&findings), "mono apps/admin @. [apps/admin:vite-vanilla:5173]");
    assert_eq!(findings.package_manager.as_str(), "pnpm");
    assert_eq!(findings.install.as_deref(), Some("pnpm install --frozen-lockfile"));
}

#[test]
fn a_glob_without_end_is_no_members() {
    for part in ["// ", "a/", "**/a/"] {
        let packages = format!("packages:\n  - {}\n", part.repeat(40_000));
        let findings = look(&[
            ("package.json", r#"{"devDependencies":{"vite":"7"},"scripts":{"dev":"vite"}}"#),
            ("pnpm-workspace.yaml", &packages),
            ("a/package.json", "{}"),
        ]);
        assert_eq!(findings.unwrap().app_dir.as_str(), ".", "{part}");
    }
}
