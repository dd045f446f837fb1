"""Runs side by side: which are joined, at what n, and what of their rows."""

import math

import pandas as pd
import pytest
from rows import make_interval_row, make_interval_rows, make_row, make_rows
from test_capacity_figures import make_search, make_searches
from test_swap_figures import make_swap, make_swaps

from nfp_jax.pages.joined import (
    Part,
    beside_information,
    check_rules,
    main_rows,
    read_part,
    rule_of,
    scope,
    usual_rows,
)
from nfp_jax.results import ResultsError, open_results

DATA = {"name": "gaussian", "dim": 50, "classes": 2}
MODEL = {
    "name": "mlp",
    "widths": [200, 200],
    "channels": [32, 64],
    "init": "he_normal",
}

TRAIN = {
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "batch_size": 64,
    "max_epochs": 3200,
    "stop": "settled",
    "settle_from": 50,
    "settle_rise": 0.005,
    "settle_fall": 0.05,
    "settle_steps": 1000,
}
CAPACITY = {"precision": 0.05, "max_steps": 20_000}


def make_config(question="memorization", data=None, model=None, train=None):
    config = {"data": DATA | (data or {}), "model": MODEL | (model or {})}
    config |= {"train": TRAIN | (train or {}), "capacity": CAPACITY}
    # As on file: what was asked first, its configurations don't say.
    return config | ({} if question == "memorization" else {"question": question})


def make_part(rows, question="memorization", name=None, **groups):
    """A run of these rows; ``groups`` are changes of its data, model and training."""
    rows = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
    return Part(name or question, make_config(question, **groups), rows)


def make_parts(*parts):
    return {part.name: part for part in parts}


def capacities(rows, *information):
    """The lines of a search for capacity beside rows of information."""
    others = [make_part(x, "information", f"i{i}") for i, x in enumerate(information)]
    parts = make_parts(make_part(rows, "capacity"), *others)
    return beside_information(parts, "capacity", "capacity")


# What a part is


def test_a_part_says_of_which_data_and_network_it_is():
    rows = make_rows(seeds=1)
    assert make_part(rows).where == "gaussian, d = 50, C = 2, mlp 200-200 (he_normal)"
    digits = make_part(rows, data={"name": "digits"})
    assert digits.where == "digits, mlp 200-200 (he_normal)"
    convnet = make_part(rows, model={"name": "convnet", "widths": [100]})
    assert convnet.where.endswith(", convnet 32-64-100 (he_normal)")


def where(data, model, format=4):
    config = {"data": data, "model": model, "format": format}
    return Part("part", config, make_rows(seeds=1)).where


def test_from_format_4_on_a_configuration_has_the_settings_of_what_it_names():
    for data, words in (
        (DATA, "gaussian, d = 50, C = 2"),
        ({"name": "digits"}, "digits"),
        ({"name": "spirals", "turns": 3, "classes": 5}, "spirals, C = 5, turns = 3"),
    ):
        mlp = {"name": "mlp", "widths": [200, 200], "init": "he_normal"}
        assert where(data, mlp) == f"{words}, mlp 200-200 (he_normal)"
    for model, words in (
        (MODEL | {"name": "convnet", "widths": [100]}, "convnet 32-64-100 (he_normal)"),
        ({"name": "linear"}, "linear"),
        (
            {"name": "vit", "init": "zeros", "depth": 2, "widths": (8,), "a": 0.5},
            "vit 8 (zeros, a = 0.5, depth = 2)",
        ),
    ):
        assert where({"name": "digits"}, model) == f"digits, {words}"


def test_up_to_format_3_the_settings_of_others_are_left_out():
    assert where(DATA, MODEL, 3) == "gaussian, d = 50, C = 2, mlp 200-200 (he_normal)"
    digits = DATA | {"name": "digits"}
    assert where(digits, MODEL | {"name": "mine"}, 3) == (
        "digits, mine 200-200 (he_normal)"
    )


def test_what_was_asked_first_has_no_question_on_file():
    rows = make_rows(seeds=1)
    assert make_part(rows).question == "memorization"
    assert make_part(rows, "capacity").question == "capacity"


