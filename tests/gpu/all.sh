#!/usr/bin/env bash
# All that needs a CUDA device, in pieces: `make test-gpu`, or `bash tests/gpu/all.sh [PIECE...]`; --help lists them.
# PYTHON: the interpreter; SITE: an archive of packages it lacks.
set -u
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=disabled
if [[ -n ${SITE:-} ]]; then
    mkdir -p /tmp/site && tar xJf "$SITE" -C /tmp/site
    export PYTHONPATH=$(cd "$(dirname "$SITE")" && pwd)/extra:/tmp/site:$PWD
fi
export PYTHONPATH=${PYTHONPATH:-$PWD}
nvidia-smi --query-gpu=name,driver_version,compute_mode,mig.mode.current --format=csv,noheader || true
exec "${PYTHON:-python3}" tests/gpu/pieces.py "$@"
