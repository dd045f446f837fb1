"""How much of the label noise does a sparse network learn, at every rate of it?

    python launch.py --config=configs/noise_correlation.py          # about 3 minutes
    python launch.py --config=configs/noise_correlation.py:smoke    # seconds
    python launch.py --config=configs/noise_correlation.py:gaussian
    python launch.py --config=configs/noise_correlation.py:fashion_mnist
    python launch.py --config=configs/noise_correlation.py:cifar10
    python launch.py --config=configs/noise_correlation.py:paper

Correlation of the outputs with the noise, through training and at the end, at noise
rates from 0 (no noise: then there is nothing to correlate with) to 1 (pure noise).
64-200-200-10 on 8×8 digits, n = 1000, seven pruners and the dense network. The time is
an estimate for two CPU cores, from a run with one more sparsity.

Expect of the default (docs/claims.csv) this difference between the correlation of IMP's
networks with the noise and that of the best masks at initialization, at equal training
loss, where 1 is all noise learned; it is undecided:

- noise/noise-at-loss/imp-rewind/n=1000/0.9: -0.00932 (-0.0179 to 0.00412)
"""

from ml_collections import ConfigDict

from configs import cifar_noisy
from configs.start import PRUNERS, chosen, defaults, end_soon, set_seeds


def default() -> ConfigDict:
    """Four noise rates, 90 % removed, three seeds."""
    config = defaults()
    config.name = "noise-correlation"
    config.data.name = "digits"
    config.grid.pruner = ("dense", *PRUNERS)
    config.grid.sparsity = (0.9,)
    config.grid.n = (1000,)
    config.grid.noise = (0.0, 0.25, 0.5, 1.0)
    set_seeds(config, 3)
    return config


def smoke() -> ConfigDict:
    """A test that takes seconds."""
    config = default()
    config.name = "noise-correlation-smoke"
    config.model.widths = (16, 16)
    end_soon(config)
    config.grid.n = (100,)
    config.grid.noise = (0.0, 0.5, 1.0)
    set_seeds(config, 1)
    return config


def digits() -> ConfigDict:
    """The default under a name that says its set."""
    config = default()
    config.name = "noise-correlation-digits"
    return config


def gaussian() -> ConfigDict:
    """The default on Gaussian inputs."""
    config = default()
    config.name = "noise-correlation-gaussian"
    config.data.name = "gaussian"
    return config


def fashion_mnist() -> ConfigDict:
    """The default on 1,000 images of Fashion-MNIST."""
    config = default()
    config.name = "noise-correlation-fashion-mnist"
    config.data.name = "fashion_mnist"
    return config


def cifar10() -> ConfigDict:
    """The default on 500 images of CIFAR-10 and the ConvNet of cifar_noisy.py."""
    config = default()
    config.name = "noise-correlation-cifar10"
    config.data.name = "cifar10"
    small = cifar_noisy.default()
    for group in ("model", "train", "prune", "pruners"):
        config[group] = small[group]
    config.grid.n = small.grid.n
    return config


def paper() -> ConfigDict:
    """Digits with eleven noise rates, five sparsities and five seeds; not run yet."""
    config = default()
    config.name = "noise-correlation-paper"
    config.grid.sparsity = (0.5, 0.8, 0.9, 0.95, 0.98)
    config.grid.noise = tuple(i / 10 for i in range(11))
    set_seeds(config, 5)
    return config


PRESETS = {
    "": default,
    "smoke": smoke,
    "paper": paper,
    "digits": digits,
    "gaussian": gaussian,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset, one of ``PRESETS``."""
    return chosen(PRESETS, preset, "noise_correlation.py")
