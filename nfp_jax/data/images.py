"""Image sets by name: found, or downloaded; read, and kept for the next time."""

import http.client
import json
import os
import re
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from nfp_jax.data.dataset import DataError, Dataset, standardize, without_noise
from nfp_jax.data.download import fetch_file, replacing
from nfp_jax.data.readers import (
    Splits,
    read_cifar,
    read_digits,
    read_idx_set,
    read_prepared,
)


def load(
    name: str, *, directory: str | os.PathLike | None = None, download: bool = True
) -> Dataset:
    """Returns an image set by name, standardized, with its test split.

    ``digits`` comes with scikit-learn: 1,797 images of 8x8 pixels, one writer after
    the other. The last 252, by two writers of their own, are the test split. Of every
    other set, the first of these that is there is read:

    1. the arrays read before, ``<directory>/nfp_jax_<name>.npz`` (raw bytes), as long
       as the files they were read from are the same, or gone;
    2. the original files, in ``<directory>/<name>/`` or in ``<directory>``: for
       ``mnist`` and ``fashion_mnist`` the four idx files, ``.gz`` or not (both sets use
       the same file names: give each its folder); for ``cifar10`` and ``cifar100`` the
       binary archive (``cifar-10-binary.tar.gz``) or the folder in it;
    3. the set as TFDS prepared it, in the file format ``array_record`` (the one that
       can be read without TensorFlow): any images of one size with one label each.
       The name is TFDS's, with configuration and version where there is a choice:
       ``emnist/letters:3.1.0``;
    4. the original files of the sets under 2 from the addresses that TFDS lists,
       into ``<directory>/<name>/``, checked by their SHA-256.

    TFDS shuffles what it prepares, so the order of the points is the source's.

    Args:
      name: ``digits``, ``mnist``, ``fashion_mnist``, ``cifar10``, ``cifar100``, or any
        set that was prepared by TFDS.
      directory: where to look, and where downloads and the arrays read go; by default
        ``$TFDS_DATA_DIR``, or ``~/tensorflow_datasets`` if that is not set.
      download: whether missing files may be downloaded.

    Returns:
      A ``Dataset`` of numpy arrays without label noise; ``x`` is ``[n, h, w, c]``.

    Raises:
      DataError: the set is unknown, or not there and can't be downloaded, or a file is
        damaged. Without a network it comes within ten seconds.

    >>> digits = load("digits")
    >>> digits.x.shape, digits.x_test.shape
    ((1545, 8, 8, 1), (252, 8, 8, 1))
    """
    if name == "digits":
        return _to_dataset(read_digits())
    if directory is None:
        directory = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    directory = Path(directory).expanduser().absolute()
    cache = directory / f"nfp_jax_{name.replace('/', '-').replace(':', '-')}.npz"

    source = _find(name, directory)
    splits = _read_cache(cache, source)
    if splits is None:
        source = source or _fetch(name, directory, download)
        splits = source.read()
        _write_cache(cache, source, splits)
    return _to_dataset(splits)


class _Source(NamedTuple):
    """Files, or folders of files, and the function that reads the set in them."""

    paths: list[Path]
    read: Callable[[], Splits]

    def stamp(self) -> str:
        """The names, sizes and times of the files."""
        files: list[Path] = []
        for path in self.paths:
            files += sorted(path.rglob("*")) if path.is_dir() else [path]
        stats = [(file.name, file.stat()) for file in files]
        return json.dumps([(name, s.st_size, s.st_mtime_ns) for name, s in stats])


class _Original(NamedTuple):
    """What a set is published as: its files, each with its unpacked name."""

    files: dict[str, str]
    read: Callable[..., Splits]


def _to_dataset(splits: Splits) -> Dataset:
    x, x_test = standardize(splits.x, splits.x_test)
    y_test = None if splits.y_test is None else splits.y_test.astype(np.int32)
    y = splits.y.astype(np.int32)
    return without_noise(x, y, int(splits.classes), x_test, y_test)


_IDX = _Original(
    {
        "train-images-idx3-ubyte.gz": "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte.gz": "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte.gz": "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte.gz": "t10k-labels-idx1-ubyte",
    },
    read_idx_set,
)


