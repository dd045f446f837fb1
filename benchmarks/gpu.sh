#!/usr/bin/env bash
# All that is measured on an accelerator, in under six minutes, without a network:
#     benchmarks/gpu.sh [FILE.json]
# The machine needs jax with its GPU plugin, flax, optax, pandas and pyarrow. The
# project need not be installed. Results go to FILE, or to the device's own file in
# benchmarks/results/.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec python3 benchmarks/gpu.py ${1:+--write="$1"}
