"""The launcher as its users run it: its flags, its output and its exit code.

In this process, but for what only a process of its own can show.
"""

import gzip
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from smoke_rows import same_as_before

from nfp_jax.collection import read_claims
from nfp_jax.results import read_rows

ROOT = Path(__file__).parent.parent

pytestmark = [
    pytest.mark.usefixtures("one_device"),
    # Of ml_collections, where it loads a configuration file.
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
]


def launch_process(*arguments, flags=None):
    """A process that runs launch.py: its exit code, and what it printed.

    With flags of XLA in place of those of the tests.
    """
    environment = dict(os.environ)
    if flags is not None:
        environment["XLA_FLAGS"] = flags
    return subprocess.run(
        [sys.executable, "launch.py", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def the_run(out):
    (directory,) = [path for path in out.iterdir() if path.is_dir()]
    return directory


@pytest.fixture
def fashion(tmp_path):
    """A set in the format of Fashion-MNIST's four files, 300 + 50 random images."""
    directory = tmp_path / "fashion"
    directory.mkdir()
    random = np.random.default_rng(0)
    for split, count in (("train", 300), ("t10k", 50)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8).tobytes()
        labels = (np.arange(count) % 10).astype(np.uint8).tobytes()
        for kind, header, body in (
            ("images-idx3", struct.pack(">4i", 2051, count, 28, 28), images),
            ("labels-idx1", struct.pack(">2i", 2049, count), labels),
        ):
            path = directory / f"{split}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(header + body))
    return directory


@pytest.fixture
def cifar(tmp_path):
    """An archive in the format of CIFAR-10's, 5 x 60 + 20 random images."""
    directory = tmp_path / "cifar"
    directory.mkdir()
    random = np.random.default_rng(0)
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    with tarfile.open(directory / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name in names:
            count = 20 if name.startswith("test") else 60
            labels = (np.arange(count) % 10).astype(np.uint8)[:, None]
            images = random.integers(0, 256, (count, 3072), dtype=np.uint8)
            body = np.concatenate([labels, images], axis=1).tobytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return directory


def check(done, out, rows, *, test_set):
    assert done.returncode == 0, done.stderr
    found = read_rows(the_run(out))
    assert len(found) == rows
    assert found["test_accuracy"].notna().all() == test_set
    page = (the_run(out) / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 4
    assert "Train accuracy" in done.stdout and "magnitude_trained" in done.stdout


def test_smoke_of_gaussian_twice_and_the_second_does_nothing(tmp_path, launch):
    arguments = ("--config=configs/gaussian.py:smoke", f"--config.out={tmp_path}")
    first = launch_process(*arguments, flags="")
    check(first, tmp_path, 15, test_set=False)
    same_as_before(the_run(tmp_path))
    shards = {path: path.read_bytes() for path in the_run(tmp_path).glob("rows/*")}
    again = launch(*arguments)
    assert again.returncode == 0, again.stderr
    assert "15 rows of this grid, 0 of them new" in again.stdout
    assert {p: p.read_bytes() for p in the_run(tmp_path).glob("rows/*")} == shards
    # One more sparsity extends the same directory and touches no row on file.
    few = "--config.grid.pruner=('dense', 'random', 'magnitude_trained')"
    more = launch(*arguments, few, "--config.grid.sparsity=(0.5, 0.9, 0.7)")
    assert "7 rows of this grid, 2 of them new" in more.stdout
    assert len(read_rows(the_run(tmp_path))) == 17
    kept = {p: p.read_bytes() for p in the_run(tmp_path).glob("rows/*") if p in shards}
    assert kept == shards
    runs = json.loads((the_run(tmp_path) / "run.json").read_text())["runs"]
    assert [run["networks"] for run in runs] == [25, 3]
    assert re.fullmatch(r"[1-9]\d* cores, .+", runs[0]["processor"])
    assert runs[0]["versions"]["jax"] and runs[0]["compile_seconds"] > 0


# Of two sparsities one, and a pruner of each kind: the grid is gaussian's, above.
FEW = (
    "--config.grid.sparsity=(0.5,)",
    "--config.grid.pruner=('dense', 'snip', 'magnitude_trained')",
)


def test_smoke_of_digits(tmp_path, launch):
    done = launch(
        "--config=configs/digits_noisy.py:smoke", f"--config.out={tmp_path}", *FEW
    )
    check(done, tmp_path, 3, test_set=True)


def test_smoke_of_fashion_mnist(tmp_path, launch, fashion):
    done = launch(
        "--config=configs/fashion_mnist_noisy.py:smoke",
        f"--config.out={tmp_path / 'out'}",
        f"--config.data.dir={fashion}",
        *FEW,
    )
    check(done, tmp_path / "out", 3, test_set=True)


def test_smoke_of_cifar(tmp_path, launch, cifar):
    done = launch(
        "--config=configs/cifar_noisy.py:smoke",
        f"--config.out={tmp_path / 'out'}",
        f"--config.data.dir={cifar}",
        *FEW,
    )
    check(done, tmp_path / "out", 3, test_set=True)


SMOKE = "--config=configs/gaussian.py:smoke"
PARTS = "--config=configs/paper.py:smoke"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--config is missing"),
        (("--config=configs/none.py",), "--config is 'configs/none.py', which is no"),
        (("--config=configs/gaussian.py:tiny",), "preset 'tiny' of gaussian.py, exp"),
        (
            (SMOKE, "--config.train.lr=1"),
            "train.lr is not a field of train; known: opt",
        ),
        (
            (SMOKE, "--config.grid.pruner=('snap',)"),
            "grid.pruner names 'snap', expected",
        ),
        ((SMOKE, "--config.grid.sparsity=(1.0,)"), "grid.sparsity[0] is 1.0, expected"),
        ((SMOKE, "--config.train.batch_size=x"), "--config.train.batch_size=x"),
        ((SMOKE, "--confg.seed=1"), "Unknown command line flag 'confg.seed'"),
        (
            (SMOKE, "--config.data.name=recall", "--config.data.values=1"),
            "data.values is 1, expected",
        ),
        (
            (SMOKE, "--config.train.max_epochs.x=1"),
            "train.max_epochs.x: train.max_epochs is a field, and no group of them",
        ),
        ((SMOKE, "more"), "unexpected argument 'more', expected flags only"),
        ((SMOKE, "--shard=8/8"), "--shard is '8/8', expected i/n with 0 <= i < n"),
        (
            (PARTS, "--config.parts.swap.grid.nn=1"),
            "grid.nn is not a field of parts.swap.grid",
        ),
        ((PARTS, "--config.parts.swop.seed=1"), "no such field; known: capacity, "),
        (
            (PARTS, "--config.parts.swap.grid.n=(0,)"),
            "parts.swap.grid.n[0] is 0, expected n >= 1",
        ),
        (
            (PARTS, "--config.parts.capacity.grid.pruner=('snap',)"),
            "grid.pruner names 'snap', expected",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, launch, arguments, message):
    as_users_do = launch if arguments else launch_process
    out = [f"--config.out={tmp_path}"] if arguments else []
    done = as_users_do(*arguments, *out)
    assert done.returncode == 2
    (line,) = [text for text in done.stderr.splitlines() if text.strip()]
    assert line.startswith("error: ") and message in line
    assert done.stdout == "" and list(tmp_path.iterdir()) == []


def test_a_configuration_that_is_none_is_one_line(tmp_path, launch, caplog):
    path = tmp_path / "none.py"
    path.write_text("def get_config(): pass")
    done = launch(f"--config={path}", f"--config.out={tmp_path / 'out'}")
    assert done.returncode == 2 and not caplog.records  # they would go to stderr
    assert done.stderr == (
        f"error: --config: get_config of {path} returns None, expected a ConfigDict, "
        "as that of configs/gaussian.py\n"
    )
    path.write_text("def get_config(): return {'seed': 1}")
    done = launch(f"--config={path}", "--config.out=x")
    assert done.stderr == (
        f"error: --config.out: {path} has no such field; known: seed\n"
    )
    path.write_text("def get_config(): return 3")
    done = launch(f"--config={path}")
    assert done.returncode == 2 and "returns 3, expected a ConfigDict" in done.stderr


def test_a_results_directory_that_cannot_be_written_is_one_line(tmp_path, launch):
    (tmp_path / "file").write_text("in the way")
    done = launch(SMOKE, f"--config.out={tmp_path / 'file'}")
    assert done.returncode == 2
    assert f"error: can't write to {tmp_path / 'file'}" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_data_and_no_download_is_one_line_with_what_to_do(tmp_path, launch):
    done = launch(
        "--config=configs/cifar_noisy.py:smoke",
        f"--config.out={tmp_path / 'out'}",
        f"--config.data.dir={tmp_path / 'empty'}",
        "--config.data.download=False",
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()  # it was made for this start
    assert (
        "--config.data.dir=" in done.stderr and str(tmp_path / "empty") in done.stderr
    )


def test_a_cell_that_fails_is_reported_and_the_exit_code_is_1(tmp_path, launch):
    done = launch(
        SMOKE,
        f"--config.out={tmp_path}",
        "--config.train.optimizer=sgd",
        "--config.train.learning_rate=1e30",
        "--config.train.batch_size=8",
        "--config.grid.pruner=('random', 'magnitude_trained')",
    )
    assert done.returncode == 1
    assert "failed: {'pruner': 'magnitude_trained'" in done.stderr
    found = read_rows(the_run(tmp_path))
    assert set(found["pruner"]) == {"random"} and found["diverged"].all()


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_its_rows_and_the_same_command_resumes(
    tmp_path, launch, signal_number
):
    arguments = (
        SMOKE,
        f"--config.out={tmp_path}",
        "--config.grid.pruner=('random',)",
        "--config.grid.sparsity=(0.5,)",
        "--config.train.max_epochs=100000",
        "--config.train.stop=still",
    )
    # 10 labels are learnt in a second, 50,000 random ones in hours.
    # Tests that a script starts in the background ignore SIGINT, and so would it.
    heeding = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    heeding += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = [sys.executable, "-c", heeding, "launch.py", *arguments]
    process = subprocess.Popen(
        [*command, "--config.grid.n=(10, 50000)"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("*/rows/*.parquet")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal_number)
        _, printed = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal_number
    assert printed.splitlines()[-1] == "interrupted; the rows done are on file"
    again = launch(*arguments, "--config.grid.n=(10,)")
    assert "1 rows of this grid, 0 of them new" in again.stdout


TINY = """
from ml_collections import ConfigDict, config_dict

from nfp_jax import spec


def part(question, *pruners):
    config = ConfigDict(spec.defaults())
    config.name = f"tiny-{question}"
    config.question = question
    config.data.dir = config_dict.placeholder(str)
    config.data.dim = 4
    config.model.widths = (8, 8)
    config.train.max_epochs = 6
    config.train.settle_from, config.train.settle_steps = 3, 0
    config.capacity.max_steps = 20
    config.capacity.precision = 1.0
    config.swap.pairs = 2
    config.grid.n = (24,)
    config.grid.pruner = pruners
    return config


def get_config():
    parts = {
        "capacity": part("capacity", "random", "magnitude_init"),
        "swap": part("swap", "random", "magnitude_trained"),
    }
    return ConfigDict({"name": "tiny", "out": "results", "parts": parts})
"""


def test_several_experiments_have_rows_of_their_own_and_a_page_together(
    tmp_path, launch
):
    (tmp_path / "tiny.py").write_text(TINY)
    out = tmp_path / "out"
    arguments = (f"--config={tmp_path / 'tiny.py'}", f"--config.out={out}")

    def files(pattern):
        return {path: path.read_bytes() for path in sorted(out.glob(pattern))}

    def directory_of(name):
        [directory] = out.glob(f"{name}-*")
        return directory

    first = launch(*arguments)
    assert first.returncode == 0, first.stderr
    for question in ("capacity", "swap"):
        directory = directory_of(f"tiny-{question}")
        assert len(read_rows(directory)) == 2
        assert (directory / "report.html").exists()
        assert not list(directory.glob("networks/*"))  # the rows are on file
    [together] = [path.parent for path in out.glob("*/collection.json")]
    assert first.stdout.splitlines()[-1] == f"Page: {together / 'report.html'}"
    page = (together / "report.html").read_text(encoding="utf-8")
    for question in ("capacity", "swap"):
        assert f">{question}: gaussian, d = 4, C = 2, mlp 8-8 (he_normal)</h2" in page
    claims = read_claims(together)
    assert len(claims) == 4  # of the swap: it alone has masks from training
    shown = " ".join(first.stdout.split())
    for claim in claims:
        assert f"{claim.verdict} {claim.claim}: " in shown

    # Again: nothing is trained, and the page is the same, as it is by hand.
    rows, made = files("*/rows/*"), files(f"{together.name}/**/*.*")
    again = launch(*arguments)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("2 rows of this grid, 0 of them new") == 2
    assert files("*/rows/*") == rows and files(f"{together.name}/**/*.*") == made
    by_hand = subprocess.run(
        [sys.executable, "-m", "nfp_jax.collection", together],
        capture_output=True,
        text=True,
        check=True,
    )
    assert by_hand.stdout.strip() == str(together / "report.html")
    assert files(f"{together.name}/**/*.*") == made

    # A part without its data: the other goes on, here at another sparsity.
    done = launch(
        *arguments,
        "--config.parts.swap.data.name=cifar10",
        "--config.parts.swap.data.download=False",
        f"--config.parts.swap.data.dir={tmp_path / 'empty'}",
        "--config.parts.capacity.grid.sparsity=(0.5,)",
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    [line] = [x for x in done.stderr.splitlines() if x.startswith("failed: ")]
    assert line.startswith("failed: part 'swap': ")
    assert str(tmp_path / "empty") in done.stderr
    assert "2 rows of this grid, 2 of them new" in done.stdout
    assert len(read_rows(directory_of("tiny-capacity"))) == 4
    [other] = {path.parent for path in out.glob("*/collection.json")} - {together}
    page = (other / "report.html").read_text(encoding="utf-8")
    heads = re.findall('<h2 id="[^"]*">([^<]*)', page)
    assert any(head.startswith("capacity: ") for head in heads)
    assert not any(head.startswith("swap: ") for head in heads)
    assert read_claims(other) == []


OWN = """
from pathlib import Path

exec(Path("configs/gaussian.py").read_text())  # the fields and presets of that one

gaussian_config = get_config


def get_config(preset=""):
    config = gaussian_config(preset)
    config.name = "fisher"
    config.pruners.fisher = {"rounds": 2}
    return config
"""
FISHER = """
import jax

from nfp_jax.pruning import Pruner, by_score


def fisher(loss_fn):
    def score(params, batch=None, key=None, *, mask=None, prunable=None):
        gradient = jax.grad(loss_fn)(params, batch)
        return jax.tree.map(lambda g, w: (g * w) ** 2, gradient, params)

    return score


CARD = Pruner(
    "fisher",
    label="Fisher",
    sees="labels",
    build=lambda net, *, rounds=1: by_score(fisher(net.loss_fn), rounds=rounds),
)
"""


def test_a_configuration_may_bring_a_pruner_of_its_own(tmp_path, launch):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "fisher.py").write_text(FISHER)
    done = launch(
        f"--config={tmp_path / 'own.py'}:smoke",
        f"--config.out={tmp_path}/out",
        f"--config.grid.pruner=('{tmp_path / 'fisher.py'}',)",
        "--config.pruners.fisher.rounds=3",
    )
    assert done.returncode == 0, done.stderr
    found = read_rows(the_run(tmp_path / "out"))
    assert set(found["pruner"]) == {"fisher"} and len(found) == 2
    assert set(found["settings"]) == {'{"rounds": 3}'}
    assert found["kept"].tolist() == [1344, 269]