def test_a_part_is_read_from_its_directory(tmp_path):
    store = open_results(tmp_path, "run", "ab12", make_config("capacity"))
    store.write(make_searches().to_dict("records"))
    part = read_part("its name", store.directory)
    assert (part.name, part.question, len(part.rows)) == ("its name", "capacity", 12)
    assert part.where == make_part([]).where
    with pytest.raises(ResultsError, match=r"can't read .*none/config\.json"):
        read_part("none", tmp_path / "none")


# The usual protocol


def test_main_rows_are_global_rewound_not_ablated_and_of_the_most_noise():
    usual = make_row("imp", noise=0.5)
    others = [
        {"resume": "finetune"},
        {"ablation": "shuffle"},
        {"select": "per_layer"},
        {"noise": 0.2},
    ]
    dense = make_row("dense", 0.0, noise=0.5)
    rows = pd.DataFrame([usual, dense, *(usual | change for change in others)])
    found = main_rows(make_part(rows))
    assert found.index.tolist() == [0, 1]


def test_where_no_ranking_is_global_main_rows_have_the_one_there_is():
    rows = make_rows(("imp",), (0.9,), select="per_layer")
    assert len(main_rows(make_part(rows))) == len(rows)


def test_of_no_rows_there_are_no_main_rows():
    assert main_rows(make_part(make_rows(seeds=1).iloc[:0])).empty
    finetuned = make_rows(("imp",), seeds=1, resume="finetune").query("sparsity > 0")
    assert main_rows(make_part(finetuned)).empty


def test_usual_rows_keep_ablations_and_networks_that_are_tuned_on():
    usual = make_row("imp", noise=0.5)
    changes = [{}, {"resume": "finetune"}, {"ablation": "shuffle"}]
    changes += [{"select": "per_layer"}, {"noise": 0.2}]
    rows = pd.DataFrame([usual | change for change in changes])
    assert usual_rows(make_part(rows)).index.tolist() == [0, 1, 2]


# Stopping rules


def ruled(name, directory="", **train):
    part = make_part(make_rows(seeds=1), name=name)
    return part._replace(config=part.config | {"train": train}, directory=directory)


SETTLED = {"stop": "settled", "settle_from": 50, "settle_rise": 0.005}


@pytest.mark.parametrize(
    "other",
    [
        {"stop": "paper"},
        {"stop": "still", "patience": 3},
        SETTLED | {"settle_rise": 0.01},
        SETTLED | {"settle_steps": 1000},
        {},
    ],
    ids=str,
)
def test_two_stopping_rules_are_refused_with_both_directories(other):
    parts = make_parts(
        ruled("a", "results/a-ab12", **SETTLED),
        ruled("b", "results/b-cd34", **SETTLED),
        ruled("c", "results/c-ef56", **other),
    )
    with pytest.raises(ResultsError) as error:
        check_rules(parts)
    words = str(error.value)
    assert "results/a-ab12 ends trainings by 'settled' (settle_from = 50" in words
    assert f"results/c-ef56 by {rule_of(parts['c'])}:" in words
    assert "b-cd34" not in words
    with pytest.raises(ResultsError, match=r"^a ends trainings by .* and c by"):
        check_rules({x: y._replace(directory="") for x, y in parts.items()})


def test_budgets_and_optimizers_are_no_part_of_a_stopping_rule():
    train = SETTLED | {"max_epochs": 10, "patience": 3, "learning_rate": 0.1}
    check_rules(make_parts(ruled("a", **SETTLED), ruled("b", **train)))
    paper = ruled("a", stop="paper", patience=3, min_epochs=7)
    assert rule_of(paper) == "'paper' (patience = 3)"
    assert rule_of(ruled("a")) == rule_of(ruled("a", stop="still")) == "'still'"
    unsaid = ruled("a")._replace(config={})  # as on file of the first runs
    assert rule_of(unsaid) == "'still'"
    check_rules(make_parts(unsaid, ruled("b", stop="still")))
    check_rules({})


# What a claim is about


