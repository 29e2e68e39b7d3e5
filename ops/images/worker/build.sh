#!/usr/bin/env bash
#
# Builds the worker's image from programs that are already compiled, and prints
# its name. The base image comes from ops/setup.sh.

set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: ops/images/worker/build.sh BINARIES [TAG]

BINARIES is the directory with covibes, covibes-agent, covibes-sync and
covibes-preview, such as target/release. TAG is the image's name
(covibes/worker:dev).

Variables: BASE_IMAGE (covibes/debian:bookworm), CA_BUNDLE and IPTABLES (nft or
legacy; both as on this machine).
USAGE
}

stop() {
  printf 'build: %s\n' "$1" >&2
  exit 1
}

main() {
  case ${1:-} in
    -h | --help)
      usage
      exit 0
      ;;
    '')
      usage >&2
      exit 2
      ;;
  esac
  local binaries=$1 tag=${2:-covibes/worker:dev}
  local base=${BASE_IMAGE:-covibes/debian:bookworm}
  local bundle=${CA_BUNDLE:-/etc/ssl/certs/ca-certificates.crt}
  local here name kind=nft
  if iptables --version 2>/dev/null | grep -q legacy; then
    kind=legacy
  fi
  here=$(cd "$(dirname "$0")" && pwd)
  [[ -s $bundle ]] || stop "$bundle is missing; install ca-certificates, or set CA_BUNDLE"
  docker image inspect "$base" >/dev/null 2>&1 \
    || stop "the image $base is missing; run ops/setup.sh"

  context=$(mktemp --directory)
  trap 'rm -rf "$context"' EXIT
  cp "$here/Dockerfile" "$context/Dockerfile"
  cp --dereference "$bundle" "$context/ca-bundle.crt"
  for name in covibes covibes-agent covibes-sync covibes-preview; do
    [[ -x $binaries/$name ]] || stop "$binaries/$name is missing; run cargo build --release --bins"
    install --mode=755 "$binaries/$name" "$context/$name"
  done
  # The classic builder: Debian 12 has no other.
  DOCKER_BUILDKIT=0 docker build --quiet --tag "$tag" \
    --build-arg BASE_IMAGE="$base" \
    --build-arg IPTABLES="${IPTABLES:-$kind}" \
    --build-arg VERSION="$("$binaries/covibes" --version | cut -d ' ' -f 2)" \
    --build-arg REVISION="$(git -C "$here" rev-parse HEAD 2>/dev/null || echo unknown)" \
    "$context" >/dev/null || stop "the image could not be built"
  printf '%s\n' "$tag"
}

main "$@"
