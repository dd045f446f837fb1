"""The wheel, built once: what is in it, and that it runs where there is no checkout."""

import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import nfp_jax
from nfp_jax.results import read_rows

ROOT = Path(__file__).parent.parent
# The command as the wheel declares it; pip makes a script of the same.
COMMAND = """
import sys
from importlib.metadata import distribution
[entry] = distribution("nfp-jax").entry_points.select(name="nfp")
sys.exit(entry.load()())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The folder of an unpacked wheel, made of an sdist as a release is."""
    made = tmp_path_factory.mktemp("made")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "-o", made, ROOT],
        check=True,
        capture_output=True,
    )
    version = nfp_jax.__version__
    names = {f"nfp_jax-{version}.tar.gz", f"nfp_jax-{version}-py3-none-any.whl"}
    assert {path.name for path in made.iterdir()} == names
    unpacked = made / "unpacked"
    zipfile.ZipFile(made / f"nfp_jax-{version}-py3-none-any.whl").extractall(unpacked)
    return unpacked


def test_the_wheel_has_the_package_its_types_and_the_configurations_and_no_more(wheel):
    tops = {path.name for path in wheel.iterdir()}
    assert tops == {"nfp_jax", f"nfp_jax-{nfp_jax.__version__}.dist-info"}
    expected = modules(ROOT / "nfp_jax") | {
        Path("configs") / path for path in modules(ROOT / "configs")
    }
    assert modules(wheel / "nfp_jax") == expected
    assert (wheel / "nfp_jax" / "py.typed").is_file()


def modules(folder):
    return {path.relative_to(folder) for path in folder.rglob("*.py")}


def test_the_metadata_say_what_it_is(wheel):
    [path] = wheel.glob("*.dist-info/METADATA")
    metadata = Parser().parsestr(path.read_text(encoding="utf-8"))
    assert metadata["Version"] == nfp_jax.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata.get_payload().startswith("# nfp_jax")
    for field in ("Author", "Summary", "Keywords", "Project-URL", "License-File"):
        assert metadata[field], field


def test_the_wheel_runs_an_experiment_in_an_empty_directory(wheel, tmp_path):
    def nfp(*arguments):
        return subprocess.run(
            [sys.executable, "-c", COMMAND, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(wheel)},
            capture_output=True,
            text=True,
        )

    assert nfp("--version").stdout.strip() == nfp_jax.__version__
    done = nfp(
        "run",
        "gaussian:smoke",
        "--config.grid.pruner=('magnitude_init',)",
        "--config.grid.sparsity=(0.5,)",
        "--config.train.max_epochs=8",
    )
    assert done.returncode == 0, done.stderr
    assert "1 rows of this grid, 1 of them new" in done.stdout
    [directory] = (tmp_path / "results").iterdir()
    assert len(read_rows(directory)) == 1
