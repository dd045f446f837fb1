"""How the masks of a cell are read: by which decoders, and by which laws of masks."""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax import decoding, information, masks, models
from nfp_jax.grid import Cell
from nfp_jax.lab.draws import READ, Draw, key_of
from nfp_jax.lab.masking import counts_of, mask_fn_of, mask_on
from nfp_jax.lab.setup import Setup, is_moving, is_through, score_of
from nfp_jax.losses import classification_loss
from nfp_jax.masks.prunable import prunable_leaves
from nfp_jax.models.dense import dense_layers
from nfp_jax.pruners.by_score import ByScore
from nfp_jax.pruners.contract import Polynomial
from nfp_jax.questions.information.family import label_probabilities
from nfp_jax.types import Mask, Scores

# Makes what reads masks from training, and the law that predicts them; None: nothing.
Trained = Callable[[], tuple[decoding.Decoder, decoding.MaskLaw] | None]


def bound_masks(
    setup: Setup,
    draw: Draw,
    cell: Cell,
    found: np.ndarray,
    labels: np.ndarray,
    x: np.ndarray | None,
    trained: Trained | None = None,
) -> tuple[information.Interval, int]:
    """Returns the interval of a cell's information, from its K masks, and how many
    blocks of labels a decoder that diverged gave the labels' law.

    Masks of a score that is a polynomial in the labels are read by propagation, under
    ``"data"`` example by example; of other scores by searching for labels that give the
    mask; all others by ridge, with what the masked network says, and those from
    training by what trains on labels found, too. What cannot be read by a decoder that
    knows the pruner is read as all others are.

    Args:
      setup: the network and the pruners.
      draw: the initial weights and the keys.
      cell: the coordinates.
      found: ``bool[K, P]``, the masks, of the prunable weights alone.
      labels: ``int32[K, n]``.
      x: the inputs ``[n, ...]``, ``[K, n, ...]`` under ``"data"``; ``None`` where the
        pruner sees nothing of what is resampled.
      trained: makes what reads masks from training; ``None``: it is not asked.

    Raises:
      decoding.NotAdditive: the pruner says that its score is a mean over examples,
        which it is not; names the pruner.
    """
    settings = setup.spec.settings
    probabilities = label_probabilities(setup, draw, cell)
    known = probabilities is not None  # labels of no known law are not decoded

    def bounds(
        decoders: list[decoding.Decoder], laws: list[decoding.MaskLaw]
    ) -> tuple[information.Interval, int]:
        interval = information.mask_information(
            found,
            labels if known else None,
            conditioning=settings.conditioning,
            label_probabilities=probabilities,
            x=x,
            keep=masks.keep_count(setup.total, cell["sparsity"]),
            gaussian=x is not None
            and setup.card is not None
            and setup.card.gaussian_inputs,
            decoders=decoders,
            laws=laws,
            confidence=settings.confidence,
        )
        return interval, sum(getattr(one.log_prob, "fallbacks", 0) for one in decoders)

    if not known or is_free(setup, cell):
        return bounds([], [])
    try:
        return bounds(*readers_of(setup, draw, cell, trained))
    except decoding.CannotDecode:
        return bounds(general_readers(setup, draw, cell), [])
    except decoding.NotAdditive as error:
        raise decoding.NotAdditive(
            f"pruner {cell['pruner']!r} says that its score is a mean over examples "
            f"(a Polynomial of degree 1), and {error}"
        ) from error


def is_free(setup: Setup, cell: Cell) -> bool:
    """Returns whether the pruner says that it sees nothing of what is resampled.

    Masks would be the same for all data sets, and there is nothing to read. What
    decides is what the card says, and not the masks: these are what is certified.
    """
    unseen = {"nothing", "inputs"}
    if setup.spec.settings.conditioning == "data":
        unseen = {"nothing"}
    return cell["sees"] in unseen


def readers_of(
    setup: Setup, draw: Draw, cell: Cell, trained: Trained | None = None
) -> tuple[list[decoding.Decoder], list[decoding.MaskLaw]]:
    """Returns what decodes the masks of a cell, and the laws that predict them."""
    most = setup.spec.settings.decoded
    polynomial = polynomial_of(setup, cell)
    if polynomial is not None:
        signed = signed_of(setup, draw, cell, polynomial)
        if setup.spec.settings.conditioning == "data":
            if are_independent(setup, cell):
                return by_examples(setup, draw, cell, signed, polynomial.degree)
        elif polynomial.degree == 1 and setup.classes == 2:
            return [decoding.additive(signed, most=most)], [decoding.mask_law(signed)]
        elif polynomial.degree == 2 and setup.classes == 2:
            slopes = slopes_of(setup, draw, cell)
            if slopes is not None:
                return [decoding.quadratic(signed, slopes=slopes, most=most)], []
    decoders = general_readers(setup, draw, cell)
    if trained is not None and is_through(setup, cell) and (both := trained()):
        return [*decoders, both[0]], [both[1]]
    return decoders, []


