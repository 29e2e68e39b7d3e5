#!/usr/bin/env bash
#
# A RabbitMQ 4.x beside the machine's own broker, for the tests: Debian trixie's
# packages in a directory of their own, an own node on own ports.
#
#   ops/rabbitmq/broker-4.sh start    install if need be, start, print the address
#   ops/rabbitmq/broker-4.sh stop     stop the node
#   ops/rabbitmq/broker-4.sh remove   stop it and remove the directory
#   ops/rabbitmq/broker-4.sh ctl …    rabbitmqctl
#
# COVIBES_BROKER4_ROOT  where it is installed (/var/tmp/covibes-rabbitmq-4)
# COVIBES_BROKER4_PORT  where it listens (5674)

# shellcheck source=ops/rabbitmq/nodes.sh
source "$(dirname "${BASH_SOURCE[0]}")/nodes.sh"

readonly SUITE=trixie
readonly ROOT=${COVIBES_BROKER4_ROOT:-/var/tmp/covibes-rabbitmq-4}
readonly PORT=${COVIBES_BROKER4_PORT:-5674}
readonly STATE=/srv/covibes-node
readonly NODE=covibes4@localhost

broker() {
  ((EUID == 0)) || stop "must run as root" "Run: sudo $0 $*"
  mkdir -p "$LOG_DIR"
  trap 'on_error $LINENO' ERR
  environment=$(node_environment "$STATE" "$NODE" 127.0.0.1 "$PORT" $((PORT - 1000)))
  case ${1:-} in
    start)
      install
      begin rabbitmq-4 "starting"
      mount_kernel
      printf '%s\n' 'loopback_users = none' 'disk_free_limit.absolute = 500MB' \
        'consumer_timeout = 3600000' | prepare_node "$ROOT" "$STATE"
      start_node "$ROOT" "$STATE" "$environment" 127.0.0.1 "$PORT"
      finish "$(node_ctl "$ROOT" "$environment" version)"
      printf 'amqp://guest:guest@127.0.0.1:%s/%%2f\n' "$PORT"
      ;;
    stop) halt ;;
    remove)
      halt
      unmount_kernel
      rm -rf --one-file-system "$ROOT"
      ;;
    ctl)
      shift
      node_ctl "$ROOT" "$environment" "$@"
      ;;
    *)
      sed -n '3,/^$/s/^# \{0,1\}//p' "$0" >&2
      exit 2
      ;;
  esac
}
environment=

halt() {
  [[ -d $ROOT/usr ]] || return 0
  begin rabbitmq-4 "stopping"
  stop_node "$ROOT" "$STATE" "$environment"
  unmount_kernel
  finish
}

install() {
  [[ ! -e $ROOT/installed ]] || return 0
  read_apt_configuration
  [[ -n $mirror ]] || stop "apt has no Debian mirror on this machine" \
    "RabbitMQ 4.x comes from the mirror of apt's own configuration."
  have debootstrap || stop "debootstrap is missing" "Run: apt-get install debootstrap"
  local keyrings=()
  [[ -z $keyring ]] || keyrings=(--keyring "$keyring")
  begin rabbitmq-4 "installing Debian $SUITE's packages below $ROOT (some minutes)"
  unmount_kernel
  rm -rf --one-file-system "$ROOT"
  mkdir -p "$ROOT"
  logged env ${apt_proxy:+http_proxy="$apt_proxy" https_proxy="$apt_proxy"} \
    debootstrap --variant=minbase --components=main "${keyrings[@]}" "$SUITE" "$ROOT" "$mirror" \
    || stop "debootstrap failed" "" "$SETUP_LOG"
  write_additions "$ROOT"
  rm -f "$ROOT/etc/apt/sources.list" "$ROOT/etc/apt/sources.list.d/debian.sources"
  write_source "$mirror" "$SUITE" >"$ROOT/etc/apt/sources.list.d/debian.sources"
  # A package that looks up this machine's name must not wait for a resolver.
  printf '127.0.0.1 localhost %s\n' "$(hostname)" >"$ROOT/etc/hosts"
  mount_kernel
  logged in_root "$ROOT" apt-get update || stop "apt-get update failed" "" "$SETUP_LOG"
  logged in_root "$ROOT" apt-get install --yes --no-install-recommends rabbitmq-server \
    || stop "apt-get could not install rabbitmq-server" "" "$SETUP_LOG"
  touch "$ROOT/installed"
  finish
}

# Erlang asks the kernel for memory and file handles.
mount_kernel() {
  mountpoint --quiet "$ROOT/proc" || mount -t proc proc "$ROOT/proc"
  mountpoint --quiet "$ROOT/dev" || mount --bind /dev "$ROOT/dev"
}

unmount_kernel() {
  local at
  for at in "$ROOT/dev" "$ROOT/proc"; do
    if mountpoint --quiet "$at" 2>/dev/null; then
      umount "$at"
    fi
  done
}

broker "$@"