def test_a_scope_has_the_run_the_rows_and_the_training_in_words():
    rows = make_rows(("imp",), (0.9,), seeds=1, noise=0.5)
    train = {"max_epochs": 5000, "optimizer": "sgd", "learning_rate": 0.01}
    part = ruled("run", **train)
    start = "run: gaussian, d = 50, C = 2, mlp 200-200 (he_normal)"
    assert scope(part, n=1000, sparsity=0.95, rows=rows) == (
        f"{start}, n = 1,000, 95 % removed, selection global, noise 0.5, sgd 0.01, "
        "budget 5,000 epochs"
    )
    assert scope(ruled("run")) == start
    usual = scope(make_part(rows, name="run"))
    assert usual == f"{start}, adam 0.001, budget 3,200 epochs"
    several = pd.concat([rows, rows.assign(noise=1.0, select="per_layer")])
    assert "noise" not in scope(part, rows=several)
    assert "selection" not in scope(part, rows=several)
    decayed = ruled("run", decay_steps=100, max_epochs=60)
    assert scope(decayed) == f"{start}, adam 0.001, cosine decay, budget 60 epochs"
    half = ruled("run", moments="bfloat16", max_epochs=60)
    assert scope(half) == f"{start}, adam 0.001, bfloat16 moments, budget 60 epochs"


def test_of_a_search_for_capacity_the_budget_is_in_steps():
    part = ruled("run", max_epochs=60)
    config = {"question": "capacity", "capacity": {"max_steps": 20_000}}
    searching = part._replace(config=part.config | config)
    assert scope(searching).endswith("budget 20,000 steps")


# What is joined


def test_a_line_has_the_values_of_seeds_beside_the_mean_ends_of_information():
    searches = [make_search(seed=i, capacity=x) for i, x in enumerate((300, 700, 340))]
    found = capacities(
        searches,
        [
            make_interval_row("imp", information_lower=10.0, information_upper=30.0),
            make_interval_row(
                "imp", seed=1, information_lower=20.0, information_upper=31.0
            ),
        ],
    )
    [line] = found.to_dict("records")
    assert line == {
        "pruner": "imp",
        "label": "IMP",
        "sees": "training",
        "sparsity": 0.9,
        "select": "global",
        "noise": 1.0,
        "n": 4000,
        "where": "gaussian, d = 50, C = 2, mlp 200-200 (he_normal)",
        "values": [300.0, 700.0, 340.0],
        "values_upper": [300.0, 700.0, 340.0],
        "value": 340.0,
        "conditioning": "labels",
        "kept": 5040.0,  # of the search, not the 14 of the information's rows
        "information_n": 12.0,
        "information_lower": 15.0,
        "information_upper": 30.5,
        "p_eff_lower": 5055.0,
        "p_eff_upper": 5070.5,
        "late": 0.0,
        "missed": pytest.approx(0.1),  # of two intervals at 95 %
    }


def test_capacities_that_are_at_least_a_number_have_no_upper_end():
    searches = [
        make_search(seed=i, capacity=x, capacity_at_least=y)
        for i, (x, y) in enumerate([(300, False), (4000, True), (340, None)])
    ]
    [line] = capacities(searches, [make_interval_row("imp")]).to_dict("records")
    assert line["values"] == [300, 4000, 340] and line["value"] == 340
    assert line["values_upper"] == [300, math.inf, 340]
    assert line["late"] == 0  # a search that was cut short is what that says
    none = pd.DataFrame(searches).drop(columns="capacity_at_least")
    [line] = capacities(none, [make_interval_row("imp")]).to_dict("records")
    assert line["values_upper"] == line["values"]


def test_a_line_counts_what_used_up_its_budget_on_either_side():
    swaps = [make_swap(seed=i, swap_gap_out_of_budget=x) for i, x in enumerate([2, 1])]
    information = [
        make_interval_row("imp", seed=i, out_of_budget=x, confidence=0.99)
        for i, x in enumerate([4, None])
    ]

    def line(*swaps):
        parts = make_parts(
            make_part(swaps, "swap"), make_part(information, "information")
        )
        [found] = beside_information(parts, "swap", "swap_gaps").to_dict("records")
        assert found["missed"] == pytest.approx(0.02)
        return found

    assert line(*swaps)["late"] == 7
    none = [
        {k: v for k, v in x.items() if k != "swap_gap_out_of_budget"} for x in swaps
    ]
    assert line(*none)["late"] == 4
    assert line(swaps[0], swaps[1] | {"swap_gap_out_of_budget": None})["late"] == 6


