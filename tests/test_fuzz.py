"""Any command line of launch.py: it starts, or one line says what is wrong with it.

Hypothesis writes the command lines, always the same ones; ``pytest --fuzz=5000`` tries
more. They run in this process, one_device, up to where networks would be made.
"""

import re
import shutil
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from nfp_jax import cluster, data, models, pruners, questions
from nfp_jax.cluster import Place
from nfp_jax.spec import defaults

pytestmark = [
    pytest.mark.usefixtures("one_device"),
    # Of ml_collections, where it loads a configuration file.
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
]


class StartedError(BaseException):
    """A run got as far as its first network; no handler of errors sees it."""


def start(*_, **__):
    raise StartedError


@pytest.fixture
def until_start(launch, monkeypatch):
    """Runs launch.py until networks would be made, or processes would meet."""
    for name in questions.names():
        run = questions.module(name, "run")
        last = "by_draw" if name == "information" else "train_stacks"
        if hasattr(run, last):
            monkeypatch.setattr(run, last, start)
    monkeypatch.setattr(cluster, "_meet", lambda *_: Place(0, 1))

    def call(*arguments):
        try:
            return launch(*arguments)
        except StartedError:
            return None

    return call


# ---- Files that are no configurations, and cards that are none

FILES = {
    "empty.py": "",
    "syntax.py": "def get_config(:",
    "raises.py": "raise RuntimeError('two\\nlines')",
    "exits.py": "import sys; sys.exit(3)",
    "imports.py": "import no_such_module",
    "none.py": "def get_config(): pass",
    "text.py": "def get_config(): return 'text'",
    "number.py": "def get_config(): return 3",
    "list.py": "def get_config(): return [1, 2]",
    "nothing.py": "from ml_collections import ConfigDict as get_config",
    "unknown.py": "def get_config(): return {'sead': 1}",
    "keys.py": "def get_config(): return {1: 2}",
    "group.py": "def get_config(): return {'train': 3}",
    "parts.py": "def get_config(): return {'parts': {'a': 1}}",
    "no_parts.py": "def get_config(): return {'parts': {}}",
    "deep.py": "def get_config(): return {'grid': {'n': ((1,),)}}",
    "fails.py": "def get_config(preset=''): raise ValueError",
    "argument.py": "def get_config(a, b): return {}",
    "class.py": "class get_config: pass",
    "latin.py": b"x = '\xe9'",
    "zero.py": b"x = '\0'",
    "card_of_text.py": "CARD = 'pruner'",
    "no_card.py": "x = 1",
    "card_exits.py": "import sys; sys.exit(3)",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files, one that is no file, and one that can't be read."""
    folder = tmp_path_factory.mktemp("files")
    for name, text in FILES.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    (folder / "folder.py").mkdir()
    return folder


# ---- Command lines


def paths_of(config, before=""):
    """The dotted paths of all fields, and of all groups."""
    for name, value in config.items():
        yield before + name
        if isinstance(value, dict):
            yield from paths_of(value, f"{before}{name}.")


FIELDS = sorted(paths_of(defaults()))
OFTEN = [x for x in FIELDS if x.startswith(("grid.", "train.", "data.", "model."))]
NAMES = sorted(
    {*pruners.names(), *models.names(), *data.names(), *questions.names(), "dense"}
)
NUMBERS = st.one_of(
    st.integers(-3, 5),
    st.sampled_from((2**31 - 1, 2**31, 2**63, -(2**63), 10**30, 10**400)),
    st.floats(),
    st.sampled_from((0.5, 1.0, 1e-400, 1e300)),
)
WORDS = st.one_of(
    st.sampled_from(
        ("", " ", "None", "True", "x", "a b", "é", "\0", "a\nb", "{}", "{'a': 1}", "()")
    ),
    st.sampled_from(("(", "[1,", "nan", "inf", "-", "=", "..", "/", "'", '"', "%s")),
    st.sampled_from(NAMES),
    st.text(max_size=8),
    st.integers(300, 100_000).map(lambda count: "x" * count),
)
VALUES = st.one_of(
    NUMBERS.map(str),
    WORDS,
    st.lists(NUMBERS | WORDS, max_size=3).map(lambda x: repr(tuple(x))),
    st.lists(st.integers(0, 9), min_size=1, max_size=1).map(lambda x: repr(x)),
    st.sampled_from((f"({'1, ' * 5000})", f"({'(' * 50}1{')' * 50},)")),
)


def slip(path):
    """A path with one letter more, less, or another."""
    return st.integers(0, len(path) - 1).flatmap(
        lambda i: st.sampled_from(
            (path[:i] + path[i + 1 :], path[:i] + "x" + path[i:], path + ".x")
        )
    )


def pointed(path):
    return f"--config.{path}"


FIELD = st.sampled_from(FIELDS) | st.sampled_from(OFTEN)
SETTINGS = st.one_of(
    st.tuples(FIELD.map(pointed), VALUES).map("=".join),
    st.tuples(FIELD.map(pointed), VALUES).map("=".join),
    st.tuples(FIELD.flatmap(slip).map(pointed), VALUES).map("=".join),
    FIELD.map(pointed),
)
PARTS = st.tuples(
    st.sampled_from(("swap", "capacity", "information", "swop", "", "x.y")),
    st.sampled_from(OFTEN),
    VALUES,
).map(lambda x: f"--config.parts.{x[0]}.{x[1]}={x[2]}")
FLAGS = st.one_of(
    st.tuples(
        st.sampled_from(
            (
                *("shard", "cluster", "coordinator", "num_processes", "process_id"),
                *("timeout", "progress", "config", "confg", "sharrd", "", "-"),
            )
        ),
        VALUES | st.sampled_from(("0/1", "1/2", "2/2", "-1/2", "host:1", "host:99999")),
    ).map(lambda x: f"--{x[0]}={x[1]}"),
    WORDS,
)
PRESETS = st.sampled_from(("smoke", "smoke", "", "tiny", "smoke:smoke", "\0", "é"))
OURS = ("gaussian", "data_swap", "mask_information", "capacity", "robustness")


def files(folder):
    """``--config=`` with a file of ours or not, with a preset or not."""
    ours = st.tuples(st.sampled_from(OURS), PRESETS).map(
        lambda x: f"configs/{x[0]}.py:{x[1]}"
    )
    others = st.sampled_from((*FILES, "folder.py", "absent.py", "", "x" * 300 + ".py"))
    return st.one_of(ours, others.map(lambda name: str(folder / name))).map(
        lambda path: f"--config={path}"
    )


def commands(folder):
    """Command lines: mostly one thing is wrong, so that it is looked at."""
    smoke = st.sampled_from(OURS).map(lambda name: f"--config=configs/{name}.py:smoke")
    card = st.sampled_from((*FILES, "folder.py", "absent.py")).map(
        lambda name: f"--config.grid.pruner=('{folder / name}',)"
    )
    whole = st.sampled_from(("configs/paper.py:smoke", "configs/pruner_card.py:smoke"))
    return st.one_of(
        st.tuples(smoke, SETTINGS),
        st.tuples(smoke, SETTINGS),
        st.tuples(smoke, SETTINGS, SETTINGS),
        st.tuples(smoke, FLAGS),
        st.tuples(smoke, card),
        st.tuples(whole.map("--config={}".format), PARTS),
        st.tuples(files(folder)),
        st.lists(SETTINGS | FLAGS, max_size=3).map(tuple),
    )


GROUPS = {"config", "parts", *(x.split(".")[0] for x in FIELDS)}


def named(argument):
    """What a clear line may call an argument: its file, flag, field, or itself."""
    flag, _, value = argument.lstrip("-").partition("=")
    if not re.match(r"--\w", argument):
        return {repr(argument)[:40], repr(argument.strip("-="))[:40]}
    if flag == "config":
        return {Path(value.split(":")[0]).name[:100], repr(value)[:40]}
    *parents, last = flag.split(".")
    return {last, *parents} - GROUPS | {last}


# Where no word of the command line is to blame, or several are.
OF_ALL = {"--config is missing", "model: a network has", "command line flag '-'"}


def wrong(arguments, done, out):
    """What is wrong with how a command line ended; None: nothing."""
    if out.exists() and done.returncode != 0:
        return f"left {sorted(out.rglob('*'))}"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode != 2:
        return f"exit code {done.returncode}: {lines}"
    if len(lines) != 1 or not lines[0].startswith("error: ") or done.stdout:
        return f"not one line: {lines} {done.stdout}"
    [line] = lines
    if len(line) > 1000 or not line.isprintable():
        return f"no clear line ({len(line)} characters): {line[:200]!r}"
    words = set().union(*map(named, arguments), OF_ALL) - {""}
    if not any(word in line for word in words):
        return f"names nothing of the command line: {line}"
    return None


def test_any_command_line_starts_or_is_one_line(request, until_start, folder, tmp_path):
    count, out = request.config.getoption("fuzz"), tmp_path / "out"
    ends = {"started": 0, "refused": 0}

    @hypothesis.settings(max_examples=count)
    @hypothesis.given(commands(folder))
    def check(arguments):
        shutil.rmtree(out, ignore_errors=True)
        given = any(x.startswith("--config.out") for x in arguments)
        done = until_start(*arguments, *([] if given else [f"--config.out={out}"]))
        ends["started" if done is None else "refused"] += 1
        if done is not None:
            assert wrong(arguments, done, out) is None

    check()
    assert min(ends.values()) >= count // 50, ends
