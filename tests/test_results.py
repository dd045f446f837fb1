"""The directory of a run: what is written is read back, or refused."""

import errno
import io
import json
import math
import os
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from nfp_jax import results as results_module
from nfp_jax.listing import read_collection, write_collection
from nfp_jax.results import (
    COORDINATES,
    ResultsError,
    open_results,
    read_launches,
    read_rows,
    row_key,
)
from nfp_jax.row_writer import RowWriter, UnwrittenError

CONFIG = {"model": {"width": 200}, "lr": 1e-3}


def make_row(**changes):
    return {
        "pruner": "snip",
        "settings": "",
        "version": "1",
        "sparsity": 0.9,
        "n": 1000,
        "noise": 1.0,
        "select": "global",
        "resume": "",
        "ablation": "",
        "init_seed": 0,
        "data_seed": 0,
        "train_seed": 0,
        "train_accuracy": 0.5,
        **changes,
    }


OLD = ("label", "sees", "settings", "version")


def test_rows_from_before_pruners_had_cards_are_told_of_what_cards_say(results):
    """Their shards lack the columns; a pruner of the user's is called by its name."""
    rows = [make_row(pruner=name) for name in ("imp", "dense", "mine")]
    plain = pd.DataFrame(rows).drop(columns=["settings", "version"])
    plain.to_parquet(results.directory / "rows" / "0.parquet")
    read = read_rows(results.directory).set_index("pruner")
    assert read.loc["imp", list(OLD)].tolist() == ["IMP", "training", "", ""]
    assert read.loc["dense", list(OLD)].tolist() == ["dense", "", "", ""]
    assert pd.isna(read.loc["mine", "sees"])


def test_rows_say_which_were_written_later(results):
    for version in ("2", "1"):
        results.write([make_row(version=version)])
    read = read_rows(results.directory).set_index("version")
    assert read.loc["2", "written"] < read.loc["1", "written"]


@pytest.fixture
def results(tmp_path):
    return open_results(tmp_path / "results", "mlp", "ab12", CONFIG)


def test_rows_come_back_as_they_were_written(results):
    row = make_row(
        memorized_points=500.0,
        memorized_bits=None,
        loss=math.nan,
        epochs=12,
        converged=True,
        noise_correlation_by_epoch=[0.1, 0.2],
        layers=["params/Dense_0/kernel"],
        kept_by_layer=[7],
    )
    results.write([row])
    read = read_rows(results.directory)
    back = read.loc[0].to_dict()
    assert tuple(read.columns[: len(COORDINATES)]) == COORDINATES
    assert math.isnan(back.pop("loss")) and row.pop("loss")
    assert pd.isna(back.pop("memorized_bits")) and row.pop("memorized_bits") is None
    for name, value in row.items():
        back_value = back[name]
        assert (list(back_value) if isinstance(value, list) else back_value) == value


def test_an_integer_stays_one_where_another_shard_lacks_the_column(results):
    big = 2**53 + 1  # no float64 holds it
    results.write([make_row(epochs=big, mine=3)])
    results.write([make_row(data_seed=1)])
    rows = read_rows(results.directory)
    assert rows["epochs"].tolist() == [big, pd.NA]
    assert rows["mine"].tolist() == [3, pd.NA]


def test_a_column_missing_in_the_first_row_of_a_shard_is_kept(results):
    results.write([make_row(), make_row(data_seed=1, test_accuracy=0.25)])
    assert read_rows(results.directory)["test_accuracy"].tolist()[1] == 0.25


def test_scalars_and_arrays_of_numpy_are_taken(results):
    np = pytest.importorskip("numpy")
    results.write(
        [make_row(n=np.int32(7), converged=np.True_, kept_by_layer=np.arange(3))]
    )
    row = read_rows(results.directory).loc[0]
    assert (row["n"], row["converged"]) == (7, True)
    assert row["kept_by_layer"].tolist() == [0, 1, 2]


