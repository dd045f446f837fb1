"""The law of robustness: a fact about accurate networks, and exponents shown."""

import math

import numpy as np
import pandas as pd
import pytest
from judging import about, judged, numbers
from rows import make_interval_row
from test_pages_joined import make_part, make_parts
from test_robustness_figures import make_network, make_networks

from nfp_jax.estimates import clustered_fit
from nfp_jax.pages.claim import HOLDS, SHOWN, UNDECIDED
from nfp_jax.questions.robustness.claims import clusters_of, together
from nfp_jax.report.claims import claims


def steep(of_n=1.0, of_kept=1.0, scale=1.0, noise=0.0, **changes):
    """Networks whose steepness is a power of n and of the weights kept."""
    changes = {"train_accuracy": 1.0, "converged": True, **changes}
    rows = pd.concat([make_networks(n=n, **changes) for n in (200, 1000, 4000)])
    rng = np.random.default_rng(1)
    law = (rows["n"] * rows["dim"]) ** (of_n / 2) / rows["kept"] ** (of_kept / 2)
    error = np.exp(rng.normal(0, noise, len(rows)))
    return rows.assign(lipschitz_lower=rows["excess"] * scale * law * error)


def of_the_law(rows):
    """Claims of all networks; those that compare pruners have tests of their own."""
    return [x for x in judged(rows, "robustness") if "/smoother/" not in x.key]


@pytest.mark.parametrize(("scale", "expected"), [(1.5, HOLDS), (0.9, UNDECIDED)])
def test_a_lower_bound_can_show_the_demanded_steepness_and_never_refute_it(
    scale, expected
):
    claim = about(judged(steep(scale=scale), "robustness"), "as steep as")
    assert numbers(claim) == pytest.approx([scale, scale, math.inf])
    assert claim.verdict == expected and claim.key == "robustness/law"


def test_one_network_that_is_less_steep_is_enough_to_leave_it_undecided():
    rows = steep(scale=1.5)
    slopes = rows["lipschitz_lower"].to_numpy().copy()
    slopes[7] *= 0.6
    claim = about(judged(rows.assign(lipschitz_lower=slopes), "robustness"), "as steep")
    assert claim.measured == pytest.approx(0.9) and claim.verdict == UNDECIDED


def test_exponents_of_n_and_of_kept_weights_are_fitted_together_and_not_judged():
    found = judged(steep(0.8, 0.3), "robustness")
    start = "robustness/exponents/"
    exponents = {x.key.removeprefix(start): x for x in found if x.key.startswith(start)}
    assert set(exponents) == {
        f"{name}/{axis}" for name in ("Lip", "Lip/ε") for axis in ("n", "1 / kept")
    }
    assert {x.verdict for x in exponents.values()} == {SHOWN}
    assert exponents["Lip/ε/n"].measured == pytest.approx(0.8)
    assert exponents["Lip/ε/1 / kept"].measured == pytest.approx(0.3)
    assert all(math.isnan(x.p) for x in exponents.values())


def test_exponents_are_those_of_least_squares_clustered_by_pruner_and_seed():
    rows = steep(noise=0.3)
    claim = about(judged(rows, "robustness"), "Lip/ε grows with sqrt(n)")
    x = np.log(rows[["n", "kept"]].to_numpy(float)) / 2 * [1, -1]
    y = np.log(rows["lipschitz_lower"] / rows["excess"])
    clusters = rows[["pruner", "init_seed"]].astype(str)
    fit = clustered_fit(x, y, clusters)
    assert numbers(claim) == pytest.approx([ends[0] for ends in fit])
    assert claim.what.endswith("errors clustered by pruner and by seed")
    for one in ("pruner", "init_seed"):  # it is that of neither alone
        other = clustered_fit(x, y, clusters[one])
        assert numbers(claim) != pytest.approx([ends[0] for ends in other])


def test_with_a_single_seed_or_pruner_there_are_no_clusters_and_no_exponents():
    rows = steep(noise=0.3)
    for few in (rows[rows["init_seed"] == 0], rows[rows["pruner"] == "imp"]):
        [claim] = of_the_law(few)
        assert "as steep as" in claim.claim


def test_a_seed_of_any_kind_makes_a_cluster():
    rows = steep()
    one = rows.assign(init_seed=0, data_seed=0, train_seed=rows["init_seed"])
    assert clusters_of(one).tolist() == clusters_of(rows).tolist()
    assert len(np.unique(clusters_of(rows), axis=0)) == 6  # three pruners, two seeds


