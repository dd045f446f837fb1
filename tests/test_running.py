"""An experiment as a call: what ``launch.py`` does, for a notebook or a script."""

import subprocess
import sys
import threading

import ml_collections
import pytest
from running import pruner_entry

import nfp_jax as nfp
from nfp_jax import files, running
from nfp_jax.cluster import Place
from nfp_jax.data import DataError
from nfp_jax.results import ResultsError
from nfp_jax.running import Run, as_spec
from nfp_jax.spec import Collection, Spec, SpecError

pytestmark = pytest.mark.usefixtures("one_device")


def config(out, **changes):
    """A run of seconds: two masks and the dense network."""
    return {
        "name": "tiny",
        "out": str(out),
        "data": {"dim": 4},
        "model": {"widths": (8,)},
        "train": {"max_epochs": 4, "settle_from": 1, "settle_steps": 0},
        "grid": {
            "pruner": ("dense", "random", "magnitude_init"),
            "sparsity": (0.5,),
            "n": (16,),
            "noise": (1.0,),
        },
        **changes,
    }


@pytest.fixture(scope="module")
def first(tmp_path_factory, one_device):
    return nfp.run(config(tmp_path_factory.mktemp("results")))


def test_a_run_says_what_it_did_and_its_rows_are_read(first):
    assert (first.cells, first.new, first.missing, first.failed) == (3, 3, 0, False)
    assert first.page.exists() and first.page.parent == first.directory
    rows = nfp.read(first.directory)
    assert sorted(rows["pruner"]) == ["dense", "magnitude_init", "random"]


@pytest.mark.parametrize("kind", [dict, ml_collections.ConfigDict, Spec.from_config])
def test_the_same_again_in_any_form_has_nothing_new(first, kind):
    told = []
    again = nfp.run(
        kind(config(first.directory.parent)), on_end=lambda *x: told.append(x)
    )
    assert (again.directory, again.cells, again.new) == (first.directory, 3, 0)
    assert told == [("", again)]


def test_a_share_does_its_part_and_whoever_ends_last_makes_the_page(tmp_path):
    shares = [nfp.run(config(tmp_path), place=Place(i, 2)) for i in range(2)]
    assert [x.page is None for x in shares] == [True, False]
    assert shares[0].missing == shares[1].new > 0 and shares[1].missing == 0
    assert len(nfp.read(shares[0].directory)) == 3


def test_several_experiments_are_one_run_of_their_parts(tmp_path):
    away = config(tmp_path, data={"name": "nowhere", "download": False})
    parts = {
        "a": config(tmp_path),
        "b": config(tmp_path, name="other", seed=1),
        "c": {**away, "data": {**away["data"], "dir": str(tmp_path)}},
    }
    told = []
    whole = {"name": "all", "out": str(tmp_path), "parts": parts, "shown": ("b",)}
    both = nfp.run(whole, on_end=lambda name, outcome: told.append((name, outcome)))
    assert [name for name, _ in told] == ["a", "b", "c"]
    assert isinstance(told[2][1], DataError) and list(both.refused) == ["c"]
    assert both.failed and list(both.parts) == ["a", "b"]
    assert (both.cells, both.new) == (6, 6) and both.page.exists()
    rows = nfp.read(both.directory)
    assert rows["part"].value_counts().to_dict() == {"a": 3, "b": 3}


