"""What ``prune`` is given wrongly is one clear error, before anything compiles."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import nfp_jax as nfp
from nfp_jax.losses import classification_loss

PARAMS = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
LOSS = classification_loss(lambda params, x: x @ params["kernel"])
X, Y = jnp.ones((5, 3)), jnp.array([0, 1, 0, 1, 1])
SCORES = {
    "snip": nfp.snip(LOSS),
    "grasp": nfp.grasp(dataclasses.replace(LOSS, temperature=200.0)),
    "force": nfp.scores.force(LOSS),
    "prospr": nfp.scores.prospr(LOSS),
}


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (None, "batch is None, expected a pair"),
        (X, "batch is ArrayImpl, expected a pair"),
        ((X[:0], Y[:0]), "batch has no examples"),
        ((X, Y[:3]), r"leading sizes \[\(3,\), \(5,\)\], expected the same"),
        ((X, Y + 1), "labels go from 1 to 2, expected 0 to 1: the network has 2 out"),
        ((X, Y - 1), "labels go from -1 to 0, expected 0 to 1"),
    ],
)
def test_a_batch_that_does_not_fit_is_named(score, batch, expected):
    with pytest.raises(ValueError, match=expected):
        nfp.prune(score, PARAMS, batch, jax.random.key(0), sparsity=0.5)


def test_probabilities_of_classes_and_traced_labels_are_taken():
    soft = jax.nn.one_hot(Y, 2)
    hard = nfp.prune(SCORES["snip"], PARAMS, (X, Y), sparsity=0.5)
    assert nfp.prune(SCORES["snip"], PARAMS, (X, soft), sparsity=0.5).keys()

    @jax.jit
    def traced(y):
        return nfp.prune(SCORES["snip"], PARAMS, (X, y), sparsity=0.5)

    assert (traced(Y)["kernel"] == hard["kernel"]).all()
    # Labels that are known while something else is traced.
    once = jax.jit(lambda x: nfp.prune(SCORES["snip"], PARAMS, (x, Y), sparsity=0.5))
    assert (once(X)["kernel"] == hard["kernel"]).all()


def test_a_batch_of_another_loss_is_not_looked_at():
    def square(params, batch):
        return jnp.mean((batch["x"] @ params["kernel"]) ** 2)

    found = nfp.prune(nfp.snip(square), PARAMS, {"x": X}, sparsity=0.5)
    assert int(found["kernel"].sum()) == 3


@pytest.mark.parametrize("call", [nfp.prune, nfp.prune_many])
@pytest.mark.parametrize("wrong", [nfp.snip, LOSS, lambda params: params])
def test_a_builder_that_was_not_called_and_a_loss_are_no_score(call, wrong):
    with pytest.raises(ValueError, match=r"score_fn is .*, expected score\(params"):
        call(wrong, PARAMS, (X, Y), sparsity=0.5)


@pytest.mark.parametrize("select", [nfp.top_k, nfp.top_k_erk])
def test_weights_that_can_not_be_pruned_are_named_by_their_path(select):
    whole = {"a": {"kernel": jnp.ones((3, 2), int)}}
    with pytest.raises(ValueError, match="params at 'a/kernel' have dtype int32, exp"):
        nfp.prune(nfp.magnitude(), whole, sparsity=0.5, select=select)
    empty = {"a": {"kernel": jnp.ones((0, 2))}, "b": {"kernel": jnp.ones((2, 2))}}
    with pytest.raises(ValueError, match=r"params at 'a/kernel' have shape \(0, 2\)"):
        nfp.prune(nfp.magnitude(), empty, sparsity=0.5, select=select)


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_a_traced_sparsity_says_to_pass_keep(transform):
    given = 0.5 if transform is jax.jit else jnp.array([0.5, 0.75])
    with pytest.raises(ValueError, match="under jit or vmap pass keep="):
        transform(lambda x: nfp.prune(nfp.magnitude(), PARAMS, sparsity=x))(given)