def test_rows_are_sorted_by_coordinates_however_they_were_written(results):
    order = [("snip", 0.9), ("imp", 0.98), ("snip", 0.5), ("imp", 0.5)]
    for pruner, sparsity in order:
        results.write([make_row(pruner=pruner, sparsity=sparsity)])
    rows = read_rows(results.directory)
    assert list(zip(rows["pruner"], rows["sparsity"], strict=True)) == sorted(order)


def test_of_rows_with_the_same_coordinates_the_last_written_counts(results):
    results.write([make_row(train_accuracy=0.1), make_row(train_accuracy=0.2)])
    assert read_rows(results.directory)["train_accuracy"].tolist() == [0.2]
    results.write([make_row(train_accuracy=0.3)])
    assert read_rows(results.directory)["train_accuracy"].tolist() == [0.3]


def test_no_rows_read_as_an_empty_frame_with_the_coordinates(results):
    rows = read_rows(results.directory)
    assert len(rows) == 0
    assert set(COORDINATES) <= set(rows.columns)
    assert results.done() == set()


def test_done_holds_the_key_of_a_row_on_file_and_of_no_other(results):
    row = make_row(sparsity=1 - 0.1 - 0.1, noise=0.1 + 0.2)  # not short decimals
    results.write([row])
    assert results.done() == {row_key(row)}
    for name in COORDINATES:
        other = {**row, name: "x" if isinstance(row[name], str) else row[name] + 1}
        assert row_key(other) not in results.done()


def test_a_row_key_compares_numbers_by_value():
    assert row_key(make_row(noise=1, n=1000.0)) == row_key(make_row(noise=1.0, n=1000))


@pytest.mark.parametrize("name", COORDINATES)
def test_a_row_without_a_coordinate_is_refused(results, name):
    with pytest.raises(ValueError, match=f"coordinate '{name}'"):
        results.write([make_row(**{name: None})])
    assert len(read_rows(results.directory)) == 0


def test_a_value_of_the_wrong_type_is_refused_by_its_column(results):
    with pytest.raises(ValueError, match="column 'epochs'"):
        results.write([make_row(epochs=1.5)])


def truncated(shard):
    shard.write_bytes(shard.read_bytes()[:-20])


def empty(shard):
    shard.write_bytes(b"")


def foreign(shard):
    pd.DataFrame({"name": ["a"], "n": [3]}).to_parquet(shard)


def without_a_coordinate(shard):
    pd.DataFrame([make_row(data_seed=1)]).drop(columns="noise").to_parquet(shard)


def of_other_types(shard):
    pd.DataFrame([make_row(data_seed=1, n="many")]).to_parquet(shard)


@pytest.mark.parametrize(
    "damage", [truncated, empty, foreign, without_a_coordinate, of_other_types]
)
def test_a_shard_that_is_no_rows_is_warned_of_by_name_and_left_out(
    results, caplog, damage
):
    results.write([make_row()])
    results.write([make_row(data_seed=1)])
    whole, shard = sorted((results.directory / "rows").glob("*.parquet"))
    damage(shard)
    assert read_rows(results.directory)["data_seed"].tolist() == [0]
    assert results.done() == {row_key(make_row())}  # the other cell is done again
    assert shard.name in caplog.text and whole.name not in caplog.text


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"runs": 3}', '{"runs": [1]}', '{"launches": []}']
)
def test_a_run_json_that_is_damaged_is_warned_of_and_begun_anew(results, caplog, text):
    path = results.directory / "run.json"
    path.write_text(text)
    assert read_launches(results.directory) == []
    assert f"{path} is damaged and left out" in caplog.text
    results.write_run({"device": "cpu"})
    [launch] = read_launches(results.directory)
    assert launch["device"] == "cpu"


def test_shards_whose_types_disagree_are_refused(results):
    results.write([make_row(mine="a")])
    results.write([make_row(mine=[1.0], data_seed=1)])
    with pytest.raises(ResultsError, match="disagree"):
        read_rows(results.directory)


