"""Writes the rows that test_smoke_rows compares with, from runs of another commit.

    python tests/smoke_rows.py DIRECTORY tests/smoke_rows.json

DIRECTORY has the results of ``launch.py --config=configs/NAME.py:smoke`` for each of
`NAMES`, run by the commit to compare with. Of a row all numbers are kept but seconds
and histories by epoch.
"""

import json
import sys
from pathlib import Path

import numpy as np

from nfp_jax.results import read_json, read_rows

NAMES = (
    "gaussian",
    "digits_noisy",
    "capacity",
    "data_swap",
    "robustness",
    "mask_information",
    "noise_correlation",
)
# What the rows of every version are known by.
KEY = ("pruner", "sparsity", "n", "noise", "select", "resume", "ablation")
KEY += ("init_seed", "data_seed", "train_seed")
LEFT_OUT = ("seconds", "_by_epoch", "history_epochs", "settings", "version", "written")
LEFT_OUT += ("pruning_gradients",)  # rows have them since


def plain(value):
    """A value of a row as JSON has it; None where it is null."""
    if isinstance(value, list | np.ndarray):
        return [plain(entry) for entry in value]
    value = value.item() if hasattr(value, "item") else value
    # A missing entry of a nullable column is neither equal to itself nor a number.
    return None if value is None or value != value or str(value) == "<NA>" else value


def rows_of(directory):
    """The rows of a run, each a dict without what is left out, sorted."""
    rows = read_rows(directory).to_dict("records")
    kept = [
        {
            name: plain(value)
            for name, value in row.items()
            if not any(part in name for part in LEFT_OUT) and plain(value) is not None
        }
        for row in rows
    ]
    return sorted(kept, key=lambda row: [str(row[name]) for name in KEY])


def processor_of(directory):
    """What a run computed with: bits are the same on the same, with the same JAX."""
    [*_, last] = read_json(Path(directory) / "run.json")["runs"]
    return f"{last['processor']}, jax {last['versions']['jax']}, {last['device']}"


def agree(found, expected):
    """Whether two values of a row differ by sums in another order alone."""
    if isinstance(expected, list) and isinstance(found, list):
        lengths = len(found) == len(expected)
        return lengths and all(map(agree, found, expected))
    if isinstance(expected, bool | str) or not isinstance(found, int | float):
        return bool(found == expected)
    return abs(found - expected) <= 0.05 * max(abs(expected), 1)


def same_as_before(directory):
    """Asserts that a run has the rows of before; see test_smoke_rows."""
    known = json.loads(Path(__file__).with_suffix(".json").read_text())
    before = known[Path(directory).name.rsplit("-", 1)[0]]
    found, expected = rows_of(directory), before["rows"]
    assert len(found) == len(expected)
    if processor_of(directory) == before["processor"]:
        assert found == expected
        return
    for row, other in zip(found, expected, strict=True):
        assert row["kept"] == other["kept"]
        wrong = {x for x in other if not agree(row.get(x), other[x])}
        assert not wrong, {x: (row.get(x), other[x]) for x in wrong}


if __name__ == "__main__":
    source, target = sys.argv[1:]
    found = {}
    for path in sorted(Path(source).iterdir()):
        name = path.name.rsplit("-", 1)[0]
        found[name] = {"processor": processor_of(path), "rows": rows_of(path)}
    Path(target).write_text(json.dumps(found, indent=0) + "\n")
