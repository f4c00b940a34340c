#!/usr/bin/env bash
# A Ray cluster of fixed machines, over ssh: run this on any machine that reaches them all.
#
#   bash cluster/hosts.sh up         start the head, then the workers; again after a failure, or with new workers
#   bash cluster/hosts.sh status     which of them are up
#   bash cluster/hosts.sh down       end Ray on all of them, workers first
#
# ---- change here, or set in the environment ---------------------------------------------------------------------
HEAD=${HEAD:-10.0.0.10}                       # its address in the cluster's own network
WORKERS=${WORKERS:-10.0.0.11 10.0.0.12}       # separated by blanks; they may join and leave while a search runs
SSH=${SSH:-ssh -o BatchMode=yes}              # how to log in without a password, e.g. ssh -l ray -i ~/.ssh/cluster
VENV=${VENV:-/opt/nao_ray/.venv}              # on every machine: requirements.txt and nao_ray installed, same versions
GCS_PORT=${GCS_PORT:-6379}
HEAD_SETTINGS=${HEAD_SETTINGS:-}              # settings of machine.sh; NUM_CPUS=0 keeps trials off the head
WORKER_SETTINGS=${WORKER_SETTINGS:-}          # e.g. NODE_PORTS=7380 WORKER_PORTS=20000-20999
# -----------------------------------------------------------------------------------------------------------------
#
# Pool: on storage that every machine sees, e.g. --pool /shared/pools/run1 or s3://bucket/pools/run1.
# Token: the head makes it; here it only passes through, on standard input, to ~/.ray/auth_token (mode 600) of the
# workers. To hand in jobs, copy that file to your own ~/.ray/auth_token, and reach the dashboard, which listens on the
# head's loopback, by: ssh -N -L 8265:127.0.0.1:8265 HEAD
# Firewall: the ports of machine.sh stay open between these machines and must be closed to all others; the metrics
# answer without a token, and nothing is encrypted.
set -euo pipefail

node_script=$(dirname "${BASH_SOURCE[0]}")/machine.sh
read -ra workers <<<"$WORKERS"
read -ra ssh <<<"$SSH"

# on HOST SETTINGS WORDS...: machine.sh there, without being installed there
on() {
    local host=$1 settings=$2
    shift 2
    settings="RAY_AUTH_MODE=token PATH=$VENV/bin:\$PATH GCS_PORT=$GCS_PORT $settings"
    "${ssh[@]}" "$host" "env $settings bash -s -- $*" <"$node_script"
}

# shellcheck disable=SC2016  # HOME is that of the other machine
give_token() {
    "${ssh[@]}" "$HEAD" 'cat "$HOME/.ray/auth_token"' | "${ssh[@]}" "$1" '
        new=$(cat) file=$HOME/.ray/auth_token
        [ -n "$new" ] || { echo "the head has no token" >&2; exit 2; }
        if [ -s "$file" ] && [ "$(cat "$file")" != "$new" ]; then
            echo "there is another token in $file: remove it if nothing else needs it" >&2
            exit 2
        fi
        umask 077 && mkdir -p "${file%/*}" && printf %s "$new" >"$file"'
}

up() {
    local said missing=()
    said=$(on "$HEAD" "$HEAD_SETTINGS" up) || { echo "hosts.sh: the head, $HEAD, is not up" >&2; exit 1; }
    echo "$HEAD: $said"
    for host in "${workers[@]}"; do
        if give_token "$host" && said=$(on "$host" "$WORKER_SETTINGS" up "$HEAD:$GCS_PORT"); then
            echo "$host: $said"
        else
            missing+=("$host")
        fi
    done
    ((${#missing[@]} == 0)) || { echo "hosts.sh: not up: ${missing[*]}; the others are" >&2; exit 1; }
}

# tell HOST SETTINGS WORD: the same settings as for `up`, for STATE_DIR may be one of them
tell() {
    local said code=0
    said=$(on "$@" 2>&1) || code=1
    echo "$1: $said"
    return "$code"
}

each() {
    local failed=0
    for host in "${workers[@]}"; do
        tell "$host" "$WORKER_SETTINGS" "$1" || failed=1
    done
    tell "$HEAD" "$HEAD_SETTINGS" "$1" || failed=1
    return "$failed"
}

case ${1:-} in
    up) up ;;
    status | down) each "$1" ;;
    *) echo "hosts.sh: expected up, status or down, got '${*:-nothing}'" >&2; exit 2 ;;
esac
