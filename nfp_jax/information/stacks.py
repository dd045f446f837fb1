"""Masks and labels of many data sets, stacked: checked, numbered, their probability."""

from typing import Any

import numpy as np

from nfp_jax.information.conditioning import label_entropy


def mask_identities(masks: np.ndarray) -> np.ndarray:
    """A number for each mask; equal masks have equal numbers."""
    return row_identities(np.packbits(masks, axis=1))


def row_identities(packed: np.ndarray) -> np.ndarray:
    """A number for each row of bytes, ``int[K]``; equal rows have equal numbers.

    Rows are compared as a whole: numpy's ``unique`` of rows compares byte by byte.

    >>> row_identities(np.array([[2, 1], [0, 3], [2, 1]], np.uint8)).tolist()
    [1, 0, 1]
    """
    rows = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1])))
    _, ids = np.unique(rows.reshape(-1), return_inverse=True)
    return ids.reshape(-1)


def checked_masks(masks: Any) -> np.ndarray:
    """The masks as a bool array, checked."""
    masks = np.asarray(masks)
    if masks.ndim != 2 or not masks.size:
        raise ValueError(
            f"masks of shape {masks.shape}, expected [datasets, weights], at least 1"
        )
    if masks.dtype != bool:
        if not np.isin(masks, (0, 1)).all():
            raise ValueError(f"masks hold other values than 0 and 1 ({masks.dtype})")
        masks = masks.astype(bool)
    return masks


def log_label_law(prior: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The log probability of each data set's labels ``[datasets]``, nats."""
    with np.errstate(divide="ignore"):
        log_p = np.log(prior)[None]
    by_label = np.take_along_axis(log_p, labels[..., None], axis=2)
    return np.asarray(by_label.sum(axis=(1, 2)))


def checked_labels(
    labels: Any, count: int, classes: int, probabilities: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Labels ``[count, n]`` and their law ``[n, classes]``, checked."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or len(labels) != count or not labels.size:
        raise ValueError(
            f"labels of shape {labels.shape}, expected [datasets, n] with {count} "
            "data sets, as many as masks"
        )
    prior = np.full((labels.shape[1], classes), 1 / classes)
    if probabilities is not None:
        prior = np.asarray(probabilities, np.float64)
        label_entropy(prior, conditioning="labels")  # checks it
    if len(prior) != labels.shape[1]:
        raise ValueError(
            f"label_probabilities are of {len(prior)} labels, expected "
            f"{labels.shape[1]}, as many as a data set has"
        )
    if not np.isin(labels, np.arange(prior.shape[1])).all():
        raise ValueError(
            f"labels hold {labels.min()} to {labels.max()}, expected whole numbers in "
            f"0 to {prior.shape[1] - 1}"
        )
    labels = labels.astype(int)
    if (np.take_along_axis(prior[None], labels[..., None], axis=2) <= 0).any():
        raise ValueError("labels hold some that label_probabilities rule out")
    return labels, prior
