#!/usr/bin/env bash
# All that needs a CUDA device, in pieces, each with its own time limit: `make test-gpu`, or `bash tests/gpu/all.sh PIECE...`
# What they print goes to $OUT (default gpu_out) too. PYTHON: the interpreter; SITE: an archive of packages it lacks.
set -u
export OUT=${OUT:-gpu_out} OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=disabled
python=${PYTHON:-python3}
mkdir -p "$OUT"
if [[ -n ${SITE:-} ]]; then
    mkdir -p /tmp/site && tar xJf "$SITE" -C /tmp/site
    export PYTHONPATH=$(cd "$(dirname "$SITE")" && pwd)/extra:/tmp/site:$PWD
fi
export PYTHONPATH=${PYTHONPATH:-$PWD}
problems=0

piece() {  # NAME SECONDS COMMAND...
    local name=$1 seconds=$2 start=$SECONDS
    shift 2
    echo "== $name"
    timeout -k 5 "$seconds" "$@" 2>&1 | tee "$OUT/$name.txt" | tail -60 | cut -c1-230
    local code=${PIPESTATUS[0]}
    ((code)) && problems=$((problems + 1))
    echo "== $name: exit code $code, $((SECONDS - start)) s"
}

searched() {  # FILE SECONDS: a search through the command line, on Ray, and what its trials say
    local pool=/tmp/nao_ray_gpu_$$_$(basename "$1" .yaml)
    timeout -k 5 "$2" "$python" -m nao_ray search "$1" --pool "$pool" ${SET:-} || return
    "$python" -m nao_ray pool "$pool" sql "select trial_id, phase is not null as phase, state, device, execution,
        round(wall_seconds, 2) as wall, round(device_seconds, 2) as device_s, peak_memory_bytes >> 20 as mib,
        round(coalesce(valid_accuracy, train_loss), 3) as score, started_at, finished_at
        from trials where trial_id < 8 or phase is not null order by started_at"
}
export -f searched
export python

bench='
import json, os
from nao_ray.bench import gpu
result = gpu.run()
print(result.table)
with open(os.environ["OUT"] + "/bench.json", "w") as file:
    json.dump(result.data, file)
'

nvidia-smi --query-gpu=name,driver_version,compute_mode,mig.mode.current --format=csv,noheader || true
for name in ${*:-tests variants search darts bench}; do
    case $name in
    tests) piece tests 200 "$python" -m pytest -q -rsP -p no:cacheprovider -p no:benchmark -m gpu -k "${K:-}" tests/gpu ;;
    variants) piece variants 130 "$python" tests/gpu/variants_of_a_step.py "${VARIANT_SECONDS:-85}" ;;
    search) piece search "${SEARCH_SECONDS:-80}" bash -c 'searched tests/gpu/search.yaml ${SEARCH_SECONDS:-70}' ;;
    shared) piece shared "${SEARCH_SECONDS:-70}" bash -c 'searched tests/gpu/shared.yaml ${SEARCH_SECONDS:-60}' ;;
    child) piece child 120 "$python" -m nao_ray bench gpu 'batches=[128]' 'processes=[2, 3]' patience=40 \
        'variants=["plain", "graph bfloat16"]' ;;
    darts) piece darts 85 "$python" -m nao_ray bench darts repeats=1 steps=20 ;;
    bench) piece bench 280 "$python" -c "$bench" ;;
    *) echo "no piece is named $name" >&2; problems=$((problems + 1)) ;;
    esac
done
exit $((problems > 0))