@pytest.mark.parametrize("confidence", [None, float("nan")])
def test_an_interval_whose_confidence_is_not_on_file_may_miss(confidence):
    known = make_interval_row("imp", confidence=0.99)
    other = make_interval_row("imp", seed=1, confidence=confidence)
    [line] = capacities([make_search()], [known, other]).to_dict("records")
    assert line["missed"] == pytest.approx(1.01)


def test_information_about_inputs_and_labels_is_another_and_not_joined():
    labels = make_interval_row("imp", n=4000)
    data = make_interval_row("imp", n=400, conditioning="data", information_lower=1.0)
    [line] = capacities([make_search(capacity=400)], [labels, data]).to_dict("records")
    assert line["information_n"] == 4000
    assert line["information_lower"] == labels["information_lower"]
    assert capacities([make_search()], [data]).empty
    unsaid = pd.DataFrame([labels]).drop(columns="conditioning")
    assert len(capacities([make_search()], unsaid)) == 1
    parts = make_parts(
        make_part([make_search(capacity=4000)], "capacity"),
        make_part([labels], "information", "labels"),
        make_part([data], "information", "data"),
    )
    [line] = beside_information(parts, "capacity", "capacity", "data").to_dict(
        "records"
    )
    assert (line["conditioning"], line["information_n"]) == ("data", 400)
    assert line["p_eff_lower"] == line["kept"] + 1.0


def test_of_several_runs_of_a_question_the_one_with_the_most_rows_is_joined():
    information = make_part([make_interval_row("imp")], "information")
    few = make_part([make_search(capacity=7)], "capacity", "few")
    most = make_part([make_search(seed=i, capacity=9) for i in (0, 1)], "capacity", "m")
    other = make_part([make_search(capacity=5)], "capacity", "o", data={"dim": 784})
    there = make_part([make_interval_row("imp")], "information", "t", data={"dim": 784})
    for runs in ((few, most), (most, few)):
        parts = make_parts(*runs, other, information, there)
        found = beside_information(parts, "capacity", "capacity")
        assert sorted(found["value"]) == [5, 9]  # of each data and network


def test_lists_of_gaps_are_concatenated_over_seeds_and_what_is_null_left_out():
    swaps = [
        make_swap(seed=0, swap_gaps=[1.0, 2.0]),
        make_swap(seed=1, swap_gaps=[7.0, float("nan")]),
        make_swap(seed=2, swap_gaps=None),
    ]
    parts = make_parts(
        make_part(swaps, "swap"), make_part([make_interval_row("imp")], "information")
    )
    [line] = beside_information(parts, "swap", "swap_gaps").to_dict("records")
    assert (line["values"], line["value"]) == ([1.0, 2.0, 7.0], 2.0)


@pytest.mark.parametrize(
    ("capacity", "expected"),
    # On a logarithmic scale 100 and 1000 are equally far from 316.2.
    [(0, 10.0), (31, 10.0), (32, 100.0), (316, 100.0), (317, 1000.0), (4000, 1000.0)],
)
def test_of_information_at_several_n_the_nearest_to_the_capacity_is_taken(
    capacity, expected
):
    information = [make_interval_row("imp", n=n) for n in (1000, 10, 100)]
    [line] = capacities([make_search(capacity=capacity)], information).to_dict(
        "records"
    )
    assert line["information_n"] == expected
    own = information[[1000, 10, 100].index(expected)]
    assert line["information_upper"] == own["information_upper"]


def test_gaps_are_joined_with_information_at_the_nearest_of_their_own_n():
    information = [make_interval_row("imp", n=n) for n in (10, 1000)]
    parts = make_parts(
        make_part([make_swap(n=n) for n in (50, 900)], "swap"),
        make_part(information, "information"),
    )
    found = beside_information(parts, "swap", "swap_gaps")
    assert found["n"].tolist() == [50, 900]
    assert found["information_n"].tolist() == [10, 1000]


