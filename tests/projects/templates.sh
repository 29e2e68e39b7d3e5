#!/usr/bin/env bash
#
# Makes real projects with the public create tools, without installing anything, and compares
# what `covibes detect` says with what was written down here before it was first asked.
#
#   tests/projects/templates.sh            all of them (a few minutes, needs npm's registry)
#   tests/projects/templates.sh next ng    those whose name begins so
#
# COVIBES names the program (default: target/debug/covibes). A tool that cannot make its project,
# for instance because it fetches it from a Git host, is told and passed over. Not in CI: the
# tools change by the day, which is why they are worth asking.

set -euo pipefail
cd "$(dirname "$0")/../.."

readonly COVIBES=${COVIBES:-$PWD/target/debug/covibes}
readonly SECONDS_MAX=150
export npm_config_yes=true npm_config_update_notifier=false CI=1
export NG_CLI_ANALYTICS=false NEXT_TELEMETRY_DISABLED=1 ASTRO_TELEMETRY_DISABLED=1

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
right=0 wrong=0 passed_over=0
wanted=("$@")

main() {
  # name, framework, package manager, port, and the command that makes the folder of that name.
  made next nextjs npm 3000 npx create-next-app@latest next --ts --no-eslint --no-tailwind \
    --app --src-dir --no-import-alias --skip-install --disable-git --use-npm --yes
  made next-pnpm nextjs pnpm 3000 npx create-next-app@latest next-pnpm --js --no-eslint \
    --no-tailwind --no-app --no-src-dir --no-import-alias --skip-install --disable-git --use-pnpm --yes
  made sv-minimal sveltekit npm 5173 npx sv create sv-minimal --template minimal --types ts \
    --no-add-ons --no-install
  made sv-demo sveltekit npm 5173 npx sv create sv-demo --template demo --types jsdoc \
    --no-add-ons --no-install
  made ng-app angular npm 4200 npx --yes @angular/cli@20 new ng-app --skip-install --skip-git --defaults \
    --interactive=false
  made ng-ssr angular npm 4200 npx --yes @angular/cli@20 new ng-ssr --ssr --skip-install --skip-git \
    --defaults --interactive=false
  made nest nestjs npm 3000 npx @nestjs/cli@latest new nest --skip-install --skip-git \
    --package-manager npm
  made vue vite-vue npm 5173 npx create-vue@latest vue --ts
  made t3 nextjs npm 3000 npx create-t3-app@latest t3 --CI --noGit --noInstall --default
  made expo-blank expo npm 8081 npx create-expo-app@latest expo-blank --template blank --no-install --yes
  made expo-tabs expo npm 8081 npx create-expo-app@latest expo-tabs --template tabs --no-install --yes
  made qwik vite-qwik npm 5173 npx create-qwik@latest empty qwik
  made docusaurus docusaurus npm 3000 npx create-docusaurus@latest docusaurus classic \
    --skip-install --javascript --package-manager npm
  made express express npm 3000 npx express-generator@latest express --no-view
  made fastify fastify npm 3000 npx fastify-cli@latest generate fastify
  made fastify-ts fastify npm 3000 npx fastify-cli@latest generate fastify-ts --lang=ts
  made xmcp xmcp npm 3001 npx create-xmcp-app@latest xmcp --yes --skip-install
  made react-router react-router npm 5173 npx create-react-router@latest react-router \
    --no-install --no-git-init --yes
  made remix remix npm 5173 npx create-remix@latest remix --no-install --no-git-init --yes
  made nuxt nuxt npm 3000 npx nuxi@latest init nuxt --no-install --no-gitInit \
    --packageManager npm --template minimal
  made astro astro npm 4321 npm create astro@latest astro -- --template minimal --no-install \
    --no-git --yes
  made solid vite-solid npm 3000 npx create-solid@latest solid --vanilla --ts
  made gatsby gatsby npm 8000 npx create-gatsby@latest gatsby -y

  local kind
  for kind in react react-ts vue vue-ts svelte svelte-ts solid solid-ts preact preact-ts \
    lit lit-ts qwik qwik-ts vanilla vanilla-ts; do
    packed "vite-$kind" "vite-${kind%-ts}" npm 5173 create-vite "template-$kind"
  done
  for kind in react react-ts preact vue vue-ts svelte solid vanilla; do
    packed "vite-ssr-$kind" "vite-${kind%-ts}" npm 5173 create-vite-extra "template-ssr-$kind"
  done
  packed hydrogen hydrogen npm 3000 @shopify/cli-hydrogen dist/assets/hydrogen/starter
  packed hexo hexo npm 4000 hexo-cli assets
  packed umi umi npm 8000 create-umi templates/app
  packed redwood redwood yarn-berry 8910 create-redwood-app templates/ts
  packed rsbuild none npm 3000 create-rsbuild template-react-ts
  packed strapi none npm 1337 create-strapi-app templates/vanilla
  packed preact vite-preact npm 5173 create-preact templates/base
  packed wagmi-next nextjs npm 3000 create-wagmi templates/next
  packed wagmi-nuxt nuxt npm 3000 create-wagmi templates/nuxt

  printf '%s right, %s wrong, %s passed over\n' "$right" "$wrong" "$passed_over"
  [[ $wrong == 0 ]]
}

# made NAME FRAMEWORK MANAGER PORT COMMAND…
made() {
  local name=$1 framework=$2 manager=$3 port=$4
  shift 4
  asked "$name" || return 0
  (cd "$place" && timeout "$SECONDS_MAX" "$@") >"$place/$name.log" 2>&1 </dev/null || true
  compare "$name" "$framework" "$manager" "$port"
}

# packed NAME FRAMEWORK MANAGER PORT PACKAGE FOLDER: the template lies in the package itself.
packed() {
  local name=$1 framework=$2 manager=$3 port=$4 package=$5 folder=$6
  asked "$name" || return 0
  local unpacked="$place/packages/$package"
  if [[ ! -d $unpacked ]]; then
    mkdir -p "$unpacked"
    (cd "$unpacked" && tar xzf "$(npm pack --silent "$package" 2>"$place/$name.log")" \
      --strip-components=1) || true
  fi
  [[ -d $unpacked/$folder ]] && cp -r "$unpacked/$folder" "$place/$name"
  local template
  # Templates keep names that npm would change or leave out.
  for template in package.json.tpl package.json.template _package.json; do
    [[ -f $place/$name/$template ]] && mv "$place/$name/$template" "$place/$name/package.json"
  done
  compare "$name" "$framework" "$manager" "$port"
}

asked() {
  [[ ${#wanted[@]} == 0 ]] && return 0
  local start
  for start in "${wanted[@]}"; do
    [[ $1 == "$start"* ]] && return 0
  done
  return 1
}

compare() {
  local name=$1 expected="$2 $3 $4 false" got
  if [[ ! -f $place/$name/package.json ]]; then
    printf '%-16s passed over: %s\n' "$name" "$(tail -n 1 "$place/$name.log" 2>/dev/null | cut -c 1-100)"
    passed_over=$((passed_over + 1))
    return
  fi
  [[ $2 == redwood ]] && expected="$2 $3 $4 true"
  got=$("$COVIBES" detect --json "$place/$name" | node -e '
    const said = JSON.parse(require("fs").readFileSync(0, "utf8"));
    console.log(said.framework, said.package_manager, said.port, said.monorepo);')
  if [[ $got == "$expected" ]]; then
    right=$((right + 1))
    printf '%-16s %s\n' "$name" "$got"
  else
    wrong=$((wrong + 1))
    printf '%-16s WRONG: expected %s, got %s\n' "$name" "$expected" "$got"
  fi
}

main
