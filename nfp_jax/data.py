"""Training sets: Gaussian points, images, subsets of them, noise on their labels.

A ``Dataset`` is a bundle of arrays. ``gaussian`` makes one on the device, ``load``
reads one from files or downloads it; ``with_label_noise`` and ``subset`` make one out
of another. It depends on numpy and jax; scikit-learn, tqdm and TensorFlow Datasets
(TFDS, which needs Pillow) are imported where they are used, TensorFlow never.

What would surprise: a label that the noise redraws may come out unchanged, so that a
rate of 1 is pure noise; and everything random about point i depends on the key and on i
alone, so that the sets of different sizes and noise rates are nested.
"""

import gzip
import hashlib
import http.client
import json
import math
import os
import tarfile
import threading
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

Array = jax.Array | np.ndarray

CONNECT_SECONDS = 5.0  # name look-up, connection and first answer together
STALL_SECONDS = 20.0  # a download that brings nothing for so long has failed

# What a key is folded with after the point's index: one stream a kind of draw.
_INPUT, _LABEL, _REDRAW, _NEW_LABEL = range(4)


class DataError(Exception):
    """A set that can't be had or read; the message says where and what to do."""


class Dataset(NamedTuple):
    """Training points with their labels, and test points where the set has some.

    Attributes:
      x: ``[n, ...]`` float32 inputs, standardized; images are ``[n, h, w, c]``.
      y: ``[n]`` int32, the labels to train on.
      clean: ``[n]`` int32, the labels before noise.
      redrawn: ``[n]`` bool, the labels that the noise redrew, changed or not.
      z: ``[n, classes]`` float32, the label noise
        ``onehot(y) - ((1 - rate)·onehot(clean) + rate/classes)``, of mean 0.
      x_test: like ``x``, or None.
      y_test: like ``y``, never noisy, or None.
      classes: the number of classes.

    The arrays are numpy's or jax's. ``jit`` and ``vmap`` make an array of ``classes``;
    ``z.shape[-1]`` stays a number.
    """

    x: Array
    y: Array
    clean: Array
    redrawn: Array
    z: Array
    x_test: Array | None
    y_test: Array | None
    classes: int


def gaussian(key: jax.Array, n: int, dim: int, *, classes: int = 2) -> Dataset:
    """Returns n points of ``N(0, I)`` with labels uniform over the classes.

    Point i depends on the key and on i alone: the set of n points is the first part
    of every larger one. There is no label noise and no test set. ``jit`` and ``vmap``
    over the key give the same points.

    Args:
      key: a random key; may be traced.
      n: the number of points.
      dim: the dimension of a point, so that ``x`` is ``[n, dim]``.
      classes: the number of classes, at least 2.

    Raises:
      ValueError: a number is out of range.

    >>> gaussian(jax.random.key(0), 3, 5).x.shape
    (3, 5)

    Reference: Kumar et al. 2024, https://arxiv.org/abs/2402.01089: random
    Boolean labels of Gaussian inputs.
    """
    for name, value, least in (("n", n, 1), ("dim", dim, 1), ("classes", classes, 2)):
        if value < least:
            raise ValueError(f"{name} is {value}, expected at least {least}")

    def point(i: jax.Array) -> tuple[jax.Array, jax.Array]:
        own = jax.random.fold_in(key, i)
        x_key, y_key = (jax.random.fold_in(own, s) for s in (_INPUT, _LABEL))
        x = jax.random.normal(x_key, (dim,), jnp.float32)
        return x, jax.random.randint(y_key, (), 0, classes, jnp.int32)

    x, y = jax.vmap(point)(jnp.arange(n))
    return _without_noise(x, y, classes)


def with_label_noise(
    dataset: Dataset, key: jax.Array, rate: float | jax.Array
) -> Dataset:
    """Returns the dataset with each clean label redrawn with probability ``rate``.

    A redrawn label is uniform over all classes, so it stays the same once in
    ``classes`` times. Whether and what to redraw for point i depends on the key and on
    i alone, and the same draws serve every rate: the redrawn points of a smaller set or
    rate are redrawn, to the same labels, in a larger one. Earlier noise is forgotten,
    test labels are left alone, and ``x`` is not copied.

    Args:
      dataset: its ``clean`` labels are where the noise starts from.
      key: a random key; may be traced.
      rate: in [0, 1]; may be traced, and is then not checked.

    Returns:
      The dataset with new ``y``, ``redrawn`` and ``z``.

    Raises:
      ValueError: the rate is out of range.

    >>> points = gaussian(jax.random.key(0), 100, 2)
    >>> int(with_label_noise(points, jax.random.key(1), 1.0).redrawn.sum())
    100
    """
    if not isinstance(rate, jax.core.Tracer) and not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}, expected 0 <= rate <= 1")
    rate = jnp.asarray(rate, jnp.float32)
    clean = jnp.asarray(dataset.clean)
    classes = dataset.z.shape[-1]

    def draw(i: jax.Array) -> tuple[jax.Array, jax.Array]:
        own = jax.random.fold_in(key, i)
        u_key, label_key = (jax.random.fold_in(own, s) for s in (_REDRAW, _NEW_LABEL))
        u = jax.random.uniform(u_key, (), jnp.float32)
        return u, jax.random.randint(label_key, (), 0, classes, jnp.int32)

    u, label = jax.vmap(draw)(jnp.arange(len(clean)))
    redrawn = u < rate  # u < 1, so rate 1 redraws all of them
    y = jnp.where(redrawn, label, clean)
    expected = (1 - rate) * jax.nn.one_hot(clean, classes) + rate / classes
    z = jax.nn.one_hot(y, classes) - expected
    return dataset._replace(y=y, redrawn=redrawn, z=z)