def general_readers(setup: Setup, draw: Draw, cell: Cell) -> list[decoding.Decoder]:
    """Returns what decodes masks of any score: ridge, and search where it may."""
    features = decoding.network_features(
        setup.model.apply, draw.params, prunable=setup.prunable
    )
    decoders = [decoding.ridge(features=features)]
    before = not (is_through(setup, cell) or is_moving(setup, cell))
    asked = setup.spec.settings.decoded
    if asked and before and score_of(setup, cell) is not None:
        decoders.append(search(setup, draw, cell))
    return decoders


def polynomial_of(setup: Setup, cell: Cell) -> Polynomial | None:
    """Returns what the score of a cell's pruner is in the labels, where that is known,
    masks are found in one round at initialization, and they are to be decoded.
    """
    if is_through(setup, cell) or is_moving(setup, cell):
        return None
    mask_fn, asked = mask_fn_of(setup, cell), setup.spec.settings.decoded
    if not (asked and isinstance(mask_fn, ByScore) and mask_fn.rounds == 1):
        return None
    found: Polynomial | None = getattr(mask_fn.score_fn, "polynomial", None)
    return found


def slopes_of(setup: Setup, draw: Draw, cell: Cell) -> Any:
    """Returns the slopes of GraSP's score in closed form; None: there are none."""
    try:
        layers = models.layer_chain(setup.model)
        temperature = json.loads(cell["settings"] or "{}").get("temperature", 1.0)
        return decoding.relu_chain(
            draw.params, layers, temperature=temperature, prunable=setup.prunable
        )
    except ValueError:  # no chain of dense layers, or a deeper one
        return None


def are_independent(setup: Setup, cell: Cell) -> bool:
    """Returns whether the examples of a data set are independent draws of one law.

    Those of a set with clean labels of its own kind may share what made them, and fresh
    ones would not: lists of both would tell them apart without the mask.
    """
    card = setup.card
    if card is None or not card.gaussian_inputs:
        return False
    return bool(card.uniform_labels or cell["noise"] == 1.0)


def by_examples(
    setup: Setup, draw: Draw, cell: Cell, signed: decoding.Signed, degree: int
) -> tuple[list[decoding.Decoder], list[decoding.MaskLaw]]:
    """Returns what reads whole examples off masks, and predicts masks of any data.

    A score of degree two is linearized, and no law of its masks is known.
    """
    most = setup.spec.settings.decoded

    def fresh(key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
        assert setup.make is not None  # the set is synthetic
        points, noise = jax.random.split(key)
        made = setup.make(points, n=count)
        labels = setup.redraw(made.clean, noise, cell["noise"])
        return jnp.asarray(made.x), jnp.asarray(labels.y)

    # Not of the streams that data sets are drawn from.
    key = key_of(setup, READ, cell["data_seed"])
    first, second, third = jax.random.split(key, 3)
    if degree == 2:
        around = decoding.examples_around(signed, fresh, first)
        return [by_lists(around, most)], []
    few, labels = fresh(third, 16)
    readout = decoding.readout_for(
        signed,
        dense_layers(classification_loss(setup.model.apply), draw.params),
        prunable_leaves(draw.params, setup.prunable),
        jax.nn.one_hot(labels, setup.classes),
        few,
    )
    reader = decoding.examples(signed, fresh, first, readout=readout)
    law = decoding.factors(signed, fresh, second)
    return [by_lists(reader, most)], [decoding.MaskLaw("factors", law.log_prob)]


def by_lists(reader: Any, most: int) -> decoding.Decoder:
    """Returns the decoder that names examples in lists."""
    return decoding.Decoder(
        "lists of examples", None, most, blocks=1, fitted=False, gains=reader.gains
    )


def signed_of(
    setup: Setup, draw: Draw, cell: Cell, polynomial: Polynomial
) -> decoding.Signed:
    """Returns the pruner of a cell as decoders see it."""

    def score(q: jax.Array, x: Any) -> Scores:
        key, prunable = draw.score_key, setup.prunable
        found: Scores = polynomial.fn(draw.params, (x, q), key, None, prunable)
        return found

    return decoding.Signed(
        score,
        mask_of(setup, draw, cell),
        absolute=polynomial.absolute,
        by_layer=cell["select"] != "global",
        prunable=setup.prunable,
    )


def mask_of(setup: Setup, draw: Draw, cell: Cell) -> Any:
    """Returns ``mask_fn(y, x) -> mask``: the pruner of a cell."""
    keep = counts_of(setup, cell)

    def mask(y: jax.Array, x: jax.Array) -> Mask:
        return mask_on(setup, draw, cell, (x, y), keep=keep)

    return mask


def search(setup: Setup, draw: Draw, cell: Cell) -> decoding.Decoder:
    """Returns the decoder that runs a pruner at initialization in its loop."""
    score_fn: Any = score_of(setup, cell)
    prunable = setup.prunable

    def scores(q: jax.Array, x: jax.Array) -> Scores:
        found: Scores = score_fn(draw.params, (x, q), draw.score_key, prunable=prunable)
        return found

    most = setup.spec.settings.decoded
    mask = mask_of(setup, draw, cell)
    return decoding.search(scores, mask, most=most, prunable=prunable)
