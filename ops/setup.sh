#!/usr/bin/env bash
#
# Makes a bare Debian machine ready for Covibes: packages, a running Docker, a
# running RabbitMQ and the Debian image that all Covibes images are built on.
#
# Every part first looks whether its work is done, so a second run takes about
# a second. What already answers is never touched: no restart, no new setting.
# Works without systemd (bare VMs, CI) and uses systemd where it is PID 1.

set -Eeuo pipefail

readonly BASE_IMAGE=covibes/debian:bookworm
readonly BASE_SUITE=bookworm
CLIENTS=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../examples/clients")
readonly CLIENTS
readonly PYTHON_CLIENTS=${CLIENTS%/examples/clients}/target/clients-python
readonly AXE=${CLIENTS%/examples/clients}/target/axe-core
readonly LOG_DIR=/var/log/covibes
# What the tests need besides packages; also where tests/live looks for it.
readonly TOOLS_DIR=/var/cache/covibes
readonly RUN_DIR=/run/covibes-setup
readonly SETUP_LOG=$LOG_DIR/setup.log
readonly DOCKER_LOG=$LOG_DIR/dockerd.log
readonly RABBITMQ_LOG=$LOG_DIR/rabbitmq.log

# A start takes 2 s (Docker) or 8 s (RabbitMQ) on two cores. The bounds are for
# a machine that is busy compiling, or a Docker that first has to stop the
# containers its killed predecessor left behind.
readonly DOCKER_START_SECONDS=90
readonly RABBITMQ_START_SECONDS=120
# Without a registry the pull fails in milliseconds (no such host) or hangs (a
# firewall that drops); 30 MB on a slow line still fit.
readonly PULL_SECONDS=60
readonly LOCK_SECONDS=900

export LC_ALL=C.UTF-8
export DEBIAN_FRONTEND=noninteractive
# Services must come from the system's own directories, also when the caller's
# PATH is that of an unprivileged user.
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

check_only=false
with_tests=false
with_management=false
verbose=false

main() {
  read_arguments "$@"
  if $check_only; then
    check
  fi
  ((EUID == 0)) || stop "must run as root" "Run: sudo $0"
  local began=$EPOCHREALTIME
  mkdir -p "$LOG_DIR" "$RUN_DIR"
  rotate "$SETUP_LOG"
  trap on_exit EXIT
  trap 'on_error $LINENO' ERR
  lock
  printf '%s\n' "--- $(date -Is) $0 $*" >>"$SETUP_LOG"

  packages
  docker_engine
  rabbitmq
  base_image
  if $with_tests; then
    test_tools
  fi
  printf '==> ready in %s s\n' "$(seconds_since "$began")" >&2
}

usage() {
  cat <<'USAGE'
Makes a Debian machine ready for Covibes. Safe to run again at any time.

Usage: ops/setup.sh [OPTIONS]

  --check        print what is missing and change nothing; exit 1 if anything is
  --tests        also install what only tests and lints need: cargo-nextest,
                 cargo-deny, shellcheck, chromium, axe-core, prometheus, Docker Compose v2,
                 and pika for the Python clients, below target/
  --management   start RabbitMQ with its management page on 127.0.0.1:15672
                 (only when this run is the one that starts RabbitMQ; it stays
                 until: rabbitmq-plugins disable rabbitmq_management)
  --verbose      show the output of the commands that run
  --help         print this

What it does, each part only when needed:
  packages       installs docker.io, rabbitmq-server, debootstrap, iptables, nftables, …
                 with apt-get
  docker         starts the Docker daemon if nothing answers on its socket
                 (DOCKER_HOST is respected)
  rabbitmq       starts RabbitMQ on 127.0.0.1 if nothing answers on port 5672
  base image     makes covibes/debian:bookworm: pulled where a registry is
                 reachable, else built by debootstrap from the Debian mirror of
                 this machine's apt configuration

Logs are in /var/log/covibes. Exit codes: 0 ready, 1 failed or (--check)
something is missing, 2 wrong usage.
USAGE
}

read_arguments() {
  local argument
  for argument in "$@"; do
    case $argument in
      --check) check_only=true ;;
      --tests) with_tests=true ;;
      --management) with_management=true ;;
      --verbose | -v) verbose=true ;;
      --help | -h)
        usage
        exit 0
        ;;
      *)
        printf 'setup: unknown option %s\n\n' "$argument" >&2
        usage >&2
        exit 2
        ;;
    esac
  done
}