def test_a_directory_that_holds_no_results_is_refused(tmp_path):
    with pytest.raises(ResultsError, match="nowhere holds no results"):
        read_rows(tmp_path / "nowhere")


def test_every_shard_carries_the_configuration(results):
    results.write([make_row()])
    [shard] = (results.directory / "rows").glob("*.parquet")
    assert json.loads(pq.read_schema(shard).metadata[b"config"]) == CONFIG
    assert json.loads((results.directory / "config.json").read_text()) == CONFIG


def test_reopening_keeps_what_is_there(tmp_path, results):
    results.write([make_row()])
    before = {p: p.stat().st_mtime_ns for p in results.directory.rglob("*.*")}
    again = open_results(tmp_path / "results", "mlp", "ab12", CONFIG)
    assert again.done() == {row_key(make_row())}
    assert {p: p.stat().st_mtime_ns for p in again.directory.rglob("*.*")} == before


def test_another_configuration_is_refused_with_both_values(tmp_path, results):
    other = {"model": {"width": 300}, "lr": 1e-3, "new": 1}
    with pytest.raises(ResultsError, match=r"config\.json") as caught:
        open_results(tmp_path / "results", "mlp", "ab12", other)
    assert "model.width is 200 there, 300 here" in str(caught.value)
    assert "new is 'absent' there, 1 here" in str(caught.value)
    assert json.loads((results.directory / "config.json").read_text()) == CONFIG


def test_a_tuple_in_the_configuration_is_the_list_it_becomes(tmp_path):
    for _ in range(2):
        open_results(tmp_path, "a", "b", {"widths": (200, 200)})


def test_a_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "results").write_text("mine")
    with pytest.raises(ResultsError, match=r"can't write to .*results/mlp-ab12/rows"):
        open_results(tmp_path / "results", "mlp", "ab12", CONFIG)
    assert (tmp_path / "results").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_write_permission_is_refused(tmp_path, results):
    (results.directory / "rows").chmod(0o500)
    with pytest.raises(ResultsError, match="Permission denied"):
        open_results(tmp_path / "results", "mlp", "ab12", CONFIG)


def test_a_failed_write_leaves_no_file(results, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results_module.os, "replace", refuse)
    with pytest.raises(ResultsError, match="No space left"):
        results.write([make_row()])
    assert list((results.directory / "rows").iterdir()) == []


def test_launches_are_kept_one_after_the_other(tmp_path, results):
    results.write_run({"device": "cpu", "seconds": None})
    results.write_run({"device": "cpu", "seconds": 3.0})  # its end replaces its start
    again = open_results(tmp_path / "results", "mlp", "ab12", CONFIG)
    again.write_run({"device": "gpu"})
    runs = json.loads((results.directory / "run.json").read_text())["runs"]
    assert [(run["device"], run.get("seconds")) for run in runs] == [
        ("cpu", 3.0),
        ("gpu", None),
    ]


def test_threads_that_write_at_once_lose_nothing(tmp_path):
    def work(seed):
        mine = open_results(tmp_path, "mlp", "ab12", CONFIG)
        for i in range(10):
            mine.write([make_row(init_seed=seed, data_seed=i)])
        mine.write_run({"seed": seed})

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = read_rows(tmp_path / "mlp-ab12")
    assert len(rows) == 80
    runs = json.loads((tmp_path / "mlp-ab12" / "run.json").read_text())["runs"]
    assert sorted(run["seed"] for run in runs) == list(range(8))


def test_a_writer_takes_rows_from_many_threads(results):
    with RowWriter(results, seconds=0.01) as writer:
        threads = [
            threading.Thread(
                target=lambda seed=seed: [
                    writer.add(make_row(init_seed=seed, data_seed=i)) for i in range(50)
                ]
            )
            for seed in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results.done()) == 200


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_writer_left_by_an_exception_has_written_its_rows(results, error):
    with pytest.raises(error), RowWriter(results, seconds=60) as writer:
        writer.add(make_row())
        raise error
    assert results.done() == {row_key(make_row())}


