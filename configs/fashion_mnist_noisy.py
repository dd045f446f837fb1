"""Fashion-MNIST, half of its labels redrawn: memorizing real images, with a test set.

    python launch.py --config=configs/fashion_mnist_noisy.py
    python launch.py --config=configs/fashion_mnist_noisy.py --config.data.dir=DIR

``DIR`` holds the four original ``.gz`` files or a set that TFDS prepared; without it
the official files are downloaded. 2,000 of the 60,000 images, 784-200-200-10.
``:smoke`` takes seconds; ``:claims``, a part of ``paper.py:all``, has 1,000 images,
sparsities to 99 %, three seeds, rewind and finetune both; ``:paper`` trains on all of
them under the paper's stopping rule.
"""

from ml_collections import ConfigDict

from configs.start import PRUNERS, defaults, end_soon


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset, as listed above; ``""``: the default."""
    config = defaults()
    config.name = "fashion-mnist"
    config.data.name = "fashion_mnist"
    config.grid.pruner = ("dense", *PRUNERS)
    config.grid.sparsity = (0.8, 0.9, 0.95, 0.98)
    config.grid.n = (2000,)
    config.grid.noise = (0.5,)
    config.grid.paired_seeds = True
    seeds: tuple[int, ...] = (0, 1, 2)
    if preset == "smoke":
        config.name = "fashion-mnist-smoke"
        config.model.widths = (32, 32)
        end_soon(config)
        config.grid.sparsity = (0.5, 0.9)
        config.grid.n = (128,)
        seeds = (0,)
    elif preset == "claims":
        config.name = "fashion-mnist-claims"
        config.grid.resume = ("rewind", "finetune")
        config.grid.sparsity = (0.9, 0.95, 0.98, 0.99)
        config.grid.n = (1000,)
        seeds = tuple(range(3))
    elif preset == "paper":
        config.name = "fashion-mnist-paper"
        config.train.stop = "paper"
        config.train.max_epochs = 200
        config.grid.sparsity = (0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
        config.grid.n = (60000,)
        config.grid.noise = (0.1, 0.2, 0.5)
        config.grid.resume = ("rewind", "finetune")
        seeds = tuple(range(5))
    elif preset:
        raise ValueError(
            f"preset {preset!r} of fashion_mnist_noisy.py, expected smoke, claims or "
            "paper"
        )
    config.grid.init_seed = config.grid.data_seed = config.grid.train_seed = seeds
    return config
