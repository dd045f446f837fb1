"""The page in a real browser: sorting, filtering, hovering, rows, narrow and dark.

A page beside it shows the page of a run in frames, does what a reader would do and
writes down what comes of it; the browser prints that.
"""

import html
import json
import re
import shutil
import subprocess

import pandas as pd
import pytest
from rows import make_row, make_rows

from nfp_jax import report
from nfp_jax.report.figures import PAPER, contrast
from nfp_jax.results import open_results

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"there is no browser: none of {', '.join(NAMES)}"
)

PROBE = """<!DOCTYPE html><meta charset="utf-8"><body>
<iframe id="wide" src="report.html" width="1200" height="900"></iframe>
<iframe id="narrow" src="report.html" width="390" height="800"></iframe>
<pre id="found"></pre><script>
const later = () => new Promise((done) => setTimeout(done, 50));
const loaded = (frame) => new Promise((done) => {
  if (frame.contentDocument.readyState === "complete" && frame.contentDocument.body &&
      frame.contentDocument.querySelector("#tip")) done();
  else frame.addEventListener("load", done);
});
async function probe() {
  const found = {};
  await loaded(wide); await loaded(narrow);
  const page = wide.contentDocument, view = wide.contentWindow;
  const key = (where, name) => where.dispatchEvent(
    new view.KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
  const tip = page.getElementById("tip");

  const table = page.querySelector("table.sortable");
  const heads = [...table.tHead.rows[0].cells];
  const column = (i) =>
    [...table.tBodies[0].rows].map((row) => row.cells[i].textContent);
  found.before = column(1);
  heads[1].click(); await later(); found.ascending = column(1);
  key(heads[1], "Enter"); await later(); found.descending = column(1);
  found.sorted = heads[1].getAttribute("aria-sort");
  const field = page.querySelector(".filter");
  field.value = "SNIP"; field.dispatchEvent(new view.Event("input"));
  found.filtered = [...table.tBodies[0].rows].filter((row) => !row.hidden)
    .map((row) => row.cells[0].textContent);

  const points = [...page.querySelectorAll("#figure-memorization .t")];
  const point = points[points.length - 1];
  point.scrollIntoView({ block: "center" });
  const box = point.firstChild.getBoundingClientRect();
  const hit = page.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  found.hit = hit.closest(".t") !== null;
  point.firstChild.dispatchEvent(
    new view.PointerEvent("pointerover", { bubbles: true, pointerType: "mouse" }));
  found.hover = tip.textContent; found.hidden = tip.hidden;
  found.seeds = view.getComputedStyle(point.querySelector(".s")).strokeOpacity;
  const card = page.querySelector("#figure-memorization .card");
  card.focus(); found.focused = page.activeElement === card;
  key(card, "ArrowRight"); found.first = tip.textContent;
  key(card, "ArrowRight"); found.second = tip.textContent;
  key(card, "Escape"); found.escaped = tip.hidden;

  const details = page.querySelector("details.rows");
  details.open = true; await later();
  const rows = details.querySelector("table");
  found.rows = rows.tBodies[0].rows.length;
  found.columns = [...rows.tHead.rows[0].cells].map((cell) => cell.textContent);

  const small = narrow.contentDocument, root = small.documentElement;
  found.width = [root.clientWidth, root.scrollWidth];
  found.scrolls = [...small.querySelectorAll(".card")].map(
    (card) => card.scrollWidth > card.clientWidth);
  const svg = (which) => which.querySelector("#figure-memorization svg");
  found.sizes = [svg(page), svg(small)].map((x) => x.getBoundingClientRect().width);

  const style = (node, name) => view.getComputedStyle(node)[name];
  found.paper = style(page.body, "backgroundColor");
  found.ink = style(svg(page).querySelector("text"), "fill");
  found.strokes = [...new Set([...svg(page).querySelectorAll("path[style*=stroke]")]
    .filter((path) => !path.closest("defs")).map((path) => style(path, "stroke")))];
  document.getElementById("found").textContent = JSON.stringify(found);
}
probe().catch((error) => {
  document.getElementById("found").textContent = JSON.stringify({ error: `${error}` });
});
</script>"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A run of nine pruners, so that a table is long enough for a filter."""
    names = ("random", "magnitude_init", "snip", "grasp", "synflow", "imp")
    few = dict.fromkeys(  # figures: none of curves and layers
        ("train_accuracy_by_epoch", "noise_correlation_by_epoch", "kept_by_layer")
    )
    rows = make_rows((*names, "a", "b", "c"), (0.5, 0.9), seeds=2, noise=0.0, **few)
    rows = rows[rows["pruner"] != "dense"]  # one network, not two
    dense = pd.DataFrame([make_row("dense", 0.0, noise=0.0, **few)])
    store = open_results(tmp_path_factory.mktemp("browser"), "mlp", "ab12", {})
    store.write(pd.concat([rows, dense]).to_dict("records"))
    report.write_report(store.directory)
    (store.directory / "probe.html").write_text(PROBE, encoding="utf-8")
    return store.directory