def test_several_runs_of_the_same_network_are_looked_at_for_the_nearest_n():
    searches = [make_search(capacity=900)]
    of_n = [[make_interval_row("imp", n=n)] for n in (10, 1000, 100)]
    [line] = capacities(searches, *of_n).to_dict("records")
    assert line["information_n"] == 1000


@pytest.mark.parametrize(
    "other",
    [
        {"data": {"name": "digits"}},
        {"data": {"dim": 784}},
        {"data": {"classes": 10}},
        {"model": {"widths": [50, 50]}},
        {"model": {"init": "lecun_normal"}},
        {"model": {"name": "convnet"}},
    ],
    ids=str,
)
def test_runs_of_other_data_or_another_network_are_not_joined(other):
    information = make_interval_rows(("imp",), (0.9,))
    parts = make_parts(
        make_part(make_searches(), "capacity"),
        make_part(information, "information", "here"),
        make_part(information.assign(n=4000), "information", "there", **other),
    )
    found = beside_information(parts, "capacity", "capacity")
    assert found["information_n"].tolist() == [12]
    del parts["here"]
    assert beside_information(parts, "capacity", "capacity").empty


@pytest.mark.parametrize(
    "change",
    [{"pruner": "snip"}, {"sparsity": 0.5}, {"select": "per_layer"}, {"noise": 0.5}],
    ids=str,
)
def test_only_cells_of_the_same_pruner_sparsity_selection_and_noise_are_joined(change):
    assert capacities([make_search()], [make_interval_row("imp") | change]).empty


def test_a_seed_whose_information_is_not_known_is_left_out():
    known = make_interval_row("imp", information_lower=2.0, information_upper=3.0)
    for nothing in (
        {"information_lower": float("nan")},
        {"information_upper": None},
    ):
        other = make_interval_row("imp", seed=1) | nothing
        [line] = capacities([make_search()], [known, other]).to_dict("records")
        assert (line["information_lower"], line["information_upper"]) == (2, 3)
        assert capacities([make_search()], [other]).empty


def test_the_dimension_of_a_set_on_file_is_no_part_of_what_it_is():
    digits = {"name": "digits"}
    parts = make_parts(
        make_part([make_search()], "capacity", data=digits),
        make_part([make_interval_row("imp")], "information", data=digits | {"dim": 7}),
    )
    assert len(beside_information(parts, "capacity", "capacity")) == 1


def test_only_the_question_asked_for_is_joined_and_dense_networks_never():
    parts = make_parts(
        make_part(make_swaps(), "swap"),
        make_part(make_searches(("dense", "imp"), (0.9,)), "capacity"),
        make_part(make_interval_rows(), "information"),
        make_part(make_interval_rows(("dense",), select=""), "information", "dense"),
    )
    assert set(beside_information(parts, "swap", "swap_gaps")["n"]) == {1000}
    assert set(beside_information(parts, "capacity", "capacity")["pruner"]) == {"imp"}


def test_where_nothing_is_joined_the_columns_are_there():
    empty = beside_information({}, "capacity", "capacity")
    full = capacities([make_search()], [make_interval_row("imp")])
    assert empty.empty and set(empty.columns) == set(full.columns)
    null = capacities([make_search(capacity=None)], [make_interval_row("imp")])
    assert null.empty


def test_rows_on_file_are_joined_as_those_in_memory(tmp_path):
    """There integers are of pandas' nullable types, and lists are arrays."""
    found = []
    for name, rows in {
        "swap": make_swaps(seeds=2),
        "capacity": make_searches(),
        "information": make_interval_rows(),
    }.items():
        store = open_results(tmp_path, name, "ab12", make_config(name))
        store.write(rows.to_dict("records"))
        found += [make_part(rows, name), read_part(name, store.directory)]
    in_memory, on_file = make_parts(*found[::2]), make_parts(*found[1::2])
    for question, value in (("swap", "swap_gaps"), ("capacity", "capacity")):
        both = [
            beside_information(parts, question, value).drop(columns="n")
            for parts in (in_memory, on_file)
        ]
        assert len(both[0]) == {"swap": 6, "capacity": 4}[question]
        pd.testing.assert_frame_equal(*both)
