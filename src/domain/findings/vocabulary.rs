//! The closed lists of words that findings are made of.
//!
//! Scripts compare these words, so a word never changes its spelling; new ones are added at will.

/// Declares an enum whose variants each have one stable word.
macro_rules! vocabulary {
    ($(#[$about:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $(#[doc = concat!("`", $word, "`")] $variant),+
        }

        impl $name {
            /// Every word of the list.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Returns the stable word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// Reads the stable word.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.pad(self.as_str())
            }
        }
    };
}

vocabulary! {
    /// The main language of an app.
    Language {
        Node = "node", Python = "python", Ruby = "ruby", Php = "php", Go = "go", Rust = "rust",
        Java = "java", Dotnet = "dotnet", Elixir = "elixir", Deno = "deno", Static = "static",
        Clojure = "clojure", Gleam = "gleam", Swift = "swift", Shell = "shell", Cpp = "cpp",
        Crystal = "crystal", Dart = "dart", Haskell = "haskell", Scala = "scala", Zig = "zig",
        None = "none",
    }
}

vocabulary! {
    /// The tool that installs an app's dependencies.
    PackageManager {
        Npm = "npm", Yarn1 = "yarn1", YarnBerry = "yarn-berry", Pnpm = "pnpm", Bun = "bun",
        Deno = "deno", Pip = "pip", Poetry = "poetry", Uv = "uv", Pipenv = "pipenv", Pdm = "pdm",
        Conda = "conda", Bundler = "bundler", Composer = "composer", Cargo = "cargo",
        Gomod = "gomod", Maven = "maven", Gradle = "gradle", Mix = "mix", Nuget = "nuget",
        Lein = "lein", ToolsDeps = "tools-deps", Sbt = "sbt", Pub = "pub", Shards = "shards",
        Stack = "stack", Swiftpm = "swiftpm", Cmake = "cmake", None = "none",
    }
}

vocabulary! {
    /// The framework whose dev server runs an app.
    Framework {
        Nextjs = "nextjs", Nuxt = "nuxt", Remix = "remix", ReactRouter = "react-router",
        TanstackStart = "tanstack-start", Sveltekit = "sveltekit", Solidstart = "solidstart",
        Astro = "astro", Angular = "angular", Cra = "cra", Gatsby = "gatsby",
        Docusaurus = "docusaurus", Eleventy = "eleventy", Vitepress = "vitepress",
        Vuepress = "vuepress", Hexo = "hexo", Ember = "ember", Parcel = "parcel", Expo = "expo",
        Redwood = "redwood", Blitz = "blitz", Hydrogen = "hydrogen", Nestjs = "nestjs",
        Express = "express", Fastify = "fastify", Koa = "koa", Hono = "hono", Elysia = "elysia",
        H3 = "h3", Nitro = "nitro", Connect = "connect", ViteReact = "vite-react",
        ViteVue = "vite-vue", ViteSvelte = "vite-svelte", ViteSolid = "vite-solid",
        VitePreact = "vite-preact", ViteLit = "vite-lit", ViteQwik = "vite-qwik",
        ViteVanilla = "vite-vanilla", VueCli = "vue-cli", PreactCli = "preact-cli",
        Stencil = "stencil", Sanity = "sanity", Storybook = "storybook", Umi = "umi",
        Sapper = "sapper", Polymer = "polymer", Brunch = "brunch",
        IonicAngular = "ionic-angular", IonicReact = "ionic-react", Xmcp = "xmcp",
        Mastra = "mastra", Django = "django", Flask = "flask", Fastapi = "fastapi",
        Starlette = "starlette", Fasthtml = "fasthtml", Streamlit = "streamlit",
        Gradio = "gradio", Rails = "rails", Sinatra = "sinatra", Jekyll = "jekyll",
        Middleman = "middleman", Laravel = "laravel", Gin = "gin", Echo = "echo",
        Fiber = "fiber", Axum = "axum", ActixWeb = "actix-web", Rocket = "rocket",
        Phoenix = "phoenix", Plug = "plug", SpringBoot = "spring-boot", Sparkjava = "sparkjava",
        Aspnet = "aspnet", Blazor = "blazor", AzureFunctions = "azure-functions", Hugo = "hugo",
        Zola = "zola", Fresh = "fresh", StaticHtml = "static-html", Vapor = "vapor",
        Ring = "ring", Luminus = "luminus", None = "none",
    }
}

vocabulary! {
    /// A runtime that an app may ask for in a version.
    RuntimeName {
        Node = "node", Bun = "bun", Deno = "deno", Python = "python", Ruby = "ruby", Php = "php",
        Go = "go", Rust = "rust", Java = "java", Dotnet = "dotnet", Elixir = "elixir",
    }
}

vocabulary! {
    /// What kind of statement decided how an app is run, the most explicit first.
    Source {
        ProjectFile = "covibes.yml", Devcontainer = "devcontainer", Compose = "compose",
        Dockerfile = "dockerfile", Procfile = "procfile", Framework = "framework",
        Language = "language",
    }
}

#[cfg(test)]
mod tests {
    use super::{Framework, Language, PackageManager};

    #[test]
    fn every_word_reads_back_as_itself() {
        for word in Framework::ALL {
            assert_eq!(Framework::parse(word.as_str()), Some(*word));
        }
        for word in Language::ALL {
            assert_eq!(Language::parse(word.as_str()), Some(*word));
        }
        for word in PackageManager::ALL {
            assert_eq!(PackageManager::parse(word.as_str()), Some(*word));
        }
    }

    #[test]
    fn the_vocabulary_is_whole() {
        assert_eq!(Language::ALL.len(), 22);
        assert_eq!(PackageManager::ALL.len(), 29);
        let issue = "nextjs nuxt remix react-router tanstack-start sveltekit solidstart astro \
            angular cra gatsby docusaurus eleventy vitepress vuepress hexo ember parcel expo \
            redwood blitz hydrogen nestjs express fastify koa hono elysia h3 nitro connect \
            vite-react vite-vue vite-svelte vite-solid vite-preact vite-lit vite-qwik \
            vite-vanilla vue-cli preact-cli stencil sanity storybook umi sapper polymer brunch \
            ionic-angular ionic-react xmcp mastra django flask fastapi starlette fasthtml \
            streamlit gradio rails sinatra jekyll middleman laravel gin echo fiber axum \
            actix-web rocket phoenix plug spring-boot sparkjava aspnet blazor azure-functions \
            hugo zola fresh static-html vapor ring luminus none";
        let words: Vec<_> = Framework::ALL.iter().map(|word| word.as_str()).collect();
        assert_eq!(words, issue.split_whitespace().collect::<Vec<_>>());
    }
}
