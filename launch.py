"""Runs an experiment: configuration, cells, networks, rows, table, figures, page.

    python launch.py --config=configs/gaussian.py
    python launch.py --config=configs/gaussian.py:smoke --config.grid.n="(200, 400)"
    python launch.py --config=configs/paper.py  # several experiments, one page
    python launch.py --help  # the configurations, the fields, the flags

The same as ``nfp run``, which the installed package has; `nfp_jax.launching` says what
both do.
"""

import sys

from nfp_jax.command import launch

if __name__ == "__main__":
    sys.exit(launch(sys.argv))
