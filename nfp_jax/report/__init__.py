"""Tables and the page of a run; the page of several runs together; what is published.

``write_report`` makes the page of a run, ``python -m nfp_jax.report DIRECTORY`` does it
from a shell. ``collection`` is of several runs, ``published`` writes docs/results.md.
All of it reads rows alone and loads no JAX.
"""

from nfp_jax.report.figures import (
    Image,
    figure_html,
    image,
    images,
)
from nfp_jax.report.html import page_html
from nfp_jax.report.page import (
    failures,
    main,
    section,
    table,
    warnings,
    write_report,
)

__all__ = [
    "Image",
    "failures",
    "figure_html",
    "image",
    "images",
    "main",
    "page_html",
    "section",
    "table",
    "warnings",
    "write_report",
]
