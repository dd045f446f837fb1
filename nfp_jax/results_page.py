"""The published results: ``python -m nfp_jax.results_page DIRECTORY --write FILE``.

A face of `nfp_jax.report.publishing`.
"""

import sys

from nfp_jax.report.publishing import main, write_results

__all__ = ["main", "write_results"]

if __name__ == "__main__":
    sys.exit(main())
