"""CIFAR-10, half of its labels redrawn, on a small convolutional network.

    python launch.py --config=configs/cifar_noisy.py
    python launch.py --config=configs/cifar_noisy.py --config.data.dir=DIR
    python launch.py --config=configs/cifar_noisy.py:smoke    # seconds
    python launch.py --config=configs/cifar_noisy.py:paper    # wants an accelerator

``DIR`` holds the official ``cifar-10-binary.tar.gz`` or a set that TFDS prepared;
without it the archive is downloaded. Seven pruners and the dense network. No preset was
ever run on the real images.
"""

from ml_collections import ConfigDict

from configs.start import PRUNERS, chosen, defaults, end_soon, set_seeds


def default() -> ConfigDict:
    """500 of the 50,000 images, sized for two CPU cores; three sparsities and seeds."""
    config = defaults()
    config.name = "cifar10"
    config.data.name = "cifar10"
    config.model.name = "convnet"
    config.model.channels = (16, 32)
    config.model.widths = (64,)
    config.train.max_epochs = 400
    config.pruners.snip.chunk_size = config.pruners.grasp.chunk_size = 256
    config.grid.pruner = ("dense", *PRUNERS)
    config.grid.sparsity = (0.8, 0.9, 0.95)
    config.grid.n = (500,)
    config.grid.noise = (0.5,)
    set_seeds(config, 3)
    return config


def smoke() -> ConfigDict:
    """A test that takes seconds, once the set is there."""
    config = default()
    config.name = "cifar10-smoke"
    config.model.channels = (4, 8)
    config.model.widths = (16,)
    end_soon(config)
    config.grid.sparsity = (0.5, 0.9)
    config.grid.n = (64,)
    set_seeds(config, 1)
    return config


def paper() -> ConfigDict:
    """All images, a wider network, the paper's stopping rule, rewind and finetune."""
    config = default()
    config.name = "cifar10-paper"
    config.model.channels = (32, 64)
    config.model.widths = (128,)
    config.train.stop = "paper"
    config.train.max_epochs = 200
    config.grid.sparsity = (0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
    config.grid.n = (50000,)
    config.grid.noise = (0.1, 0.2, 0.5)
    config.grid.resume = ("rewind", "finetune")
    set_seeds(config, 5)
    return config


PRESETS = {"": default, "smoke": smoke, "paper": paper}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset, one of ``PRESETS``."""
    return chosen(PRESETS, preset, "cifar_noisy.py")