_ORIGINALS = {
    "mnist": _IDX,
    "fashion_mnist": _IDX,
    "cifar10": _Original(
        {"cifar-10-binary.tar.gz": "cifar-10-batches-bin"},
        partial(
            read_cifar,
            train=[f"data_batch_{i}.bin" for i in range(1, 6)],
            test=["test_batch.bin"],
            classes=10,
        ),
    ),
    "cifar100": _Original(
        {"cifar-100-binary.tar.gz": "cifar-100-binary"},
        partial(read_cifar, train=["train.bin"], test=["test.bin"], classes=100),
    ),
}


def _find(name: str, directory: Path) -> _Source | None:
    """The set in the directory: its original files, else as TFDS prepared it.

    Raises:
      DataError: a name that leads out of the directory; several versions of the set.
    """
    if not re.fullmatch(r"\w[\w.:/-]*", name) or ".." in name:
        raise DataError(
            f"data.name is {name!r}, expected the name of a set, as cifar10 or "
            "emnist/letters"
        )
    if original := _ORIGINALS.get(name):
        for place in (directory / name, directory):
            pairs = [(place / a, place / b) for a, b in original.files.items()]
            paths = [a if a.exists() else b for a, b in pairs]
            if all(path.exists() for path in paths):
                return _Source(paths, partial(original.read, *paths))
    folder = directory / name.replace(":", "/")
    found = sorted(info.parent for info in folder.rglob("dataset_info.json"))
    if len(found) > 1:
        versions = ", ".join(str(path.relative_to(directory)) for path in found)
        raise DataError(f"{name} is prepared more than once in {directory}: {versions}")
    if found:
        hint = f"move the folder away and {_prepare_hint(name, directory)}"
        return _Source(found, partial(read_prepared, found[0], hint))
    return None


def _prepare_hint(name: str, directory: Path) -> str:
    return (
        "prepare it, where there is a network, by: pip install 'nfp-jax[prepare]'; "
        'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', data_dir='{directory}', "
        "file_format='array_record').download_and_prepare()\""
    )


def _missing(name: str, directory: Path, why: str) -> DataError:
    sought = "a set prepared by TFDS as array_record"
    if original := _ORIGINALS.get(name):
        sought = f"{', '.join(original.files)} (or unpacked), or {sought}"
    return DataError(
        f"{name} is not in {directory}, and {why}. Either set --config.data.dir= to "
        f"the directory that has it ({sought}), or {_prepare_hint(name, directory)}"
    )


def _fetch(name: str, directory: Path, download: bool) -> _Source:
    """Downloads the original files into ``directory/name``, or says why it can't."""
    import tensorflow_datasets as tfds

    original = _ORIGINALS.get(name)
    if original is None:
        listed = tfds.list_builders(with_community_datasets=False)
        if name.split("/")[0].split(":")[0] not in listed:
            known = ", ".join(["digits", *_ORIGINALS])
            raise DataError(
                f"data.name is the unknown set {name!r}, expected {known}, or an image "
                "set of TFDS"
            )
        raise _missing(name, directory, "only TFDS can download it")
    if not download:
        raise _missing(name, directory, "download=False forbids to download it")
    for url, info in tfds.builder_cls(name).url_infos.items():
        target = directory / name / info.filename
        try:
            if not target.exists():
                fetch_file(url, target, int(info.size), info.checksum)
        except (OSError, http.client.HTTPException) as error:
            why = f"{url} can't be downloaded ({error})"
            raise _missing(name, directory, why) from error
    paths = [directory / name / file for file in original.files]
    return _Source(paths, partial(original.read, *paths))


def _read_cache(cache: Path, source: _Source | None) -> Splits | None:
    """The arrays kept, or None if there are none or their files have changed."""
    if not cache.exists():
        return None
    try:
        # Opened here: np.load leaves a damaged file open.
        with cache.open("rb") as file, np.load(file) as kept:
            arrays = {key: kept[key] for key in kept.files}
        if source is not None and str(arrays["stamp"]) != source.stamp():
            return None
        del arrays["stamp"]
        return Splits(**arrays)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        logging.warning("%s is damaged, reading the set anew: %s", cache, error)
        return None


def _write_cache(cache: Path, source: _Source, splits: Splits) -> None:
    arrays = {k: v for k, v in splits._asdict().items() if v is not None}
    try:
        with replacing(cache) as temporary, temporary.open("wb") as file:
            np.savez(file, stamp=source.stamp(), **arrays)
    except OSError as error:
        logging.warning("%s can't be kept for the next time: %s", cache, error)
