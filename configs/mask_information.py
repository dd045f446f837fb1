"""How much each mask knows of the labels that it was found on: intervals, in nats.

    python launch.py --config=configs/mask_information.py          # about 10 minutes
    python launch.py --config=configs/mask_information.py:smoke    # seconds
    python launch.py --config=configs/mask_information.py:small    # at most 6 minutes
    python launch.py --config=configs/mask_information.py:thousand
    python launch.py --config=configs/mask_information.py:free     # seconds
    python launch.py --config=configs/mask_information.py:free_data
    python launch.py --config=configs/mask_information.py:scaling
    python launch.py --config=configs/mask_information.py:data
    python launch.py --config=configs/mask_information.py:small_data
    python launch.py --config=configs/mask_information.py:seed
    python launch.py --config=configs/mask_information.py:digits
    python launch.py --config=configs/mask_information.py:paper
    python launch.py --config=configs/mask_information.py:paper_784

Many data sets at one initialization: the same Gaussian inputs in d = 50, fresh Boolean
labels each time, up to seven pruners. Times are of two CPU cores; "about" is reckoned
from the cost of a mask, and not measured. The numbers to expect are those of
``:small``.
"""

from ml_collections import ConfigDict

from configs.start import PRUNERS, chosen, defaults, end_soon, set_seeds


def base() -> ConfigDict:
    """What the other presets start from: 512 labelings of n = 100 points, 7 pruners."""
    config = defaults()
    config.name = "mask-information"
    config.question = "information"
    config.data.name = "gaussian"
    config.data.dim = 50
    config.information.datasets = 512
    config.information.decoded = 48
    config.grid.pruner = PRUNERS
    config.grid.sparsity = (0.8, 0.9, 0.95)
    config.grid.n = (100,)
    config.grid.noise = (1.0,)  # every label is a coin toss
    set_seeds(config, 1)
    return config


def default() -> ConfigDict:
    """32 labelings of 100 and of 1,000 points, 50-200-200-2, 5,040 and 1,008 kept.

    Of four pruners. At n = 1000 (693 nats) information could stand beside the weights.
    About 10 minutes on two CPU cores, most of it reading SNIP's masks at 98 %.
    """
    config = base()
    config.information.datasets = config.information.decoded = 32
    config.grid.pruner = ("snip", "grasp", "magnitude_trained", "random")
    config.grid.sparsity = (0.9, 0.98)
    config.grid.n = (100, 1000)
    return config


def smoke() -> ConfigDict:
    """A test that takes seconds."""
    config = base()
    config.name = "mask-information-smoke"
    config.data.dim = 10
    config.model.widths = (16, 16)
    end_soon(config)
    config.information.datasets = 16
    config.grid.sparsity = (0.5, 0.9)
    config.grid.n = (20,)
    return config


def small() -> ConfigDict:
    """The network whose capacity and data swap other configurations measure.

        python launch.py --config=configs/mask_information.py:small

    50-50-50-2, 256 labelings of n = 200 points (139 nats). A part of paper.py. At most
    6 minutes on two CPU cores: other work ran beside it. Expect (docs/claims.csv) that
    IMP's masks hold so many nats more than those of every data-free pruner, where the
    number is the middle of two certified ends:

    - information/data-free/n=200/0.9/imp: 96.7 (54.9 to 139)
    """
    config = base()
    config.name = "mask-information-small"
    config.model.widths = (50, 50)
    config.information.datasets = 256
    config.information.decoded = 16
    # Verdicts compare several intervals at split levels, among hundreds of claims.
    config.information.confidence = 1 - 1e-6
    config.grid.n = (200,)
    return config


def seed() -> ConfigDict:
    """IMP, SNIP, GraSP and SynFlow at 50 % removed, into the directory of small."""
    config = small()
    config.grid.pruner = ("imp", "snip", "grasp", "synflow")
    config.grid.sparsity = (0.5,)
    return config


def thousand() -> ConfigDict:
    """N = 1000 points (693 nats), where information could stand beside the weights.

        python launch.py --config=configs/mask_information.py:thousand

    50-200-200-2 with 5,040 and 1,008 weights kept, 128 labelings, at initialization.
    About half an hour on two CPU cores, most of it reading SNIP's masks at 98 %.
    """
    config = base()
    config.name = "mask-information-thousand"
    config.information.datasets = 128
    config.information.decoded = 128
    config.grid.pruner = ("snip", "grasp", "synflow", "magnitude_init", "random")
    config.grid.sparsity = (0.9, 0.98)
    config.grid.n = (1000,)
    return config


