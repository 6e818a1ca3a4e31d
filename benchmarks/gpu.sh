#!/usr/bin/env bash
# Runs all that is to be measured on one GPU, offline, in under 20 minutes, and writes
# one JSON with the card's name:
#
#     benchmarks/gpu.sh results/gpu.json [--folder AUDIO]
#     benchmarks/gpu.sh /tmp/gpu.json --device cpu --tiny    # a test without a GPU
#
# Encoders are of the size of WavLM base+ and large, with random weights.
set -euo pipefail
output=${1:?"give the JSON file to write"}
shift
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-8}"
exec "${PYTHON:-python}" "$(dirname "$0")/all.py" --gpu --output "$output" "$@"
