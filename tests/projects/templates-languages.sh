#!/usr/bin/env bash
#
# Makes real projects in other languages than JavaScript with public create tools, without
# installing what they depend on, and compares what `covibes detect` says with what is written
# down here: the tool was told the framework, and the ports are those of the code that it made.
#
#   tests/projects/templates-languages.sh            all of them (some minutes; npm and PyPI)
#   tests/projects/templates-languages.sh go- py-    those whose name begins so
#
# COVIBES names the program (default: target/debug/covibes). A tool that cannot make its project
# is told and passed over. Not in CI: the tools change by the day, which is why they are worth
# asking.

set -euo pipefail
cd "$(dirname "$0")/../.."

readonly COVIBES=${COVIBES:-$PWD/target/debug/covibes}
readonly SECONDS_MAX=90
export npm_config_yes=true npm_config_update_notifier=false CI=1

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
right=0 wrong=0 passed_over=0
wanted=("$@")

main() {
  npm install --silent --no-save --prefix "$place/tools" create-better-fullstack >/dev/null
  python3 -m venv "$place/venv"
  "$place/venv/bin/pip" install --quiet django mkdocs vyte

  # name, language, framework, package manager, port, and what the tool is told.
  stack rust-axum rust axum cargo 3000 --ecosystem rust --rust-web-framework axum
  stack rust-actix rust actix-web cargo 3000 --ecosystem rust --rust-web-framework actix-web
  stack rust-rocket rust rocket cargo 8000 --ecosystem rust --rust-web-framework rocket
  stack rust-loco rust none cargo 3000 --ecosystem rust --rust-web-framework loco
  stack rust-warp rust none cargo 3000 --ecosystem rust --rust-web-framework warp
  stack rust-poem rust none cargo 3000 --ecosystem rust --rust-web-framework poem
  stack rust-salvo rust none cargo 3000 --ecosystem rust --rust-web-framework salvo
  local kind
  for kind in gin echo fiber; do
    stack "go-$kind" go "$kind" gomod 8080 --ecosystem go --go-web-framework "$kind"
  done
  for kind in chi stdlib go-zero kratos httprouter; do
    stack "go-$kind" go none gomod 8080 --ecosystem go --go-web-framework "$kind"
  done
  for kind in fastapi flask django starlette; do
    stack "py-$kind" python "$kind" pip 8000 --ecosystem python --python-web-framework "$kind"
    stack "py-$kind-poetry" python "$kind" poetry 8000 --ecosystem python \
      --python-web-framework "$kind" --python-package-manager poetry
  done
  stack py-streamlit python streamlit pip 8501 --ecosystem python --python-web-framework streamlit
  stack py-aiohttp python none pip 8000 --ecosystem python --python-web-framework aiohttp
  stack py-litestar python none pip 8000 --ecosystem python --python-web-framework litestar
  for kind in maven gradle; do
    stack "java-spring-$kind" java spring-boot "$kind" 8080 --ecosystem java \
      --java-web-framework spring-boot --java-build-tool "$kind"
    stack "kotlin-spring-$kind" java spring-boot "$kind" 8080 --ecosystem java \
      --java-web-framework spring-boot --java-build-tool "$kind" --java-language kotlin
    local other
    for other in ktor quarkus micronaut; do
      stack "java-$other-$kind" java none "$kind" 8080 --ecosystem java \
        --java-web-framework "$other" --java-build-tool "$kind"
    done
  done
  for kind in minimal mvc; do
    stack "net-$kind" dotnet aspnet nuget 5000 --ecosystem dotnet \
      --dotnet-web-framework "aspnet-$kind"
  done
  stack net-blazor dotnet blazor nuget 5000 --ecosystem dotnet --dotnet-web-framework aspnet-blazor
  stack ex-phoenix elixir phoenix mix 4000 --ecosystem elixir --elixir-web-framework phoenix
  stack ex-live elixir phoenix mix 4000 --ecosystem elixir --elixir-web-framework phoenix-live-view

  made dj python django pip 8000 "$place/venv/bin/django-admin" startproject dj
  made book python none none 8000 "$place/venv/bin/mkdocs" new book
  local -a plain=(--no-auth --docker --tests --no-git --no-interactive -d sqlite)
  made vy-flask python flask pip 5300 "$place/venv/bin/vyte" create -n vy-flask -f flask-restx \
    -o sqlalchemy "${plain[@]}"
  made vy-fastapi python fastapi pip 8000 "$place/venv/bin/vyte" create -n vy-fastapi -f fastapi \
    -o sqlalchemy "${plain[@]}"
  made vy-django python django pip 8000 "$place/venv/bin/vyte" create -n vy-django -f django-rest \
    -o djangoorm "${plain[@]}"

  echo "$right right, $wrong wrong, $passed_over passed over"
  ((wrong == 0))
}

# Makes a project of the tool that knows most languages.
stack() {
  local name=$1 language=$2 framework=$3 manager=$4 port=$5
  shift 5
  made "$name" "$language" "$framework" "$manager" "$port" \
    "$place/tools/node_modules/.bin/create-better-fullstack" create "$name" "$@" --yes \
    --no-install --no-git --no-render-title --disable-analytics --manual-db \
    --directory-conflict overwrite
}

# Runs a tool and compares what is said of the folder that it made.
made() {
  local name=$1 expected="$2 $3 $4 $5"
  chosen "$name" || return 0
  shift 5
  if ! (cd "$place" && timeout "$SECONDS_MAX" "$@") </dev/null >"$place/log" 2>&1 ||
    [[ ! -d $place/$name ]]; then
    echo "passed over $name: $(tail -n 1 "$place/log")"
    passed_over=$((passed_over + 1))
    return 0
  fi
  local found
  found=$("$COVIBES" detect --json "$place/$name" 2>&1 | python3 -c '
import json, sys
found = json.load(sys.stdin)
print(*(found[field] for field in ("language", "framework", "package_manager", "port")))
' 2>/dev/null) || found="nothing"
  if [[ $found == "$expected" ]]; then
    right=$((right + 1))
  else
    echo "wrong $name: expected $expected, got $found"
    wrong=$((wrong + 1))
  fi
}

chosen() {
  ((${#wanted[@]} == 0)) && return 0
  local start
  for start in "${wanted[@]}"; do
    [[ $1 == "$start"* ]] && return 0
  done
  return 1
}

main