def free() -> ConfigDict:
    """As thousand, pruners that see no data, with as many labelings as 3 nats take.

        python launch.py --config=configs/mask_information.py:free

    Masks that are all equal bound how often another one may come: with 2,048 of them
    that is worth about 2 nats. Seconds, since all labelings look alike to them.
    """
    config = thousand()
    config.name = "mask-information-free"
    config.information.datasets = 2048
    config.grid.pruner = ("synflow", "magnitude_init", "random")
    return config


def free_data() -> ConfigDict:
    """As free, with inputs and labels resampled: a mask is then capped by its count.

        python launch.py --config=configs/mask_information.py:free_data

    16,379 nats in place of 693, and so 32,768 data sets. 5 minutes on two CPU cores,
    with other work beside it, nearly all of them for the code.
    """
    config = free()
    config.name = "mask-information-free-data"
    config.information.conditioning = "data"
    config.information.datasets = 32768
    config.grid.pruner = ("synflow", "random")
    config.grid.sparsity = (0.9,)
    return config


def scaling() -> ConfigDict:
    """Against n, and against the weights kept k, from n/k = 0.02 to 2.

        python launch.py --config=configs/mask_information.py:scaling

    50-200-200-2, 48 labelings, four pruners, 10,080 to 101 weights kept. At n = 200 and
    at k = 252 n/k takes the same four values, once by k and once by n. About 25 minutes
    on two CPU cores, most of it reading SNIP's masks at n = 500.
    """
    config = base()
    config.name = "mask-information-scaling"
    config.information.datasets = config.information.decoded = 48
    # Verdicts compare two intervals at split levels, among hundreds of claims.
    config.information.confidence = 1 - 1e-5
    config.grid.pruner = ("snip", "grasp", "synflow", "random")
    config.grid.sparsity = (0.8, 0.98, 0.995, 0.998)
    config.grid.n = (5, 50, 200, 500)
    return config


def data() -> ConfigDict:
    """The paper's own quantity: inputs and labels resampled, n = 1000.

        python launch.py --config=configs/mask_information.py:data

    As thousand, 1,024 data sets: so many the code needs above; 128 of them are read by
    lists below. Without GraSP, whose masks at this size take an accelerator
    (small_data has them). 44 minutes on two CPU cores with other work beside it. Its
    rows are in docs/results.
    """
    config = thousand()
    config.name = "mask-information-data"
    config.information.conditioning = "data"
    config.information.datasets = 1024
    config.grid.pruner = ("snip", "synflow", "random")
    return config


def small_data() -> ConfigDict:
    """As small, with inputs and labels resampled: beside it, p_eff of either kind.

    At initialization. Not run yet; from the seconds that a mask takes, about half an
    hour on two CPU cores.
    """
    config = small()
    config.name = "mask-information-small-data"
    config.information.conditioning = "data"
    config.information.decoded = 128
    config.grid.pruner = ("snip", "grasp", "synflow", "random")
    return config


def digits() -> ConfigDict:
    """As small, on 8×8 digits with random labels."""
    config = small()
    config.name = "mask-information-digits"
    config.data.name = "digits"
    # With ten classes the search takes minutes and finds few nats.
    config.information.decoded = 0
    return config


def paper() -> ConfigDict:
    """1,024 labelings, n = 5000 too, five sparsities, three seeds; not run yet.

    Weights are ranked over all layers and within each.
    """
    config = base()
    config.name = "mask-information-paper"
    config.information.datasets, config.information.decoded = 1024, 128
    config.grid.sparsity = (0.5, 0.8, 0.9, 0.95, 0.98)
    config.grid.n = (100, 5000)
    config.grid.select = ("global", "per_layer")
    set_seeds(config, 3)
    return config


def paper_784() -> ConfigDict:
    """As paper, with 784-200-200-10 and ten classes; not run yet."""
    config = paper()
    config.name = "mask-information-paper-784"
    config.data.dim, config.data.classes = 784, 10
    return config


PRESETS = {
    "": default,
    "smoke": smoke,
    "seed": seed,
    "small": small,
    "thousand": thousand,
    "free": free,
    "free_data": free_data,
    "scaling": scaling,
    "data": data,
    "small_data": small_data,
    "digits": digits,
    "paper": paper,
    "paper_784": paper_784,
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset, one of ``PRESETS``."""
    return chosen(PRESETS, preset, "mask_information.py")
