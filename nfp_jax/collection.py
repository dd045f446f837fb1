"""The page of several runs: ``python -m nfp_jax.collection results/NAME-HASH``.

A face of `nfp_jax.report.collection`.
"""

import sys

from nfp_jax.report.collection import (
    claims_csv,
    claims_text,
    main,
    read_claims,
    read_parts,
    write_page,
)

__all__ = [
    "claims_csv",
    "claims_text",
    "main",
    "read_claims",
    "read_parts",
    "write_page",
]

if __name__ == "__main__":
    sys.exit(main())