def test_a_writer_writes_a_single_row_without_waiting_for_another(results):
    with RowWriter(results, seconds=0.01) as writer:
        writer.add(make_row())
        deadline = time.monotonic() + 10
        while not results.done() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert results.done() == {row_key(make_row())}


def test_a_writer_puts_many_rows_in_one_shard(results):
    with RowWriter(results, seconds=60) as writer:
        for seed in range(30):
            writer.add(make_row(init_seed=seed))
        writer.flush()
        writer.flush()  # what is on file is not written again
    [shard] = Path(results.directory / "rows").iterdir()
    assert pq.read_metadata(shard).num_rows == 30


def test_a_bad_row_is_refused_without_its_neighbors(results):
    with RowWriter(results, seconds=60) as writer:
        writer.add(make_row())
        with pytest.raises(ValueError, match="column 'loss'"):
            writer.add(make_row(data_seed=1, loss="high"))
        writer.add(make_row(data_seed=2))
    assert read_rows(results.directory)["data_seed"].tolist() == [0, 2]


@pytest.fixture
def full(monkeypatch):
    """A disk that is full until it is freed: the function that frees it."""
    replace = os.replace

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results_module.os, "replace", refuse)
    return lambda: monkeypatch.setattr(results_module.os, "replace", replace)


def test_rows_that_can_t_be_written_are_kept_and_tried_again(results, full, caplog):
    with RowWriter(results, seconds=0.01) as writer:
        for seed in range(20):
            writer.add(make_row(init_seed=seed))
            time.sleep(0.01)
        assert not results.done()
        full()
    assert len(results.done()) == 20
    [warned] = [x.message for x in caplog.records]
    assert "kept in memory and tried again: can't write" in warned


def test_rows_that_stay_unwritten_are_told_of(results, full):
    with pytest.raises(
        UnwrittenError, match=r"2 rows are not on file: .*No space"
    ) as e:
        with RowWriter(results, seconds=60, tries=1) as writer:
            for seed in range(2):
                writer.add(make_row(init_seed=seed))
    assert [row["init_seed"] for row in e.value.rows] == [0, 1]


def test_an_error_within_is_not_hidden_by_rows_that_stay_unwritten(
    results, full, caplog
):
    with pytest.raises(KeyError), RowWriter(results, seconds=60, tries=1) as writer:
        writer.add(make_row())
        raise KeyError("within")
    assert "1 rows are not on file" in caplog.text and "'snip'" in caplog.text


def test_a_file_system_that_turns_read_only_does_not_end_the_writing(
    results, monkeypatch
):
    """Removing the temporary file fails there, too."""

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    with RowWriter(results, seconds=0.01) as writer:
        monkeypatch.setattr(Path, "unlink", refuse)
        monkeypatch.setattr("nfp_jax.files.os.fsync", refuse)
        writer.add(make_row())
        time.sleep(0.1)
        assert not results.done() and writer._thread.is_alive()
        monkeypatch.undo()
        deadline = time.monotonic() + 10
        while not results.done() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert results.done() == {row_key(make_row())}


# Several processes


def test_what_killed_writes_left_is_swept_at_the_next_start(tmp_path, results):
    dead = subprocess.Popen(["true"])
    dead.wait()
    host, now, day = socket.gethostname(), time.time_ns(), 25 * 3600 * 10**9
    gone = [f".{now}-{host}-{dead.pid}-000001.tmp", f".{now - day}-else-7-000001.tmp"]
    kept = [f".{now}-{host}-{os.getpid()}-000001.tmp", f".{now}-else-7-000001.tmp"]
    kept += [".mine.tmp", ".gitignore"]
    for folder in (results.directory, results.directory / "rows"):
        for name in (*gone, *kept):
            (folder / name).touch()
    open_results(tmp_path / "results", "mlp", "ab12", CONFIG)
    for folder in (results.directory, results.directory / "rows"):
        assert {x.name for x in folder.glob(".*")} == set(kept)