def test_only_networks_that_fit_noise_accurately_count():
    rows = steep(scale=1.5)
    first = [numbers(x) for x in of_the_law(rows)]
    for change in (
        {"train_accuracy": 0.94},
        {"train_accuracy": math.nan},
        {"excess": 0.0},
        {"excess": -0.1},
        {"excess": math.nan},
        {"lipschitz_lower": 0.0},
    ):
        other = rows.assign(lipschitz_lower=1e-6).assign(**change, seconds=2.0)
        found = of_the_law(pd.concat([rows, other]))
        assert [numbers(x) for x in found] == first
        assert "30 networks that fit 95%" in found[0].where
    edge = rows.assign(train_accuracy=0.95, lipschitz_lower=1e-6)
    assert judged(pd.concat([rows, edge]), "robustness")[0].measured < 1e-3
    assert judged(rows.assign(train_accuracy=0.9), "robustness") == []
    assert judged(rows.iloc[:2], "robustness") == []


def test_networks_that_were_cut_short_have_no_part_in_the_law():
    rows = steep(scale=1.5)
    rows["out_of_budget"] = 0
    flat = rows.iloc[:2].assign(lipschitz_lower=1e-6, out_of_budget=[1, 2])
    expected, *_ = judged(rows, "robustness")
    law, *_ = judged(pd.concat([rows, flat]), "robustness")
    assert numbers(law) == numbers(expected)
    assert (law.verdict, law.out_of_budget, law.left_out) == ("holds", 0, 3)
    assert "30 networks that fit 95%, without those of 3 trainings" in law.where


def test_where_nothing_is_demanded_differently_there_is_no_exponent():
    rows = [make_network(seed=i, train_accuracy=1.0) for i in range(4)]
    [claim] = judged(pd.DataFrame(rows), "robustness")
    assert "as steep as" in claim.claim


# The law of robustness with p_eff


def law(exponent, known, n=1000, excess=(0.2, 0.1), seeds=2, accuracy=1.0, of="labels"):
    """Networks as steep as a power of sqrt(n d / p_eff), and what their masks know."""
    rows, information = [], []
    for (pruner, sparsity), nats in known.items():
        own = {"information_lower": nats, "information_upper": nats + 50, "noise": 0.5}
        own["conditioning"] = of
        information.append(make_interval_row(pruner, sparsity, n=n, **own))
        for seed in range(seeds):
            row = make_network(
                pruner, sparsity, seed, excess=excess[seed], train_accuracy=accuracy
            )
            demanded = math.sqrt(1000 * 50 / (row["kept"] + nats))
            row["lipschitz_lower"] = abs(excess[seed]) * demanded**exponent
            rows.append(row)
    return make_parts(
        make_part(rows, "robustness"), make_part(information, "information")
    )


NATS = {("imp", 0.9): 900.0, ("imp", 0.5): 300.0, ("snip", 0.9): 100.0}


@pytest.mark.parametrize("exponent", [1.3, -0.7])
def test_the_law_with_p_eff_shows_its_exponent_at_both_ends(exponent):
    lower, upper = together(law(exponent, NATS))
    for claim, end in ((lower, "lower"), (upper, "upper")):
        assert f"grows with sqrt(n d / p_eff (labels) at its {end} end)" in claim.claim
        assert claim.verdict == SHOWN and f"p_eff-{end}" in claim.key
        assert "6 networks with information at the same n" in claim.where
    assert numbers(lower) == pytest.approx([exponent] * 3)
    page = claims(law(exponent, NATS))
    assert [x for x in page if "p_eff-" in x.key] == [lower, upper]
    assert upper.measured != pytest.approx(exponent, abs=1e-3)
    assert upper.measured == pytest.approx(exponent, abs=0.1)


def test_the_law_with_p_eff_of_data_is_shown_beside_that_of_labels():
    of_labels, of_data = law(1.3, NATS), law(1.3, NATS, of="data")
    both = {**of_labels, "data": of_data["information"]._replace(name="data")}
    found = list(together(both))
    assert [x.key.partition("/n d")[0] for x in found] == [
        f"robustness/exponents/{kind}-{end}"
        for kind in ("p_eff", "p_eff-data")
        for end in ("lower", "upper")
    ]
    assert "n d / p_eff (data) at its upper end" in found[3].claim
    assert numbers(found[2]) == numbers(found[0])


def test_a_network_that_fits_no_noise_has_no_part_in_the_law():
    for lost in (-0.1, 0.0, math.nan):
        parts = law(1.0, NATS, excess=(0.2, 0.1, lost), seeds=3)
        found = list(together(parts))
        assert found[0].measured == pytest.approx(1)
        assert "6 networks" in found[0].where
        one_seed = law(1.0, NATS, excess=(0.2, lost))  # a single cluster
        assert not list(together(one_seed))
    assert not list(together(law(1.0, NATS, excess=(0.0, -0.1))))
    assert not list(together(law(1.0, NATS, accuracy=0.9)))


def test_the_law_with_p_eff_needs_three_networks_at_one_n():
    assert not list(together(law(1.0, NATS, n=500)))
    two = {cell: NATS[cell] for cell in list(NATS)[:1]}
    assert not list(together(law(1.0, two)))
