#!/usr/bin/env bash
# All that is measured on an accelerator, in under six minutes, without a network:
#     benchmarks/gpu.sh [FILE.json [OPTION ...]]
# The machine needs Python 3.11 or later and jax with its GPU plugin, flax, optax, chex,
# numpy, pandas and pyarrow, no more; the part "steps" needs neither of the last two.
# The project need not be installed. Results go to FILE, or to the device's own file in
# benchmarks/results/. With --quick each part runs once on a CPU in seconds:
#     benchmarks/gpu.sh quick.json --quick
# PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" benchmarks/gpu.py ${1:+--write="$1"} "${@:2}"
