import functools
import gzip
import hashlib
import io
import os
import socket
import sys
import tarfile
import threading
import time
from collections import namedtuple
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from nfp_jax import data
from nfp_jax.data import download, readers
from nfp_jax.data import images as image_sets

KEY = jax.random.key(0)
# What a TFDS builder lists of a download.
UrlInfo = namedtuple("UrlInfo", "size checksum filename")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


# Gaussian points


def test_gaussian_points_are_standard_normal_with_uniform_labels():
    points = data.gaussian(KEY, 4000, 5, classes=4)
    # Five standard errors: of a mean, of a variance, of a share of labels.
    assert abs(points.x.mean(0)).max() < 5 / 4000**0.5
    assert abs(points.x.var(0) - 1).max() < 5 * (2 / 4000) ** 0.5
    counts = np.bincount(points.y, minlength=4)
    assert abs(counts / 4000 - 0.25).max() < 5 * (0.1875 / 4000) ** 0.5
    assert points.x.dtype == jnp.float32
    assert points.y.dtype == jnp.int32


def test_gaussian_points_have_no_noise_and_no_test_set():
    points = data.gaussian(KEY, 10, 3, classes=4)
    assert (points.clean == points.y).all()
    assert not points.redrawn.any()
    assert points.z.shape == (10, 4)
    assert not points.z.any()
    assert points.x_test is None
    assert points.y_test is None
    assert points.classes == 4


def test_gaussian_points_are_nested_in_n():
    few, many = data.gaussian(KEY, 7, 3), data.gaussian(KEY, 50, 3)
    np.testing.assert_array_equal(few.x, many.x[:7])
    np.testing.assert_array_equal(few.y, many.y[:7])


def test_gaussian_under_jit_and_vmap_gives_the_same_points():
    keys = jax.random.split(KEY, 3)
    many = jax.jit(jax.vmap(lambda key: data.gaussian(key, 6, 2)))(keys)
    for i, key in enumerate(keys):
        one = data.gaussian(key, 6, 2)
        # A fused normal may round otherwise: some units of the last place.
        np.testing.assert_allclose(many.x[i], one.x, rtol=1e-5)
        np.testing.assert_array_equal(many.y[i], one.y)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, 5, 2), "n is 0, expected at least 1"),
        ((5, 0, 2), "dim is 0, expected at least 1"),
        ((5, 5, 1), "classes is 1, expected at least 2"),
    ],
)
def test_gaussian_refuses_numbers_out_of_range(arguments, message):
    n, dim, classes = arguments
    with pytest.raises(ValueError, match=message):
        data.gaussian(KEY, n, dim, classes=classes)


# Label noise


def test_noise_z_is_the_label_minus_its_mean_by_hand():
    points = data.gaussian(KEY, 400, 2, classes=4)
    points = points._replace(clean=jnp.full(400, 2))
    noisy = data.with_label_noise(points, KEY, 0.2)
    # The mean is 0.8 onehot(2) + 0.2/4: [.05, .05, .85, .05].
    kept, changed = noisy.z[noisy.y == 2], noisy.z[noisy.y == 0]
    assert len(kept) and len(changed)
    # Sums of float32 below 1 are off by a few 6e-8.
    np.testing.assert_allclose(
        kept - jnp.array([[-0.05, -0.05, 0.15, -0.05]]), 0, atol=3e-7
    )
    np.testing.assert_allclose(
        changed - jnp.array([[0.95, -0.05, -0.85, -0.05]]), 0, atol=3e-7
    )


def test_noise_redraws_the_stated_share_over_all_classes():
    n, classes, rate = 10_000, 5, 0.3
    noisy = data.with_label_noise(data.gaussian(KEY, n, 1, classes=classes), KEY, rate)
    # Five standard errors of a share.
    assert abs(noisy.redrawn.mean() - rate) < 5 * (rate * (1 - rate) / n) ** 0.5
    changed = rate * (1 - 1 / classes)  # a redrawn label may come out the same
    share = (noisy.y != noisy.clean).mean()
    assert abs(share - changed) < 5 * (changed * (1 - changed) / n) ** 0.5
    assert not (noisy.y != noisy.clean)[~noisy.redrawn].any()
    assert abs(noisy.z.mean(0)).max() < 5 / n**0.5


