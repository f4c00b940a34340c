#!/usr/bin/env bash
# Ray on this machine: a cluster of one, or one node of a larger one.
#
#   bash cluster/machine.sh up                 start a head: a cluster of this machine alone
#   bash cluster/machine.sh up HEAD:6379       join the cluster of another machine
#   bash cluster/machine.sh run [HEAD:6379]    the same in the foreground, for systemd or Slurm
#   bash cluster/machine.sh status | down      is it up; end this node and no other Ray
#   bash cluster/machine.sh token              make the token if there is none, and say where it is
#
# The pool of a cluster of one may be any folder of this machine (--pool); with more machines it belongs on storage
# that all of them see: a shared folder, s3://bucket/name or gs://bucket/name.
#
# ---- change here, or set in the environment ---------------------------------------------------------------------
NODE_IP=${NODE_IP:-}                        # address the other nodes reach this one at; empty: Ray finds it
NUM_CPUS=${NUM_CPUS:-}                      # what trials may use; empty: all that is there
NUM_GPUS=${NUM_GPUS:-}
GCS_PORT=${GCS_PORT:-6379}
DASHBOARD_PORT=${DASHBOARD_PORT:-8265}      # takes jobs, on loopback alone; from elsewhere: ssh -L 8265:127.0.0.1:8265
NODE_PORTS=${NODE_PORTS:-6380}              # this and the next six: managers, agents, metrics (+ 4), clients
WORKER_PORTS=${WORKER_PORTS:-10002-10999}   # one for each worker process
TEMP_DIR=${TEMP_DIR:-/tmp/ray}              # logs and sockets; on a local disk, at most 40 characters
STATE_DIR=${STATE_DIR:-$HOME/.ray/nao_ray-$(uname -n)}  # process id and output of `up`; home may be shared
# -----------------------------------------------------------------------------------------------------------------
#
# Token: $RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token, made here if it is missing, readable by its owner alone. Whoever
# holds it runs code on the cluster. It is never on a command line or in this file.
#
# Firewall: Ray listens on all interfaces at GCS_PORT, NODE_PORTS and WORKER_PORTS, and has no setting against it.
# Calls without the token are refused there, but the metrics (NODE_PORTS + 4, and 44217 and 44227 on the head) answer
# anyone, and nothing is encrypted. Workers that train shared weights together also meet at ports that the system gives
# them (32768-60999 on Linux; torch's own, without the token). Let the cluster's own machines reach all of these and
# nobody else; a cluster of one needs none of them from outside.
set -euo pipefail

RAY_VERSION=2.60.0  # as in requirements.txt: all machines of a cluster need the same
PYTHON_VERSION=3.11  # or later; a node whose Python is not the head's is refused by Ray itself

fail() {
    echo "machine.sh: $*" >&2
    exit 2
}

check_versions() {
    command -v ray >/dev/null || fail "no command ray: activate the environment that requirements.txt is installed in"
    local found
    found=$(python3 -c 'import ray, sys; print(ray.__version__, "%d.%d" % sys.version_info[:2])') ||
        fail "python3 has no ray, though there is a command ray: activate the environment of requirements.txt"
    { [[ ${found% *} == "$RAY_VERSION" ]] && printf '%s\n' "$PYTHON_VERSION" "${found#* }" | sort -VC; } ||
        fail "Ray $RAY_VERSION on Python $PYTHON_VERSION or later is expected here; found: $found"
}

