//! The projects of the full form.

use super::made::Project;

const NODE: &str = "covibes/preview-node";
const PYTHON: &str = "covibes/preview-python";

const NPM_LOCK: &str = "npm install --package-lock-only --ignore-scripts";

const fn node(name: &'static str, make: &'static str) -> Project {
    Project { name, image: NODE, files: &[], make }
}

pub(crate) const VITE_VUE: Project = node(
    "vite-vue",
    "npx create-vite@latest . --template vue; \
     npx yarn@1 install --ignore-scripts --non-interactive; rm -rf node_modules",
);

pub(crate) const VITE_SVELTE: Project = node(
    "vite-svelte",
    "npx create-vite@latest . --template svelte; \
     npx --package=@yarnpkg/cli-dist@4 yarn install --mode=update-lockfile",
);

pub(crate) const NEXT_WEBPACK: Project = node(
    "next-webpack",
    "npx create-next-app@latest made --ts --no-eslint --no-tailwind --app --src-dir \
     --no-import-alias --skip-install --disable-git --use-npm --yes; \
     mv made/* made/.[!.]* .; rmdir made; \
     sed -i 's/next dev/next dev --webpack/' package.json; \
     npm install --package-lock-only --ignore-scripts",
);

pub(crate) const SVELTEKIT: Project = node(
    "sveltekit",
    "npx sv create . --template minimal --types ts --no-add-ons --no-install; \
     echo '<script>let count = $state(0)</script><h1>Covibes SvelteKit example</h1>\
     <button onclick={() => count++}>Count: {count}</button>' >src/routes/+page.svelte; \
     npx pnpm@10 install --lockfile-only",
);

pub(crate) const ANGULAR: Project = node(
    "angular",
    "npx @angular/cli@latest new angular --directory=. --skip-install --skip-git --defaults \
     --interactive=false; npm install --package-lock-only --ignore-scripts",
);

pub(crate) const FASTIFY: Project = node(
    "fastify",
    "npx fastify-cli@latest generate new; mv new/* new/.[!.]* .; rmdir new; \
     sed -i \"s/root: true/hello: 'Covibes Fastify example'/\" routes/root.js; \
     npm install --package-lock-only --ignore-scripts",
);

pub(crate) const NESTJS: Project = node(
    "nestjs",
    "npx @nestjs/cli@latest new made --skip-git --skip-install --package-manager npm; \
     mv made/* made/.[!.]* .; rmdir made; npm install --package-lock-only --ignore-scripts",
);

/// An app and a library that need different versions of the same package.
pub(crate) const MONOREPO: Project = Project {
    name: "monorepo",
    image: NODE,
    files: &[
        ("package.json", r#"{"name": "monorepo", "private": true}"#),
        ("pnpm-workspace.yaml", "packages:\n  - apps/*\n  - packages/*\n"),
        (
            "apps/web/package.json",
            r#"{
  "name": "web", "private": true, "type": "module", "scripts": {"dev": "vite"},
  "dependencies": {"clsx": "2.1.1", "lib": "workspace:*"},
  "devDependencies": {"vite": "^8"}
}"#,
        ),
        (
            "apps/web/index.html",
            "<!doctype html><html lang=\"en\"><head><title>Monorepo</title></head>\
             <body><h1></h1><script type=\"module\" src=\"/main.js\"></script></body></html>\n",
        ),
        (
            "apps/web/main.js",
            "import { clsx } from 'clsx';\nimport { title } from 'lib';\n\n\
             document.querySelector('h1').textContent = clsx(title(), 'shown');\n",
        ),
        (
            "packages/lib/package.json",
            r#"{
  "name": "lib", "version": "1.0.0", "type": "module", "main": "index.js",
  "dependencies": {"clsx": "1.2.1"}
}"#,
        ),
        (
            "packages/lib/index.js",
            "import clsx from 'clsx';\n\n\
             export const title = () => clsx('Covibes monorepo example');\n",
        ),
    ],
    make: "npx pnpm@10 install --lockfile-only",
};

pub(crate) const NUXT: Project = Project {
    name: "nuxt",
    image: NODE,
    files: &[
        (
            "package.json",
            r#"{
  "name": "nuxt-example", "private": true, "type": "module",
  "scripts": {"dev": "nuxt dev", "build": "nuxt build", "postinstall": "nuxt prepare"},
  "dependencies": {"nuxt": "^4", "vue": "^3", "vue-router": "latest"}
}"#,
        ),
        (
            "nuxt.config.ts",
            "export default defineNuxtConfig({ compatibilityDate: '2026-01-01', devtools: { enabled: false } })\n",
        ),
        (
            "app/app.vue",
            r#"<script setup>
const count = ref(0)
</script>

<template>
  <h1>Covibes Nuxt example</h1>
  <button @click="count++">Count: {{ count }}</button>
</template>
"#,
        ),
    ],
    make: NPM_LOCK,
};

pub(crate) const ASTRO: Project = Project {
    name: "astro",
    image: NODE,
    files: &[
        (
            "package.json",
            r#"{
  "name": "astro-example", "private": true, "type": "module",
  "scripts": {"dev": "astro dev", "build": "astro build"},
  "dependencies": {"astro": "^7"}
}"#,
        ),
        (
            "src/pages/index.astro",
            "<html lang=\"en\"><head><title>Astro</title></head>\
             <body><h1>Covibes Astro example</h1></body></html>\n",
        ),
    ],
    make: "npx bun@1 install --lockfile-only",
};

