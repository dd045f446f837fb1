"""The benchmarks: their arithmetic, and smoke tests that every script runs.

PyTorch's rows are left out, as they are where it is not installed.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch):
    """The folder on the path, as a script there has it, its modules forgotten after."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_flops_of_a_step_are_three_products_a_layer_and_two_in_the_first(benchmarks):
    import contest

    # 50-200-200-2: weights 10,000 + 40,000 + 400; a multiply-add counts as two.
    assert contest.step_flops(50, 2) == 2 * 64 * (2 * 10_000 + 3 * 40_400)


def test_bytes_of_a_step_are_four_arrays_both_ways_and_a_mask(benchmarks):
    import limits

    assert limits.step_bytes(784, 10) == 198_800 * 33


def test_ratios_are_taken_round_by_round(benchmarks):
    import contest

    record = contest.Record("", seconds=[2.0, 1.0, 1.0], work=[8.0, 8.0, 2.0])
    assert record.rates() == [4.0, 8.0, 2.0]
    ratio = contest.summary(contest.ratios(record.rates(), [1.0, 1.0, 2.0]))
    assert ratio == {"median": 4.0, "min": 1.0, "max": 8.0}


def test_a_contender_with_fewer_rounds_is_compared_in_those(benchmarks):
    import contest

    assert contest.ratios([6.0], [2.0, 100.0]) == [3.0]


def test_networks_are_dealt_out_without_rest(benchmarks):
    import contest

    parts = [contest.Part(i, 3, 1, {}).mine(range(7)) for i in range(3)]
    assert sorted(itertools.chain.from_iterable(parts)) == list(range(7))


def test_a_sample_of_cells_has_every_pruner_and_the_whole_has_all(benchmarks):
    import grid

    cells = [
        {"pruner": pruner, "sparsity": sparsity}
        for pruner in ("snip", "imp")
        for sparsity in (0.5, 0.8, 0.9, 0.95)
    ]
    assert len(grid.sample(cells, 1.0)) == 8
    quarter = grid.sample(cells, 0.25)
    assert sorted(cell["pruner"] for cell in quarter) == ["imp", "snip"]


def test_seconds_of_a_sample_are_scaled_by_pruner(benchmarks):
    import grid

    cells = [
        {"pruner": "imp", "seconds": 3.0},
        {"pruner": "imp", "seconds": 5.0},
        {"pruner": "snip", "seconds": 1.0},
    ]
    # (4 + 2) cells of 4 s and 1 s, on two processes.
    assert grid.scaled(cells, {"imp": 4, "snip": 2}, processes=2) == 9.0


def test_overhead_is_what_devices_did_beside_training(benchmarks):
    import scaling

    assert scaling.overhead(3.0, 2, 4.0) == 0.5


def test_steps_fill_the_arithmetic_given_within_bounds(benchmarks):
    import contest
    import ensemble

    assert ensemble.steps_for(1, 50, 1e9) == 1024
    assert ensemble.steps_for(256, 3072, 1.0) == 16
    assert ensemble.steps_for(1, 50, 70 * contest.step_flops(50, 2) / 1e9) == 64


def test_moments_pass_where_the_interval_lies_within_the_noise_of_a_seed(benchmarks):
    import moments

    found = {
        name: {"points": points, "epochs_to_99": epochs}
        for name, points, epochs in (
            ("float32", [10, 20, 30, 40], [8, 8, 8, None]),
            ("reordered", [8, 22, 28, 42], [4, 16, 8, 8]),
            ("mu", [11, 21, 31, 41], [16, 16, 16, 16]),
            ("nearest", [13, 23, 33, 43], [8, 8, 8, 8]),
        )
    }
    # Differences of the reordered: -2, 2, -2, 2, of standard deviation 2.31.
    points = moments.judged(found, "mu", "points")
    assert (points["mean"], points["passes"], points["pairs"]) == (1.0, True, 4)
    assert points["noise"] == pytest.approx(2.3094, abs=1e-4)
    assert not moments.judged(found, "nearest", "points")["passes"]
    # One seed never fitted them in float32; of ratios 1/2, 2 and 1 the noise is 2.
    epochs = moments.judged(found, "mu", "epochs_to_99")
    assert epochs["mean"] == pytest.approx(2.0) and epochs["pairs"] == 3
    assert epochs["noise"] == pytest.approx(2.0)


def test_a_contender_that_crashes_leaves_the_others_running(benchmarks, tmp_path):
    import contest

    script = tmp_path / "script.py"
    script.write_text(
        f"import os, sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "import contest\n"
        "def fine(setting, part): return lambda: {'work': setting['n']}\n"
        "def raises(setting, part): raise MemoryError('too large')\n"
        "def dies(setting, part): return lambda: os._exit(3)\n"
        "workers = {'fine': fine, 'raises': raises, 'dies': dies}\n"
        "sys.exit(contest.serve(workers, sys.argv[2]))\n"
    )
    rows = [contest.Contender(name, name, name) for name in ("dies", "raises", "fine")]
    with contest.Contest(str(script), settle=0.0) as duel:
        records = duel.run({"n": 5}, rows, rounds=2)
    assert "exit code 3" in records["dies"].error
    assert records["raises"].error == "MemoryError: too large"
    assert records["fine"].work == [5, 5] and records["fine"].error is None


