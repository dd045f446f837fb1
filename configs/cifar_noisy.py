"""CIFAR-10, half of its labels redrawn, on a small convolutional network.

    python launch.py --config=configs/cifar_noisy.py
    python launch.py --config=configs/cifar_noisy.py --config.data.dir=DIR

``DIR`` holds the official ``cifar-10-binary.tar.gz`` or a set that TFDS prepared;
without it the archive is downloaded. 500 of the 50,000 images, sized for two cores;
``:smoke`` takes seconds; ``:paper`` trains a wider network on all of them under the
paper's stopping rule, rewind and finetune both, and wants an accelerator. On the real
images none of them was ever run.
"""

from ml_collections import ConfigDict

from configs.start import PRUNERS, defaults, end_soon


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset: ``""``, ``"smoke"`` or ``"paper"``."""
    config = defaults()
    config.name = "cifar10"
    config.data.name = "cifar10"
    config.model.name = "convnet"
    config.model.channels = (16, 32)
    config.model.widths = (64,)
    config.train.max_epochs = 400
    config.prune.score_chunk = 256
    config.grid.pruner = ("dense", *PRUNERS)
    config.grid.sparsity = (0.8, 0.9, 0.95)
    config.grid.n = (500,)
    config.grid.noise = (0.5,)
    config.grid.paired_seeds = True
    seeds: tuple[int, ...] = (0, 1, 2)
    if preset == "smoke":
        config.name = "cifar10-smoke"
        config.model.channels = (4, 8)
        config.model.widths = (16,)
        end_soon(config)
        config.grid.sparsity = (0.5, 0.9)
        config.grid.n = (64,)
        seeds = (0,)
    elif preset == "paper":
        config.name = "cifar10-paper"
        config.model.channels = (32, 64)
        config.model.widths = (128,)
        config.train.stop = "paper"
        config.train.max_epochs = 200
        config.grid.sparsity = (0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
        config.grid.n = (50000,)
        config.grid.noise = (0.1, 0.2, 0.5)
        config.grid.resume = ("rewind", "finetune")
        seeds = tuple(range(5))
    elif preset:
        raise ValueError(
            f"preset {preset!r} of cifar_noisy.py, expected smoke or paper"
        )
    config.grid.init_seed = config.grid.data_seed = config.grid.train_seed = seeds
    return config
