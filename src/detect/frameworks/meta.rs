//! Frameworks that make pages on a server, and those that are built on others.

use crate::domain::findings::Framework;

use super::super::rules::Rule::{All, Any, Before, Calls, Config, Dep, File, Not, Serves};
use super::{
    BASE, Entry, Flag, HOST_AND_PORT, HOST_SHORT, HOSTNAME, Kind, OLD_VITE, PORT, PORT_ALONE,
    PORT_ENV, PORT_SHORT, VITE_CONFIG, VITE_DEV_CALLS, VITE_FLAGS, server,
};

const REMIX: &[&str] = &["@remix-run/dev", "@remix-run/react", "@remix-run/node"];
const ANGULAR: &[(&str, &[&str])] = &[("angular.json", &["serve"]), ("project.json", &["serve"])];
const NG_CALLS: &[&str] = &["ng serve", "ng dev"];
const NG_SCRIPTS: &[&str] = &["start", "dev", "serve"];

pub(super) static TABLE: &[Entry] = &[
    // Built on Next.
    Entry {
        id: Framework::Blitz,
        rule: Dep(&["blitz"]),
        calls: &["blitz dev", "blitz start"],
        flags: &[HOST_SHORT, PORT_SHORT],
        env: PORT_ALONE,
        ..BASE
    },
    Entry {
        id: Framework::Nextjs,
        rule: Any(&[
            Dep(&["next"]),
            All(&[Config("next.config"), Not(&Dep(&["vite", "react-scripts"]))]),
        ]),
        calls: &["next dev", "next"],
        flags: &[HOST_SHORT, PORT_SHORT],
        env: PORT_ALONE,
        ..BASE
    },
    Entry {
        id: Framework::Nuxt,
        rule: Any(&[Before("nuxt", 3, 0), Dep(&["nuxt-edge"])]),
        calls: &["nuxt", "nuxt dev", "nuxt-ts"],
        flags: &[HOSTNAME, PORT],
        config: &[("nuxt.config", &["server"])],
        env: PORT_ENV,
        ..BASE
    },
    Entry {
        id: Framework::Nuxt,
        rule: Dep(&["nuxt", "nuxt3", "nuxt-nightly"]),
        calls: &["nuxt dev", "nuxi dev", "nuxt"],
        flags: HOST_AND_PORT,
        config: &[("nuxt.config", &["devServer", "server"])],
        env: PORT_ENV,
        ..BASE
    },
    // Built on Vite at first, then on Remix, now on React Router.
    Entry {
        id: Framework::Hydrogen,
        rule: Dep(&["@shopify/hydrogen"]),
        calls: &["shopify hydrogen dev", "shopify hydrogen dev-vite", "vite"],
        flags: &[Flag { names: &["--host"], text: "--host" }, PORT],
        config: VITE_CONFIG,
        ..BASE
    },
    Entry {
        id: Framework::Remix,
        rule: All(&[Dep(REMIX), Config("vite.config")]),
        calls: &["remix vite:dev", "vite dev", "vite"],
        flags: HOST_AND_PORT,
        port: 5173,
        config: VITE_CONFIG,
        ..BASE
    },
    Entry {
        id: Framework::Remix,
        rule: Any(&[Dep(REMIX), Config("remix.config")]),
        calls: &["remix dev"],
        env: PORT_ENV,
        ..BASE
    },
    Entry {
        id: Framework::ReactRouter,
        rule: Any(&[
            Dep(&["@react-router/dev"]),
            Config("react-router.config"),
            Calls(&["react-router dev"]),
        ]),
        calls: &["react-router dev", "vite dev", "vite"],
        flags: HOST_AND_PORT,
        port: 5173,
        config: VITE_CONFIG,
        ..BASE
    },
    Entry {
        id: Framework::TanstackStart,
        rule: All(&[
            Any(&[
                Before("@tanstack/react-start", 1, 121),
                Before("@tanstack/solid-start", 1, 121),
                Dep(&["@tanstack/start"]),
            ]),
            Dep(&["vinxi"]),
        ]),
        calls: &["vinxi dev"],
        flags: HOST_AND_PORT,
        config: &[("app.config", &["server"])],
        ..BASE
    },
    Entry {
        id: Framework::TanstackStart,
        rule: Dep(&[
            "@tanstack/react-start",
            "@tanstack/solid-start",
            "@tanstack/start",
            "@tanstack/vue-start",
        ]),
        calls: VITE_DEV_CALLS,
        flags: VITE_FLAGS,
        port: 5173,
        config: VITE_CONFIG,
        ..BASE
    },
    // Before it called Vite by itself.
    Entry {
        id: Framework::Sveltekit,
        rule: All(&[Dep(&["@sveltejs/kit"]), Calls(&["svelte-kit dev"])]),
        calls: &["svelte-kit dev"],
        flags: HOST_AND_PORT,
        ..BASE
    },
    Entry {
        id: Framework::Sveltekit,
        rule: Dep(&["@sveltejs/kit"]),
        calls: VITE_DEV_CALLS,
        flags: VITE_FLAGS,
        port: 5173,
        config: VITE_CONFIG,
        ..BASE
    },
    Entry {
        id: Framework::Solidstart,
        rule: Dep(&["solid-start"]),
        calls: &["solid-start dev"],
        flags: HOST_AND_PORT,
        config: VITE_CONFIG,
        ..BASE
    },
    Entry {
        id: Framework::Solidstart,
        rule: Any(&[
            Before("@solidjs/start", 2, 0),
            All(&[Dep(&["@solidjs/start"]), Dep(&["vinxi"])]),
        ]),
        calls: &["vinxi dev"],
        flags: HOST_AND_PORT,
        config: &[("app.config", &["server"])],
        ..BASE
    },
    Entry {
        id: Framework::Solidstart,
        rule: Dep(&["@solidjs/start"]),
        calls: VITE_DEV_CALLS,
        flags: VITE_FLAGS,
        port: 5173,
        config: VITE_CONFIG,
        ..BASE
    },
    Entry {
        id: Framework::Astro,
        rule: Any(&[Dep(&["astro"]), Config("astro.config")]),
        calls: &["astro dev", "astro"],
        flags: HOST_AND_PORT,
        scripts: &["dev", "start", "develop"],
        port: 4321,
        older: Some(("astro", 3, 3000)),
        config: &[("astro.config", &["server"])],
        ..BASE
    },
    // Angular files on Vite's server.
    Entry {
        id: Framework::Angular,
        rule: Dep(&["@analogjs/platform"]),
        calls: &["ng serve", "vite", "vite dev", "nx serve"],
        flags: HOST_AND_PORT,
        scripts: NG_SCRIPTS,
        port: 5173,
        config: VITE_CONFIG,
        ..BASE
    },
    Entry {
        id: Framework::IonicAngular,
        rule: Dep(&["@ionic/angular"]),
        calls: NG_CALLS,
        flags: HOST_AND_PORT,
        scripts: NG_SCRIPTS,
        port: 4200,
        config: ANGULAR,
        ..BASE
    },
    Entry {
        id: Framework::Angular,
        rule: Any(&[
            Dep(&["@angular/cli"]),
            All(&[
                Dep(&["@angular/core"]),
                Any(&[File("angular.json"), Calls(NG_CALLS), File("project.json")]),
            ]),
            All(&[File("angular.json"), Not(&Dep(&["@nestjs/core", "vite"]))]),
        ]),
        calls: NG_CALLS,
        flags: HOST_AND_PORT,
        scripts: NG_SCRIPTS,
        port: 4200,
        config: ANGULAR,
        ..BASE
    },
    Entry {
        id: Framework::IonicReact,
        rule: All(&[Dep(&["@ionic/react"]), Dep(&["vite"])]),
        calls: &["vite", "vite dev", "ionic serve"],
        flags: HOST_AND_PORT,
        scripts: &["dev", "start", "serve"],
        port: 5173,
        older: OLD_VITE,
        config: VITE_CONFIG,
        ..BASE
    },
    Entry {
        id: Framework::IonicReact,
        rule: Dep(&["@ionic/react"]),
        calls: &["react-scripts start", "ionic serve"],
        scripts: &["dev", "start", "serve"],
        env: CRA_ENV,
        ..BASE
    },
    Entry {
        id: Framework::Redwood,
        rule: Any(&[Dep(&["@redwoodjs/core"]), File("redwood.toml")]),
        calls: &["rw dev", "redwood dev"],
        flags: &[Flag {
            names: &["--fwd", "--forward"],
            text: "--fwd=\"--host={host} --port={port} --open=false\"",
        }],
        port: 8910,
        config: &[("redwood.toml", &["web"])],
        ..BASE
    },
    Entry {
        id: Framework::Expo,
        rule: All(&[Dep(&["expo"]), Not(&Dep(&["react-scripts"]))]),
        calls: &["expo start --web", "expo start", "expo"],
        flags: &[
            Flag { names: &["--web", "-w"], text: "--web" },
            Flag { names: &["--port", "-p"], text: "--port {port}" },
        ],
        scripts: &["web", "dev", "start"],
        port: 8081,
        // Webpack served the web before Metro did.
        older: Some(("expo", 49, 19006)),
        ..BASE
    },
    Entry {
        id: Framework::Sapper,
        rule: Dep(&["sapper"]),
        calls: &["sapper dev"],
        flags: &[PORT],
        env: PORT_ALONE,
        ..BASE
    },
    Entry {
        id: Framework::Umi,
        rule: Dep(&["umi", "@umijs/max"]),
        calls: &["umi dev", "max dev"],
        scripts: &["dev", "start", "start:dev", "serve"],
        port: 8000,
        env: PORT_ENV,
        ..BASE
    },
    Entry {
        id: Framework::AzureFunctions,
        rule: All(&[Dep(&["@azure/functions"]), File("host.json")]),
        calls: &["func start", "func host start"],
        flags: &[PORT],
        scripts: &["dev", "start"],
        port: 7071,
        ..BASE
    },
    // Before Vite and Express, which Nest projects have for their tests and their types.
    Entry {
        calls: &["nest start --watch", "nest start"],
        scripts: &["start:dev", "dev", "start"],
        ..server(
            Framework::Nestjs,
            All(&[
                Dep(&["@nestjs/core", "@nestjs/common"]),
                Any(&[
                    File("nest-cli.json"),
                    Calls(&["nest start", "nest build"]),
                    Serves(&["@nestjs/core"]),
                ]),
            ]),
        )
    },
    Entry {
        id: Framework::Mastra,
        rule: Any(&[Dep(&["mastra"]), All(&[Dep(&["@mastra/core"]), Calls(&["mastra dev"])])]),
        calls: &["mastra dev"],
        scripts: &["dev", "start:dev"],
        port: 4111,
        env: PORT_ENV,
        ..BASE
    },
    Entry {
        id: Framework::Xmcp,
        rule: Any(&[Config("xmcp.config"), Calls(&["xmcp dev", "xmcp build"])]),
        calls: &["xmcp dev"],
        port: 3001,
        config: &[("xmcp.config", &["http"])],
        env: PORT_ENV,
        ..BASE
    },
    // Nuxt and others are built on it; Vite's own plugin of it leaves the app to Vite.
    Entry {
        id: Framework::Nitro,
        rule: All(&[
            Dep(&["nitropack", "nitro", "nitropack-nightly", "nitro-nightly"]),
            Any(&[
                Config("nitro.config"),
                Calls(&["nitro dev", "nitropack dev"]),
                Not(&Dep(&["vite", "vinxi", "rolldown-vite"])),
            ]),
        ]),
        calls: &["nitro dev", "nitropack dev", "vite dev", "vite"],
        flags: HOST_AND_PORT,
        config: &[("nitro.config", &["devServer"]), ("vite.config", &["server"])],
        env: PORT_ENV,
        kind: Kind::Meta,
        ..BASE
    },
    // Hono's own development server is a plugin of Vite.
    Entry {
        id: Framework::Hono,
        rule: All(&[Dep(&["hono"]), Dep(&["honox", "@hono/vite-dev-server", "@hono/vite-build"])]),
        calls: VITE_DEV_CALLS,
        flags: VITE_FLAGS,
        port: 5173,
        config: VITE_CONFIG,
        ..BASE
    },
    // It has no name in the vocabulary, and is more than the Vite and Hono that it is made of.
    Entry { rule: Dep(&["waku"]), calls: &["waku dev"], kind: Kind::Tool, flags: &[PORT], ..BASE },
    // Vike and Quasar have no name either; the bundler below names the app, but not its port.
    Entry {
        id: Framework::ViteReact,
        rule: All(&[Dep(&["vike", "vike-react"]), Dep(&["react"])]),
        calls: &["vike dev", "vike", "vite", "vite dev"],
        flags: HOST_AND_PORT,
        config: VITE_CONFIG,
        kind: Kind::Bundler,
        ..BASE
    },
    Entry {
        id: Framework::ViteVue,
        rule: All(&[Dep(&["vike", "vike-vue"]), Dep(&["vue"])]),
        calls: &["vike dev", "vike", "vite", "vite dev"],
        flags: HOST_AND_PORT,
        config: VITE_CONFIG,
        kind: Kind::Bundler,
        ..BASE
    },
    Entry {
        id: Framework::ViteVue,
        rule: Dep(&["@quasar/app-vite"]),
        calls: &["quasar dev"],
        flags: &[HOSTNAME, PORT],
        port: 9000,
        config: &[("quasar.config", &["devServer"]), ("quasar.conf", &["devServer"])],
        kind: Kind::Bundler,
        ..BASE
    },
];

pub(super) const CRA_ENV: &[(&str, &str)] = &[
    ("BROWSER", "none"),
    ("HOST", "{host}"),
    ("PORT", "{port}"),
    // The page's own port, which is another one outside of the container.
    ("WDS_SOCKET_PORT", "0"),
    // With a `proxy` it would only answer to the address of the container.
    ("DANGEROUSLY_DISABLE_HOST_CHECK", "true"),
];
