"""How the masks of a cell are read: by which decoders, and by which laws of masks."""

from typing import Any

import jax
import numpy as np

from nfp_jax import decoding, information, masks
from nfp_jax.grid import Cell
from nfp_jax.lab.draws import Draw
from nfp_jax.lab.masking import counts_of, mask_fn_of, mask_on
from nfp_jax.lab.setup import Setup, is_moving, is_through, score_of
from nfp_jax.pruners.by_score import ByScore
from nfp_jax.pruners.contract import Polynomial
from nfp_jax.questions.information.family import label_probabilities
from nfp_jax.types import Mask, Scores


def bound_masks(
    setup: Setup,
    draw: Draw,
    cell: Cell,
    found: np.ndarray,
    labels: np.ndarray,
    x: np.ndarray,
) -> tuple[information.Interval, int]:
    """Returns the interval of a cell's information, from its K masks, and how many
    blocks of labels a decoder that diverged gave the labels' law.

    Masks of a score that is a sum over examples, before its absolute value, are read by
    expectation propagation; of other scores by searching for labels that give the mask;
    all others by ridge, with what the masked network says.

    Args:
      setup: the network and the pruners.
      draw: the initial weights and the keys.
      cell: the coordinates.
      found: ``bool[K, P]``, the masks, of the prunable weights alone.
      labels: ``int32[K, n]``.
      x: the inputs ``[n, ...]``, ``[K, n, ...]`` under ``"data"``.
    """
    settings = setup.spec.settings
    probabilities = label_probabilities(setup, draw, cell)
    decoders, laws = [], []
    known = probabilities is not None  # labels of no known law are not decoded
    if known and any((mask != found[0]).any() for mask in found[1:]):
        decoders = decoders_of(setup, draw, cell)
        signed = additive_of(setup, draw, cell)
        if signed is not None and settings.conditioning == "labels":
            laws = [decoding.mask_law(signed)]
    interval = information.mask_information(
        found,
        labels if known else None,
        conditioning=settings.conditioning,
        label_probabilities=probabilities,
        x=x,
        keep=masks.keep_count(setup.total, cell["sparsity"]),
        gaussian=setup.card is not None and setup.card.gaussian_inputs,
        decoders=decoders,
        laws=laws,
        confidence=settings.confidence,
    )
    fallbacks = sum(getattr(one.log_prob, "fallbacks", 0) for one in decoders)
    return interval, fallbacks


def decoders_of(setup: Setup, draw: Draw, cell: Cell) -> list[decoding.Decoder]:
    """Returns what decodes the masks of a cell."""
    most = setup.spec.settings.decoded
    signed = additive_of(setup, draw, cell)
    if signed is not None:
        return [decoding.additive(signed, most=most)]
    features = decoding.network_features(
        setup.model.apply, draw.params, prunable=setup.prunable
    )
    decoders = [decoding.ridge(features=features)]
    before = not (is_through(setup, cell) or is_moving(setup, cell))
    if most and before and score_of(setup, cell) is not None:
        decoders.append(search(setup, draw, cell))
    return decoders


def additive_of(setup: Setup, draw: Draw, cell: Cell) -> decoding.Signed | None:
    """Returns the pruner of a cell before its absolute value, where that is a sum over
    examples and masks are found in one round; else None.
    """
    if is_through(setup, cell) or is_moving(setup, cell):
        return None
    mask_fn, asked = mask_fn_of(setup, cell), setup.spec.settings.decoded
    if not (asked and setup.classes == 2 and isinstance(mask_fn, ByScore)):
        return None
    polynomial = getattr(mask_fn.score_fn, "polynomial", None)
    if mask_fn.rounds > 1 or polynomial is None or polynomial.degree != 1:
        return None
    return signed_of(setup, draw, cell, polynomial)


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
