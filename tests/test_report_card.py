"""The card of a pruner, from rows made up: its entries are those of the rows."""

import numpy as np
import pandas as pd
import pytest
from rows import make_row, told
from test_pages_joined import make_part

from nfp_jax.questions.masks import figures as masks
from nfp_jax.report.card import card_of, markdown, page

SIZES = [16, 8]


def make_mask(pruner, sparsity=0.5, seed=0, keep=None, **changes):
    """A row of question masks; ``keep`` lists the weights kept, of 24."""
    rng = np.random.default_rng([seed, len(pruner), int(100 * sparsity)])
    asked = round(24 * (1 - sparsity))
    keep = rng.permutation(24)[:asked] if keep is None else np.asarray(keep)
    bits = np.zeros(24, bool)
    bits[keep] = True
    row = make_row(pruner, sparsity, seed, n=16)
    names = ("pruner", "label", "sees", "settings", "version", "sparsity", "n", "noise")
    names += ("select", "ablation", "init_seed", "data_seed", "train_seed")
    return {
        **{name: row[name] for name in names},
        "resume": "",
        "asked": asked,
        "kept": int(bits.sum()),
        "tied": 0,
        "prunable": 24,
        "mask": np.packbits(bits).tobytes(),
        "layers": ["a", "b"],
        "kept_by_layer": [int(bits[:16].sum()), int(bits[16:].sum())],
        "size_by_layer": SIZES,
        "collapsed": False,
        "out_of_budget": 0,
        "seconds": 0.25 + seed,
        **changes,
    }


def lines_of(card, title):
    [block] = [
        block
        for block in card.blocks
        if block.title.partition(": ")[2].startswith(title)
    ]
    return {line.what: line.entries for line in block.lines}


def card(rows, pruners=("mine", "snip"), failed=None, question="masks"):
    part = make_part(pd.DataFrame(rows), question)
    return card_of({question: part}, pruners, failed or {})


def test_an_exact_pruner_has_its_counts_and_no_trouble():
    rows = [
        make_mask(x, s, y)
        for x in ("mine", "snip")
        for s in (0.5, 0.75)
        for y in (0, 1)
    ]
    told_ = lines_of(card(rows), "Masks")
    assert told_["masks"] == {"mine": "4", "snip": "4"}
    assert told_["keep as many as asked"] == {"mine": "all", "snip": "all"}
    assert told_["decided by ties"] == {"mine": "none", "snip": "none"}
    assert told_["seconds a mask, median"] == {"mine": "0.75", "snip": "0.75"}


def test_what_is_wrong_stands_there_with_the_sparsity_where_it_is_worst():
    rows = [
        make_mask("mine", 0.5, 0, keep=range(13)),  # 13 for 12, none in layer b
        make_mask("mine", 0.75, 0, keep=[0, 1, 2, 3, 4, 5, 6, 7, 8, 17], tied=2),
        make_mask("mine", 0.75, 1, collapsed=True, tied=5),
        make_mask("snip", 0.75, 1, tied=None),
    ]
    found = lines_of(card(rows), "Masks")
    exact = found["keep as many as asked"]
    assert exact == {"mine": "1 of 3; 10 for 6 (75 % removed)", "snip": "all"}
    ties = {"mine": "up to 5 (75 % removed)", "snip": "no score"}
    assert found["decided by ties"] == ties
    path = found["no path from input to output"]
    assert path == {"mine": "1 of 2 (75 % removed)", "snip": "never"}
    empty = found["a layer without a weight"]["mine"]
    assert empty.startswith("1 of 1 (50 % removed)")


def test_overlaps_are_with_masks_of_the_same_draw_alone():
    rows = [
        make_mask("mine", 0.5, 0, keep=range(12)),
        make_mask("snip", 0.5, 0, keep=range(6, 18)),  # 6 of 18
        make_mask("mine", 0.5, 1, keep=range(12)),
        make_mask("snip", 0.5, 1, keep=range(12)),  # all
        make_mask("snip", 0.5, 2),  # has no counterpart
    ]
    found = lines_of(card(rows), "Overlap")
    share = 100 * (6 / 18 + 1) / 2
    assert found == {"50 % removed": {"snip": f"{share:.1f}"}}
    [pairs] = [masks.overlaps(pd.DataFrame(rows), "mine")]
    assert pairs["overlap"].tolist() == [6 / 18, 1.0]


def test_points_and_times_are_those_of_the_rows_by_ablation():
    rows = [
        make_row(x, s, y, n=100, ablation=z, memorized_points=100.0 * (0.3 + 0.1 * y))
        | {"train_accuracy": 0.3 + 0.1 * y, "epochs_to_99": 40 + 10 * y}
        for x in ("mine", "snip")
        for s in (0.5, 0.9)
        for y in range(3)
        for z in ("", "shuffle")
    ]
    found = card(rows, question="memorization")
    accuracy, times = (lines_of(found, x) for x in ("Train accuracy", "Time to"))
    assert set(accuracy) == {
        f"{s} % removed{z}" for s in (50, 90) for z in ("", ", shuffle")
    }
    values = np.array([0.3, 0.4, 0.5])
    assert accuracy["90 % removed, shuffle"]["mine"].startswith(
        f"{values.mean():.3f} ±"
    )
    assert times["50 % removed"] == {"mine": "50", "snip": "50"}


def test_parts_of_one_question_are_told_apart_and_masks_come_first():
    parts = {
        name: make_part(pd.DataFrame(rows), question, name)
        for name, question, rows in (
            ("a", "memorization", [make_row("mine"), make_row("snip")]),
            ("b", "memorization", [make_row("mine", ablation="invert")]),
            ("c", "masks", [make_mask("mine")]),
        )
    }
    titles = [block.title for block in card_of(parts, ("mine", "snip"), {}).blocks]
    assert [title[:2] for title in titles] == ["Wh", "c:", "a:", "a:", "b:", "b:"]


def test_only_the_pruners_of_this_card_stand_on_it_the_first_before_the_others():
    rows = [make_mask(name) for name in ("random", "snip", "mine", "yesterdays")]
    found = card(rows, ("mine", "snip", "random"))
    assert found.pruners == ["mine", "random", "snip"]
    assert found.blocks[0].lines[0].entries["random"] == told("random")["sees"]
    assert "yesterdays" not in markdown(found) + page(found)


def test_a_pruner_without_a_row_has_its_column_and_what_failed():
    found = card(
        [make_mask("snip")], failed={"masks": ["mine: 3 of its rows <failed>"]}
    )
    assert found.pruners == ["mine", "snip"]
    said = "masks: mine: 3 of its rows"
    assert f"{said} &lt;failed&gt;" in page(found) and f"- failed: {said}" in markdown(
        found
    )
    [line] = [x for x in markdown(found).splitlines() if x.startswith("| masks |")]
    assert line == "| masks |  | 1 |"


@pytest.mark.parametrize("write", [markdown, page])
def test_every_entry_is_written_in_its_place(write):
    rows = [
        make_mask(x, s, y) for x in ("mine", "snip") for s in (0.5, 0.9) for y in (0, 1)
    ]
    found = card(rows)
    text = write(found)
    for block in found.blocks:
        for line in block.lines:
            entries = [line.entries.get(name, "") for name in found.pruners]
            if write is markdown:
                assert f"| {line.what} | {' | '.join(entries)} |" in text
            else:
                assert f'class="name">{line.what}<td>{"<td>".join(entries)}' in text
