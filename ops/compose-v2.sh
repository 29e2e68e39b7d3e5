#!/usr/bin/env bash
#
# Puts Docker Compose v2 into a directory and prints the program's path, for the
# benchmark and for `docker-compose.dev.yml` on Debian 12, which has only v1.
#
# It comes from Debian 13's package, which also runs on Debian 12, fetched from
# the mirror of this machine's apt configuration with an apt directory of its
# own: the machine's sources, lists and packages stay as they are.

set -Eeuo pipefail

readonly SUITE=trixie
readonly PACKAGE=docker-compose
readonly FILE=usr/libexec/docker/cli-plugins/docker-compose

export LC_ALL=C.UTF-8

main() {
  case ${1:-} in
    '' | -h | --help)
      cat <<'USAGE'
Usage: ops/compose-v2.sh DIRECTORY

Fetches Docker Compose v2 into DIRECTORY, unless it is there, and prints the
path of the program. For `docker compose`, link it into ~/.docker/cli-plugins.
USAGE
      [[ -n ${1:-} ]] && exit 0 || exit 2
      ;;
  esac
  mkdir -p "$1"
  local directory
  directory=$(cd "$1" && pwd)
  local program=$directory/docker-compose
  if ! "$program" version >/dev/null 2>&1; then
    workshop=$(mktemp --directory "$directory/.fetch-XXXXXX")
    trap 'rm -rf "$workshop"' EXIT
    fetch >&2
    "$workshop/root/$FILE" version >/dev/null \
      || stop "the fetched program does not run on this machine"
    # In one step, so that two runs at once do no harm.
    mv "$workshop/root/$FILE" "$program"
  fi
  printf '%s\n' "$program"
}

fetch() {
  local mirror keyring
  mirror=$(debian_mirror)
  [[ -n $mirror ]] || stop "apt has no Debian mirror here; install Docker Compose v2 yourself"
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  [[ -r $keyring ]] || stop "$keyring is missing; install debian-archive-keyring"
  mkdir -p "$workshop"/{lists/partial,cache/archives/partial,root}
  : >"$workshop/status"
  cat >"$workshop/debian.sources" <<SOURCE
Types: deb
URIs: $mirror
Suites: $SUITE
Components: main
Signed-By: $keyring
SOURCE
  apt update || stop "apt-get could not read $SUITE from this machine's Debian mirror"
  (cd "$workshop" && apt download "$PACKAGE") \
    || stop "the mirror has no $PACKAGE in $SUITE for this machine"
  local package
  package=$(find "$workshop" -maxdepth 1 -name '*.deb')
  dpkg-deb --extract "$package" "$workshop/root"
  [[ -x $workshop/root/$FILE ]] || stop "$PACKAGE of $SUITE holds no $FILE"
}

# apt-get with everything it writes in the workshop, and only our one source.
apt() {
  apt-get --quiet \
    -o Dir::Etc::SourceList="$workshop/debian.sources" -o Dir::Etc::SourceParts=- \
    -o Dir::State::Lists="$workshop/lists" -o Dir::State::Status="$workshop/status" \
    -o Dir::Cache="$workshop/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none \
    -o Acquire::Retries=3 "$@" </dev/null
}

# Where this machine's apt has Debian from.
# shellcheck disable=SC2016 # apt expands these.
debian_mirror() {
  apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(LABEL)|$(COMPONENT)' \
    'Created-By: Packages' 2>/dev/null \
    | sed -n 's/^\(https\?:[^|]*\)|Debian|Debian|main$/\1/p' | head -n 1
}

stop() {
  printf 'compose-v2: %s\n' "$1" >&2
  exit 1
}

main "$@"
