"""The site of `make docs`: README, the guides, results, figures, the reference.

The source is the repository itself, whose links between files are the site's. Sphinx
reads docstrings in Google style; nothing is fetched from the network.
"""

import re
import shutil
from pathlib import Path

import nfp_jax

ROOT = Path(__file__).parent.parent

project = "nfp_jax"
author = "The nfp_jax authors"
release = version = nfp_jax.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**.md"]
exclude_patterns = [".*", "build", "data", "dist", "docs/site", "results"]

default_role = "py:obj"
myst_heading_anchors = 3
autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"nfp_jax {release}"
html_copy_source = False

# The pages beside README, which has no list of them on GitHub.
PAGES = """

```{toctree}
:hidden:
:caption: Guides

docs/cookbook
docs/experiments
docs/information
docs/many_networks
docs/performance
```

```{toctree}
:hidden:
:caption: What was measured

docs/results
docs/gallery
```

```{toctree}
:hidden:
:caption: Reference

docs/api/library
docs/api/training
docs/api/information
docs/api/experiments
docs/versions
```

```{toctree}
:hidden:
:caption: The project

CONTRIBUTING
CHANGELOG
```
"""


def add(app, docname, source):
    """Adds the list of pages to README, and the figures of results to the gallery."""
    if docname == "README":
        source[0] += PAGES
    if docname == "docs/gallery":
        results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
        found = re.findall(r"^(?:## .*|!\[.*\]\(.*\))$", results, re.MULTILINE)
        # A heading without figures is left out.
        kept = [
            line
            for line, after in zip(found, [*found[1:], "## "], strict=True)
            if line.startswith("!") or after.startswith("!")
        ]
        source[0] += "\n\n" + "\n\n".join(kept)


def make_front_page(app, error):
    """README is the landing page."""
    if error is None and app.builder.format == "html":
        shutil.copy(Path(app.outdir, "README.html"), Path(app.outdir, "index.html"))


def setup(app):
    """What Sphinx calls."""
    app.connect("source-read", add)
    app.connect("build-finished", make_front_page)
