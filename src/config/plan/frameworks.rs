//! What frameworks write beside their sources, and how they come to be able to.

use crate::config::project::PreviewMode;
use crate::domain::findings::Framework;

/// Directories that a framework insists on writing into, below its app.
#[must_use]
pub fn framework_writables(framework: Framework) -> &'static [&'static str] {
    match framework {
        Framework::Nextjs => &[".next"],
        Framework::Nuxt => &[".nuxt"],
        Framework::Sveltekit => &[".svelte-kit"],
        Framework::Astro => &[".astro"],
        Framework::Angular | Framework::IonicAngular => &[".angular"],
        Framework::ReactRouter => &[".react-router"],
        _ => &[],
    }
}

/// How a framework's dev server sees the workspace where the project says nothing.
///
/// These write into their project at places that no mount can stand for: they remove and make
/// anew a whole directory, which a mount point does not allow, or write single files beside the
/// sources.
#[must_use]
pub fn framework_mode(framework: Framework) -> PreviewMode {
    match framework {
        // `dist` is removed before each build.
        Framework::Nestjs
        | Framework::Gatsby
        | Framework::Docusaurus
        | Framework::Eleventy
        | Framework::Vitepress
        | Framework::Vuepress
        | Framework::Hexo
        | Framework::Ember
        | Framework::Parcel
        | Framework::Expo
        | Framework::Redwood
        | Framework::Blitz
        | Framework::Hydrogen
        | Framework::Remix
        // Its table of routes is written beside the routes.
        | Framework::TanstackStart
        | Framework::Solidstart
        | Framework::Nitro
        | Framework::PreactCli
        | Framework::Stencil
        | Framework::Sanity
        | Framework::Umi
        | Framework::Sapper
        | Framework::Brunch
        | Framework::Xmcp
        | Framework::Mastra
        // The key of its sessions.
        | Framework::Fasthtml => PreviewMode::Mirror,
        _ => PreviewMode::Direct,
    }
}

/// A file that a framework writes anew at each start of a project in TypeScript, beside its
/// sources: declarations of what it has made.
#[must_use]
pub fn framework_declarations(framework: Framework) -> Option<&'static str> {
    (framework == Framework::Nextjs).then_some("next-env.d.ts")
}

/// Files that a framework insists on writing, below its app, and where in the
/// cache they go: Django's default database.
#[must_use]
pub fn framework_links(framework: Framework) -> &'static [(&'static str, &'static str)] {
    match framework {
        Framework::Django => &[("db.sqlite3", "/app/.cache/db.sqlite3")],
        _ => &[],
    }
}