@pytest.mark.parametrize(
    ("command", "keys", "row"),
    [
        pytest.param(
            "ensemble",
            ["ensemble, 2 networks, d = 50, sparsity 0.95", "ensemble, check"],
            "ours, dead neurons removed",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("grid --part=grid", ["grid"], "vmap(while_loop)"), marks=pytest.mark.slow
        ),
        pytest.param(
            *("scores", ["scores"], "ours, vmap over 2"), marks=pytest.mark.slow
        ),
        pytest.param(*("limits", ["limits"], "XLA, 1 thread"), marks=pytest.mark.slow),
        pytest.param(*("scaling", ["scaling"], "1 device"), marks=pytest.mark.slow),
    ],
)
def test_script_runs_prints_its_table_and_writes_its_key(command, keys, row, tmp_path):
    """Smoke test; the check that weights agree is in ensemble's exit code."""
    script, *flags = command.split()
    done = subprocess.run(
        [
            sys.executable,
            str(BENCHMARKS / f"{script}.py"),
            *flags,
            "--quick",
            "--no-torch",
            "--machine=here",
            f"--out={tmp_path}",
        ],
        env={**os.environ, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert row in done.stdout and "Error" not in done.stdout, done.stdout
    found = json.loads((tmp_path / "here.json").read_text())
    assert sorted(found) == keys
    assert all({"date", "arguments", "versions"} <= set(found[key]) for key in keys)


@pytest.mark.slow
def test_every_part_for_an_accelerator_runs_on_a_cpu(tmp_path):
    """Smoke test: its numbers mean nothing."""
    target = tmp_path / "found.json"
    done = subprocess.run(
        ["bash", str(BENCHMARKS / "gpu.sh"), str(target), "--quick"],
        env={**os.environ, "PYTHON": sys.executable, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(target.read_text())
    assert [row["dim"] for row in found["steps"]["cold"]["found"]] == [784, 50]
    for name in ("small", "paper"):
        for part in found[name].values():
            assert part["found"]["rows"] > 0 and part["found"]["failures"] == 0


@pytest.mark.slow
def test_masks_and_bounds_are_measured_and_named(tmp_path):
    """Smoke test of ``information.py``."""
    out = tmp_path / "out.json"
    command = [sys.executable, str(BENCHMARKS / "information.py"), "--widths=4"]
    command += ["--pruners=random,snip", "--datasets=8", f"--write={out}"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    random, snip = json.loads(out.read_text())["rows"]
    assert random["masks"] != snip["masks"]
    for row in (random, snip):
        assert row["masks_cpu_seconds"] > 0 and row["bounds_cpu_seconds"] > 0
        assert row["bounds_peak_mb"] >= row["masks_peak_mb"] > 0
        assert row["lower"] <= row["upper"]


def test_the_table_of_the_host_is_that_of_the_counts_on_file(benchmarks):
    import host

    (path,) = (BENCHMARKS / "results").glob("host-*.json")
    table = host.table(json.loads(path.read_text("utf-8")))
    for page in ("README.md", "docs/performance.md"):
        assert table in (BENCHMARKS.parent / page).read_text("utf-8"), page


def test_the_table_of_long_trainings_is_that_of_the_rounds_on_file(benchmarks):
    import ensemble

    page = (BENCHMARKS.parent / "docs/performance.md").read_text("utf-8")
    path = BENCHMARKS / "results/intel-xeon-2-cores.json"
    table = ensemble.table(json.loads(path.read_text("utf-8")))
    assert path.name in page and table in page and len(table.splitlines()) > 2


def test_the_table_of_shares_is_that_of_the_rows_on_file(benchmarks):
    import shares

    page = (BENCHMARKS.parent / "docs/performance.md").read_text("utf-8")
    paths = list((BENCHMARKS / "results").glob("shares-*.json"))
    assert len(paths) == 2
    for path in paths:
        assert path.name in page
        assert shares.table(json.loads(path.read_text("utf-8"))["parts"]) in page


def test_shares_of_threads_add_up_to_the_wall(benchmarks):
    import shares

    run = {"processor": "2 cores, x", "seconds": 10.0}
    runs = [{**run, "train_seconds": 12.0, "compile_seconds": 3.0}, {"started": "?"}]
    found = shares.shares_of(runs, 1.5)
    assert found["wall"] == 11.5 and found["rest"] == 5.0
    assert sum(found[x] for x in shares.HEADS[3:]) == 2 * found["wall"]
    line = shares.table([{"part": "a", "rows": 3, **found}]).splitlines()[2]
    assert line == "| a | 3 | 12 s | 52 % | 13 % | 13 % | 22 % |"


def test_the_table_of_moments_is_that_of_the_rows_on_file(benchmarks):
    import moments

    page = (BENCHMARKS.parent / "docs/performance.md").read_text("utf-8")
    (path,) = (BENCHMARKS / "results").glob("moments-*.json")
    assert path.name in page
    rows = json.loads(path.read_text("utf-8"))["rows"]
    assert set(rows) == {cell.name for cell in moments.CELLS}
    assert moments.table(rows) in page
