"""``python -m nfp_jax.report results/NAME-HASH`` makes the page of a run again."""

import sys

from nfp_jax.report.page import main

sys.exit(main())
