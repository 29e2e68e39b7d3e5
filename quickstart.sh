#!/usr/bin/env bash
# Runs the main job on a fresh machine: set-up, build, worker, a start job for an
# example project through RabbitMQ, and the link of its live preview.
# Idempotent: a second run takes seconds.
set -euo pipefail
cd "$(dirname "$0")"

example=${1:-vite-react}
team=quickstart
log_dir=/var/log/covibes
covibes=${CARGO_TARGET_DIR:-target}/release/covibes
began=$SECONDS

say() { printf '==> %s\n' "$*" >&2; }
part() { # part NAME COMMAND...: runs it and says how long it took
    local name=$1 started=$SECONDS
    shift
    say "$name"
    "$@"
    say "$name: $((SECONDS - started)) s"
}

if [[ $EUID -ne 0 ]]; then
    echo "quickstart.sh: run it as root: the worker drives Docker and the host's firewall" >&2
    exit 1
fi
if [[ ! -d examples/$example ]]; then
    echo "quickstart.sh: no such example: $example; there are: $(ls examples | tr '\n' ' ')" >&2
    exit 2
fi

worker_answers() { curl --silent --fail --max-time 2 --output /dev/null http://127.0.0.1:9464/livez; }
worker_ready() { curl --silent --fail --max-time 5 --output /dev/null http://127.0.0.1:9464/readyz; }

start_worker() {
    local pid
    mkdir -p "$log_dir" /run/covibes-setup
    pid=$(cat /run/covibes-setup/worker.pid 2>/dev/null || true)
    if worker_answers; then
        # One that we started from a binary that was built anew since is replaced.
        if [[ -n $pid && $(readlink "/proc/$pid/exe" 2>/dev/null) == */release/"covibes (deleted)" ]]; then
            say "worker: replacing the one of an older build"
            kill -TERM "$pid"
            for _ in $(seq 700); do
                [[ -d /proc/$pid ]] || break
                sleep 0.1
            done
        else
            say "worker: one answers already"
            return
        fi
    fi
    setsid nohup "$covibes" worker </dev/null >>"$log_dir/worker.log" 2>&1 &
    echo $! >/run/covibes-setup/worker.pid
    for _ in $(seq 300); do
        worker_ready && return
        sleep 0.1
    done
    echo "quickstart.sh: the worker is not ready; its log ends with:" >&2
    tail -n 20 "$log_dir/worker.log" >&2
    exit 1
}

example_workspace() {
    local workspace=/var/covibes/workspaces/$team
    if [[ -d $workspace ]]; then
        say "workspace: $workspace is there and stays as it is"
    else
        mkdir -p "$(dirname "$workspace")"
        cp -r "examples/$example" "$workspace"
    fi
}

ops/setup.sh
part "build" cargo build --release --quiet --bins
part "images, egress proxy, firewall" "$covibes" host prepare
part "worker" start_worker
part "example project" example_workspace
say "publishing a start job for team $team"
link=$("$covibes" submit start --team "$team" --local --preview main --follow | tail -n 1)
say "asking for the page"
curl --silent --fail --max-time 30 --output /dev/null \
    --connect-to "::127.0.0.1:" "$link"
say "done in $((SECONDS - began)) s. The preview is live at:"
echo "$link"
say "edit /var/covibes/workspaces/$team and watch it change; events: $covibes follow"
say "stop it with: $covibes submit stop --team $team --follow"
