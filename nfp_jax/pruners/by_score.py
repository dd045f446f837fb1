"""A score as a pruner at initialization: what most cards build."""

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp

from nfp_jax.masks import (
    Mask,
    Params,
    Prunable,
    Schedule,
    keep_counts,
    prunable_kernels,
    prunable_size,
    top_k,
)
from nfp_jax.pruners.contract import InitFn, ScoreFn
from nfp_jax.pruners.rounds import exponential, linear, prune
from nfp_jax.pruners.selects import SelectFn
from nfp_jax.types import Batch

SCHEDULES: dict[str, Schedule] = {"exponential": exponential, "linear": linear}
# ``counts(total, sparsity, rounds=, schedule=)``: how many weights each round keeps.
CountsFn = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class ByScore:
    """A ``MaskFn`` made of a score; ``by_score`` says what its fields are.

    Whoever has many masks to find takes it apart: ``prune_many(by.score_fn, …,
    keep=by.counts(total, sparsity), **by.options)``.
    """

    score_fn: ScoreFn
    rounds: int
    schedule: Schedule
    nested: bool
    fresh_keys: bool
    init_fn: InitFn | None
    counts_fn: CountsFn = keep_counts
    select: SelectFn | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What ``prune`` and ``prune_many`` are told of the rounds, beside counts."""
        return {
            "nested": self.nested,
            "fresh_keys": self.fresh_keys,
            "init_fn": self.init_fn,
        }

    def counts(self, total: int, sparsity: float | Fraction) -> Any:
        """Returns how many of ``total`` weights each round keeps, ``[rounds]``.

        By quota ``[rounds, layers]``, in the order of the prunable leaves.
        """
        return self.counts_fn(
            total, sparsity, rounds=self.rounds, schedule=self.schedule
        )

    def __call__(
        self,
        params: Params,
        batch: Batch = None,
        key: jax.Array | None = None,
        *,
        keep: Any,
        select: SelectFn | None = None,
        prunable: Prunable = None,
        mask: Mask = None,
    ) -> Mask:
        """Returns the mask, as every ``MaskFn``.

        Args:
          params: as in ``prune``.
          batch: as in ``prune``.
          key: as in ``prune``.
          keep: an integer, or those of all rounds, ``[rounds]``, as ``counts`` gives
            them. With several rounds, or by quota, a traced one must be as these.
          select: as in ``prune``, where the pruner has no selection of its own;
            ``None``: ``top_k``.
          prunable: as in ``prune``.
          mask: as in ``prune``.
        """
        prunable = prunable_kernels(params) if prunable is None else prunable
        if not jnp.ndim(keep) and (self.rounds > 1 or self.select is not None):
            total = prunable_size(params, prunable)
            keep = self.counts(total, 1 - Fraction(int(keep), total))
        if jnp.ndim(keep) == 2:
            keep = _by_leaf(jnp.asarray(keep), prunable)
        return prune(
            self.score_fn,
            params,
            batch,
            key,
            keep=keep,
            select=self.select or select or top_k,
            prunable=prunable,
            mask=mask,
            **self.options,
        )


def _by_leaf(quotas: jax.Array, prunable: Prunable) -> Any:
    """Quotas ``[rounds, layers]`` as a pytree like params of ``[rounds]``."""
    columns = iter(quotas.T)
    unused = jnp.zeros(quotas.shape[0], quotas.dtype)
    return jax.tree.map(lambda flag: next(columns) if flag else unused, prunable)


# More rounds of scoring are taken for a slip.
MOST_ROUNDS = 10_000


def by_score(
    score_fn: ScoreFn,
    *,
    rounds: int = 1,
    schedule: str | Schedule = "exponential",
    nested: bool = True,
    fresh_keys: bool = False,
    init_fn: InitFn | None = None,
    counts_fn: CountsFn = keep_counts,
    select: SelectFn | None = None,
) -> ByScore:
    """Returns a pruner at initialization made of a score: a ``MaskFn``.

    Args:
      score_fn: from ``nfp_jax.scores``, or another.
      rounds: the number of rounds.
      schedule: ``"exponential"``, ``"linear"``, or a function of (density, fraction).
      nested: as in ``prune``: whether removed weights stay removed.
      fresh_keys: as in ``prune``: whether every round has a key of its own.
      init_fn: as in ``prune``: what weights are drawn anew with in every round.
      counts_fn: ``counts_fn(total, sparsity, rounds=, schedule=)``, how many weights
        each round keeps, ``[rounds]``; ``masks.keep_counts`` or a paper's.
      select: the pruner's own selection; ``None``: whoever calls it chooses. With
        ``top_k_by_quota`` ``counts_fn`` returns ``[rounds, layers]``.

    Raises:
      ValueError: fewer than 1 round, or an unknown schedule (lists the known ones).

    >>> from nfp_jax.pruners.magnitude import magnitude
    >>> mask_fn = by_score(magnitude(), rounds=2)
    >>> mask_fn({"w": jnp.array([[1.0, -3.0, 2.0, 0.5]])}, keep=1)["w"].tolist()
    [[False, True, False, False]]
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}, expected rounds >= 1")
    if rounds > MOST_ROUNDS:
        raise ValueError(f"rounds is {rounds}, expected rounds <= {MOST_ROUNDS}")
    if isinstance(schedule, str):
        if schedule not in SCHEDULES:
            known = ", ".join(map(repr, SCHEDULES))
            raise ValueError(f"schedule is {schedule!r}, expected one of {known}")
        schedule = SCHEDULES[schedule]
    return ByScore(
        score_fn, rounds, schedule, nested, fresh_keys, init_fn, counts_fn, select
    )
