#!/usr/bin/env bash
#
# A cluster of three RabbitMQ nodes on this machine, for the tests: each in a
# network namespace of its own, so that the network between them can be cut.
#
#   ops/rabbitmq/cluster.sh start     start all, print their addresses as a list
#   ops/rabbitmq/cluster.sh stop      stop all, remove namespaces and directory
#   ops/rabbitmq/cluster.sh cut N     node N no longer sees the others; clients
#                                     on this machine still see all three
#   ops/rabbitmq/cluster.sh off N     node N is off the network altogether
#   ops/rabbitmq/cluster.sh heal      the network is whole again
#   ops/rabbitmq/cluster.sh whole     wait until all three run as one cluster
#   ops/rabbitmq/cluster.sh ctl N …   rabbitmqctl at node N
#
# COVIBES_CLUSTER_ROOT  whose RabbitMQ: / is this machine's own (the default);
#                       the root of broker-4.sh is 4.x
# COVIBES_CLUSTER_NET   first three numbers of a free /24 (10.213.7)

# shellcheck source=ops/rabbitmq/nodes.sh
source "$(dirname "${BASH_SOURCE[0]}")/nodes.sh"

readonly ROOT=${COVIBES_CLUSTER_ROOT:-/}
readonly NET=${COVIBES_CLUSTER_NET:-10.213.7}
readonly STATE=/var/tmp/covibes-cluster
readonly SWITCH=cvc-switch
readonly PORT=5672
# Until the three have found each other again after a partition.
readonly WHOLE_SECONDS=120

cluster() {
  ((EUID == 0)) || stop "must run as root" "Run: sudo $0 $*"
  mkdir -p "$LOG_DIR"
  trap 'on_error $LINENO' ERR
  local command=${1:-}
  shift $(($# > 0))
  case $command in
    start) start ;;
    stop) halt ;;
    cut) cut_node "$(node_number "${1:-}")" ;;
    off) ip -n "$SWITCH" link set "node$(node_number "${1:-}")" down ;;
    heal) heal ;;
    whole) whole ;;
    ctl)
      local node
      node=$(node_number "${1:-}")
      shift
      ctl "$node" "$@"
      ;;
    *)
      sed -n '3,/^$/s/^# \{0,1\}//p' "$0" >&2
      exit 2
      ;;
  esac
}

node_number() {
  [[ ${1:-} == [123] ]] || stop "which node? 1, 2 or 3"
  echo "$1"
}

start() {
  [[ -x ${ROOT%/}/usr/lib/rabbitmq/bin/rabbitmq-server ]] \
    || stop "there is no RabbitMQ below $ROOT" "Run ops/setup.sh, or broker-4.sh start for 4.x."
  begin cluster "starting three nodes"
  network
  local node waiting=()
  for node in 1 2 3; do
    configuration | prepare_node "$ROOT" "$STATE/$node"
    # Together: each waits for the first to form the cluster.
    start_node "$ROOT" "$STATE/$node" "$(environment "$node")" "$NET.$node" "$PORT" \
      ip netns exec "cvc$node" &
    waiting+=($!)
  done
  for node in "${waiting[@]}"; do
    wait "$node" || stop "a node did not start"
  done
  whole
  finish
  printf 'amqp://guest:guest@%s:%s/%%2f ' "$NET.1" "$PORT" "$NET.2" "$PORT" "$NET.3" "$PORT"
  printf '\n'
}

configuration() {
  # What an operator sets; with shorter ticks, so that a test need not wait a
  # minute before a node calls another one down.
  cat "$(dirname "${BASH_SOURCE[0]}")/rabbitmq.conf"
  printf '%s\n' 'loopback_users = none' 'disk_free_limit.absolute = 500MB' 'net_ticktime = 8' \
    'cluster_formation.peer_discovery_backend = classic_config'
  local node
  for node in 1 2 3; do
    printf 'cluster_formation.classic_config.nodes.%s = covibes@%s.%s\n' "$node" "$NET" "$node"
  done
}

environment() {
  node_environment "$STATE/$1" "covibes@$NET.$1" "$NET.$1" "$PORT" 4369
  echo 'RABBITMQ_USE_LONGNAME=true'
}

ctl() {
  local node=$1
  shift
  COMMAND_BEFORE="ip netns exec cvc$node" node_ctl "$ROOT" "$(environment "$node")" "$@"
}

# The switch between them is in a namespace too, so that the rules of this
# machine's firewall for bridges (Docker's drop what they do not know) are not
# asked. This machine is plugged into it like the nodes.
network() {
  local node
  if [[ ! -e /run/netns/$SWITCH ]]; then
    ip netns add "$SWITCH"
    ip -n "$SWITCH" link add bridge type bridge
    ip -n "$SWITCH" link set bridge up
    ip link add "$SWITCH" type veth peer name machine netns "$SWITCH"
    ip -n "$SWITCH" link set machine master bridge up
    ip address add "$NET.254/24" dev "$SWITCH"
    ip link set "$SWITCH" up
  fi
  for node in 1 2 3; do
    [[ ! -e /run/netns/cvc$node ]] || continue
    ip netns add "cvc$node"
    ip -n "$SWITCH" link add "node$node" type veth peer name eth0 netns "cvc$node"
    ip -n "$SWITCH" link set "node$node" master bridge up
    ip -n "cvc$node" address add "$NET.$node/24" dev eth0
    ip -n "cvc$node" link set eth0 up
    ip -n "cvc$node" link set lo up
  done
}

cut_node() {
  local node=$1 other way
  for other in 1 2 3; do
    ((other != node)) || continue
    for way in "INPUT --source" "OUTPUT --destination"; do
      # shellcheck disable=SC2086 # Chain and option are two words.
      ip netns exec "cvc$node" iptables --wait --append $way "$NET.$other" --jump DROP
    done
  done
}

heal() {
  local node
  for node in 1 2 3; do
    ip -n "$SWITCH" link set "node$node" up
    ip netns exec "cvc$node" iptables --wait --flush
  done
}

whole() {
  local until=$((SECONDS + WHOLE_SECONDS)) node
  for node in 1 2 3; do
    until [[ $(running_nodes "$node") == 3 ]]; do
      ((SECONDS < until)) || stop "the three nodes do not find each other" \
        "Look with: $0 ctl $node cluster_status; logs are in ${ROOT%/}$STATE/*/log."
      sleep 0.5
    done
  done
}

# How many nodes run, as one of them sees it.
running_nodes() {
  ctl "$1" --silent eval 'length(rabbit_nodes:all_running()).' 2>/dev/null || echo 0
}

halt() {
  begin cluster "stopping"
  local node stopping=()
  if [[ -d /run/netns ]]; then
    for node in 1 2 3; do
      [[ -e /run/netns/cvc$node && -d ${ROOT%/}$STATE/$node ]] || continue
      stop_node "$ROOT" "$STATE/$node" "$(environment "$node")" ip netns exec "cvc$node" &
      stopping+=($!)
    done
  fi
  for node in "${stopping[@]}"; do
    wait "$node" || true
  done
  for node in 1 2 3; do
    [[ ! -e /run/netns/cvc$node ]] || ip netns delete "cvc$node"
  done
  [[ ! -e /run/netns/$SWITCH ]] || ip netns delete "$SWITCH"
  rm -rf --one-file-system "${ROOT%/}$STATE"
  finish
}

cluster "$@"
