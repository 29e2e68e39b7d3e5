//! Dev servers for apps that run in the browser.

use crate::domain::findings::Framework;

use super::super::rules::Rule::{self, All, Any, Calls, Config, Dep, Dev, File, Not, Page};
use super::meta::CRA_ENV;
use super::{BASE, Entry, HOST_AND_PORT, Kind, OLD_VITE, VITE_CALLS, VITE_CONFIG, VITE_FLAGS};

const VITE: Rule = Any(&[Dep(&["vite", "vite-plus", "rolldown-vite"]), Config("vite.config")]);
/// Vite also builds libraries and runs tests, which makes no app.
const SERVES_PAGES: Rule = Any(&[Calls(VITE_CALLS), Page]);
const QWIK: Rule = Dep(&["@builder.io/qwik", "@qwik.dev/core"]);

const fn vite(id: Framework, rule: Rule) -> Entry {
    Entry {
        id,
        rule,
        calls: VITE_CALLS,
        flags: VITE_FLAGS,
        scripts: &["dev", "start", "serve", "develop"],
        port: 5173,
        older: OLD_VITE,
        config: VITE_CONFIG,
        kind: Kind::Bundler,
        ..BASE
    }
}

const CRA_SCRIPTS: &[&str] = &["react-scripts start", "craco start", "react-app-rewired start"];

pub(super) static TABLE: &[Entry] = &[
    Entry {
        id: Framework::Cra,
        rule: Dep(&["react-scripts", "react-scripts-ts", "react-app-rewired", "@craco/craco"]),
        calls: CRA_SCRIPTS,
        scripts: &["dev", "start"],
        env: CRA_ENV,
        kind: Kind::Bundler,
        ..BASE
    },
    Entry {
        id: Framework::VueCli,
        rule: Dep(&["@vue/cli-service"]),
        calls: &["vue-cli-service serve"],
        flags: HOST_AND_PORT,
        scripts: &["serve", "dev", "start"],
        port: 8080,
        config: &[("vue.config", &["devServer"])],
        kind: Kind::Bundler,
        ..BASE
    },
    // A plugin says more than a library: React apps hold other libraries, but only one plugin.
    vite(
        Framework::VitePreact,
        All(&[VITE, SERVES_PAGES, Dep(&["@preact/preset-vite", "@prefresh/vite"])]),
    ),
    vite(Framework::ViteSolid, All(&[VITE, SERVES_PAGES, Dep(&["vite-plugin-solid"])])),
    vite(Framework::ViteQwik, All(&[VITE, SERVES_PAGES, QWIK])),
    vite(
        Framework::ViteReact,
        All(&[VITE, SERVES_PAGES, Dep(REACT_PLUGINS), Dep(&["react", "react-dom"])]),
    ),
    vite(Framework::ViteVue, All(&[VITE, SERVES_PAGES, Dep(VUE_PLUGINS)])),
    vite(Framework::ViteSvelte, All(&[VITE, SERVES_PAGES, Dep(&["@sveltejs/vite-plugin-svelte"])])),
    vite(
        Framework::ViteReact,
        All(&[VITE, SERVES_PAGES, Dep(REACT_PLUGINS), Not(&Dep(&["preact"]))]),
    ),
    vite(Framework::ViteReact, All(&[VITE, SERVES_PAGES, Dep(&["react"])])),
    vite(Framework::ViteVue, All(&[VITE, SERVES_PAGES, Dep(&["vue"])])),
    vite(Framework::ViteSvelte, All(&[VITE, SERVES_PAGES, Dep(&["svelte"])])),
    vite(Framework::ViteSolid, All(&[VITE, SERVES_PAGES, Dep(&["solid-js"])])),
    vite(Framework::VitePreact, All(&[VITE, SERVES_PAGES, Dep(&["preact"])])),
    vite(Framework::ViteLit, All(&[VITE, SERVES_PAGES, Dep(&["lit", "lit-element", "lit-html"])])),
    vite(Framework::ViteVanilla, All(&[VITE, SERVES_PAGES])),
    Entry {
        id: Framework::Parcel,
        rule: All(&[
            Dep(&["parcel", "parcel-bundler"]),
            Any(&[Calls(PARCEL), Page, Not(&Calls(&["node", "nodemon"]))]),
        ]),
        calls: PARCEL,
        flags: HOST_AND_PORT,
        scripts: &["dev", "start", "serve"],
        port: 1234,
        kind: Kind::Bundler,
        ..BASE
    },
];

const PARCEL: &[&str] = &["parcel", "parcel serve", "parcel watch"];
const REACT_PLUGINS: &[&str] = &[
    "@vitejs/plugin-react",
    "@vitejs/plugin-react-swc",
    "@vitejs/plugin-react-oxc",
    "@vitejs/plugin-react-refresh",
    "@vitejs/plugin-rsc",
];
const VUE_PLUGINS: &[&str] =
    &["@vitejs/plugin-vue", "@vitejs/plugin-vue2", "@vitejs/plugin-vue-jsx", "vite-plugin-vue2"];

/// What only a dependency speaks for, where no server of the project's own is near.
pub(super) static WEAK: &[Entry] = &[
    // A library of components, which is looked at in its storybook.
    super::tools::STORYBOOK_ENTRY,
    vite(Framework::ViteReact, All(&[VITE, Dep(&["react"])])),
    vite(Framework::ViteVue, All(&[VITE, Dep(&["vue"])])),
    vite(Framework::ViteSvelte, All(&[VITE, Dep(&["svelte"])])),
    vite(Framework::ViteSolid, All(&[VITE, Dep(&["solid-js"])])),
    vite(Framework::VitePreact, All(&[VITE, Dep(&["preact"])])),
    vite(Framework::ViteQwik, All(&[VITE, QWIK])),
    vite(Framework::ViteLit, All(&[VITE, Dep(&["lit", "lit-element"])])),
    vite(
        Framework::ViteVanilla,
        Any(&[
            Config("vite.config"),
            All(&[VITE, Calls(&["vite build", "netlify dev"])]),
            // `npx vite` needs no dependency.
            All(&[Page, Dev(VITE_CALLS)]),
        ]),
    ),
    // An app of Create React App that was ejected.
    Entry {
        id: Framework::Cra,
        rule: All(&[Dep(&["react-dev-utils"]), File("config/webpackDevServer.config.js")]),
        scripts: &["dev", "start"],
        env: CRA_ENV,
        kind: Kind::Bundler,
        ..BASE
    },
];
