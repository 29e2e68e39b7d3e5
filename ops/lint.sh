#!/usr/bin/env bash
#
# Looks at everything that needs no running part: format, clippy, licences and
# bans, shell scripts, alert rules, the systemd unit. `ops/setup.sh --tests` installs
# the tools. One that is missing is named and passed over on a person's machine, and
# fails in CI (CI=true), where nobody would read that.
#
#   ops/lint.sh          look
#   ops/lint.sh --fix    also mend what formatting and clippy can mend

set -euo pipefail
cd "$(dirname "$0")/.."

readonly DATABASE_SECONDS=30

main() {
  local fix=false
  case ${1:-} in
    '') ;;
    --fix) fix=true ;;
    *)
      printf 'lint: unknown option %s; the only one is --fix\n' "$1" >&2
      exit 2
      ;;
  esac
  if $fix; then
    cargo fmt
    cargo clippy --quiet --all-targets --all-features --fix --allow-dirty --allow-staged
  fi
  part format cargo fmt --check
  part clippy cargo clippy --quiet --locked --all-targets --all-features -- --deny warnings
  # Nobody tests what most people build, so it is at least looked at.
  part "clippy, default features" cargo clippy --quiet --locked --bins -- --deny warnings
  dependencies
  scripts
  rules
  unit
}

dependencies() {
  if ! command -v cargo-deny >/dev/null; then
    missing cargo-deny
    return
  fi
  part "bans, licences, sources" \
    cargo deny --log-level error --locked check --hide-inclusion-graph bans licenses sources
  # The database is a Git repository, which many networks do not let through.
  if timeout "$DATABASE_SECONDS" cargo deny --log-level off fetch db >/dev/null 2>&1; then
    part advisories cargo deny --log-level error --offline check advisories
  else
    skipped advisories "their database cannot be reached from here"
  fi
}

scripts() {
  if ! command -v shellcheck >/dev/null; then
    missing shellcheck
    return
  fi
  local files
  # Scripts of the example projects are data.
  mapfile -t files < <(git ls-files '*.sh' .ci/run ':!tests/projects/*/*/files/*')
  part "shell scripts" shellcheck --severity=warning --external-sources "${files[@]}"
}

rules() {
  if ! command -v promtool >/dev/null; then
    missing promtool
    return
  fi
  part "alert rules" promtool check rules --lint=all --lint-fatal ops/prometheus/rules/*.yml
  part "alert rules' tests" promtool test rules ops/prometheus/tests/*.yml
  # Its rules are found from where it lies, there as in the container.
  part "prometheus.yml" promtool check config ops/prometheus/prometheus.yml
}

# A key that systemd does not know is a warning to it, and a defect here.
unit() {
  if ! command -v systemd-analyze >/dev/null; then
    skipped "systemd unit" "there is no systemd-analyze"
    return
  fi
  part "systemd unit" verified ops/systemd/covibes.service
}

# The program and its manual need not be installed where this runs.
verified() {
  local directory said
  directory=$(mktemp -d)
  sed -e 's|^ExecStart=/[^ ]*|ExecStart=/bin/true|' -e '/^Documentation=man:/d' "$1" \
    >"$directory/${1##*/}"
  said=$(systemd-analyze verify "$directory/${1##*/}" 2>&1) || said+=" (it is refused)"
  rm -r "$directory"
  [[ -z $said ]] || { printf '%s\n' "$said" >&2; return 1; }
}

# part NAME COMMAND…: runs it, and says what failed and how to see it again.
part() {
  local name=$1
  shift
  printf '==> lint: %s\n' "$name" >&2
  if ! "$@"; then
    printf 'lint: %s failed. Again: %s\n' "$name" "$*" >&2
    exit 1
  fi
}

missing() {
  if [[ ${CI:-} == true ]]; then
    printf 'lint: %s is missing, and CI passes over nothing. Run: ops/setup.sh --tests\n' "$1" >&2
    exit 1
  fi
  skipped "$1" "it is missing; ops/setup.sh --tests installs it"
}

skipped() {
  printf '==> lint: %s is passed over (%s)\n' "$1" "$2" >&2
}

main "$@"
