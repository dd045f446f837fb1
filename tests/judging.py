"""What the tests of claims share: rows judged, and one claim looked at."""

import numpy as np
import pandas as pd
from rows import make_row
from scipy import stats
from test_pages_joined import make_part, make_parts

from nfp_jax.pages.claim import HOLDS, NOT, UNDECIDED
from nfp_jax.report.claims import claims

THREE = (HOLDS, NOT, UNDECIDED)


def judged(rows, question="memorization", **groups):
    """The claims of one run of these rows."""
    return claims(make_parts(make_part(rows, question, **groups)))


def about(found, *words):
    """The only claim whose text or key has all of the words."""
    [claim] = [x for x in found if all(word in " ".join(_texts(x)) for word in words)]
    return claim


def keyed(found, start):
    """The only claim whose key starts so."""
    [claim] = [x for x in found if x.key.startswith(start)]
    return claim


def numbers(claim):
    return [claim.measured, claim.lower, claim.upper]


def memorizers(points, sparsity=0.9, **changes):
    """A row for each pruner and seed, with so many points (and a correlation)."""
    return pd.DataFrame(
        [
            make_row(pruner, sparsity, seed, **changes)
            | {"memorized_points": x, "noise_correlation_normalized": x / 2000}
            for pruner, values in points.items()
            for seed, x in enumerate(values)
        ]
    )


def tails(values, than=0.0, least=0.0):
    """p-values of "at most" and of "at least", by scipy."""
    if np.std(values, ddof=1) >= least:
        return [
            stats.ttest_1samp(values, than, alternative=side).pvalue
            for side in ("greater", "less")
        ]
    t = (np.mean(values) - than) / (least / np.sqrt(len(values)))
    return [stats.t.sf(t, len(values) - 1), stats.t.cdf(t, len(values) - 1)]


def ends(values, level=0.95, least=0.0):
    """Mean and interval, by scipy; the deviation is at least ``least``."""
    mean = np.mean(values)
    error = max(np.std(values, ddof=1), least) / np.sqrt(len(values))
    return [mean, *stats.t.interval(level, len(values) - 1, mean, error)]


def _texts(claim):
    return claim.claim, claim.where, claim.what, claim.key