def test_a_directory_is_held_by_one_and_by_any_number_of_shares(results, caplog):
    order = []

    def take(name, shared):
        with results.held(shared=shared):
            order.append(name)

    with results.held(shared=True):
        take("share", shared=True)  # at once
        assert not caplog.records
        other = threading.Thread(target=take, args=("alone", False))
        other.start()
        time.sleep(0.2)
        assert order == ["share"]
        assert f"another process runs in {results.directory}: waiting" in caplog.text
        order.append("ended")
    other.join(10)
    assert order == ["share", "ended", "alone"]


def test_where_there_are_no_locks_nothing_is_held(results, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with results.held(shared=False):
        pass


def test_a_directory_is_discarded_only_without_rows(results):
    results.write([make_row()])
    results.discard()
    assert results.done()
    next((results.directory / "rows").iterdir()).unlink()
    results.write_run({})
    results.discard()
    assert not results.directory.exists()
    results.discard()  # of none


# Columns of further questions


def test_columns_of_capacity_and_swap_keep_their_types_where_they_are_empty(results):
    """Written in two shards, of which one has nothing but nulls."""
    found = {
        "capacity": 60,
        "capacity_upper": 61,
        "capacity_at_least": False,
        "capacity_bits": 60.0,
        "capacity_bits_per_weight": 0.5,
        "out_of_budget": 0,
        "trainings": 3,
        "tried": [10, 60, 61],
        "fitted": [1.0, 1.0, 0.9],
        "pairs": 2,
        "swap_gaps": [1.0, 2.0],
        "swap_gap_data_reinit_bits_upper": 3.0,
        "lipschitz_upper": math.inf,
        "excess": -0.1,
        "dim": 50,
    }
    results.write([make_row(**dict.fromkeys(found))])
    results.write([make_row(data_seed=1, **found)])
    empty, full = (read_rows(results.directory).loc[i].to_dict() for i in (0, 1))
    for name, value in found.items():
        if isinstance(value, list):
            assert full[name].tolist() == value and empty[name] is None
        else:
            assert full[name] == value and pd.isna(empty[name])
    assert isinstance(full["capacity"], int) and isinstance(full["trainings"], int)
    rows = read_rows(results.directory)
    assert rows["capacity_at_least"].dtype == pd.BooleanDtype()
    for name, value in {"capacity": 1.5, "tried": [1.5]}.items():
        with pytest.raises(ValueError, match=f"column '{name}'"):
            results.write([make_row(**{name: value})])


# Collections


def test_the_parts_of_a_collection_are_found_also_after_a_move(tmp_path):
    root = tmp_path / "results"
    own = {
        name: open_results(root, name, "ab12", CONFIG).directory
        for name in ("swap", "capacity")
    }
    there = write_collection(root, "paper", "cd34", own)
    assert there == root / "paper-cd34"
    for name, directory in read_collection(there).parts.items():
        assert directory.samefile(own[name])
    assert list(read_collection(there).parts) == list(own)
    root.rename(tmp_path / "moved")
    found = read_collection(tmp_path / "moved" / "paper-cd34").parts
    assert found["swap"].samefile(tmp_path / "moved" / "swap-ab12")
    assert len(read_rows(found["swap"])) == 0


def test_a_collection_is_written_anew_with_the_parts_of_now(tmp_path, results):
    for names in (("a", "b"), ("b",)):
        parts = dict.fromkeys(names, results.directory)
        there = write_collection(tmp_path, "paper", "cd34", parts)
        assert set(read_collection(there).parts) == set(names)


def test_the_directory_of_one_run_is_no_collection(results, tmp_path):
    assert read_collection(results.directory) is None
    assert read_collection(tmp_path / "nowhere") is None


def test_a_damaged_collection_is_refused_with_its_path(tmp_path, results):
    there = write_collection(tmp_path, "paper", "cd34", {"a": results.directory})
    file = there / "collection.json"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ResultsError, match=r"can't read .*collection\.json"):
        read_collection(there)
    (there / "collection.json").write_text("[]")
    with pytest.raises(ResultsError, match="it has no parts"):
        read_collection(there)