pub(crate) const REACT_ROUTER: Project = Project {
    name: "react-router",
    image: NODE,
    files: &[
        (
            "package.json",
            r#"{
  "name": "react-router-example", "private": true, "type": "module",
  "scripts": {"dev": "react-router dev", "build": "react-router build"},
  "dependencies": {
    "@react-router/node": "~8.4", "@react-router/serve": "~8.4", "isbot": "^5",
    "react": "^19", "react-dom": "^19", "react-router": "~8.4"
  },
  "devDependencies": {"@react-router/dev": "~8.4", "vite": "^8"}
}"#,
        ),
        (
            "vite.config.js",
            "import { reactRouter } from '@react-router/dev/vite';\n\
             import { defineConfig } from 'vite';\n\
             export default defineConfig({ plugins: [reactRouter()] });\n",
        ),
        (
            "app/routes.js",
            "import { index } from '@react-router/dev/routes';\n\
             export default [index('routes/home.jsx')];\n",
        ),
        (
            "app/root.jsx",
            "import { Links, Meta, Outlet, Scripts, ScrollRestoration } from 'react-router';\n\n\
             export default function Root() {\n  return (\n    <html lang=\"en\">\n      \
             <head><Meta /><Links /></head>\n      \
             <body><Outlet /><ScrollRestoration /><Scripts /></body>\n    </html>\n  );\n}\n",
        ),
        (
            "app/routes/home.jsx",
            "import { useState } from 'react';\n\n\
             export default function Home() {\n  const [count, setCount] = useState(0);\n  \
             return (\n    <main>\n      <h1>Covibes React Router example</h1>\n      \
             <button onClick={() => setCount(count + 1)}>Count: {count}</button>\n    \
             </main>\n  );\n}\n",
        ),
    ],
    make: NPM_LOCK,
};

pub(crate) const CRA: Project = Project {
    name: "create-react-app",
    image: NODE,
    files: &[
        (
            "package.json",
            r#"{
  "name": "cra-example", "version": "0.1.0", "private": true,
  "scripts": {"start": "react-scripts start", "build": "react-scripts build"},
  "dependencies": {"react": "^18", "react-dom": "^18", "react-scripts": "5.0.1"},
  "browserslist": ["last 1 chrome version"]
}"#,
        ),
        (
            "public/index.html",
            "<!doctype html><html lang=\"en\"><head><title>CRA</title></head>\
             <body><div id=\"root\"></div></body></html>\n",
        ),
        (
            "src/index.js",
            "import { createRoot } from 'react-dom/client';\nimport App from './App';\n\n\
             createRoot(document.getElementById('root')).render(<App />);\n",
        ),
        (
            "src/App.js",
            "import { useState } from 'react';\n\n\
             export default function App() {\n  const [count, setCount] = useState(0);\n  \
             return (\n    <main>\n      <h1>Covibes CRA example</h1>\n      \
             <button onClick={() => setCount(count + 1)}>Count: {count}</button>\n    \
             </main>\n  );\n}\n",
        ),
    ],
    make: NPM_LOCK,
};

const FLASK_APP: &str = "from flask import Flask\n\napp = Flask(__name__)\n\n\n\
    @app.get('/')\ndef home():\n    return '<h1>Covibes Flask example</h1>'\n";

pub(crate) const FLASK_POETRY: Project = Project {
    name: "flask-poetry",
    image: PYTHON,
    files: &[
        (
            "pyproject.toml",
            "[tool.poetry]\npackage-mode = false\n\n\
             [tool.poetry.dependencies]\npython = \">=3.11\"\nflask = \"^3\"\n",
        ),
        ("app.py", FLASK_APP),
    ],
    // By the simple index: not every mirror has the one that Poetry prefers.
    make: "url=$(python3 -c 'from pip._internal.models.index import PyPI as p; print(p.simple_url)'); \
           poetry source add --priority=primary simple \"$url\"; poetry lock",
};

pub(crate) const FLASK_PIPENV: Project = Project {
    name: "flask-pipenv",
    image: PYTHON,
    files: &[("Pipfile", "[packages]\nflask = \"*\"\n"), ("app.py", FLASK_APP)],
    make: "pipenv lock",
};

pub(crate) const FASTAPI_UV: Project = Project {
    name: "fastapi-uv",
    image: PYTHON,
    files: &[
        (
            "pyproject.toml",
            "[project]\nname = \"fastapi-example\"\nversion = \"0\"\n\
             requires-python = \">=3.11\"\ndependencies = [\"fastapi\", \"uvicorn\"]\n",
        ),
        (
            "main.py",
            "from fastapi import FastAPI\nfrom fastapi.responses import HTMLResponse\n\n\
             app = FastAPI()\n\n\n\
             @app.get('/', response_class=HTMLResponse)\ndef home():\n    \
             return '<h1>Covibes FastAPI example</h1>'\n",
        ),
    ],
    make: "uv lock",
};

pub(crate) const STATIC: Project = Project {
    name: "static-html",
    image: NODE,
    files: &[
        (
            "index.html",
            "<!doctype html><html lang=\"en\"><head><title>Static</title>\
             <link rel=\"stylesheet\" href=\"style.css\"></head>\
             <body><h1>Covibes static example</h1></body></html>\n",
        ),
        ("style.css", "h1 { color: rebeccapurple }\n"),
    ],
    make: "true",
};
