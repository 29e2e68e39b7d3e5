//! Generators of sites, and tools whose dev server is all that an app consists of.

use crate::domain::findings::Framework;

use super::super::rules::Rule::{All, Any, Calls, Config, Dep, Dev, File, Not};
use super::{BASE, Entry, Flag, HOST_AND_PORT, HOST_SHORT, HOSTNAME, PORT, PORT_SHORT, VITE_CALLS};

const SITE_SCRIPTS: &[&str] = &["dev", "start", "docs:dev", "serve", "docs", "develop"];
/// A site inside an app is its documentation.
const OF_AN_APP: &[&str] = &["react-scripts start", "vue-cli-service serve"];

pub(super) static TABLE: &[Entry] = &[
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
    // The first version.
    Entry {
        id: Framework::Docusaurus,
        rule: Dep(&["docusaurus"]),
        calls: &["docusaurus-start"],
        flags: &[PORT],
        scripts: &["start", "dev"],
        ..BASE
    },
    Entry {
        id: Framework::Hexo,
        rule: Dep(&["hexo"]),
        calls: &["hexo server", "hexo s"],
        flags: &[Flag { names: &["-i", "--ip"], text: "-i {host}" }, PORT_SHORT],
        scripts: &["server", "dev", "start"],
        port: 4000,
        config: &[("_config.yml", &["server"])],
        ..BASE
    },
    Entry {
        id: Framework::Ember,
        rule: Any(&[
            Dep(&["ember-cli"]),
            All(&[Dep(&["ember-source"]), Any(&[File(".ember-cli"), Calls(VITE_CALLS)])]),
        ]),
        calls: &["ember serve", "ember server", "ember s", "vite"],
        flags: HOST_AND_PORT,
        scripts: &["start", "dev", "serve"],
        port: 4200,
        config: &[(".ember-cli", &[]), ("vite.config", &["server"])],
        ..BASE
    },
    Entry {
        id: Framework::Stencil,
        rule: Any(&[All(&[
            Dep(&["@stencil/core"]),
            Any(&[Config("stencil.config"), Calls(STENCIL)]),
        ])]),
        calls: &["stencil build --dev --watch --serve", "stencil build", "stencil-dev-server"],
        flags: &[Flag { names: &["--address"], text: "--address {host}" }, PORT],
        scripts: &["start", "dev", "serve"],
        port: 3333,
        config: &[("stencil.config", &["devServer"])],
        ..BASE
    },
    Entry {
        id: Framework::PreactCli,
        rule: Dep(&["preact-cli"]),
        calls: &["preact watch"],
        flags: HOST_AND_PORT,
        scripts: &["dev", "watch", "start"],
        port: 8080,
        ..BASE
    },
    Entry {
        id: Framework::Polymer,
        rule: Dep(&["polymer-cli", "@polymer/polymer"]),
        calls: &["polymer serve"],
        flags: &[HOSTNAME, PORT],
        scripts: &["start", "dev", "serve"],
        port: 8081,
        ..BASE
    },
    Entry {
        id: Framework::Brunch,
        rule: Dep(&["brunch"]),
        calls: &["brunch watch --server", "brunch watch"],
        flags: &[Flag { names: &["--port", "-P"], text: "--port {port}" }],
        scripts: &["start", "dev", "watch", "serve"],
        port: 3333,
        config: &[("brunch-config", &["server"])],
        ..BASE
    },
    // Its studio may also lie inside an app of Next, which then comes first.
    Entry {
        id: Framework::Sanity,
        rule: Any(&[
            All(&[
                Dep(&["sanity"]),
                Any(&[
                    Config("sanity.config"),
                    Config("sanity.cli"),
                    Calls(&["sanity dev", "sanity start"]),
                    File("sanity.config.jsx"),
                    File("sanity.config.tsx"),
                ]),
            ]),
            All(&[Dep(&["@sanity/base", "@sanity/cli"]), File("sanity.json")]),
        ]),
        calls: &["sanity dev", "sanity start"],
        flags: HOST_AND_PORT,
        scripts: &["dev", "start"],
        port: 3333,
        config: &[("sanity.cli", &["server"])],
        ..BASE
    },
    Entry {
        id: Framework::Eleventy,
        rule: All(&[Dep(&["@11ty/eleventy"]), Not(&Dev(VITE_CALLS))]),
        calls: &["eleventy --serve", "eleventy"],
        flags: &[Flag { names: &["--serve"], text: "--serve" }, PORT],
        scripts: &["serve", "dev", "start", "watch"],
        port: 8080,
        config: &[(".eleventy", &["setServerOptions"]), ("eleventy.config", &["setServerOptions"])],
        ..BASE
    },
    Entry {
        id: Framework::Vitepress,
        rule: All(&[Dep(&["vitepress"]), Not(&Dev(VITE_CALLS)), Not(&Dev(OF_AN_APP))]),
        calls: &["vitepress dev", "vitepress"],
        flags: HOST_AND_PORT,
        scripts: SITE_SCRIPTS,
        port: 5173,
        config: &[(".vitepress/config", &["server"]), ("docs/.vitepress/config", &["server"])],
        ..BASE
    },
    Entry {
        id: Framework::Vuepress,
        rule: All(&[
            Dep(&["vuepress", "@vuepress/core", "vuepress-vite", "vuepress-webpack"]),
            Not(&Dev(VITE_CALLS)),
            Not(&Dev(OF_AN_APP)),
        ]),
        calls: &["vuepress dev", "vuepress-vite dev", "vuepress-webpack dev"],
        flags: HOST_AND_PORT,
        scripts: SITE_SCRIPTS,
        port: 8080,
        config: &[(".vuepress/config", &[]), ("docs/.vuepress/config", &[])],
        ..BASE
    },
];

const STENCIL: &[&str] = &["stencil build"];
