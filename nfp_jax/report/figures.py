"""Figures of a page: inline, with tips and dark colors; and as files, with their data.

Beside ``<name>.svg`` are ``<name>.csv``, what it shows, and ``.pdf`` and ``.png`` where
these are asked for. Files are as matplotlib drew them; on a page colors are variables
of its style, so that they change where the page is dark.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.style
import pandas as pd
from matplotlib.figure import Figure

from nfp_jax.pages import sheet
from nfp_jax.pages.common import Drawing, svg
from nfp_jax.pages.looks import FIXED, RC
from nfp_jax.report.kinds import draw
from nfp_jax.results import FORMATS, write_file

DPI = 200  # of PNG
PAPER = "#16181c"  # what a dark page is drawn on
LEAST = 4.5  # contrast of a color with it


class Image(NamedTuple):
    """A figure as SVG, its title and caption; without one, the caption says why.

    Attributes:
      title: of the figure.
      svg: an ``<svg>`` element.
      caption: what it shows.
      alt: what is seen, in words.
      tips: where its points lie, and what they tell.
      data: what it shows, a line a point.
      figure: as it was drawn, for other formats.
    """

    title: str
    svg: str | None
    caption: str
    alt: str = ""
    tips: Sequence[sheet.Tip] = ()
    data: pd.DataFrame | None = None
    figure: Figure | None = None


def image(drawing: Drawing, name: str) -> Image:
    """The drawing as SVG, whose ids begin with the name."""
    title, figure, caption = drawing
    if figure is None:
        return Image(title, None, caption)
    drawn = svg(figure, name)  # first: it settles where points lie
    data, tips = sheet.table(figure), sheet.tips(figure)
    return Image(title, drawn, caption, sheet.seen(title, figure), tips, data, figure)


def images(rows: pd.DataFrame, prefix: str = "") -> dict[str, Image]:
    """The figures of the rows by name.

    ``prefix``, letters, digits and dashes, begins the ids in each, so that one page can
    have the figures of several runs.
    """
    return {name: image(each, prefix + name) for name, each in draw(rows).items()}


# ---- Files


def write_figures(
    folder: Path, figures: Mapping[str, Image], formats: Sequence[str]
) -> None:
    """Writes figures and their data; removes files of an earlier page without one.

    Raises:
      ResultsError: a file can't be written.
    """
    folder.mkdir(exist_ok=True)
    for name, each in figures.items():
        made = {"csv": _csv(each.data)}
        made |= {x: _saved(each, x) if x in formats else None for x in FORMATS}
        for ending, content in made.items():
            file = folder / f"{name}.{ending}"
            if content is None:
                file.unlink(missing_ok=True)
            else:
                write_file(file, content)


def _csv(data: pd.DataFrame | None) -> bytes | None:
    if data is None:
        return None
    return data.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()


def _saved(each: Image, ending: str) -> bytes | None:
    """The bytes of a format: from the same figure the same."""
    if each.svg is None or each.figure is None:
        return None
    if ending == "svg":
        return each.svg.encode()
    nothing: dict[str, None] = {"Software": None}
    if ending == "pdf":
        nothing = dict.fromkeys(("Creator", "Producer", "CreationDate"))
    file = io.BytesIO()
    with matplotlib.style.context(["default", RC]):
        each.figure.savefig(file, format=ending, dpi=DPI, metadata=nothing)
    return file.getvalue()


# ---- On a page


def figure_html(image: Image, name: str = "", files: Sequence[str] = ()) -> str:
    """A figure with its tips and caption, or why there is none.

    Args:
      image: the figure.
      name: begins its id; without one it has none.
      files: addresses of its files.
    """
    title, caption = html.escape(image.title), html.escape(image.caption)
    mark = f' id="figure-{name}"' if name else ""
    if image.svg is None:
        return f"<p{mark}><b>{title}</b>: no figure. {caption}</p>"
    alt = html.escape(image.alt or image.title)
    picture = themed(image.svg)
    picture = picture.replace("<svg", f'<svg role="img" aria-label="{alt}"', 1)
    tips = "".join(map(_tip, image.tips))
    picture = picture.replace("</svg>", f"{tips}</svg>")
    links = ", ".join(
        f'<a href="{html.escape(file)}">{html.escape(file.rpartition(".")[2].upper())}'
        "</a>"
        for file in files
    )
    links = f' <span class="files">{links}</span>' if links else ""
    return (
        f'<figure{mark}><div class="card" tabindex="0" role="group" '
        f'aria-label="{title}; arrow keys go from point to point">{picture}</div>'
        f"<figcaption><b>{title}.</b> {caption}{links}</figcaption></figure>"
    )


def files_of(image: Image, stem: str, formats: Sequence[str]) -> list[str]:
    """The addresses of a figure's files; without formats there are none."""
    if image.svg is None or not formats:
        return []
    endings = [*formats, *(["csv"] if image.data is not None else [])]
    return [f"{stem}.{ending}" for ending in endings]