# Prints what is missing, one line each, and exits.
check() {
  local missing=() package tool
  while read -r package; do
    missing+=("package: $package")
  done < <(missing_packages)
  if ! docker_answers; then
    if listens "$(docker_socket)"; then
      missing+=("docker: $(docker_address) does not answer this user (run as root)")
    else
      missing+=("docker: nothing answers on $(docker_address)")
    fi
  fi
  rabbitmq_answers || missing+=("rabbitmq: nothing answers on 127.0.0.1:5672")
  base_image_exists || missing+=("base image: $BASE_IMAGE")
  if $with_tests; then
    while read -r tool; do
      missing+=("test tool: $tool")
    done < <(missing_test_tools)
  fi
  if ((${#missing[@]} == 0)); then
    printf 'nothing is missing\n' >&2
    exit 0
  fi
  printf '%s\n' "${missing[@]}"
  exit 1
}

# ---------------------------------------------------------------- packages

packages() {
  local missing=()
  mapfile -t missing < <(missing_packages)
  if ((${#missing[@]} == 0)); then
    already packages "all installed"
    return
  fi
  have apt-get || stop "this machine has no apt-get; missing: ${missing[*]}" \
    "Covibes' set-up knows Debian only. Install these yourself, then run it again."
  begin packages "installing ${missing[*]}"
  deny_service_starts
  if ! apt_get install --simulate "${missing[@]}" >/dev/null 2>&1; then
    logged apt_get update || stop "apt-get update failed" "" "$SETUP_LOG"
  fi
  # Lists that know a package may still name a version the mirror has dropped.
  logged apt_get install "${missing[@]}" \
    || { logged apt_get update && logged apt_get install "${missing[@]}"; } \
    || stop "apt-get could not install ${missing[*]}" "" "$SETUP_LOG"
  allow_service_starts
  hash -r
  finish
}

# Prints the Debian packages that are missing, each once. It looks for commands
# and not for packages: a docker-ce or a self-built git is as good, and
# installing docker.io next to docker-ce would break it.
missing_packages() {
  {
    have curl || echo curl
    have git || echo git
    have ip && have tc || echo iproute2
    have iptables || echo iptables
    have nft || echo nftables
    have mkfs.ext4 || echo e2fsprogs
    have losetup && have mountpoint || echo mount
    have setsid && have flock && have nsenter || echo util-linux
    have ps || echo procps
    have cc || printf '%s\n' gcc libc6-dev
    [[ -s /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
    have debootstrap || base_image_exists || echo debootstrap
    # A kernel with AppArmor refuses every container without its parser.
    if [[ $(cat /sys/module/apparmor/parameters/enabled 2>/dev/null) == Y ]]; then
      have apparmor_parser || echo apparmor
    fi
    if ! have docker; then
      # From Debian 13 on the client is a package of its own.
      if apt-cache show docker-cli >/dev/null 2>&1; then
        echo docker-cli
      else
        echo docker.io
      fi
    fi
    have dockerd || docker_answers || echo docker.io
    have rabbitmq-server || rabbitmq_answers || echo rabbitmq-server
    ! $with_tests || have shellcheck || echo shellcheck
    ! $with_tests || have openssl || echo openssl
    ! $with_tests || have chromium || echo chromium
    # Clocks that are wrong, for tests/chaos.
    ! $with_tests || compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || echo libfaketime
    ! $with_tests || python3 -c 'import ensurepip' 2>/dev/null || echo python3-venv
  } | sort -u
}

apt_get() {
  # The bound on the lock covers unattended upgrades on a fresh machine.
  apt-get --yes --no-install-recommends \
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
    "$@" </dev/null
}

# Keeps the packages from starting their services while they are installed:
# without systemd that fails, and with it RabbitMQ would listen on every address
# before it is configured. A policy that somebody else made is left as it is.
deny_service_starts() {
  [[ ! -e /usr/sbin/policy-rc.d ]] || return 0
  printf '#!/bin/sh\n# Made by the set-up of Covibes for the time of one apt-get run.\nexit 101\n' \
    >/usr/sbin/policy-rc.d
  chmod 755 /usr/sbin/policy-rc.d
  made_policy=true
}
made_policy=false

allow_service_starts() {
  if $made_policy; then
    rm -f /usr/sbin/policy-rc.d
    made_policy=false
  fi
}

# ---------------------------------------------------------------- docker

docker_engine() {
  if docker_answers; then
    already docker "answers on $(docker_address) ($(docker_version))"
    return
  fi
  local socket
  socket=$(docker_socket)
  [[ -n $socket ]] || stop "nothing answers on DOCKER_HOST=$DOCKER_HOST" \
    "Start that Docker, or unset DOCKER_HOST to use one on this machine."

  if [[ -n ${DOCKER_HOST:-} ]] && DOCKER_HOST='' docker_answers; then
    stop "nothing answers on DOCKER_HOST=$DOCKER_HOST, but a Docker runs on this machine's usual socket" \
      "Unset DOCKER_HOST to use that one."
  fi

  begin docker "starting"
  if running_systemd && [[ -z ${DOCKER_HOST:-} ]]; then
    logged systemctl start docker || stop "systemctl could not start docker" \
      "Look at: journalctl -u docker" "$SETUP_LOG"
    wait_until "$DOCKER_START_SECONDS" 1 docker_answers \
      || stop "docker did not answer within $DOCKER_START_SECONDS s" "Look at: journalctl -u docker"
  else
    # One that is on its way up, or down, is waited for first.
    wait_until "$DOCKER_START_SECONDS" "$(live_pid dockerd /var/run/docker.pid)" docker_answers \
      || wait_for_own_dockerd "$socket"
  fi
  finish "$(docker_version)"
}

wait_for_own_dockerd() {
  local socket=$1 other
  other=$(live_pid dockerd /var/run/docker.pid)
  [[ -z $other ]] \
    || stop "dockerd (pid $other) runs but $(docker_address) did not answer within $DOCKER_START_SECONDS s" \
      "If it hangs, stop it (kill $other) and run this again." "$DOCKER_LOG"
  clear_stale_docker
  mount_cgroups
  start_dockerd "$socket"
  wait_until "$DOCKER_START_SECONDS" "$detached" docker_answers && return 0
  if alive "$detached"; then
    kill "$detached"
    stop "dockerd did not answer within $DOCKER_START_SECONDS s and was stopped again" "" "$DOCKER_LOG"
  fi
  stop "dockerd did not start" "" "$DOCKER_LOG"
}

start_dockerd() {
  local socket=$1 flags=() mtu variables=()
  [[ -z ${DOCKER_HOST:-} ]] || flags+=(--host "unix://$socket")
  # With a daemon.json the machine's owner has decided, and a setting that is
  # given both there and as a flag keeps dockerd from starting.
  if [[ ! -e /etc/docker/daemon.json ]]; then
    flags+=(--exec-opt native.cgroupdriver=cgroupfs)
    # Docker's own choice of subnets without 172.21.0.0/16 and 172.22.0.0/16,
    # which belong to the team networks, and in smaller pieces: its /16s are
    # used up after 29 networks.
    flags+=(
      --default-address-pool "base=172.17.0.0/16,size=16"
      --default-address-pool "base=172.18.0.0/15,size=24"
      --default-address-pool "base=172.20.0.0/16,size=24"
      --default-address-pool "base=172.23.0.0/16,size=24"
      --default-address-pool "base=172.24.0.0/13,size=24"
      --default-address-pool "base=192.168.0.0/16,size=24"
    )
    # Containers that send larger packets than the way out takes lose their
    # TLS handshakes wherever path MTU discovery is filtered.
    mtu=$(default_route_mtu)
    ((mtu >= 1500)) || flags+=(--mtu "$mtu")
  fi
  local variable
  for variable in HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy \
    SSL_CERT_FILE SSL_CERT_DIR; do
    [[ -z ${!variable:-} ]] || variables+=("$variable=${!variable}")
  done
  mkdir -p "$(dirname "$socket")"
  detach "$DOCKER_LOG" env -i PATH="$PATH" HOME=/root "${variables[@]}" \
    dockerd "${flags[@]}"
}

# Removes what a killed dockerd leaves behind and its successor trips over.
# Containers and their data are dockerd's own to clear up.
clear_stale_docker() {
  # dockerd refuses to start when the process of its pid file lives, even if
  # that number belongs to another program by now (always so after a reboot of
  # a machine whose /run is on disk).
  rm -f /var/run/docker.pid
  # The same for the containerd that dockerd runs itself: it would wait for it.
  [[ -n $(live_pid containerd /var/run/docker/containerd/containerd.pid) ]] \
    || rm -f /var/run/docker/containerd/containerd.pid
  # The mere file of this socket makes dockerd use the system's containerd.
  listens /run/containerd/containerd.sock || rm -f /run/containerd/containerd.sock
}

# Mounts the cgroup hierarchy where no init system has done so.
mount_cgroups() {
  if ! grep -q ' /sys/fs/cgroup' /proc/self/mounts; then
    mount -t cgroup2 none /sys/fs/cgroup
  fi
}

docker_socket() {
  case ${DOCKER_HOST:-} in
    '') echo /var/run/docker.sock ;;
    unix://*) echo "${DOCKER_HOST#unix://}" ;;
  esac
}

docker_address() {
  echo "${DOCKER_HOST:-$(docker_socket)}"
}

docker_answers() {
  local socket
  socket=$(docker_socket)
  if [[ -z $socket ]]; then
    have docker && timeout 10 docker version >/dev/null 2>&1
  elif have curl; then
    [[ -S $socket ]] && curl --silent --fail --max-time 5 --noproxy '*' \
      --unix-socket "$socket" --output /dev/null http://localhost/_ping
  else
    listens "$socket"
  fi
}

docker_version() {
  docker version --format '{{.Server.Version}}' 2>/dev/null || echo 'version unknown'
}

default_route_mtu() {
  local device
  device=$(ip -o route show default | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -n 1)
  cat "/sys/class/net/$device/mtu" 2>/dev/null || echo 1500
}

# ---------------------------------------------------------------- rabbitmq

rabbitmq() {
  if rabbitmq_answers; then
    already rabbitmq "answers on 127.0.0.1:5672"
    return
  fi
  begin rabbitmq "starting"
  if running_systemd; then
    # Without it the broker would listen on every address.
    [[ -e /etc/rabbitmq/rabbitmq.conf || -e /etc/rabbitmq/rabbitmq.config ]] \
      || { rabbitmq_configuration && echo 'listeners.tcp.1 = 127.0.0.1:5672'; } \
        >/etc/rabbitmq/rabbitmq.conf
    logged systemctl start rabbitmq-server || stop "systemctl could not start rabbitmq-server" \
      "Look at: journalctl -u rabbitmq-server" "$SETUP_LOG"
    wait_until "$RABBITMQ_START_SECONDS" 1 rabbitmq_answers \
      || stop "RabbitMQ did not answer within $RABBITMQ_START_SECONDS s" "Look at: journalctl -u rabbitmq-server"
  else
    # One that is on its way up, or down, is waited for first.
    wait_until "$RABBITMQ_START_SECONDS" "$(live_rabbitmq)" rabbitmq_answers \
      || wait_for_own_rabbitmq
  fi
  finish "$(rabbitmq_node)"
}

wait_for_own_rabbitmq() {
  local other
  other=$(live_rabbitmq)
  [[ -z $other ]] \
    || stop "RabbitMQ (pid $other) runs but 127.0.0.1:5672 did not answer within $RABBITMQ_START_SECONDS s" \
      "If it hangs, stop it (kill $other) and run this again." "$RABBITMQ_LOG"
  if port_is_taken; then
    stop "something on 127.0.0.1:5672 does not speak AMQP" \
      "Find it (ss -ltnp 'sport = :5672'), stop it, and run this again."
  fi
  start_rabbitmq
  wait_until "$RABBITMQ_START_SECONDS" "$detached" rabbitmq_answers && return 0
  if alive "$detached"; then
    # The broker itself hears of it through the script that started it.
    kill "$detached"
    stop "RabbitMQ did not answer within $RABBITMQ_START_SECONDS s and was stopped again" "" "$RABBITMQ_LOG"
  fi
  stop "RabbitMQ did not start" "Its own log is in /var/log/rabbitmq." "$RABBITMQ_LOG"
}

start_rabbitmq() {
  local variables=(
    RABBITMQ_NODENAME="$(rabbitmq_node)"
    RABBITMQ_NODE_IP_ADDRESS=127.0.0.1
    ERL_EPMD_ADDRESS=127.0.0.1
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'
  )
  if [[ ! -e /etc/rabbitmq/rabbitmq.conf && ! -e /etc/rabbitmq/rabbitmq.config ]]; then
    rabbitmq_configuration >"$RUN_DIR/rabbitmq.conf"
    chmod 755 "$RUN_DIR"
    chmod 644 "$RUN_DIR/rabbitmq.conf"
    variables+=(RABBITMQ_CONFIG_FILE="$RUN_DIR/rabbitmq.conf")
  fi
  if $with_management; then
    variables+=(RABBITMQ_ENABLED_PLUGINS=rabbitmq_management)
  fi
  # The pid file of a killed node, whose number may be anybody's by now.
  rm -f /var/lib/rabbitmq/mnesia/"$(rabbitmq_node)".pid
  # The rabbitmq-server in the PATH changes the user by su, which sets the limit
  # on open files back to the login default of 1,024.
  detach "$RABBITMQ_LOG" env -i PATH="$PATH" HOME=/var/lib/rabbitmq LANG=C.UTF-8 \
    "${variables[@]}" \
    setpriv --reuid rabbitmq --regid rabbitmq --init-groups \
    /usr/lib/rabbitmq/bin/rabbitmq-server
}

rabbitmq_configuration() {
  cat <<'CONFIGURATION'
# Written by the set-up of Covibes.
# A job stays unacknowledged while it runs, and 3.10 knows this limit per broker
# only: 6 hours instead of 30 minutes, as room for retries and debuggers.
consumer_timeout = 21600000
# The default of 50 MB lets a full disk kill the broker before it blocks.
disk_free_limit.absolute = 500MB
management.tcp.ip = 127.0.0.1
CONFIGURATION
}

# The node is named for the host where that name leads to the loopback address
# that the broker keeps to, so that a plain rabbitmqctl finds it.
rabbitmq_node() {
  local host
  host=$(hostname -s 2>/dev/null) || host=
  if [[ -n $host && $(getent ahostsv4 "$host" | awk '{ print $1; exit }') == 127.0.0.1 ]]; then
    echo "rabbit@$host"
  else
    echo rabbit@localhost
  fi
}

# Whether a broker answers the AMQP header with its first frame. An open port
# alone says nothing: it opens before the broker can be used.
# shellcheck disable=SC2016 # Expands in the inner shell.
rabbitmq_answers() {
  timeout 3 bash -c '
    exec 3<>/dev/tcp/127.0.0.1/5672
    printf "AMQP\0\0\011\001" >&3
    [[ $(head -c 1 <&3 | od -An -tu1) -eq 1 ]]' 2>/dev/null
}

port_is_taken() {
  timeout 3 bash -c 'exec 3<>/dev/tcp/127.0.0.1/5672' 2>/dev/null
}

live_rabbitmq() {
  live_pid beam.smp /var/lib/rabbitmq/mnesia/"$(rabbitmq_node)".pid
}

# ---------------------------------------------------------------- base image

base_image() {
  if base_image_exists; then
    already "base image" "$BASE_IMAGE exists"
    return
  fi
  workshop=$(mktemp -d /var/tmp/covibes-setup.XXXXXX)
  read_apt_configuration
  write_additions "$workshop/additions"
  if pull_base_image; then
    return
  fi
  bootstrap_base_image
}
workshop=

base_image_exists() {
  have docker && docker image inspect "$BASE_IMAGE" >/dev/null 2>&1
}

pull_base_image() {
  local upstream=debian:$BASE_SUITE-slim container
  begin "base image" "pulling $upstream"
  if ! logged timeout "$PULL_SECONDS" docker pull --quiet "$upstream"; then
    finish "no registry can be reached"
    return 1
  fi
  container=$(docker create "$upstream") || stop "docker create failed"
  # No --quiet for docker cp: the client of Debian 12 does not know it.
  tar -C "$workshop/additions" --owner=0 --group=0 -c . | logged docker cp - "$container:/" \
    || stop "docker cp failed" "" "$SETUP_LOG"
  logged docker commit --change 'ENV LANG=C.UTF-8' --change 'CMD ["bash"]' \
    "$container" "$BASE_IMAGE" || stop "docker commit failed" "" "$SETUP_LOG"
  docker rm "$container" >/dev/null
  finish "$BASE_IMAGE, $(image_megabytes)"
}

bootstrap_base_image() {
  local root=$workshop/root keyrings=()
  [[ -n $mirror ]] || stop "no image registry can be reached, and apt has no Debian mirror here" \
    "Pull or load any Debian $BASE_SUITE image and tag it $BASE_IMAGE."
  [[ -z $keyring ]] || keyrings=(--keyring "$keyring")
  have debootstrap || stop "debootstrap is missing" "Run: apt-get install debootstrap"
  begin "base image" "building $BASE_IMAGE with debootstrap (about a minute)"
  logged env ${apt_proxy:+http_proxy="$apt_proxy" https_proxy="$apt_proxy"} \
    debootstrap --variant=minbase --components=main "${keyrings[@]}" \
    "$BASE_SUITE" "$root" "$mirror" \
    || stop "debootstrap failed" "" "$SETUP_LOG" "$root/debootstrap/debootstrap.log"
  cp -a --no-preserve=ownership "$workshop/additions/." "$root/"
  # debootstrap knows one archive only; the fixes of -updates and -security come
  # now, before the files become a layer that later ones could only cover.
  logged in_root "$root" apt-get update \
    || stop "apt-get update failed in the new image" "" "$SETUP_LOG"
  logged in_root "$root" apt-get --yes upgrade \
    || stop "apt-get upgrade failed in the new image" "" "$SETUP_LOG"
  strip_root "$root"
  tar --one-file-system --numeric-owner -C "$root" -c . \
    | docker import \
      --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
      --change 'ENV LANG=C.UTF-8' \
      --change 'CMD ["bash"]' \
      --message "debootstrap $BASE_SUITE" - "$BASE_IMAGE" >>"$SETUP_LOG" 2>&1 \
    || stop "docker import failed" "" "$SETUP_LOG"
  finish "$(image_megabytes)"
}

in_root() {
  local root=$1
  shift
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive chroot "$root" "$@" </dev/null
}

# Removes what a container never reads. The licence texts stay.
strip_root() {
  local root=$1
  find "$root/usr/share/doc" -mindepth 2 ! -type d ! -name copyright -delete
  find "$root/usr/share/doc" -depth -mindepth 1 -type d -empty -delete
  rm -rf "$root"/usr/share/{man,info,lintian,linda,groff,locale}/* \
    "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin \
    "$root"/var/cache/apt/archives/*.deb "$root"/var/cache/debconf/*-old \
    "$root"/var/lib/dpkg/*-old "$root"/var/log/* "$root"/debootstrap \
    "$root"/etc/hostname "$root"/etc/resolv.conf "$root"/etc/apt/sources.list
  : >"$root/etc/machine-id"
}

# Reads from this machine's apt where Debian comes from, so that no host name
# needs to be known here. Sets mirror, security_mirror, with_updates, keyring
# and apt_proxy; an empty mirror means apt has no Debian.
read_apt_configuration() {
  mirror='' security_mirror='' with_updates=false keyring='' apt_proxy=''
  have apt-get || return 0
  local uri codename component origin label
  while IFS='|' read -r uri codename component origin label; do
    [[ $origin == Debian && $component == main && $uri == http?(s)://* ]] || continue
    case $label:$codename in
      Debian-Security:*) security_mirror=${security_mirror:-$uri} ;;
      Debian:*-updates) with_updates=true ;;
      Debian:*-*) ;;
      Debian:*) mirror=${mirror:-$uri} ;;
    esac
  done < <(apt_targets)
  if [[ -z $mirror ]]; then
    logged apt_get update || true
    while IFS='|' read -r uri codename component origin label; do
      [[ $origin == Debian && $label == Debian && $codename != *-* && $component == main ]] || continue
      mirror=${mirror:-$uri}
    done < <(apt_targets)
  fi
  keyring=$(apt_keyring)
  local APT_PROXY=''
  eval "$(apt-config shell APT_PROXY Acquire::http::Proxy)"
  [[ $APT_PROXY == DIRECT ]] || apt_proxy=$APT_PROXY
}

# shellcheck disable=SC2016 # apt expands these.
apt_targets() {
  apt-get indextargets \
    --format '$(REPO_URI)|$(CODENAME)|$(COMPONENT)|$(ORIGIN)|$(LABEL)' \
    'Created-By: Packages' 2>/dev/null || true
}

# The key file that apt's sources name for the mirror, or the one Debian ships.
apt_keyring() {
  local file
  file=$(
    # Both formats: "Signed-By: /a/file" and "deb [signed-by=/a/file] …". The
    # paragraph or line must name the mirror.
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null \
      | grep -F "${mirror%/}" | sed -n 's/^[^#]*signed-by=\([^] ]*\).*/\1/p'
    awk -v RS= -v mirror="${mirror%/}" 'index($0, mirror) {
        count = split($0, lines, "\n")
        for (i = 1; i <= count; i++)
          if (lines[i] ~ /^Signed-By: *\//) { sub(/^Signed-By: */, "", lines[i]); print lines[i] }
      }' /etc/apt/sources.list.d/*.sources 2>/dev/null
  ) || true
  file=${file%%$'\n'*}
  file=${file:-/usr/share/keyrings/debian-archive-keyring.gpg}
  [[ ! -r $file ]] || echo "$file"
}

# Writes the files that are laid over Debian in the image: this machine's
# package sources and certificates, so that apt-get works in later image builds
# where it works here, and the habits of Debian's own container images.
write_additions() {
  local to=$1
  mkdir -p "$to"/etc/apt/{apt.conf.d,sources.list.d} "$to/etc/dpkg/dpkg.cfg.d" \
    "$to/etc/ssl/certs" "$to/usr/sbin"
  # A mirror with https needs them before ca-certificates can be installed.
  cp /etc/ssl/certs/ca-certificates.crt "$to/etc/ssl/certs/ca-certificates.crt"
  if [[ -n $mirror ]]; then
    local suites=$BASE_SUITE
    if $with_updates; then
      suites+=" $BASE_SUITE-updates"
    fi
    write_source "$mirror" "$suites" >"$to/etc/apt/sources.list.d/debian.sources"
    if [[ -n $security_mirror ]]; then
      write_source "$security_mirror" "$BASE_SUITE-security" \
        >>"$to/etc/apt/sources.list.d/debian.sources"
    fi
    if [[ -n $keyring && $keyring != /usr/share/keyrings/debian-archive-keyring.gpg ]]; then
      install -D -m 644 "$keyring" "$to$keyring"
    fi
  fi
  {
    echo '// Written by the set-up of Covibes.'
    echo 'APT::Install-Recommends "false";'
    echo 'Acquire::Languages "none";'
    echo 'Acquire::Retries "3";'
    # A proxy on this machine's loopback cannot be reached from a container.
    if have apt-config; then
      apt-config dump \
        | grep -E '^Acquire::(https?::Proxy|Check-Valid-Until|Check-Date)\b.* "[^"]+";$' \
        | grep -vE '//(127\.|localhost|\[::1\])' || true
    fi
  } >"$to/etc/apt/apt.conf.d/80covibes"
  cat >"$to/etc/dpkg/dpkg.cfg.d/covibes" <<'DPKG'
# An image build that is cut short is thrown away, so nothing needs syncing.
force-unsafe-io
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/lintian/*
DPKG
  printf '#!/bin/sh\n# Packages start no service while an image is built.\nexit 101\n' \
    >"$to/usr/sbin/policy-rc.d"
  chmod 755 "$to/usr/sbin/policy-rc.d"
}

write_source() {
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "$1" "$2"
  printf 'Signed-By: %s\n\n' "${keyring:-/usr/share/keyrings/debian-archive-keyring.gpg}"
}

image_megabytes() {
  local bytes
  bytes=$(docker image inspect --format '{{.Size}}' "$BASE_IMAGE")
  echo "$((bytes / 1000000)) MB"
}

# ---------------------------------------------------------------- test tools

test_tools() {
  local missing=() tool
  mapfile -t missing < <(missing_test_tools)
  if ((${#missing[@]} == 0)); then
    already "test tools" "all installed"
    return
  fi
  for tool in "${missing[@]}"; do
    case $tool in
      prometheus) install_prometheus ;;
      axe-core) install_axe ;;
      docker-compose) install_compose ;;
      python-clients) install_python_clients ;;
      cargo-*) install_cargo_tool "$tool" ;;
    esac
  done
}

# Prints the tools that no Debian package brings in a form that fits.
missing_test_tools() {
  { have promtool && [[ -x $TOOLS_DIR/prometheus ]]; } || echo prometheus
  [[ -f $AXE/package/axe.min.js ]] || echo axe-core
  "$TOOLS_DIR/docker-compose" version >/dev/null 2>&1 || echo docker-compose
  have cargo-nextest || echo cargo-nextest
  have cargo-deny || echo cargo-deny
  python_clients_exist || echo python-clients
}

# Only the programs from Debian's package: installed, the package would also
# bring a server that starts at each boot, and a dozen more packages. The server
# is for a test that starts one of its own.
install_prometheus() {
  begin "test tools" "fetching prometheus and promtool"
  workshop=${workshop:-$(mktemp -d /var/tmp/covibes-setup.XXXXXX)}
  logged fetch_package prometheus \
    || { logged apt_get update && logged fetch_package prometheus; } \
    || stop "apt-get could not fetch the package prometheus" "" "$SETUP_LOG"
  logged dpkg-deb --extract "$workshop"/prometheus_*.deb "$workshop/prometheus" \
    || stop "the package prometheus could not be unpacked" "" "$SETUP_LOG"
  install -m 755 "$workshop/prometheus/usr/bin/promtool" /usr/local/bin/promtool
  install -D -m 755 "$workshop/prometheus/usr/bin/prometheus" "$TOOLS_DIR/prometheus"
  finish
}

# What looks at the operator page's accessibility, below target/.
install_axe() {
  have npm || stop "npm is missing" "Install Node.js, then run this again."
  begin "test tools" "fetching axe-core"
  rm -rf "$AXE"
  mkdir -p "$AXE"
  (cd "$AXE" && logged npm pack --silent axe-core@4 && tar -xzf axe-core-*.tgz) \
    || stop "npm could not fetch axe-core" "" "$SETUP_LOG"
  finish
}

fetch_package() {
  (cd "$workshop" && apt_get -o APT::Sandbox::User=root download "$1")
}

# Debian 12 has no Compose v2.
install_compose() {
  begin "test tools" "fetching Docker Compose v2"
  logged "$(dirname "$0")/compose-v2.sh" "$TOOLS_DIR" \
    || stop "Docker Compose v2 could not be fetched" "" "$SETUP_LOG"
  finish
}

# Unoptimised and without debugging information: these tools run for seconds,
# and built so, they compile in a third of the time.
install_cargo_tool() {
  have cargo || stop "cargo is missing" "Install Rust, then run this again."
  begin "test tools" "building $1 (a minute or two)"
  logged env CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_STRIP=true \
    cargo install "$1" --locked --debug \
    || stop "$1 could not be built" "" "$SETUP_LOG"
  finish
}

# An environment for the Python clients of examples/clients, below target/.
install_python_clients() {
  begin "test tools" "making the Python clients' environment"
  rm -rf "$PYTHON_CLIENTS"
  logged python3 -m venv "$PYTHON_CLIENTS" || stop "python3 -m venv failed" "" "$SETUP_LOG"
  logged "$PYTHON_CLIENTS/bin/pip" install --disable-pip-version-check \
    --requirement "$CLIENTS/requirements.txt" \
    || stop "pip could not install $CLIENTS/requirements.txt" "" "$SETUP_LOG"
  cp "$CLIENTS/requirements.txt" "$PYTHON_CLIENTS/installed"
  finish
}

python_clients_exist() {
  cmp --silent "$CLIENTS/requirements.txt" "$PYTHON_CLIENTS/installed" \
    && "$PYTHON_CLIENTS/bin/python" -c 'import pika' 2>/dev/null
}

# ---------------------------------------------------------------- processes

# Starts a command that outlives this script and everything that started it.
# Sets detached to its pid. It keeps no file of ours open: a CI runner waits
# until the last process that holds its pipe is gone.
detach() {
  local log=$1
  shift
  rotate "$log"
  # Without the command: its variables may hold the password of a proxy.
  printf '%s\n' "--- $(date -Is) starting" >>"$log"
  (
    cd /
    umask 022
    ulimit -n 1048576 2>/dev/null || ulimit -n "$(ulimit -Hn)"
    local descriptor
    for descriptor in /proc/"$BASHPID"/fd/*; do
      descriptor=${descriptor##*/}
      if ((descriptor > 2)); then
        eval "exec $descriptor>&-"
      fi
    done
    exec setsid "$@" </dev/null >>"$log" 2>&1
  ) &
  detached=$!
}
detached=

# Waits until a command succeeds. Fails when the time is over, or at once when
# the process it depends on has ended.
wait_until() {
  local limit=$1 pid=$2
  shift 2
  local until=$((SECONDS + limit))
  while ! "$@"; do
    if ((SECONDS >= until)) || ! alive "$pid"; then
      # It may have become ready, or handed over, between the two looks.
      "$@" && return 0
      return 1
    fi
    sleep 0.1
  done
}

# Prints the pid in a file if that process lives and still is that program.
live_pid() {
  local program=$1 file=$2 pid
  pid=$(cat "$file" 2>/dev/null) || return 0
  if alive "$pid" && [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "$program" ]]; then
    echo "$pid"
  fi
}

# Whether a process runs. A killed one that nobody has collected does not, and
# on a machine without a real init it can stay in /proc for long.
alive() {
  [[ $1 =~ ^[0-9]+$ ]] && grep -q '^State:[[:space:]]*[^ZX]' "/proc/$1/status" 2>/dev/null
}

# Whether a process listens on a Unix socket; its file alone may be a leftover.
listens() {
  local socket=$1
  [[ -S $socket ]] || return 1
  # The kernel lists the path as it was bound, /run or /var/run.
  awk -v one="${socket/#\/var\/run\//\/run\/}" -v other="${socket/#\/run\//\/var\/run\/}" \
    '$8 == one || $8 == other { found = 1 } END { exit !found }' /proc/net/unix
}

running_systemd() {
  [[ -d /run/systemd/system && $(cat /proc/1/comm) == systemd ]]
}

have() {
  command -v "$1" >/dev/null 2>&1
}

# One set-up at a time: two would start two brokers.
lock() {
  have flock || return 0
  exec 9>"$RUN_DIR/lock"
  if ! flock --nonblock 9; then
    begin lock "waiting for another run of this script"
    flock --timeout "$LOCK_SECONDS" 9 || stop "another run of this script does not end" \
      "Look for it with: ps -ef | grep setup.sh"
    finish
  fi
}

on_exit() {
  local root
  allow_service_starts
  [[ -n $workshop ]] || return 0
  # debootstrap mounts these in the new root and leaves them when interrupted.
  for root in "$workshop/root/proc" "$workshop/root/sys"; do
    if mountpoint --quiet "$root" 2>/dev/null; then
      umount "$root" || return 0
    fi
  done
  rm -rf --one-file-system "$workshop"
}

on_error() {
  trap - ERR
  stop "failed unexpectedly at line $1" "" "$SETUP_LOG"
}

# ---------------------------------------------------------------- messages

line_is_open=false
part_began=0

# begin PART WHAT: opens a line that finish or stop closes.
begin() {
  part_began=$EPOCHREALTIME
  printf '==> %s: %s … ' "$1" "$2" >&2
  line_is_open=true
  if $verbose; then
    printf '\n' >&2
  fi
}

finish() {
  printf '%s%s s\n' "${1:+$1, }" "$(seconds_since "$part_began")" >&2
  line_is_open=false
}

already() {
  printf '==> %s: %s\n' "$1" "$2" >&2
}

# Prints the seconds since a moment, with one decimal.
seconds_since() {
  local tenths=$(((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}) / 100000))
  echo "$((tenths / 10)).$((tenths % 10))"
}

# Runs a command with its output in the log, or also on stderr with --verbose.
logged() {
  if $verbose; then
    "$@" 2>&1 | tee -a "$SETUP_LOG" >&2
  else
    "$@" >>"$SETUP_LOG" 2>&1
  fi
}

# Keeps one older log; each start of a daemon and each run may rotate.
rotate() {
  if [[ -f $1 && $(stat --format %s "$1") -gt 10000000 ]]; then
    mv "$1" "$1.1"
  fi
}

# stop MESSAGE [HINT [LOG…]]: says what went wrong and what to do, and ends.
stop() {
  trap - ERR
  local message=$1 hint=${2:-} log
  shift $(($# > 2 ? 2 : $#))
  if $line_is_open; then
    printf 'failed\n' >&2
  fi
  for log in "$@"; do
    if [[ -s $log ]]; then
      printf -- '--- last lines of %s\n' "$log" >&2
      # Of this start only.
      { tac "$log" | sed '/^--- /q' | head -n 25 | tac >&2; } || true
      printf -- '---\n' >&2
    fi
  done
  printf 'setup: %s\n' "$message" >&2
  if [[ -n $hint ]]; then
    printf 'setup: %s\n' "$hint" >&2
  fi
  exit 1
}

# Other scripts read this file for its functions.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