def seen_by_browser(directory, profile, *options):
    """What the probe found."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--allow-file-access-from-files", "--virtual-time-budget=20000"]
    command += [
        f"--user-data-dir={profile}",
        *options,
        f"file://{directory}/probe.html",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120
    )
    [found] = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    found = json.loads(html.unescape(found))
    assert "error" not in found, found
    return found


@pytest.fixture(scope="module")
def light(directory, tmp_path_factory):
    return seen_by_browser(directory, tmp_path_factory.mktemp("light"))


@pytest.fixture(scope="module")
def dark(directory, tmp_path_factory):
    scheme = "--blink-settings=preferredColorScheme=0"
    return seen_by_browser(directory, tmp_path_factory.mktemp("dark"), scheme)


def firsts(texts):
    return [float(text.split()[0]) for text in texts]


def test_a_click_or_a_key_sorts_a_table_by_its_numbers(light):
    numbers = firsts(light["before"])
    assert numbers != sorted(numbers)
    assert firsts(light["ascending"]) == sorted(numbers)
    assert firsts(light["descending"]) == sorted(numbers, reverse=True)
    assert light["sorted"] == "descending"


def test_a_filter_leaves_the_lines_with_its_words(light):
    assert light["filtered"] == ["SNIP"]


def test_hovering_tells_the_value_of_a_point_and_of_each_seed(light):
    assert light["hit"] and not light["hidden"]
    pattern = (
        r"[\w ]+, 90 % removed.*: [\d.,]+ \(.*\); seed 0: [\d.,]+, seed 1: [\d.,]+"
    )
    assert re.fullmatch(pattern, light["hover"])
    assert float(light["seeds"]) == 1  # their dots are seen while the point is


def test_arrow_keys_go_from_point_to_point_of_a_figure(light):
    assert light["focused"] and light["escaped"]
    assert light["first"].startswith("dense")
    assert light["second"].startswith("random, 50 % removed")


def test_rows_become_a_table_when_they_are_unfolded(light):
    assert light["rows"] == 37
    for column in ("pruner", "sparsity", "init_seed", "train_accuracy"):
        assert column in light["columns"]
    assert "loss_by_epoch" not in light["columns"]  # a list


def test_at_390_pixels_figures_scroll_and_do_not_shrink(light):
    client, scroll = light["width"]
    assert client <= 390 and scroll <= client  # the page itself does not
    assert all(light["scrolls"])
    wide, narrow = light["sizes"]
    assert wide == narrow > 390


def hexed(color):
    return "#" + "".join(f"{int(x):02x}" for x in re.findall(r"\d+", color)[:3])


def test_where_it_is_dark_figures_are_dark_and_can_be_read(light, dark):
    assert hexed(light["paper"]) == "#ffffff" and hexed(light["ink"]) == "#000000"
    assert hexed(dark["paper"]) == PAPER
    assert contrast(hexed(dark["ink"]), PAPER) > 10
    lines = [x for x in map(hexed, dark["strokes"]) if contrast(x, PAPER) > 1.4]
    assert len(lines) >= 9  # grid lines are faint, as they are where it is light
    assert min(contrast(x, PAPER) for x in lines) >= 4.4  # 4.5, of rounded colors
