//! The table of JavaScript frameworks: one small entry each, in order of priority.
//!
//! The first entry whose rule holds wins, so a tool that is built on another stands before it
//! (every meta-framework before Vite, every framework before a bare server). Adding a framework
//! is adding an entry here and a row to the tests. Ports and commands: `reference/detection.md`
//! 2.1.

use crate::domain::findings::Framework;

use super::rules::Rule::{self, All, Any, Below, Config, Dep, File, Imports, Without};

/// How one framework is recognised and run for development.
pub(crate) struct Entry {
    pub(crate) id: Framework,
    /// What must be true of the app.
    pub(crate) rule: Rule,
    /// How a script may call the dev server; the first is used when no script fits.
    pub(crate) calls: &'static [&'static str],
    /// What is appended to that call, unless the script says it already.
    pub(crate) flags: &'static [Flag],
    /// Scripts that run it for development, the preferred first. Never one that serves a build.
    pub(crate) scripts: &'static [&'static str],
    /// The port if nothing says otherwise.
    pub(crate) port: u16,
    /// The configuration file that may name the port, without its ending.
    pub(crate) config: &'static str,
    /// Environment that the dev server reads.
    pub(crate) env: &'static [(&'static str, &'static str)],
    /// A server of the project's own: its code chooses the port.
    pub(crate) own_server: bool,
}

/// A flag of a dev server, by every spelling that a script may already have used.
pub(crate) struct Flag {
    pub(crate) names: &'static [&'static str],
    pub(crate) text: &'static str,
}

const HOST: Flag = Flag { names: &["--host"], text: "--host {host}" };
const HOST_SHORT: Flag = Flag { names: &["-H", "--hostname", "--host"], text: "-H {host}" };
const HOSTNAME: Flag = Flag { names: &["--hostname", "-H"], text: "--hostname {host}" };
const PORT: Flag = Flag { names: &["--port", "-p"], text: "--port {port}" };
const PORT_SHORT: Flag = Flag { names: &["-p", "--port"], text: "-p {port}" };
// Without it Vite moves to the next free port and the published one answers nothing.
const STRICT_PORT: Flag = Flag { names: &["--strictPort"], text: "--strictPort" };

const HOST_AND_PORT: &[Flag] = &[HOST, PORT];
const VITE_FLAGS: &[Flag] = &[HOST, PORT, STRICT_PORT];
const VITE_CALLS: &[&str] = &["vite", "vite dev", "vite serve"];
const VITE_DEV_CALLS: &[&str] = &["vite dev", "vite", "vite serve"];
const VITE: Rule = Any(&[Dep(&["vite", "vite-plus"]), Config("vite.config")]);
const REMIX: &[&str] = &["@remix-run/dev", "@remix-run/react", "@remix-run/node"];

const PORT_ENV: &[(&str, &str)] = &[("HOST", "{host}"), ("PORT", "{port}")];

const BASE: Entry = Entry {
    id: Framework::None,
    rule: Any(&[]),
    calls: &[],
    flags: &[],
    scripts: &["dev", "develop", "start:dev", "serve"],
    port: 3000,
    config: "",
    env: &[],
    own_server: false,
};

const fn vite(id: Framework, rule: Rule) -> Entry {
    Entry {
        id,
        rule,
        calls: VITE_CALLS,
        flags: VITE_FLAGS,
        scripts: &["dev", "start", "serve", "develop"],
        port: 5173,
        config: "vite.config",
        ..BASE
    }
}

const fn old_vite(id: Framework, rule: Rule) -> Entry {
    Entry { port: 3000, ..vite(id, rule) }
}

const fn server(id: Framework, rule: Rule) -> Entry {
    Entry { id, rule, env: PORT_ENV, own_server: true, ..BASE }
}

/// A project's own server without a framework that anybody knows.
pub(crate) static PLAIN: Entry = server(Framework::None, Any(&[]));