def test_noise_of_the_key_that_drew_the_labels_is_independent_of_them():
    points = data.gaussian(KEY, 4000, 1)
    noisy = data.with_label_noise(points, KEY, 1.0)
    assert abs((noisy.y == points.y).mean() - 0.5) < 5 * 0.5 / 4000**0.5


def test_noise_is_nested_in_n():
    points = data.gaussian(KEY, 50, 3)
    few = data.with_label_noise(data.subset(points, 9), KEY, 0.5)
    many = data.with_label_noise(points, KEY, 0.5)
    np.testing.assert_array_equal(few.y, many.y[:9])
    np.testing.assert_array_equal(few.redrawn, many.redrawn[:9])


def test_noise_is_nested_in_rate():
    points = data.gaussian(KEY, 300, 1, classes=3)
    low, high = (data.with_label_noise(points, KEY, rate) for rate in (0.2, 0.7))
    assert high.redrawn[low.redrawn].all()
    np.testing.assert_array_equal(high.y[low.redrawn], low.y[low.redrawn])


def test_noise_of_rate_0_changes_nothing_and_of_rate_1_redraws_everything():
    points = data.gaussian(KEY, 100, 1)
    none, full = (data.with_label_noise(points, KEY, rate) for rate in (0, 1))
    np.testing.assert_array_equal(none.y, points.y)
    assert not none.z.any()
    assert full.redrawn.all()
    np.testing.assert_array_equal(full.z, jax.nn.one_hot(full.y, 2) - 0.5)


def test_noise_starts_from_the_clean_labels_and_keeps_x_and_the_test_set():
    digits = data.load("digits")
    once = data.with_label_noise(digits, KEY, 0.5)
    twice = data.with_label_noise(once, KEY, 0.5)
    np.testing.assert_array_equal(once.y, twice.y)
    np.testing.assert_array_equal(once.clean, digits.y)
    assert once.x is digits.x
    assert once.y_test is digits.y_test


def test_noise_under_jit_and_vmap_is_the_same_without_compiling_for_each_rate():
    points, traces = data.gaussian(KEY, 40, 1), []

    @jax.jit
    def noisy(key, rate):
        traces.append(rate)
        return data.with_label_noise(points, key, rate).y

    for rate in (0.1, 0.9):
        eager = data.with_label_noise(points, KEY, rate)
        np.testing.assert_array_equal(noisy(KEY, rate), eager.y)
    assert len(traces) == 1
    keys = jax.random.split(KEY, 3)
    drawn = jax.vmap(lambda key: data.gaussian(key, 40, 1))(keys)
    many = jax.vmap(data.with_label_noise, (0, 0, None))(drawn, keys, 0.9)
    one = data.with_label_noise(data.gaussian(keys[1], 40, 1), keys[1], 0.9)
    np.testing.assert_array_equal(many.y[1], one.y)


@pytest.mark.parametrize("rate", [-0.1, 1.2, float("nan")])
def test_noise_refuses_a_rate_out_of_range(rate):
    with pytest.raises(ValueError, match=f"rate is {rate}, expected 0 <= rate <= 1"):
        data.with_label_noise(data.gaussian(KEY, 2, 1), KEY, rate)


# Subsets


def test_subset_takes_the_first_points_and_the_whole_test_set():
    digits = data.load("digits")
    few = data.subset(digits, 20)
    np.testing.assert_array_equal(few.x, digits.x[:20])
    np.testing.assert_array_equal(few.y, digits.y[:20])
    assert few.z.shape == (20, 10)
    assert few.x_test is digits.x_test


def test_subset_with_a_key_is_a_nested_permutation_that_keeps_points_whole():
    points = data.with_label_noise(data.gaussian(KEY, 30, 2), KEY, 0.5)
    few, all_of_them = (data.subset(points, n, KEY) for n in (10, 30))
    np.testing.assert_array_equal(few.x, all_of_them.x[:10])
    assert not (all_of_them.x == points.x).all()
    place = {tuple(row): i for i, row in enumerate(points.x.tolist())}
    order = [place[tuple(row)] for row in all_of_them.x.tolist()]
    assert sorted(order) == list(range(30))
    for field in ("y", "clean", "redrawn", "z"):
        expected = getattr(points, field)[np.array(order)]
        np.testing.assert_array_equal(getattr(all_of_them, field), expected)