def test_a_collection_that_cannot_be_written_is_refused(tmp_path, results):
    (tmp_path / "paper-cd34").write_text("in the way")
    with pytest.raises(ResultsError, match=r"can't write to .*paper-cd34"):
        write_collection(tmp_path, "paper", "cd34", {"a": results.directory})


# Masks


def test_masks_come_back_by_the_coordinates_of_their_cell(results):
    cell, other = make_row(), make_row(sparsity=0.95)
    packed = np.packbits(np.eye(3, 17, dtype=bool), axis=1)
    assert results.read_masks(cell) is None
    results.write_masks(cell, {"masks": packed, "seconds": 1.5})
    found = results.read_masks({**cell, "train_accuracy": None})
    np.testing.assert_array_equal(found["masks"], packed)
    assert found["masks"].dtype == np.uint8 and found["seconds"] == 1.5
    assert results.read_masks(other) is None
    results.write_masks(cell, {"masks": packed[:1]})
    assert len(results.read_masks(cell)["masks"]) == 1
    assert len(list((results.directory / "masks").iterdir())) == 1


def test_networks_of_a_cell_are_kept_until_its_row_is_on_file(results):
    cell, other = make_row(), make_row(sparsity=0.95)
    assert results.read_networks(cell) == []
    results.drop_networks()  # of none
    networks = [{"place": [0, "own"], "bits": None, "loss": 0.1}, {"loss": 1 / 3}]
    for network in networks:
        results.add_network(cell, network)
    results.add_network(other, {"loss": 2.0})
    assert results.read_networks({**cell, "train_accuracy": None}) == networks
    results.write([other])
    results.drop_networks()
    assert results.read_networks(cell) == networks
    assert results.read_networks(other) == []
    results.write([cell])
    results.drop_networks()
    assert list((results.directory / "networks").iterdir()) == []


def test_a_torn_line_counts_as_a_network_not_written(results):
    cell = make_row()
    results.add_network(cell, {"loss": 1.0})
    (path,) = (results.directory / "networks").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-5])
    assert results.read_networks(cell) == [{"loss": 1.0}]
    results.add_network(cell, {"loss": 2.0})
    assert results.read_networks(cell) == [{"loss": 1.0}, {"loss": 2.0}]
    path.unlink()
    path.mkdir()
    with pytest.raises(ResultsError, match=rf"can't read .*{path.name}"):
        results.read_networks(cell)
    with pytest.raises(ResultsError, match=rf"can't write .*{path.name}"):
        results.add_network(cell, {})


def test_a_network_that_does_not_fit_on_the_disk_is_an_error(results, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            return super().write(data[:3])

    monkeypatch.setattr("builtins.open", lambda *args, **options: Full())
    with pytest.raises(ResultsError, match=r"can't write .*jsonl: no space"):
        results.add_network(make_row(), {"loss": 1.0})


def test_processes_that_end_together_drop_the_same_networks(results):
    """None of them finds a file or folder gone that it wants to remove."""
    cells = [make_row(train_seed=i) for i in range(20)]
    results.write(cells)
    for cell in cells:
        results.add_network(cell, {"loss": 1.0})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: results.drop_networks(), range(16)))
        list(pool.map(lambda cell: results.add_network(cell, {"loss": 2.0}), cells))
    assert all(results.read_networks(cell) == [{"loss": 2.0}] for cell in cells)


def test_damaged_masks_are_refused_with_their_path(results):
    cell = make_row()
    results.write_masks(cell, {"masks": np.zeros((100, 100))})
    (path,) = (results.directory / "masks").iterdir()
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ResultsError, match=rf"can't read .*{path.name}"):
        results.read_masks(cell)
    (results.directory / "masks").rename(results.directory / "elsewhere")
    (results.directory / "masks").write_text("in the way")
    with pytest.raises(ResultsError, match=rf"can't write .*{path.name}"):
        results.write_masks(cell, {})