def _tip(tip: sheet.Tip) -> str:
    (x, y), (to_x, to_y) = tip.start, tip.end
    reach = f"M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}"
    if tip.start == tip.end:
        reach = f"M{x:.1f} {y:.1f}h.01"  # a dot: its ends are round
    dots = "".join(f"M{x:.1f} {y:.1f}h.01" for x, y in tip.seeds)
    dots = f'<path class="s" d="{dots}"/>' if dots else ""
    return (
        f'<g class="t" style="color:{_variable(tip.color)}"><path d="{reach}"/>{dots}'
        f"<title>{html.escape(tip.text)}</title></g>"
    )


# ---- Light and dark


def themed(svg: str) -> str:
    """The figure with its colors as variables, whose values `palette` has."""
    svg = re.sub(r'(style="[^"]*)"', lambda found: _variables(found[0]), svg)
    # Text is black where nothing else is said, and a page's text is not.
    return svg.replace("<svg", f'<svg fill="{_variable("#000000")}"', 1)


def _variables(style: str) -> str:
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: _variable(found[0]), style)


def _variable(color: str) -> str:
    return color if color in FIXED else f"var(--k{color[1:]})"


def palette(page: str) -> str:
    """The style that has the colors of a page's figures, light and dark."""
    used = sorted(set(re.findall(r"var\(--k([0-9a-f]{6})\)", page)))
    light = "".join(f"--k{color}:#{color};" for color in used)
    dark = "".join(f"--k{color}:{dark_of(f'#{color}')};" for color in used)
    return (
        f":root{{{light}}}\n"
        f"@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}"
    )


def dark_of(color: str) -> str:
    """The color where the page is dark: grays are turned round, others stay.

    Colors and the darker grays are lightened until their contrast with `PAPER` is at
    least `LEAST`, as WCAG 2 has it; what is faint, like a grid, stays faint.

    >>> dark_of("#ffffff") == PAPER, dark_of("#e69f00"), dark_of("#0072b2")
    (True, '#e69f00', '#2989be')
    """
    light = _channels(color)
    paper = _channels(PAPER)
    if max(light) - min(light) < 3:  # white is the paper, and black nearly white
        share = 0.92 * (1 - light[0] / 255)
        turned = [round(p + (255 - p) * share) for p in paper]
        if light[0] > 0xA0:
            return _hex(turned)
        light = turned
    for percent in range(0, 101, 2):
        mixed = _hex([c + (255 - c) * percent / 100 for c in light])
        if contrast(mixed, PAPER) >= LEAST:
            return mixed
    return "#ffffff"


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two colors, from 1 to 21 (WCAG 2).

    >>> contrast("#ffffff", "#000000")
    21.0
    """
    low, high = sorted(map(_luminance, (first, second)))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
    shares = [channel / 255 for channel in _channels(color)]
    linear = [
        x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in shares
    ]
    return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _channels(color: str) -> list[int]:
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


def _hex(channels: Iterable[float]) -> str:
    return "#" + "".join(f"{round(channel):02x}" for channel in channels)
