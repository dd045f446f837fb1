"""Do the results hang on the learning rate, its schedule, or the length of a round?

    python launch.py --config=configs/sensitivity.py:rate

``gaussian.py`` at 95 and 98 % removed with three of its pruners, three seeds and one
thing changed. ``:rate`` has a learning rate of 3e-3 in place of 1e-3; ``:cosine``
decays 1e-3 to 0 over the first 800 of 1,600 epochs, so that every network settles;
``:rounds`` gives the dense training and each round of IMP 60 epochs in place of as many
as they need; ``:late`` looks for the first time after 800 epochs whether a network has
settled; ``:base`` changes nothing.
"""

from ml_collections import ConfigDict

from configs import gaussian

PRESETS = ("base", "rate", "cosine", "rounds", "late")


def get_config(preset: str = "base") -> ConfigDict:
    """Returns a preset: one of ``PRESETS``."""
    if preset not in PRESETS:
        raise ValueError(
            f"preset {preset!r} of sensitivity.py, expected one of {', '.join(PRESETS)}"
        )
    config = gaussian.get_config()
    config.name = f"sensitivity-{preset}"
    config.grid.pruner = ("snip", "synflow", "imp")
    config.grid.sparsity = (0.95, 0.98)
    if preset == "rate":
        config.train.learning_rate = 3e-3
    elif preset == "cosine":
        config.train.max_epochs = 1600
        config.train.decay_steps = 800 * 16  # 16 steps an epoch
    elif preset == "late":
        config.train.settle_from = 400
        config.grid.pruner = ("snip", "synflow", "magnitude_trained", "imp")
    elif preset == "rounds":
        config.prune.round_epochs = 60
    return config
