"""What pages are made of: a page by itself, its contents, and tables that sort.

Style and scripts are in ``assets/`` and become part of the page, which needs no other
file and no network. Without scripts a page has the same figures and tables; native
titles tell what hovering tells.
"""

from __future__ import annotations

import functools
import html
import math
import re
from collections.abc import Sequence
from importlib import resources

from nfp_jax.report.figures import palette

# Sorts tables: https://github.com/tofsjonas/sortable 4.1.7, in the public domain. It is
# kept up and 2 kB; libraries that filter too are some 50 kB.
SCRIPTS = ("sortable.min.js", "page.js")


def page_html(
    name: str, content: str, again: str, files: Sequence[tuple[str, str]] = ()
) -> str:
    """A page that needs no other file.

    Args:
      name: its title.
      content: its sections, whose ``<h2 id=…>`` and figures the contents list.
      again: the command that makes it again.
      files: addresses of files beside it, and what they are.
    """
    title = html.escape(name)
    links = "".join(
        f'<li><a href="{html.escape(file)}">{html.escape(words)}</a>'
        for file, words in files
    )
    beside = f"<p>Files beside this page:</p><ul>{links}</ul>" if links else ""
    scripts = "".join(f"<script>{asset(script)}</script>" for script in SCRIPTS)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>{asset("page.css")}{palette(content)}</style></head>
<body><main><h1>{title}</h1>
<nav aria-label="Contents">{contents(content)}{beside}</nav>
{content}
<p>Made from the rows on file; to make it again, with figures as PDF and PNG, too:
<code>{html.escape(again)}</code></p></main>
<div id="tip" role="status" hidden></div>
{scripts}</body></html>
"""


@functools.cache
def asset(name: str) -> str:
    """The text of a file in ``assets/``."""
    return resources.files("nfp_jax.report").joinpath("assets", name).read_text("utf-8")


def contents(content: str) -> str:
    """A list of links to the headings, and below each to its figures."""
    text, open_ = "", False
    marks = (
        r'<h2 id="([^"]*)">(.*?)</h2>|<figure id="([^"]*)">.*?<figcaption><b>(.*?)\.<'
    )
    for heading, title, figure, name in re.findall(marks, content, re.S):
        if heading:
            text += f'{"</ul>" if open_ else ""}<li><a href="#{heading}">{title}</a>'
            open_ = False
        else:
            text += f'{"" if open_ else "<ul>"}<li><a href="#{figure}">{name}</a>'
            open_ = True
    return f"<ul>{text}{'</ul>' if open_ else ''}</ul>"


def heading(title: str, mark: str, level: int = 2) -> str:
    """A heading that can be linked to; the title is text."""
    return f'<h{level} id="{mark}">{html.escape(title)}</h{level}>'


def table_html(
    title: str, heads: Sequence[str], lines: Sequence[Sequence[str]], names: int = 1
) -> str:
    """A table that sorts, and filters where it is long; a line begins with its head.

    Args:
      title: the caption.
      heads: of the columns.
      lines: of cells; as many as there are heads.
      names: so many columns are text, and the others numbers.
    """
    top = "".join(
        f'<th scope="col"{_class(i < names)}>{html.escape(head)}'
        for i, head in enumerate(heads)
    )
    body = "".join(
        "<tr>" + "".join(_cell(i, cell, names) for i, cell in enumerate(line))
        for line in lines
    )
    return scrolled(
        f'<table class="sortable asc n-last"><caption>{html.escape(title)}</caption>'
        f"<thead><tr>{top}</thead><tbody>{body}</tbody></table>"
    )


def scrolled(inside: str) -> str:
    """What is too wide for a narrow page, by itself."""
    return f'<div class="scroll">{inside}</div>'


def _class(is_name: bool) -> str:
    return ' class="name"' if is_name else ""


def _cell(place: int, text: str, names: int) -> str:
    shown = html.escape(text).replace(" ± ", "&nbsp;±&nbsp;")
    if place < names:
        head = f'<th scope="row" class="name">{shown}'
        return f'<td class="name">{shown}' if place else head
    key = sort_key(text)
    return f'<td data-sort="{key}">{shown}' if key != text else f"<td>{shown}"


def sort_key(text: str) -> str:
    """What a cell sorts by: its first number, and what never comes, last.

    >>> [sort_key(x) for x in ("0.672 ± 0.02", "> 3,200 (2 of 8)", "never", "12", "")]
    ['0.672', '3200', '1e999', '12', '']
    >>> [sort_key(x) for x in ("≥1,200 [900-1,500]", "-∞", "= exact 8.05", "no score")]
    ['1200', '-1e999', '8.05', 'no score']
    """
    if text.startswith(("never", "∞", "> never")):
        return "1e999"
    if text.startswith("-∞"):
        return "-1e999"
    found = re.search(r"-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?", text)
    return found[0].replace(",", "") if found else text


def number_key(x: float) -> str:
    """What a number sorts by; NaN is nothing, and comes last."""
    return "" if math.isnan(x) else f"{x:.6g}".replace("inf", "1e999")