/// Every framework, the most specific first.
pub(crate) static TABLE: &[Entry] = &[
    Entry {
        id: Framework::Nextjs,
        rule: Dep(&["next"]),
        calls: &["next dev"],
        flags: &[HOST_SHORT, PORT_SHORT],
        env: &[("PORT", "{port}")],
        ..BASE
    },
    Entry {
        id: Framework::Nuxt,
        rule: All(&[Dep(&["nuxt"]), Below("nuxt", 3)]),
        calls: &["nuxt", "nuxt dev", "nuxt-ts"],
        flags: &[HOSTNAME, PORT],
        env: PORT_ENV,
        ..BASE
    },
    Entry {
        id: Framework::Nuxt,
        rule: Dep(&["nuxt", "nuxt3", "nuxt-edge", "nuxt-nightly"]),
        calls: &["nuxt dev", "nuxi dev"],
        flags: HOST_AND_PORT,
        config: "nuxt.config",
        env: PORT_ENV,
        ..BASE
    },
    Entry {
        id: Framework::Remix,
        rule: All(&[Dep(REMIX), Config("vite.config")]),
        calls: &["remix vite:dev"],
        flags: HOST_AND_PORT,
        port: 5173,
        config: "vite.config",
        ..BASE
    },
    Entry { id: Framework::Remix, rule: Dep(REMIX), calls: &["remix dev"], env: PORT_ENV, ..BASE },
    Entry {
        id: Framework::ReactRouter,
        rule: Any(&[Dep(&["@react-router/dev"]), Config("react-router.config")]),
        calls: &["react-router dev"],
        flags: HOST_AND_PORT,
        port: 5173,
        config: "vite.config",
        ..BASE
    },
    Entry {
        id: Framework::TanstackStart,
        rule: Dep(&["@tanstack/react-start", "@tanstack/solid-start", "@tanstack/start"]),
        calls: VITE_DEV_CALLS,
        flags: VITE_FLAGS,
        port: 5173,
        config: "vite.config",
        ..BASE
    },
    Entry {
        id: Framework::Sveltekit,
        rule: Dep(&["@sveltejs/kit"]),
        calls: VITE_DEV_CALLS,
        flags: VITE_FLAGS,
        port: 5173,
        config: "vite.config",
        ..BASE
    },
    Entry {
        id: Framework::Solidstart,
        rule: Any(&[Below("@solidjs/start", 2), Dep(&["vinxi"])]),
        calls: &["vinxi dev"],
        flags: HOST_AND_PORT,
        ..BASE
    },
    Entry {
        id: Framework::Solidstart,
        rule: Dep(&["@solidjs/start"]),
        calls: VITE_DEV_CALLS,
        flags: VITE_FLAGS,
        port: 5173,
        config: "vite.config",
        ..BASE
    },
    Entry {
        id: Framework::Astro,
        rule: Below("astro", 3),
        calls: &["astro dev"],
        flags: HOST_AND_PORT,
        config: "astro.config",
        scripts: &["dev", "start", "develop"],
        ..BASE
    },
    Entry {
        id: Framework::Astro,
        rule: Any(&[Dep(&["astro"]), Config("astro.config")]),
        calls: &["astro dev"],
        flags: HOST_AND_PORT,
        port: 4321,
        config: "astro.config",
        scripts: &["dev", "start", "develop"],
        ..BASE
    },
    Entry {
        id: Framework::Angular,
        rule: All(&[
            Any(&[Dep(&["@angular/cli"]), All(&[Dep(&["@angular/core"]), File("angular.json")])]),
            Without(&["@ionic/angular"]),
        ]),
        calls: &["ng serve"],
        flags: HOST_AND_PORT,
        scripts: &["start", "dev", "serve"],
        port: 4200,
        config: "angular",
        ..BASE
    },
    Entry {
        id: Framework::IonicAngular,
        rule: All(&[Dep(&["@ionic/angular"]), Dep(&["@angular/cli", "@angular/core"])]),
        calls: &["ng serve"],
        flags: HOST_AND_PORT,
        scripts: &["start", "dev", "serve"],
        port: 4200,
        config: "angular",
        ..BASE
    },
    Entry {
        id: Framework::Gatsby,
        rule: Dep(&["gatsby"]),
        calls: &["gatsby develop"],
        flags: &[HOST_SHORT, PORT_SHORT],
        scripts: &["develop", "dev", "start"],
        port: 8000,
        ..BASE
    },
    Entry {
        id: Framework::Docusaurus,
        rule: Dep(&["@docusaurus/core"]),
        calls: &["docusaurus start"],
        flags: HOST_AND_PORT,
        scripts: &["start", "dev"],
        ..BASE
    },
    Entry {
        id: Framework::Eleventy,
        rule: Dep(&["@11ty/eleventy"]),
        calls: &["eleventy --serve"],
        flags: &[PORT],
        scripts: &["serve", "dev", "start"],
        port: 8080,
        ..BASE
    },
    Entry {
        id: Framework::Cra,
        rule: Dep(&["react-scripts"]),
        calls: &["react-scripts start", "craco start", "react-app-rewired start"],
        scripts: &["dev", "start"],
        env: &[("BROWSER", "none"), ("HOST", "{host}"), ("PORT", "{port}")],
        ..BASE
    },
    Entry {
        id: Framework::VueCli,
        rule: Dep(&["@vue/cli-service"]),
        calls: &["vue-cli-service serve"],
        flags: HOST_AND_PORT,
        scripts: &["serve", "dev", "start"],
        port: 8080,
        ..BASE
    },
    Entry {
        id: Framework::Parcel,
        rule: Dep(&["parcel", "parcel-bundler"]),
        calls: &["parcel", "parcel serve"],
        flags: HOST_AND_PORT,
        scripts: &["dev", "start", "serve"],
        port: 1234,
        ..BASE
    },
    // Before Vite, which Nest projects have for their tests.
    Entry {
        calls: &["nest start --watch", "nest start"],
        scripts: &["start:dev", "dev", "start"],
        ..server(Framework::Nestjs, Dep(&["@nestjs/core"]))
    },
    // A plugin says more than a library: React apps hold other libraries, but only one plugin.
    old_vite(Framework::ViteReact, All(&[Below("vite", 3), Dep(&["react"])])),
    old_vite(Framework::ViteVue, All(&[Below("vite", 3), Dep(&["vue"])])),
    vite(Framework::VitePreact, All(&[VITE, Dep(&["@preact/preset-vite"])])),
    vite(Framework::ViteSolid, All(&[VITE, Dep(&["vite-plugin-solid"])])),
    vite(Framework::ViteSvelte, All(&[VITE, Dep(&["@sveltejs/vite-plugin-svelte"])])),
    vite(
        Framework::ViteReact,
        All(&[VITE, Dep(&["@vitejs/plugin-react", "@vitejs/plugin-react-swc"])]),
    ),
    vite(Framework::ViteVue, All(&[VITE, Dep(&["@vitejs/plugin-vue"])])),
    vite(Framework::ViteQwik, All(&[VITE, Dep(&["@builder.io/qwik", "@qwik.dev/core"])])),
    vite(Framework::ViteReact, All(&[VITE, Dep(&["react"])])),
    vite(Framework::ViteVue, All(&[VITE, Dep(&["vue"])])),
    vite(Framework::ViteSvelte, All(&[VITE, Dep(&["svelte"])])),
    vite(Framework::ViteSolid, All(&[VITE, Dep(&["solid-js"])])),
    vite(Framework::VitePreact, All(&[VITE, Dep(&["preact"])])),
    vite(Framework::ViteLit, All(&[VITE, Dep(&["lit", "lit-element"])])),
    vite(Framework::ViteVanilla, VITE),
    // Imported by an entry file first: a dependency alone may serve tests or mocks.
    server(Framework::Fastify, All(&[Dep(&["fastify"]), Imports(&["fastify"])])),
    server(Framework::Koa, All(&[Dep(&["koa"]), Imports(&["koa"])])),
    server(Framework::Hono, All(&[Dep(&["hono"]), Imports(&["hono"])])),
    server(Framework::Express, All(&[Dep(&["express"]), Imports(&["express"])])),
    server(Framework::Express, Dep(&["express"])),
    server(Framework::Fastify, Dep(&["fastify"])),
    server(Framework::Koa, Dep(&["koa"])),
    server(Framework::Hono, Dep(&["hono"])),
];
