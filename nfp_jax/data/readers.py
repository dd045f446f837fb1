"""Files of image sets, read: idx, CIFAR in binary, what TFDS prepared, digits."""

import gzip
import math
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nfp_jax.data.dataset import DataError


class Splits(NamedTuple):
    """A set as it is stored: bytes [n, h, w, c] and labels [n]."""

    x: np.ndarray
    y: np.ndarray
    classes: int
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None


@contextmanager
def _reading(path: Path, expected: str) -> Iterator[None]:
    """Turns whatever a damaged file makes its reader raise into a DataError."""
    try:
        yield
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"can't read {path}: {reason} (expected {expected})") from error


def _check_labels(x: np.ndarray, y: np.ndarray, classes: int) -> None:
    if len(x) != len(y) or not len(y):
        raise ValueError(f"{len(x)} images have {len(y)} labels")
    if not (0 <= y.min() and y.max() < classes):
        raise ValueError(f"labels are {y.min()} to {y.max()} of {classes} classes")


def read_digits() -> Splits:
    """Returns the digits of scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = digits.images[..., None].astype(np.uint8)
    y = digits.target
    # 1545: where a writer ends, by the groups that scikit-learn's course gives at
    # inria.github.io/scikit-learn-mooc/python_scripts/cross_validation_grouping.html
    return Splits(x[:1545], y[:1545], 10, x[1545:], y[1545:])


def _read_idx(path: Path, axes: int) -> np.ndarray:
    """Reads ``0 0 8 axes``, the shape as big-endian integers, then the bytes."""
    with _reading(path, f"an idx file of bytes with {axes} axes, .gz or not"):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
        magic = bytes((0, 0, 8, axes))
        if content[:4] != magic:
            raise ValueError(f"it begins {content[:4].hex()}, not {magic.hex()}")
        shape = np.frombuffer(content, ">u4", axes, offset=4).tolist()
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
        if len(values) != math.prod(shape):
            raise ValueError(f"it holds {len(values)} bytes, its header says {shape}")
        return values.reshape(shape)


def read_idx_set(images: Path, labels: Path, *test: Path) -> Splits:
    """Returns the set in idx files of images and labels, test files after them."""
    x, y = _read_idx(images, 3)[..., None], _read_idx(labels, 1)
    with _reading(labels, "one label an image"):
        _check_labels(x, y, 10)
    if not test:
        return Splits(x, y, 10)
    held_out = read_idx_set(*test)
    return Splits(x, y, 10, held_out.x, held_out.y)


def _unpack(path: Path) -> dict[str, bytes]:
    """The files of a folder or of a ``.tar.gz``, by name."""
    if path.is_dir():
        return {file.name: file.read_bytes() for file in path.iterdir()}
    contents = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if file := archive.extractfile(member):  # None for a folder
                contents[Path(member.name).name] = file.read()
    return contents


def read_cifar(
    path: Path, *, train: list[str], test: list[str], classes: int
) -> Splits:
    """Returns the set in a binary archive of CIFAR, or in the folder in it."""
    # A record: the label (CIFAR-100: after a coarse one), then the three color planes.
    labels = 1 if classes == 10 else 2
    record = labels + 3 * 32 * 32

    def read(batches: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        rows = [np.frombuffer(batch, np.uint8).reshape(-1, record) for batch in batches]
        y, planes = np.split(np.concatenate(rows), [labels], axis=1)
        x = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        _check_labels(x, y[:, -1], classes)
        return x, y[:, -1]

    with _reading(path, f"{', '.join(train + test)}, of {record} bytes an image"):
        content = _unpack(path)
        x, y = read([content[name] for name in train])
        return Splits(x, y, classes, *read([content[name] for name in test]))


def read_prepared(folder: Path, hint: str) -> Splits:
    """Returns a set that TFDS prepared; ``hint``: what to do if it can't be read."""
    import tensorflow_datasets as tfds

    expected = f"images of one size with labels, as array_record; else {hint}"
    with _reading(folder, expected):
        builder = tfds.builder_from_directory(folder)
        classes = builder.info.features["label"].num_classes
        try:
            test = _read_split(builder, "test") if "test" in builder.info.splits else ()
            return Splits(*_read_split(builder, "train"), classes, *test)
        except NotImplementedError as error:
            kind = builder.info.file_format.value
            raise ValueError(f"its files are {kind}, for TensorFlow only") from error


def _read_split(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    from tqdm import tqdm

    image, label = (builder.info.features[key] for key in ("image", "label"))
    if None in image.shape:
        raise ValueError(f"its images have shape {image.shape}")
    source = builder.as_data_source(split=split)
    x = np.empty((len(source), *image.shape), image.np_dtype)
    y = np.empty(len(source), np.int32)
    for i in tqdm(range(len(source)), desc=f"{builder.name} {split}"):
        example = source[i]
        x[i], y[i] = example["image"], example["label"]
    _check_labels(x, y, label.num_classes)
    return x, y
