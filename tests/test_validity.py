"""One audit for every decoder: what must hold whatever a decoder thinks of a mask.

The bound is valid if q is a distribution of the labels, and looks at nothing of the
masks that it is to certify but what is before its eyes. A new decoder joins
``DECODERS``.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nfp_jax as nfp
from nfp_jax import decoding, information, models, scores
from nfp_jax.decoding import Stack
from nfp_jax.information.reading import LEAST_GAIN, decoded
from nfp_jax.measures.betting import betting_lower_bound
from nfp_jax.questions.information.simulated import margins_of

DIM, WIDTHS = 6, (10,)


class Case:
    """A pruner on a small network, and masks of labels that are drawn."""

    def __init__(self, classes, n, count, sparsity=0.8, pruner="snip"):
        self.n, self.classes, self.sparsity = n, classes, sparsity
        self.model = models.MLP(classes, WIDTHS)
        self.params = models.initialize(self.model, jax.random.key(0), (DIM,))
        heat = 200 if pruner == "grasp" else 1
        loss_fn = scores.classification_loss(self.model.apply, temperature=heat)
        self.loss_fn, self.trained = loss_fn, pruner == "trained"
        score = {"snip": nfp.snip, "grasp": nfp.grasp, "trained": magnitude_of}
        self.score_fn = score[pruner](loss_fn)
        self.x = jax.random.normal(jax.random.key(1), (n, DIM))
        rng = np.random.default_rng(0)
        self.labels = rng.integers(0, classes, (count, n)).astype(np.int32)
        self.masks = self.masks_of(self.labels)

    def masks_of(self, labels):
        made = jax.lax.map(
            lambda y: nfp.ravel_mask(self.mask(y, self.x)), jnp.asarray(labels)
        )
        return np.asarray(made)

    def mask(self, y, x):
        params = self.trained_on(y, x) if self.trained else self.params
        return nfp.prune(self.score_fn, params, (x, y), sparsity=self.sparsity)

    def trained_on(self, y, x):
        def step(params, _):
            slope = jax.grad(self.loss_fn)(params, (x, y))
            return jax.tree.map(lambda w, g: w - 0.5 * g, params, slope), None

        return jax.lax.scan(step, self.params, None, length=30)[0]

    @functools.cached_property
    def simulated_one(self):
        """The mask of a training, and the weights at its end: compiled once."""
        return jax.jit(
            lambda y: (
                nfp.ravel_mask(self.mask(y, self.x)),
                flat(self.trained_on(y, self.x)),
            )
        )

    def simulate(self, labels):
        """The masks of trainings, their margins, and the middle of the weights."""
        found = jax.device_get([self.simulated_one(y) for y in jnp.asarray(labels)])
        kept, ends = map(np.stack, zip(*found, strict=True))
        margins = margins_of(kept[None], ends[None], [kept.shape[1]])
        middle = (ends + np.asarray(flat(self.params))) / 2
        return decoding.Simulated(kept, margins, middle)

    def passed(self, weights, x):
        """What passes through both layers; biases are 0."""
        first, second = weights[: DIM * 10].reshape(DIM, 10), weights[DIM * 10 :]
        lead = second.reshape(10, 2) @ jnp.array([-1.0, 1.0])
        inner = x @ first
        ends = jnp.tile(jnp.array([[-1.0, 1.0]]), (len(x), 1))
        return [(x, (inner > 0) * lead[None]), (jax.nn.relu(inner), ends)]

    def score(self, q, x):
        return self.score_fn(self.params, (x, q))

    def signed(self):
        def fn(q, x):
            return self.score_fn.polynomial.fn(self.params, (x, q), None, None, None)

        absolute = self.score_fn.polynomial.absolute
        return decoding.Signed(fn, self.mask, absolute=absolute)

    def stack(self, masks=None, labels=None):
        prior = np.full((self.n, self.classes), 1 / self.classes)
        masks = self.masks if masks is None else masks
        labels = self.labels if labels is None else labels
        return Stack(masks.copy(), labels.copy(), prior, np.asarray(self.x))


def magnitude_of(loss_fn):
    return nfp.magnitude()


def flat(params):
    leaves = [leaf.reshape(-1) for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
    return jnp.concatenate(leaves)


def through_training(case):
    small = {"made": 16, "calibrated": 6, "rounds": 1}
    return decoding.trained(case.simulate, case.passed, **small)


def with_network(case):
    return decoding.ridge(
        features=decoding.network_features(case.model.apply, case.params)
    )


def of_degree_two(case):
    layers = models.layer_chain(case.model)
    slopes = decoding.relu_chain(case.params, layers, temperature=200)
    return decoding.quadratic(case.signed(), slopes=slopes)


# By name: what makes it for a case, for how many classes it is, and for whose masks.
DECODERS = {
    "ridge": (lambda case: decoding.ridge(), (2, 3), "snip"),
    "ridge and network": (with_network, (2, 3), "snip"),
    "search": (
        lambda case: decoding.search(case.score, case.mask, steps=10, calibrated=4),
        (2, 3),
        "snip",
    ),
    "additive": (lambda case: decoding.additive(case.signed()), (2,), "snip"),
    "quadratic": (of_degree_two, (2,), "grasp"),
    "trained": (lambda case: through_training(case)[0], (2,), "trained"),
}
EVERY = [
    pytest.param(name, classes, id=f"{name}, {classes} classes")
    for name, (_, known, _) in DECODERS.items()
    for classes in known
]
AT = 8  # masks before those that are asked for

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.mark.parametrize(("name", "classes"), EVERY)
@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_q_sums_to_one_over_all_labelings(name, classes, sparsity):
    make, _, pruner = DECODERS[name]
    case = Case(classes, 4 if classes == 2 else 3, AT + 2, sparsity, pruner)
    decoder, stack = make(case), case.stack()
    total = np.zeros(2)
    for labeling in itertools.product(range(classes), repeat=case.n):
        stack.labels[AT:] = labeling  # in place: what was found for masks is kept
        total += np.exp(decoder.log_prob(stack, AT, AT + 2))
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize(("name", "classes"), EVERY)
def test_q_of_a_mask_depends_on_no_label_of_the_masks_asked_for_with_it(name, classes):
    """Else settings could be chosen on the labels that certify them."""
    make, _, pruner = DECODERS[name]
    case = Case(classes, 6, AT + 3, pruner=pruner)
    found = make(case).log_prob(case.stack(), AT, AT + 3)
    for k in range(3):
        labels = case.labels.copy()
        others = [AT + j for j in range(3) if j != k]
        labels[others] = (labels[others] + 1) % classes
        again = make(case).log_prob(case.stack(labels=labels), AT, AT + 3)
        assert again[k] == pytest.approx(found[k], abs=1e-9)
    before = case.labels.copy()
    before[:AT] = (before[:AT] + 1) % classes
    changed = make(case).log_prob(case.stack(labels=before), AT, AT + 3)
    assert np.any(changed != found) == make(case).fitted


@pytest.mark.parametrize(("name", "classes"), EVERY)
def test_masks_of_other_labels_certify_nothing(name, classes):
    make, _, pruner = DECODERS[name]
    case = Case(classes, 24, 24, 0.5, pruner)
    other = np.random.default_rng(9).integers(0, classes, case.labels.shape)
    stack = case.stack(masks=case.masks_of(other))
    gains = decoded(make(case), stack)
    assert gains.mean() < 0.1
    assert betting_lower_bound(gains, LEAST_GAIN, 0.025) <= 0


@pytest.mark.parametrize(("name", "classes"), EVERY)
def test_an_interval_of_known_information_holds_it(name, classes):
    """All labelings are tried, so the information is known. Two samples of masks."""
    make, _, pruner = DECODERS[name]
    case = Case(classes, 7 if classes == 2 else 4, 2, 0.9, pruner)
    every = np.array(list(itertools.product(range(classes), repeat=case.n)), np.int32)
    masks = case.masks_of(every)
    known = information.entropy(masks)
    assert 0.2 * case.n * math.log(classes) < known < case.n * math.log(classes)
    laws = [decoding.mask_law(case.signed())] if name == "additive" else []
    laws = [through_training(case)[1]] if name == "trained" else laws
    for seed in range(2):
        chosen = np.random.default_rng(seed).integers(0, len(every), 48)
        interval = information.mask_information(
            masks[chosen],
            every[chosen],
            classes=classes,
            x=np.asarray(case.x),
            keep=int(masks[0].sum()),
            decoders=[make(case)],
            laws=laws,
        )
        assert interval.lower <= known <= interval.upper