prepare_token() {
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
    unset RAY_AUTH_TOKEN  # as a variable it would be seen by every job
    if [[ ! -s $RAY_AUTH_TOKEN_PATH ]]; then
        [[ -z $1 ]] || fail "no token in $RAY_AUTH_TOKEN_PATH: copy the one of the head there, with mode 600"
        (umask 077 && mkdir -p "$(dirname "$RAY_AUTH_TOKEN_PATH")" &&
            python3 -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH")
    fi
    chmod 600 "$RAY_AUTH_TOKEN_PATH"
}

# The words of `ray start`, for a head ("") or for a node of the cluster at $1.
ray_start() {
    start=(ray start --block --disable-usage-stats --temp-dir="$TEMP_DIR"
        --node-manager-port="$NODE_PORTS" --object-manager-port=$((NODE_PORTS + 1))
        --dashboard-agent-listen-port=$((NODE_PORTS + 2)) --dashboard-agent-grpc-port=$((NODE_PORTS + 3))
        --metrics-export-port=$((NODE_PORTS + 4)) --runtime-env-agent-port=$((NODE_PORTS + 5))
        --min-worker-port="${WORKER_PORTS%-*}" --max-worker-port="${WORKER_PORTS#*-}")
    [[ -z $NODE_IP ]] || start+=(--node-ip-address="$NODE_IP")
    [[ -z $NUM_CPUS ]] || start+=(--num-cpus="$NUM_CPUS")
    [[ -z $NUM_GPUS ]] || start+=(--num-gpus="$NUM_GPUS")
    if [[ -n $1 ]]; then
        start+=(--address="$1")
    else
        start+=(--head --port="$GCS_PORT" --dashboard-host=127.0.0.1 --dashboard-port="$DASHBOARD_PORT"
            --ray-client-server-port=$((NODE_PORTS + 6)))
    fi
    unset RAY_ADDRESS  # of another cluster
}

is_up() {
    # by its words too, for after a restart of the machine the number may be another process's
    [[ -s $STATE_DIR/pid ]] &&
        { tr '\0' ' ' <"/proc/$(<"$STATE_DIR/pid")/cmdline" | grep -q "ray start --block"; } 2>/dev/null
}

up() {
    is_up && { echo "Ray is up already, process $(<"$STATE_DIR/pid")"; return; }
    check_versions
    prepare_token "$1"
    ray_start "$1"
    mkdir -p "$STATE_DIR"
    : >"$STATE_DIR/output"  # here, for what an earlier node said must not be read below
    nohup setsid "${start[@]}" >>"$STATE_DIR/output" 2>&1 </dev/null &
    local pid=$!
    echo "$pid" >"$STATE_DIR/pid"
    for ((tenths = 0; tenths < 1200; tenths++)); do
        if grep -q "Ray runtime started" "$STATE_DIR/output"; then
            echo "Ray is up, process $pid${1:+, in the cluster of $1}"
            [[ -n $1 ]] || echo "jobs: RAY_AUTH_MODE=token, --address http://127.0.0.1:$DASHBOARD_PORT"
            return
        fi
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$STATE_DIR/output" >&2
    ! is_up || down >&2
    rm -f "$STATE_DIR/pid"
    fail "Ray did not start; its output is in $STATE_DIR/output"
}

# SIGTERM lets the node hand over its work; its processes end with it.
down() {
    is_up || { rm -f "$STATE_DIR/pid"; echo "Ray is not up"; return; }
    local pid
    pid=$(<"$STATE_DIR/pid")
    kill -TERM "$pid" 2>/dev/null || true
    for ((tenths = 0; tenths < 450; tenths++)); do
        is_up || break
        sleep 0.1
    done
    kill -KILL -- "-$pid" 2>/dev/null || true  # the node's process group: what has not ended by itself
    rm -f "$STATE_DIR/pid"
    echo "Ray is down"
}

case ${1:-} in
    up) up "${2:-}" ;;
    run)
        check_versions
        prepare_token "${2:-}"
        ray_start "${2:-}"
        exec "${start[@]}"
        ;;
    down) down ;;
    token)
        prepare_token ""
        echo "$RAY_AUTH_TOKEN_PATH"
        ;;
    status)
        is_up || { echo "Ray is not up"; exit 1; }
        echo "Ray is up, process $(<"$STATE_DIR/pid")"
        ;;
    *) fail "expected up [HEAD:PORT], run [HEAD:PORT], down, status or token, got '${*:-nothing}'" ;;
esac