def test_a_cell_that_raises_is_a_failure_and_the_others_are_on_file(
    tmp_path, monkeypatch
):
    def broken(params, batch=None, key=None, *, mask=None, prunable=None):
        raise RuntimeError("no score")

    entry = pruner_entry(monkeypatch, "broken", broken)
    grid = {**config(tmp_path)["grid"], "pruner": ("random", entry)}
    outcome = nfp.run(config(tmp_path, grid=grid))
    assert outcome.failed and len(nfp.read(outcome.directory)) == 1
    [failure] = outcome.failures
    assert failure.cell["pruner"] == "broken" and "no score" in failure.error


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"seeds": 1}, SpecError, "^seeds is not a field"),
        ({"grid": {"pruner": ("gone",)}}, SpecError, "grid.pruner names 'gone'"),
        ({"data": {"name": "nowhere", "download": False}}, DataError, "nowhere"),
    ],
)
def test_bad_input_is_one_error(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        nfp.run(config(tmp_path, **changes))


def test_a_directory_that_is_neither_is_refused(tmp_path):
    with pytest.raises(ResultsError):
        nfp.read(tmp_path / "nowhere")


def test_a_specification_is_taken_as_it_is():
    spec = Spec(seed=3)
    assert as_spec(spec) is spec
    both = as_spec({"parts": {"a": {}}})
    assert isinstance(both, Collection) and as_spec(both) is both
    assert not Run(None, None, 0, 0, 0, []).failed


def test_a_package_without_metadata_has_no_version():
    assert running._version("a-package-that-nobody-has") is None


def test_run_and_read_are_loaded_when_they_are_called_for():
    code = (
        "import sys, nfp_jax\n"
        "assert 'nfp_jax.running' not in sys.modules and 'pandas' not in sys.modules\n"
        "nfp_jax.run\n"
        "assert 'nfp_jax.running' in sys.modules\n"
        "try:\n    nfp_jax.gone\n"
        "except AttributeError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "module 'nfp_jax' has no attribute 'gone'\n"


@pytest.fixture
def full(monkeypatch):
    """A disk with no room for rows or pages, once the run has begun."""
    write = files.write_file

    def refuse(path, data):
        if path.suffix in (".parquet", ".html"):
            raise ResultsError(f"can't write {path}: No space left on device")
        write(path, data)

    for module in ("results", "report.page"):
        monkeypatch.setattr(f"nfp_jax.{module}.write_file", refuse)
    monkeypatch.setattr("nfp_jax.row_writer.time.sleep", lambda _: None)
    return monkeypatch.undo


def test_rows_that_are_not_on_file_are_failures_that_say_so_and_are_done_again(
    tmp_path, full
):
    found = nfp.run(config(tmp_path))
    assert found.failed and found.page is None
    assert {x.cell["pruner"] for x in found.failures} == {
        *("dense", "random", "magnitude_init")
    }
    for failure in found.failures:
        assert failure.error.startswith("its row is not on file: can't write ")
    [problem] = found.problems
    assert "has no rows yet" in problem
    full()
    again = nfp.run(config(tmp_path))
    assert (again.new, again.failed) == (3, False) and again.page.exists()


def test_a_page_that_can_not_be_written_is_told_of_and_rows_are_there(tmp_path, full):
    full()
    nfp.run(config(tmp_path))
    with pytest.MonkeyPatch.context() as patch:

        def refuse(path, data):
            raise ResultsError(f"can't write {path}: No space left on device")

        patch.setattr("nfp_jax.report.page.write_file", refuse)
        found = nfp.run(config(tmp_path))
    assert found.failed and found.page is None and not found.failures
    assert "No space left" in found.problems[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"grid": {"pruner": ("random",), "n": (10_000,), "sparsity": (0.5,)}},
        {"model": {"name": "convnet"}, "data": {}},  # convolutions of vectors
    ],
)
def test_a_start_that_is_refused_leaves_no_directory(tmp_path, changes):
    given = config(tmp_path, **{"data": {"name": "digits"}, **changes})
    with pytest.raises((SpecError, DataError)):
        nfp.run(given)
    assert not list(tmp_path.iterdir())


def test_two_processes_on_one_directory_do_no_cell_twice(tmp_path):
    """The second waits, and finds nothing left to do."""
    found = []
    both = [
        threading.Thread(target=lambda: found.append(nfp.run(config(tmp_path))))
        for _ in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(300)
    assert sorted(one.new for one in found) == [0, 3]
    assert not any(one.failed for one in found)
