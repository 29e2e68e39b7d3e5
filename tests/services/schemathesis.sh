#!/usr/bin/env bash
#
# Drives the agent's API with requests made from schemas/agent.openapi.json, and
# holds every answer to it. docs/TESTING.md says how to install schemathesis.
#
#   tests/services/schemathesis.sh [schemathesis options]

set -euo pipefail
cd "$(dirname "$0")/../.."

readonly SCHEMATHESIS=${SCHEMATHESIS:-target/schemathesis/bin/schemathesis}
readonly TOKEN=0123456789abcdef0123
readonly PORT=${PORT:-18080}

[[ -x $SCHEMATHESIS ]] || { printf 'schemathesis.sh: %s is missing; see docs/TESTING.md\n' "$SCHEMATHESIS" >&2; exit 1; }
cargo build --quiet --bin covibes-agent
directory=$(mktemp -d)
mkdir "$directory/workspace"
printf '%s' "$TOKEN" >"$directory/token"
COVIBES_LISTEN=127.0.0.1:$PORT COVIBES_TOKEN_FILE=$directory/token COVIBES_CLAUDE=true \
  COVIBES_WORKSPACE=$directory/workspace COVIBES_AGENT_DIR=$directory/agent \
  COVIBES_SECRETS_DIR=$directory/secrets ANTHROPIC_BASE_URL=http://127.0.0.1:9 \
  target/debug/covibes-agent >"$directory/log" &
service=$!
trap 'kill "$service" 2>/dev/null || true; rm -rf "$directory" .schemathesis' EXIT
until curl --silent --output /dev/null "http://127.0.0.1:$PORT/health"; do
  kill -0 "$service" || { cat "$directory/log" >&2; exit 1; }
done

# A number such as 482.0 is an integer to a schema and none to the service, so
# refusals of valid data are not counted.
# Streams do not end, and a shutdown ends the service: the unit tests have both.
"$SCHEMATHESIS" run schemas/agent.openapi.json --url "http://127.0.0.1:$PORT" \
  --header "Authorization: Bearer $TOKEN" \
  --exclude-path /shutdown --exclude-path /changes --exclude-path /events \
  --exclude-path '/tasks/{id}/events' \
  --checks all --exclude-checks ignored_auth,unsupported_method,positive_data_acceptance \
  --max-examples 50 --phases examples,coverage,fuzzing "$@"
