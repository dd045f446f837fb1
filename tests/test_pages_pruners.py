"""Rows by their pruners: versions, settings, what they see and are called."""

import json

import pandas as pd
import pytest
from rows import make_row, make_rows

from nfp_jax.pages.looks import FURTHER, PALETTE
from nfp_jax.pages.pruners import (
    as_on_pages,
    at_initialization,
    labels_of,
    looks_of,
    pruned,
    pruners_of,
    that_see,
    trained,
)
from nfp_jax.report import section, table


def with_settings(*settings, pruner="snip"):
    texts = [json.dumps(x) if isinstance(x, dict) else x for x in settings]
    rows = [make_row(pruner, seed=i) | {"settings": x} for i, x in enumerate(texts)]
    return pd.DataFrame(rows)


# Versions


def versions(*of_rows, pruner="snip"):
    rows = [make_row(pruner, seed=i, version=x) for i, x in enumerate(of_rows)]
    return pd.DataFrame(rows)


def test_of_several_versions_only_the_rows_of_the_latest_count():
    rows = pd.concat([versions("1", "1", "2"), versions("1", pruner="imp")])
    found = as_on_pages(rows)
    assert found["pruner"].tolist() == ["snip", "imp"]
    assert found["version"].tolist() == ["2", "1"]


def test_the_latest_is_the_one_written_last_whatever_it_is_called():
    rows = versions("10", "9", "10").assign(written=[0, 2, 1])
    assert as_on_pages(rows)["version"].tolist() == ["9"]
    assert as_on_pages(rows.drop(columns="written"))["version"].tolist() == ["10"] * 2


def test_rows_from_before_there_were_versions_are_older_than_all():
    assert as_on_pages(versions(None, "1"))["version"].tolist() == ["1"]
    assert len(as_on_pages(versions(None, None))) == 2


# Settings


@pytest.mark.parametrize(
    ("settings", "names", "labels"),
    [
        (
            [{"rounds": 1, "chunk": 8}, {"rounds": 100, "chunk": 8}],
            ["snip[rounds=1]", "snip[rounds=100]"],
            ["SNIP, rounds = 1", "SNIP, rounds = 100"],
        ),
        (
            [{"a": 1, "b": 2}, {"a": 2, "b": 3}],
            ["snip[a=1,b=2]", "snip[a=2,b=3]"],
            ["SNIP, a = 1, b = 2", "SNIP, a = 2, b = 3"],
        ),
        ([{}, {"a": 1}], ["snip", "snip[a=1]"], ["SNIP", "SNIP, a = 1"]),
        (["", "slow"], ["snip", "snip[slow]"], ["SNIP", "SNIP, slow"]),
        ([None, {"a": 1}], ["snip", "snip[a=1]"], ["SNIP", "SNIP, a = 1"]),
        ([{"a": 1}, {"a": 1}], ["snip", "snip"], ["SNIP", "SNIP"]),
        ([None, ""], ["snip", "snip"], ["SNIP", "SNIP"]),
    ],
)
def test_settings_that_differ_are_told_in_name_and_label(settings, names, labels):
    found = as_on_pages(with_settings(*settings))
    assert found["pruner"].tolist() == names
    assert found["label"].tolist() == labels
    again = as_on_pages(found)
    pd.testing.assert_frame_equal(again, found)


def test_the_settings_of_another_pruner_tell_nothing():
    rows = pd.concat([with_settings({"a": 1}), with_settings({"a": 2}, pruner="imp")])
    assert as_on_pages(rows)["pruner"].tolist() == ["snip", "imp"]


def test_what_settings_tell_apart_has_its_line_in_tables():
    rows = with_settings({"rounds": 100}, {"rounds": 20}, {"rounds": 1})
    names = [line.split()[0] for line in table(rows).splitlines()[3:]]
    assert names == ["snip[rounds=1]", "snip[rounds=20]", "snip[rounds=100]"]
    page = section(as_on_pages(rows), {})
    assert 'class="name">SNIP, rounds = 1<' in page
    assert 'class="name">SNIP, rounds = 100<' in page


# What rows say of their pruners


def test_a_pruner_without_a_label_is_called_by_its_name_and_may_see_the_labels():
    rows = make_rows(("mine", "snip"), (0.9,), seeds=1)
    rows.loc[rows["pruner"] == "mine", ["label", "sees"]] = None
    found = as_on_pages(rows)
    assert labels_of(found) == {"mine": "mine", "snip": "SNIP", "dense": "dense"}
    assert that_see(found, "labels") == ["mine", "snip"]
    bare = as_on_pages(rows.drop(columns=["label", "sees"]))
    assert labels_of(bare) == {"mine": "mine", "snip": "snip", "dense": "dense"}
    assert dict(zip(bare["pruner"], bare["sees"], strict=True))["dense"] == ""


def test_groups_of_pruners_are_told_by_what_they_see_not_by_name():
    rows = pd.DataFrame(
        [
            make_row("a", sees="training"),
            make_row("b", sees="inputs"),
            make_row("imp", sees="nothing"),
            make_row("dense", 0.0),
        ]
    )
    assert trained(rows) == ["a"] and that_see(rows, "nothing") == ["imp"]
    assert at_initialization(rows)["pruner"].tolist() == ["b", "imp"]
    assert pruned(rows)["pruner"].tolist() == ["a", "b", "imp"]


def test_pruners_come_as_in_the_palette_and_others_by_what_they_see_and_name():
    sees = {"z": "nothing", "b": "training", "c": "labels", "a": "labels"}
    rows = [make_row(name, sees=what) for name, what in sees.items()]
    rows += [make_row("imp"), make_row("random"), make_row("dense", 0.0)]
    rows = pd.DataFrame(rows)
    expected = ["dense", "random", "imp", "z", "a", "c", "b"]
    assert pruners_of(rows) == expected == list(looks_of(rows))


def test_pruners_without_an_entry_take_further_colors_and_may_have_any_label():
    rows = make_rows([f"p{i}" for i in range(7)], (0.9,), seeds=1)
    looks = looks_of(rows.assign(label=rows["label"].replace("p0", "First")))
    assert looks["p0"].label == "First" and looks["dense"].color == "black"
    colors = [looks[f"p{i}"].color for i in range(7)]
    assert len(set(colors[:6])) == 6 and colors[6] == colors[0]
    assert not set(colors) & {paint.color for paint in PALETTE.values()}
    assert {paint.color for paint in FURTHER} == set(colors)
