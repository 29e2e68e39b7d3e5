//! Programs that serve an app for development but have no name in the vocabulary, with the ports
//! that their manuals give; and Storybook, which names a library of components.

use crate::domain::findings::Framework;

use super::super::rules::Rule::{All, Any, Calls, Dep, Dev};
use super::{BASE, Entry, Flag, HOST_AND_PORT, Kind, PORT, PORT_ALONE, PORT_ENV, PORT_SHORT};

const SCRIPTS: &[&str] = &["dev", "start", "serve", "develop", "start:dev", "watch"];

const fn tool(calls: &'static [&'static str], port: u16) -> Entry {
    Entry {
        rule: Dev(calls),
        calls,
        scripts: SCRIPTS,
        port,
        env: PORT_ENV,
        kind: Kind::Tool,
        ..BASE
    }
}

const GULP: &[(&str, &[&str])] = &[
    ("gulpfile", &["init", "server", "webserver", "connect"]),
    ("gulpfile.babel", &["init", "server"]),
];
const STORYBOOK: &[&str] = &["storybook dev", "start-storybook", "storybook"];
const WEBPACK: &[&str] =
    &["webpack serve", "webpack-dev-server", "webpack-cli serve", "rspack serve", "rspack dev"];

pub(super) static TABLE: &[Entry] = &[
    Entry {
        flags: HOST_AND_PORT,
        config: &[
            ("webpack.config", &["devServer"]),
            ("webpack.dev", &["devServer"]),
            ("webpack.config.dev", &["devServer"]),
            ("rspack.config", &["devServer"]),
        ],
        env: &[],
        ..tool(WEBPACK, 8080)
    },
    Entry { config: &[("rsbuild.config", &["server"])], ..tool(&["rsbuild dev", "rsbuild"], 3000) },
    Entry { config: &[("farm.config", &["server"])], ..tool(&["farm start", "farm"], 9000) },
    Entry {
        config: &[("quasar.config", &["devServer"]), ("quasar.conf", &["devServer"])],
        ..tool(&["quasar dev"], 8080)
    },
    Entry {
        config: &[("snowpack.config", &["devOptions"])],
        ..tool(&["snowpack dev", "snowpack"], 8080)
    },
    Entry {
        config: &[
            ("wrangler.toml", &["dev"]),
            ("wrangler.jsonc", &["dev"]),
            ("wrangler", &["dev"]),
        ],
        ..tool(&["wrangler dev"], 8787)
    },
    tool(&["wrangler pages dev"], 8788),
    tool(&["email dev"], 3000),
    tool(&["modern dev"], 8080),
    tool(&["rspress dev"], 3000),
    Entry {
        rule: Any(&[Dep(&["gridsome"]), Dev(&["gridsome develop"])]),
        ..tool(&["gridsome develop"], 8080)
    },
    tool(&["saber"], 3000),
    tool(&["dojo build"], 9999),
    Entry { rule: Any(&[Dep(&["wmr"]), Dev(&["wmr"])]), ..tool(&["wmr"], 8080) },
    tool(&["docz dev"], 3000),
    tool(&["dumi dev", "father dev"], 8000),
    tool(&["marko-run dev", "marko-run", "marko dev"], 3000),
    tool(&["strapi develop", "strapi dev"], 1337),
    tool(&["directus start"], 8055),
    tool(&["keystone dev", "keystone"], 3000),
    tool(&["medusa develop"], 9000),
    tool(&["sails lift"], 1337),
    tool(&["egg-bin dev", "midway-bin dev", "mwtsc"], 7001),
    tool(&["vinxi dev"], 3000),
    tool(&["partykit dev"], 1999),
    tool(&["hardhat node"], 8545),
    tool(&["n8n start"], 5678),
    tool(&["ace serve"], 3333),
    tool(&["serverless offline", "sls offline"], 3000),
    tool(&["func start"], 7071),
    tool(&["slidev"], 3030),
    tool(&["elm-live", "elm-app start"], 8000),
    tool(&["budo"], 9966),
    tool(&["web-dev-server", "wds"], 8000),
    tool(&["es-dev-server"], 8080),
    tool(&["live-server"], 8080),
    tool(&["lite-server"], 3000),
    tool(&["browser-sync start", "browser-sync"], 3000),
    tool(&["http-server"], 8080),
    tool(&["json-server"], 3000),
    Entry { older: Some(("sirv-cli", 2, 5000)), ..tool(&["sirv"], 8080) },
    Entry { older: Some(("serve", 14, 5000)), ..tool(&["serve"], 3000) },
    Entry { flags: &[PORT], ..tool(&["functions-framework"], 8080) },
    tool(&["moleculer-runner"], 3000),
    tool(&["meteor run", "meteor"], 3000),
    tool(&["probot run"], 3000),
    tool(&["docsify serve"], 3000),
    tool(&["micro", "micro-dev"], 3000),
    // Runners of tasks serve by a plugin, whose settings stand among the tasks.
    Entry {
        rule: All(&[Dep(&["browser-sync"]), Dev(&["gulp"])]),
        config: GULP,
        ..tool(&["gulp"], 3000)
    },
    Entry {
        rule: All(&[Dep(&["gulp-connect"]), Dev(&["gulp"])]),
        config: GULP,
        ..tool(&["gulp"], 8080)
    },
    Entry {
        rule: All(&[Dep(&["gulp-webserver"]), Dev(&["gulp"])]),
        config: GULP,
        ..tool(&["gulp"], 8000)
    },
    Entry {
        rule: All(&[Dep(&["grunt-contrib-connect"]), Dev(&["grunt"])]),
        config: &[("Gruntfile", &["options"]), ("gruntfile", &["options"])],
        ..tool(&["grunt"], 8000)
    },
    tool(&["react-native start"], 8081),
    tool(&["node-red"], 1880),
    // Where nothing else speaks at all, the dependency does.
    Entry { rule: Dep(&["storybook"]), ..STORYBOOK_ENTRY },
];

/// Storybook, where a script of any name runs it and nothing else serves pages.
pub(super) const STORYBOOK_ENTRY: Entry = Entry {
    id: Framework::Storybook,
    rule: Calls(STORYBOOK),
    calls: STORYBOOK,
    flags: &[PORT_SHORT, Flag { names: &["--ci"], text: "--ci" }],
    scripts: &["storybook", "dev", "start"],
    port: 6006,
    env: PORT_ALONE,
    kind: Kind::Tool,
    ..BASE
};