def subset(dataset: Dataset, n: int, key: jax.Array | None = None) -> Dataset:
    """Returns the first n training points, of a permutation of them if given a key.

    With one key, the points of a smaller subset are in every larger one. The test set
    stays whole.

    Raises:
      ValueError: there are fewer than n training points, or n is below 1.

    >>> subset(gaussian(jax.random.key(0), 3, 5), 2).x.shape
    (2, 5)
    """
    total = len(dataset.y)
    if not 1 <= n <= total:
        raise ValueError(f"n is {n}, the set has {total} training points")
    index: Any = slice(n)
    if key is not None:
        index = jax.random.permutation(key, total)[:n]
    return dataset._replace(
        x=dataset.x[index],
        y=dataset.y[index],
        clean=dataset.clean[index],
        redrawn=dataset.redrawn[index],
        z=dataset.z[index],
    )


def standardize(
    train: np.ndarray, test: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns both splits with mean 0 and deviation 1 at each pixel of the first.

    ``(x - mean) / std``, where mean and standard deviation (over n, not n - 1) are
    those of the training split, summed in float64. A pixel that is constant in the
    training split becomes 0 in both.

    Args:
      train: ``[n, ...]`` numbers of any type.
      test: ``[n_test, ...]``, or None.

    Returns:
      ``(train, test)``, float32; None for a test split of None.

    >>> standardize(np.array([[0, 7], [2, 7]]))[0].tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    mean = train.mean(0, dtype=np.float64)
    variance = np.zeros_like(mean)
    for start in range(0, len(train), 1024):  # bounds the memory float64 takes
        variance += np.square(train[start : start + 1024] - mean).sum(0) / len(train)
    # Not variance == 0: the rounded mean of equal numbers may differ from them.
    constant = train.min(0) == train.max(0)
    std = np.where(constant, 1, np.sqrt(variance))

    def scale(x: np.ndarray) -> np.ndarray:
        scaled = x.astype(np.float32)
        scaled -= mean
        scaled /= std
        scaled[:, constant] = 0
        return scaled

    return scale(train), None if test is None else scale(test)


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
        return _to_dataset(_read_digits())
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


class _Splits(NamedTuple):
    """A set as it is stored: bytes [n, h, w, c] and labels [n]."""

    x: np.ndarray
    y: np.ndarray
    classes: int
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None


class _Source(NamedTuple):
    """Files, or folders of files, and the function that reads the set in them."""

    paths: list[Path]
    read: Callable[[], _Splits]

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
    read: Callable[..., _Splits]


def _without_noise(
    x: Array,
    y: Array,
    classes: int,
    x_test: Array | None = None,
    y_test: Array | None = None,
) -> Dataset:
    redrawn = np.zeros(y.shape, bool)
    z = np.zeros((*y.shape, classes), np.float32)
    return Dataset(x, y, y, redrawn, z, x_test, y_test, classes)


def _to_dataset(splits: _Splits) -> Dataset:
    x, x_test = standardize(splits.x, splits.x_test)
    y_test = None if splits.y_test is None else splits.y_test.astype(np.int32)
    y = splits.y.astype(np.int32)
    return _without_noise(x, y, int(splits.classes), x_test, y_test)


# Reading


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


def _read_digits() -> _Splits:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = digits.images[..., None].astype(np.uint8)
    y = digits.target
    # 1545: where a writer ends, by the groups that scikit-learn's course gives at
    # inria.github.io/scikit-learn-mooc/python_scripts/cross_validation_grouping.html
    return _Splits(x[:1545], y[:1545], 10, x[1545:], y[1545:])


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


def _read_idx_set(images: Path, labels: Path, *test: Path) -> _Splits:
    x, y = _read_idx(images, 3)[..., None], _read_idx(labels, 1)
    with _reading(labels, "one label an image"):
        _check_labels(x, y, 10)
    if not test:
        return _Splits(x, y, 10)
    held_out = _read_idx_set(*test)
    return _Splits(x, y, 10, held_out.x, held_out.y)


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


def _read_cifar(
    path: Path, *, train: list[str], test: list[str], classes: int
) -> _Splits:
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
        return _Splits(x, y, classes, *read([content[name] for name in test]))


def _read_prepared(folder: Path, hint: str) -> _Splits:
    import tensorflow_datasets as tfds

    expected = f"images of one size with labels, as array_record; else {hint}"
    with _reading(folder, expected):
        builder = tfds.builder_from_directory(folder)
        classes = builder.info.features["label"].num_classes
        try:
            test = _read_split(builder, "test") if "test" in builder.info.splits else ()
            return _Splits(*_read_split(builder, "train"), classes, *test)
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


_IDX = _Original(
    {
        "train-images-idx3-ubyte.gz": "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte.gz": "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte.gz": "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte.gz": "t10k-labels-idx1-ubyte",
    },
    _read_idx_set,
)
_ORIGINALS = {
    "mnist": _IDX,
    "fashion_mnist": _IDX,
    "cifar10": _Original(
        {"cifar-10-binary.tar.gz": "cifar-10-batches-bin"},
        partial(
            _read_cifar,
            train=[f"data_batch_{i}.bin" for i in range(1, 6)],
            test=["test_batch.bin"],
            classes=10,
        ),
    ),
    "cifar100": _Original(
        {"cifar-100-binary.tar.gz": "cifar-100-binary"},
        partial(_read_cifar, train=["train.bin"], test=["test.bin"], classes=100),
    ),
}


# Finding


def _find(name: str, directory: Path) -> _Source | None:
    """The set in the directory: its original files, else as TFDS prepared it."""
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
        return _Source(found, partial(_read_prepared, found[0], hint))
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


# Downloading


def _fetch(name: str, directory: Path, download: bool) -> _Source:
    """Downloads the original files into ``directory/name``, or says why it can't."""
    import tensorflow_datasets as tfds

    original = _ORIGINALS.get(name)
    if original is None:
        listed = tfds.list_builders(with_community_datasets=False)
        if name.split("/")[0].split(":")[0] not in listed:
            known = ", ".join(["digits", *_ORIGINALS])
            raise DataError(
                f"unknown set {name!r}, expected {known}, or an image set of TFDS"
            )
        raise _missing(name, directory, "only TFDS can download it")
    if not download:
        raise _missing(name, directory, "download=False forbids to download it")
    for url, info in tfds.builder_cls(name).url_infos.items():
        target = directory / name / info.filename
        try:
            if not target.exists():
                _download(url, target, int(info.size), info.checksum)
        except (OSError, http.client.HTTPException) as error:
            why = f"{url} can't be downloaded ({error})"
            raise _missing(name, directory, why) from error
    paths = [directory / name / file for file in original.files]
    return _Source(paths, partial(original.read, *paths))


def _download(url: str, target: Path, size: int, sha256: str) -> None:
    from tqdm import tqdm

    digest, received = hashlib.sha256(), 0
    with (
        _open(url) as response,
        _replacing(target) as partial_file,
        tqdm(total=size, unit="B", unit_scale=True, desc=target.name) as progress,
    ):
        with partial_file.open("wb") as file:
            while chunk := response.read(1 << 16):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                progress.update(len(chunk))
        if (received, digest.hexdigest()) != (size, sha256):
            raise DataError(
                f"{target.name} from {url} is damaged: {received} bytes of SHA-256 "
                f"{digest.hexdigest()}, expected {size} bytes of SHA-256 {sha256}"
            )


def _open(url: str) -> Any:
    """Opens the address, or raises OSError, within CONNECT_SECONDS.

    In a thread, since neither name look-up nor a proxy heeds a socket's timeout.
    """
    outcome: list[Any] = []

    def connect() -> None:
        try:
            outcome.append(urllib.request.urlopen(url, timeout=STALL_SECONDS))
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            outcome.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if not outcome:
        raise TimeoutError(f"no answer within {CONNECT_SECONDS:g} seconds")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A temporary name that becomes the target's if all goes well, else goes away."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


# Keeping what was read


def _read_cache(cache: Path, source: _Source | None) -> _Splits | None:
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
        return _Splits(**arrays)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        logging.warning("%s is damaged, reading the set anew: %s", cache, error)
        return None


def _write_cache(cache: Path, source: _Source, splits: _Splits) -> None:
    arrays = {k: v for k, v in splits._asdict().items() if v is not None}
    try:
        with _replacing(cache) as temporary, temporary.open("wb") as file:
            np.savez(file, stamp=source.stamp(), **arrays)
    except OSError as error:
        logging.warning("%s can't be kept for the next time: %s", cache, error)
