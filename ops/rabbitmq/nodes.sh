#!/usr/bin/env bash
#
# What the scripts beside it share: RabbitMQ nodes of a test's own, apart from
# the one that ops/setup.sh starts. Each has its own directory, name, ports and
# epmd, runs detached with its output in a file, and is stopped by its pid.
# Only to be read by `source`.

# shellcheck source=ops/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"

# A node of three that compete for two cores.
readonly NODE_START_SECONDS=180
# It hands its queues over and writes what it has; then it is killed.
readonly NODE_STOP_SECONDS=60

# node_environment STATE NODE ADDRESS PORT EPMD_PORT: prints the variables of a
# node, one a line. STATE is its directory as the node sees it.
node_environment() {
  local state=$1 node=$2 address=$3 port=$4 epmd_port=$5
  cat <<VARIABLES
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LANG=C.UTF-8
HOME=$state
RABBITMQ_NODENAME=$node
RABBITMQ_NODE_IP_ADDRESS=$address
RABBITMQ_NODE_PORT=$port
RABBITMQ_DIST_PORT=$((port + 20000))
RABBITMQ_CONFIG_FILE=$state/rabbitmq.conf
RABBITMQ_ENABLED_PLUGINS_FILE=$state/plugins
RABBITMQ_MNESIA_BASE=$state/data
RABBITMQ_LOG_BASE=$state/log
RABBITMQ_PID_FILE=$state/pid
ERL_EPMD_PORT=$epmd_port
ERL_EPMD_ADDRESS=$address
RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {${address//./,}} +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none
VARIABLES
}

# prepare_node ROOT STATE: makes a node's directory. Its rabbitmq.conf is read
# from stdin.
prepare_node() {
  local root=$1 state=$2
  local at=${root%/}$state
  mkdir -p "$at"/{data,log}
  cat >"$at/rabbitmq.conf"
  printf '[].\n' >"$at/plugins"
  # The same for all nodes; they listen on this machine's own addresses only.
  [[ -e $at/.erlang.cookie ]] || printf 'covibes-test-nodes' >"$at/.erlang.cookie"
  chmod 400 "$at/.erlang.cookie"
  chroot "$root" chown -R rabbitmq:rabbitmq "$state"
}

# start_node ROOT STATE VARIABLES ADDRESS PORT [COMMAND…]: starts a node unless
# it runs, and waits until it answers. COMMAND goes before it, such as
# `ip netns exec NAME`.
start_node() {
  local root=$1 state=$2 environment=$3 address=$4 port=$5 variables=()
  shift 5
  local at=${root%/}$state
  if [[ -n $(live_pid beam.smp "$at/pid") ]] && amqp_answers "$address" "$port"; then
    return 0
  fi
  rm -f "$at/pid"
  mapfile -t variables <<<"$environment"
  detach "$at/log/output" "$@" chroot --userspec=rabbitmq:rabbitmq "$root" \
    env -i "${variables[@]}" /usr/lib/rabbitmq/bin/rabbitmq-server
  if ! wait_until "$NODE_START_SECONDS" "$detached" amqp_answers "$address" "$port"; then
    kill "$detached" 2>/dev/null || true
    stop "no RabbitMQ on $address:$port within $NODE_START_SECONDS s" "" "$at/log/output"
  fi
}

# stop_node ROOT STATE ENVIRONMENT [COMMAND…]: stops a node and its epmd.
stop_node() {
  local root=$1 state=$2 environment=$3 variables=() pid
  shift 3
  pid=$(live_pid beam.smp "${root%/}$state/pid")
  if [[ -n $pid ]]; then
    kill "$pid"
    if ! wait_until_gone "$NODE_STOP_SECONDS" "$pid"; then
      kill -KILL "$pid"
      wait_until_gone 10 "$pid" || stop "the node with pid $pid does not end"
    fi
  fi
  mapfile -t variables <<<"$environment"
  # It has a port of its own; with nobody registered it ends.
  "$@" chroot "$root" env -i "${variables[@]}" epmd -kill >/dev/null 2>&1 || true
}

# node_ctl ROOT ENVIRONMENT ARGUMENT…: runs rabbitmqctl against a node, behind
# the words of COMMAND_BEFORE.
node_ctl() {
  local root=$1 environment=$2 variables=() before=()
  shift 2
  mapfile -t variables <<<"$environment"
  read -ra before <<<"${COMMAND_BEFORE:-}"
  "${before[@]}" chroot --userspec=rabbitmq:rabbitmq "$root" env -i "${variables[@]}" /usr/lib/rabbitmq/bin/rabbitmqctl "$@"
}

wait_until_gone() {
  local until=$((SECONDS + $1)) pid=$2
  while alive "$pid"; do
    ((SECONDS < until)) || return 1
    sleep 0.1
  done
}

# Whether a broker answers the AMQP header with its first frame.
# shellcheck disable=SC2016 # Expands in the inner shell.
amqp_answers() {
  timeout 3 bash -c '
    exec 3<>/dev/tcp/$0/$1
    printf "AMQP\0\0\011\001" >&3
    [[ $(head -c 1 <&3 | od -An -tu1) -eq 1 ]]' "$1" "$2" 2>/dev/null
}
