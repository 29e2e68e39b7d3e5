#!/usr/bin/env bash
# Sets the machine up and runs every test against the real RabbitMQ and Docker.
#   ./test.sh          what CI runs
#   ./test.sh full     the slow forms too (see docs/TESTING.md)
set -euo pipefail
cd "$(dirname "$0")"

[[ ${1:-} == full ]] && export COVIBES_TEST_FULL=1
began=$SECONDS
part() {
    local name=$1 started=$SECONDS
    shift
    printf '==> %s\n' "$name" >&2
    "$@"
    printf '==> %s: %s s\n' "$name" "$((SECONDS - started))" >&2
}

ops/setup.sh --tests
part "format, lint, licences" ops/lint.sh
# With all features, as clippy: one build. The default one is held by ops/lint.sh.
part "build" cargo build --quiet --all-targets --all-features
part "tests" cargo nextest run --no-fail-fast --all-features
printf '==> all of it: %s s\n' "$((SECONDS - began))" >&2