@pytest.mark.parametrize("n", [0, 1546])
def test_subset_refuses_a_size_that_the_set_has_not(n):
    with pytest.raises(ValueError, match=f"n is {n}, the set has 1545 training points"):
        data.subset(data.load("digits"), n)


# Standardizing and digits


def test_standardize_by_hand_uses_the_training_split_and_zeroes_constant_pixels():
    train = np.array([[0, 9], [4, 9]], np.uint8)  # mean 2, deviation 2; constant
    test = np.array([[8, 8]], np.uint8)
    x, x_test = data.standardize(train, test)
    assert x.tolist() == [[-1, 0], [1, 0]]
    assert x_test.tolist() == [[3, 0]]
    assert x.dtype == x_test.dtype == np.float32


def test_standardize_zeroes_a_constant_whose_mean_rounds():
    # The mean of equal numbers may be off in the last place, and the deviation with it.
    assert not data.standardize(np.full((3000, 2), 0.1))[0].any()


def test_standardize_sums_every_chunk():
    train = np.random.default_rng(0).normal(3, 2, (2500, 3))
    x, _ = data.standardize(train)
    expected = (train - train.mean(0)) / train.std(0)
    np.testing.assert_allclose(x, expected, atol=1e-6)  # float32, values below 4


def test_digits_are_1797_images_of_10_classes():
    digits = data.load("digits")
    assert digits.x.shape == (1545, 8, 8, 1)
    assert digits.x_test.shape == (252, 8, 8, 1)
    assert digits.x.dtype == np.float32
    assert digits.y.dtype == digits.y_test.dtype == np.int32
    # scikit-learn's documentation: 174 to 183 images a class, 1797 in all.
    counts = np.bincount(np.concatenate([digits.y, digits.y_test]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(digits.y).min() > 140
    assert np.bincount(digits.y_test).min() > 20
    assert digits.classes == 10


# idx files


def idx(array):
    shape = np.array(array.shape, ">u4").tobytes()
    return bytes((0, 0, 8, array.ndim)) + shape + array.tobytes()


def images(n, *shape):
    return np.random.default_rng(n).integers(0, 256, (n, *shape), np.uint8)


TRAIN, TEST = images(6, 4, 3), images(4, 4, 3)
TRAIN_Y, TEST_Y = (
    np.array([9, 0, 1, 2, 3, 4], np.uint8),
    np.array([5, 6, 7, 8], np.uint8),
)
IDX_FILES = {
    "train-images-idx3-ubyte.gz": TRAIN,
    "train-labels-idx1-ubyte.gz": TRAIN_Y,
    "t10k-images-idx3-ubyte.gz": TEST,
    "t10k-labels-idx1-ubyte.gz": TEST_Y,
}
CACHE = "nfp_jax_fashion_mnist.npz"


def write_idx(folder, *, packed=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in IDX_FILES.items():
        if packed:
            (folder / name).write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name.removesuffix(".gz")).write_bytes(idx(array))


def check_idx(dataset):
    x, x_test = data.standardize(TRAIN, TEST)
    np.testing.assert_array_equal(dataset.x, x[..., None])
    np.testing.assert_array_equal(dataset.x_test, x_test[..., None])
    np.testing.assert_array_equal(dataset.y, TRAIN_Y)
    np.testing.assert_array_equal(dataset.y_test, TEST_Y)
    assert dataset.y.dtype == dataset.y_test.dtype == np.int32
    assert dataset.classes == 10


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("folder", [".", "fashion_mnist"])
def test_idx_files_are_read_packed_or_not_from_the_directory_or_below(
    tmp_path, folder, packed
):
    write_idx(tmp_path / folder, packed=packed)
    check_idx(data.load("fashion_mnist", directory=tmp_path))


def test_the_default_directory_is_the_one_of_tfds(tmp_path, monkeypatch):
    write_idx(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    check_idx(data.load("fashion_mnist"))
    write_idx(tmp_path / "tensorflow_datasets" / "mnist")
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    check_idx(data.load("mnist"))


GOOD = idx(TRAIN_Y)


def by_message(value):
    """Names a case: gzip writes the time into its bytes, and workers must agree."""
    return value if isinstance(value, str) else "bytes"


@pytest.mark.parametrize(
    "content, message",
    [
        (gzip.compress(GOOD)[:-9], "end-of-stream"),
        (GOOD, "Not a gzipped file"),
        (gzip.compress(GOOD)[:12] + b"0123456789", ""),
        (gzip.compress(b"\0\0\x0d" + GOOD[3:]), "begins 00000d01, not 00000801"),
        (gzip.compress(GOOD[:-1]), r"holds 5 bytes, its header says \[6\]"),
        (gzip.compress(GOOD[:6]), ""),
        (gzip.compress(idx(TRAIN_Y[:5])), "6 images have 5 labels"),
        (gzip.compress(idx(TRAIN_Y + 1)), "labels are 1 to 10 of 10 classes"),
        (b"", ""),
    ],
    ids=by_message,
)
def test_a_damaged_idx_file_is_named(tmp_path, content, message):
    write_idx(tmp_path)
    file = tmp_path / "train-labels-idx1-ubyte.gz"
    file.write_bytes(content)
    with pytest.raises(
        data.DataError, match=f"{file}: .*{message}.*expected .*label|idx"
    ):
        data.load("fashion_mnist", directory=tmp_path)
    assert not (tmp_path / CACHE).exists()


# CIFAR


def cifar(n, label_bytes):
    x, y = images(n, 32, 32, 3), np.arange(n, dtype=np.uint8)
    labels = np.stack([y + 3] * (label_bytes - 1) + [y], axis=1)
    planes = x.transpose(0, 3, 1, 2).reshape(n, -1)
    return x, y, np.concatenate([labels, planes], axis=1).tobytes()


CIFAR10 = {f"data_batch_{i}.bin": cifar(i, 1) for i in range(1, 6)} | {
    "test_batch.bin": cifar(7, 1)
}
CIFAR100 = {"train.bin": cifar(3, 2), "test.bin": cifar(2, 2)}


def archive(folder, batches):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        directory = tarfile.TarInfo(folder)
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
        for name, (_, _, content) in batches.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def check_cifar10(dataset):
    batches = [batch for name, batch in CIFAR10.items() if name != "test_batch.bin"]
    train = np.concatenate([x for x, _, _ in batches])
    test, test_y, _ = CIFAR10["test_batch.bin"]
    x, x_test = data.standardize(train, test)
    np.testing.assert_array_equal(dataset.x, x)
    np.testing.assert_array_equal(dataset.x_test, x_test)
    np.testing.assert_array_equal(dataset.y, np.concatenate([y for _, y, _ in batches]))
    np.testing.assert_array_equal(dataset.y_test, test_y)


def test_cifar10_is_read_from_its_archive(tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(
        archive("cifar-10-batches-bin", CIFAR10)
    )
    check_cifar10(data.load("cifar10", directory=tmp_path))


def test_cifar10_is_read_from_its_unpacked_folder(tmp_path):
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, (_, _, content) in CIFAR10.items():
        (folder / name).write_bytes(content)
    check_cifar10(data.load("cifar10", directory=tmp_path))


def test_cifar100_takes_the_fine_label(tmp_path):
    (tmp_path / "cifar-100-binary.tar.gz").write_bytes(
        archive("cifar-100-binary", CIFAR100)
    )
    dataset = data.load("cifar100", directory=tmp_path)
    assert dataset.y.tolist() == [0, 1, 2]
    assert dataset.classes == 100
    x, _ = data.standardize(CIFAR100["train.bin"][0])
    np.testing.assert_array_equal(dataset.x, x)


def damaged_archives():
    good = archive("cifar-10-batches-bin", CIFAR10)
    missing = {k: v for k, v in CIFAR10.items() if k != "data_batch_3.bin"}
    x, y, content = CIFAR10["data_batch_2.bin"]
    short = CIFAR10 | {"data_batch_2.bin": (x, y, content[:-5])}
    high = CIFAR10 | {"data_batch_2.bin": (x, y, b"\x0a" + content[1:])}
    yield pytest.param(good[: len(good) // 2], "", id="truncated")
    yield pytest.param(b"<html>not found</html>", "not a gzip file", id="a web page")
    for name, batches, message in (
        ("missing", missing, "data_batch_3.bin"),
        ("short", short, "cannot reshape"),
        ("high", high, "labels are 0 to 10 of 10 classes"),
    ):
        packed = archive("cifar-10-batches-bin", batches)
        yield pytest.param(packed, message, id=name)


@pytest.mark.parametrize("content, message", list(damaged_archives()), ids=by_message)
def test_a_damaged_cifar_archive_is_named(tmp_path, content, message):
    file = tmp_path / "cifar-10-binary.tar.gz"
    file.write_bytes(content)
    expected = f"{file}: .*{message}.*expected data_batch_1.bin.*3073 bytes an image"
    with pytest.raises(data.DataError, match=expected):
        data.load("cifar10", directory=tmp_path)


# The arrays kept


def forbid(monkeypatch, module, function):
    def called(*_):
        raise AssertionError(f"{function} called again")

    monkeypatch.setattr(module, function, called)


@pytest.mark.parametrize("gone", [False, True])
def test_the_second_load_takes_the_arrays_kept(tmp_path, monkeypatch, gone):
    write_idx(tmp_path)
    data.load("fashion_mnist", directory=tmp_path)
    forbid(monkeypatch, readers, "_read_idx")
    for file in IDX_FILES if gone else ():
        (tmp_path / file).unlink()
    check_idx(data.load("fashion_mnist", directory=tmp_path))


def test_changed_files_are_read_again(tmp_path):
    write_idx(tmp_path)
    data.load("fashion_mnist", directory=tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx(TRAIN_Y[::-1])))
    changed = data.load("fashion_mnist", directory=tmp_path)
    np.testing.assert_array_equal(changed.y, TRAIN_Y[::-1])


@pytest.mark.parametrize("keep", [0, 100, -40])
def test_damaged_arrays_are_made_again(tmp_path, keep):
    write_idx(tmp_path)
    data.load("fashion_mnist", directory=tmp_path)
    good = (tmp_path / CACHE).read_bytes()
    (tmp_path / CACHE).write_bytes(good[:keep])
    check_idx(data.load("fashion_mnist", directory=tmp_path))
    assert len((tmp_path / CACHE).read_bytes()) == len(good)


def test_a_directory_that_cannot_be_written_is_read_all_the_same(tmp_path, monkeypatch):
    write_idx(tmp_path)

    def refuse(*_, **__):
        raise PermissionError("read-only")

    monkeypatch.setattr(np, "savez", refuse)
    check_idx(data.load("fashion_mnist", directory=tmp_path))
    assert {file.name for file in tmp_path.iterdir()} == set(IDX_FILES)


# Sets prepared by TFDS


class TinyImages(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    SHAPE: tuple[int | None, ...] = (4, 3, 1)

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=self.SHAPE),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, _):
        return {
            "train": self._generate_examples(TRAIN, TRAIN_Y),
            "test": self._generate_examples(TEST, TEST_Y),
        }

    def _generate_examples(self, x, y):
        for i, (image, label) in enumerate(zip(x, y, strict=True)):
            png = io.BytesIO()  # encoded here, for TFDS encodes with TensorFlow
            Image.fromarray(image).save(png, "PNG")
            png.seek(0)
            yield i, {"image": png, "label": int(label)}


class OddImages(TinyImages):
    SHAPE = (None, None, 1)


def prepare(directory, builder=TinyImages):
    builder(data_dir=directory, file_format="array_record").download_and_prepare()
    return directory / builder.name / "1.0.0"


def by_label(x, y):
    return np.asarray(x)[np.argsort(y)]


def test_a_set_prepared_by_tfds_is_read_and_kept(tmp_path, monkeypatch):
    prepare(tmp_path)
    first = data.load("tiny_images", directory=tmp_path)
    # TFDS shuffles; every label occurs once, so sorting by it undoes that.
    x, x_test = data.standardize(TRAIN, TEST)
    np.testing.assert_array_equal(
        by_label(first.x[..., 0], first.y), by_label(x, TRAIN_Y)
    )
    np.testing.assert_array_equal(
        by_label(first.x_test[..., 0], first.y_test), by_label(x_test, TEST_Y)
    )
    assert first.classes == 10
    assert "tensorflow" not in sys.modules
    forbid(monkeypatch, image_sets, "read_prepared")
    second = data.load("tiny_images", directory=tmp_path)
    np.testing.assert_array_equal(first.x, second.x)


def test_two_prepared_versions_must_be_told_apart(tmp_path):
    folder = prepare(tmp_path)
    (folder.parent / "2.0.0").mkdir()
    (folder.parent / "2.0.0" / "dataset_info.json").write_text("{}")
    versions = "tiny_images/1.0.0, tiny_images/2.0.0"
    with pytest.raises(data.DataError, match=f"prepared more than once.*{versions}"):
        data.load("tiny_images", directory=tmp_path)
    assert len(data.load("tiny_images:1.0.0", directory=tmp_path).y) == len(TRAIN_Y)


def test_a_set_prepared_for_tensorflow_is_refused_with_the_command_to_run(tmp_path):
    info = prepare(tmp_path) / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    for file in info.parent.glob("*array_record*"):
        file.rename(str(file).replace("array_record", "tfrecord"))
    expected = f"{info.parent}: its files are tfrecord.*move.*download_and_prepare"
    with pytest.raises(data.DataError, match=expected):
        data.load("tiny_images", directory=tmp_path)


def test_a_damaged_prepared_set_is_named(tmp_path):
    folder = prepare(tmp_path)
    (shard,) = folder.glob("*train*")
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(data.DataError, match=f"can't read {folder}: "):
        data.load("tiny_images", directory=tmp_path)


def test_images_of_many_sizes_are_refused(tmp_path):
    prepare(tmp_path, OddImages)
    with pytest.raises(data.DataError, match=r"shape \(None, None, 1\).*one size"):
        data.load("odd_images", directory=tmp_path)


# Downloads


@pytest.fixture
def server(tmp_path_factory):
    """A server on this machine: the folder it serves, and its address."""
    folder = tmp_path_factory.mktemp("served")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def offer(monkeypatch, name, address, contents):
    """Lets the real TFDS builder list these files, with their sizes and checksums."""
    infos = {
        f"{address}/{file}": UrlInfo(
            len(content), hashlib.sha256(content).hexdigest(), file
        )
        for file, content in contents.items()
    }
    monkeypatch.setattr(tfds.builder_cls(name), "url_infos", infos)


def files_below(folder):
    return sorted(p.relative_to(folder).name for p in folder.rglob("*") if p.is_file())


def test_the_original_files_are_downloaded_once(tmp_path, server, monkeypatch):
    folder, address = server
    write_idx(folder)
    contents = {name: (folder / name).read_bytes() for name in IDX_FILES}
    offer(monkeypatch, "fashion_mnist", address, contents)
    directory = tmp_path / "made" / "for it"
    check_idx(data.load("fashion_mnist", directory=directory))
    assert files_below(directory) == sorted([*IDX_FILES, CACHE])
    forbid(monkeypatch, image_sets, "fetch_file")
    check_idx(data.load("fashion_mnist", directory=directory))


def test_a_download_goes_on_with_the_files_that_are_missing(
    tmp_path, server, monkeypatch
):
    folder, address = server
    write_idx(folder)
    contents = {name: (folder / name).read_bytes() for name in IDX_FILES}
    offer(monkeypatch, "fashion_mnist", address, contents)
    last = folder / "t10k-labels-idx1-ubyte.gz"
    last.rename(folder / "away")
    with pytest.raises(data.DataError, match=f"{last.name} can't be downloaded .*404"):
        data.load("fashion_mnist", directory=tmp_path)
    (folder / "away").rename(last)
    for name in set(IDX_FILES) - {last.name}:
        (folder / name).unlink()
    check_idx(data.load("fashion_mnist", directory=tmp_path))


def test_cifar10_is_downloaded(tmp_path, server, monkeypatch):
    folder, address = server
    packed = archive("cifar-10-batches-bin", CIFAR10)
    (folder / "cifar-10-binary.tar.gz").write_bytes(packed)
    offer(monkeypatch, "cifar10", address, {"cifar-10-binary.tar.gz": packed})
    check_cifar10(data.load("cifar10", directory=tmp_path))


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-20], lambda b: b[:-20] + bytes(20), lambda b: b""]
)
def test_a_damaged_download_is_refused_and_leaves_nothing(
    tmp_path, server, monkeypatch, damage
):
    folder, address = server
    packed = archive("cifar-10-batches-bin", CIFAR10)
    (folder / "cifar-10-binary.tar.gz").write_bytes(damage(packed))
    offer(monkeypatch, "cifar10", address, {"cifar-10-binary.tar.gz": packed})
    digest = hashlib.sha256(packed).hexdigest()
    expected = f"cifar-10-binary.tar.gz from .*expected {len(packed)} bytes.*{digest}"
    with pytest.raises(data.DataError, match=expected):
        data.load("cifar10", directory=tmp_path)
    assert files_below(tmp_path) == []


def refused():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def test_without_data_and_network_one_error_says_what_to_do(tmp_path, monkeypatch):
    offer(monkeypatch, "cifar10", f"http://127.0.0.1:{refused()}", {"a": b""})
    with pytest.raises(data.DataError) as caught:
        data.load("cifar10", directory=tmp_path / "none")
    message = str(caught.value)
    for part in (
        f"cifar10 is not in {tmp_path / 'none'}, and",
        "can't be downloaded",
        "refused",
        "--config.data.dir=",
        "cifar-10-binary.tar.gz",
        "pip install 'nfp-jax[prepare]'",
        f"tfds.builder('cifar10', data_dir='{tmp_path / 'none'}', "
        "file_format='array_record').download_and_prepare()",
    ):
        assert part in message
    assert "\n" not in message
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.0 200 OK\r\n\r\n12345"])
def test_a_server_that_stalls_is_given_up(tmp_path, monkeypatch, begun):
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(download, "STALL_SECONDS", 0.6)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        offer(
            monkeypatch,
            "cifar10",
            f"http://127.0.0.1:{silent.getsockname()[1]}",
            {"cifar-10-binary.tar.gz": b"1234567890"},
        )
        held = []

        def answer():
            held.append(silent.accept()[0])
            held[0].sendall(begun)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(data.DataError, match=r"answer within|timed out"):
            data.load("cifar10", directory=tmp_path)
        thread.join()
        held[0].close()
    assert files_below(tmp_path) == []


def test_a_name_look_up_that_hangs_is_given_up_within_ten_seconds(
    tmp_path, monkeypatch
):
    woken = threading.Event()

    def hang(*_, **__):
        woken.wait(60)
        raise OSError("too late")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    offer(monkeypatch, "cifar10", "http://nowhere.invalid", {"a": b""})
    start = time.monotonic()
    with pytest.raises(data.DataError, match="no answer within 5 seconds"):
        data.load("cifar10", directory=tmp_path)
    assert time.monotonic() - start < 10
    woken.set()


def test_forbidding_downloads_is_said(tmp_path):
    with pytest.raises(data.DataError, match=r"download=False.*--config\.data\.dir="):
        data.load("fashion_mnist", directory=tmp_path, download=False)


def test_a_set_that_only_tfds_can_prepare_gets_the_command(tmp_path):
    expected = r"only TFDS can.*tfds\.builder\('svhn_cropped', data_dir='"
    with pytest.raises(data.DataError, match=expected):
        data.load("svhn_cropped", directory=tmp_path)


@pytest.mark.parametrize("name", ["/", "../other", "a/../../b", ""])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(data.DataError, match=r"data\.name is .*expected the name of a"):
        data.load(name, directory=tmp_path / "sets")


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    expected = "unknown set 'cifar11', expected digits, mnist, fashion_mnist, cifar10"
    with pytest.raises(data.DataError, match=expected):
        data.load("cifar11", directory=tmp_path)


@pytest.mark.skipif(
    "NFP_FASHION_MNIST_DIR" not in os.environ,
    reason="NFP_FASHION_MNIST_DIR does not say where the real images are",
)
def test_the_real_fashion_mnist_has_its_sizes_and_first_labels(tmp_path):
    folder = os.environ["NFP_FASHION_MNIST_DIR"]
    for file in os.listdir(folder):
        if "ubyte" in file:  # linked, so that the arrays are not kept beside them
            (tmp_path / file).symlink_to(os.path.join(folder, file))
    dataset = data.load("fashion_mnist", directory=tmp_path, download=False)
    assert dataset.x.shape == (60_000, 28, 28, 1)
    assert dataset.x_test.shape == (10_000, 28, 28, 1)
    assert np.bincount(dataset.y).tolist() == [6000] * 10
    assert dataset.y[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
