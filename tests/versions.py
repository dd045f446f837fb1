"""Tries the package under each Python with a JAX of its own, and writes the table.

    python tests/versions.py    # or: make versions

A wheel is made once. For each of ``VERSIONS`` it is installed into a new environment,
outside the checkout, with the newest releases that go with that JAX. ``TESTS`` run
there, and then the command ``nfp`` in an empty directory. What was seen is written to
docs/versions.md. Takes minutes, the network and uv, and is no part of CI, which tests
the versions of constraints.txt.
"""

import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "versions.md"
VERSIONS = {"3.11": "0.10.2", "3.12": "0.11.2", "3.13": "0.12.*"}
TESTS = ("test_freeze.py", "test_command.py")
SHOWN = ("jax", "flax", "optax", "numpy", "pandas")
# Two pruners, two networks; a training of 8 epochs.
RUN = (
    "gaussian:smoke",
    "--config.grid.pruner=('snip','magnitude_trained')",
    "--config.grid.sparsity=(0.5,)",
    "--config.train.max_epochs=8",
)


def tried(python: str, jax: str, wheel: Path, folder: Path) -> dict[str, str]:
    """Returns a row of the table: versions, tests, and whether the command ran."""
    venv = folder / python
    interpreter = venv / "bin" / "python"
    call("uv", "venv", "--quiet", "--python", python, venv)
    call(
        *("uv", "pip", "install", "--quiet", "--python", interpreter, wheel),
        *(f"jax=={jax}", "pytest", "pytest-xdist", "hypothesis"),
    )
    listed = json.loads(
        call("uv", "pip", "list", "--format=json", "--python", interpreter).stdout
    )
    versions = {package["name"]: package["version"] for package in listed}
    tests = call(
        *(interpreter, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider"),
        *(f"tests/{name}" for name in TESTS),
        check=False,
    )
    empty = folder / f"{python}-empty"
    empty.mkdir()
    run = call(venv / "bin" / "nfp", "run", *RUN, cwd=empty, check=False)
    for done in (tests, run):
        if done.returncode:
            print(done.args, done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
    summary = re.findall(r"\d+ (?:passed|failed|error)\w*", tests.stdout)
    return {
        "Python": call(interpreter, "--version").stdout.split()[1],
        **{name: versions[name] for name in SHOWN},
        "tests": ", ".join(summary) or f"exit code {tests.returncode}",
        "`nfp run`": "2 rows" if "2 of them new" in run.stdout else "failed",
    }


def call(*command, cwd=ROOT, check=True) -> subprocess.CompletedProcess[str]:
    """Runs a command, without this process's paths; its output is kept."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        check=check,
        capture_output=True,
        text=True,
    )


def page(rows: list[dict[str, str]], day: datetime.date) -> str:
    """Returns the page of these rows."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(x.values()) for x in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"""# Versions

nfp_jax needs Python 3.11 to 3.13 and JAX 0.10.2 to 0.12. `make versions` installs it
under each Python with a JAX of its own and the newest releases that go with it, runs
some quick tests ({", ".join(f"`{name}`" for name in TESTS)}) and then `nfp run` in an
empty directory. It wrote this table on {day:%Y-%m-%d}, on Linux and a CPU:

{table}

It takes minutes, so that CI does not do it. CI runs all tests with the versions of
`constraints.txt`.
"""


def main() -> int:
    """Tries all versions and writes the page; 1 where one of them failed."""
    with tempfile.TemporaryDirectory() as folder:
        call("uv", "build", "--quiet", "--out-dir", folder, ROOT)
        [wheel] = Path(folder).glob("*.whl")
        rows = [tried(*pair, wheel, Path(folder)) for pair in VERSIONS.items()]
    PAGE.write_text(page(rows, datetime.date.today()), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))
    failed = [
        row for row in rows if "passed" not in row["tests"] or "failed" in str(row)
    ]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
