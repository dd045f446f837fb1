"""The command ``nfp``, its help and the configurations that it knows."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nfp_jax
from nfp_jax import command, configurations, data, help_text, models, spec
from nfp_jax.fields import SpecError

ROOT = Path(__file__).parent.parent
NAMES = [
    path.stem
    for path in sorted((ROOT / "configs").glob("*.py"))
    if path.stem not in ("__init__", "start")
]


def test_the_shipped_configurations_are_those_of_the_folder_with_their_presets():
    shipped = configurations.shipped()
    assert list(shipped) == NAMES
    for name, found in shipped.items():
        module = importlib.import_module(f"configs.{name}")
        assert ["", *found.presets] == list(module.PRESETS)
        assert found.text == module.__doc__.strip()


def test_a_configuration_is_found_by_its_name_and_a_file_goes_before_it(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    ours = str(ROOT / "configs" / "gaussian.py")
    for text in ("gaussian", "gaussian.py", "configs/gaussian.py"):
        assert configurations.find(text) == ours
        assert configurations.find(f"{text}:smoke") == f"{ours}:smoke"
    (tmp_path / "gaussian.py").touch()
    assert configurations.find("gaussian.py:smoke") == "gaussian.py:smoke"
    assert configurations.find("gaussian") == ours
    with pytest.raises(SpecError, match=r"is 'gausian', .* none of barrier, capacity"):
        configurations.find("gausian:smoke")


def test_the_help_has_every_field_with_its_default():
    shown, known = help_text.fields(), spec.defaults()
    for group, package in (("data", data), ("model", models)):
        for name in package.names():
            settings = package.settings_of(name)
            assert shown.pop(f"{group} of {name}") == settings
            for setting in settings:
                known[group].pop(setting, None)
    for name, settings in known.pop("pruners").items():
        assert shown.pop(f"pruners.{name}", {}) == settings
    assert {**shown.pop(""), **shown} == known


def test_the_help_loads_neither_jax_nor_pandas_and_names_what_there_is():
    code = "import sys, launch; code = launch.launch(['launch.py', '--help'])\n"
    code += "print('loaded', code, *sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    ).stdout
    text, _, loaded = printed.rpartition("loaded ")
    code, *modules = loaded.split()
    assert code == "0" and not {"jax", "pandas", "flax"} & set(modules)
    found = re.findall(r"^  (\S+) ", text, re.MULTILINE)
    assert {*NAMES, "train", "pruners.snip", "--shard", "--process_id"} <= set(found)
    assert max(map(len, text.splitlines())) <= 88


@pytest.mark.parametrize(
    ("arguments", "code", "printed"),
    [
        (["--version"], 0, nfp_jax.__version__),
        (["--help"], 0, "nfp run CONFIG"),
        ([], 0, "nfp run CONFIG"),
        (["run", "gaussian", "-h"], 0, "nfp run CONFIG"),
        (["walk"], 2, "error: 'walk' is no command, expected run"),
    ],
)
def test_the_command_prints_and_returns_its_code(capsys, arguments, code, printed):
    assert command.main(["nfp", *arguments]) == code
    out, err = capsys.readouterr()
    assert (err if code else out).startswith(printed)


def test_the_version_is_the_same_wherever_it_stands():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {nfp_jax.__version__}\n" in citation
    assert re.findall(r"^## ([\d.]+)", changes, re.M)[0] == nfp_jax.__version__
