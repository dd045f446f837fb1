"""Tables and the page of a run; the page of several runs together; what is published.

``write_report`` makes the page of a run, ``python -m nfp_jax.report DIRECTORY`` does it
from a shell. ``collection`` is of several runs, ``published`` writes docs/results.md.
All of it reads rows alone and loads no JAX.
"""

from nfp_jax.report.page import (
    CSS,
    Image,
    failures,
    figure_html,
    image,
    images,
    main,
    page_html,
    section,
    table,
    warnings,
    write_report,
)

__all__ = [
    "CSS",
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
