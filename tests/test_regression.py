"""An MLP for regression with noise: pruned, trained in lanes, and what it memorized."""

import jax
import numpy as np
import optax
import pytest

import nfp_jax as nfp
from nfp_jax import capacity, data, ensemble, masks, models, robustness, training
from nfp_jax.scores import squared_loss

N, DIM, NOISE = 64, 4, 0.5


def test_signal_and_noise_have_their_variances_and_points_depend_on_their_number():
    points = data.regression(jax.random.key(0), 4000, DIM, noise=NOISE, signal=2.0)
    # Of 4,000 squares the mean has a standard error of 2.2 %.
    assert np.var(points.clean) == pytest.approx(2.0, rel=0.1)
    assert np.var(points.z) == pytest.approx(NOISE, rel=0.1)
    np.testing.assert_array_equal(points.y, points.clean + points.z)
    first = data.regression(jax.random.key(0), 7, DIM, noise=NOISE, signal=2.0)
    np.testing.assert_allclose(first.y, points.y[:7], rtol=1e-6)
    # The signal is linear in the inputs.
    _, rest, _, _ = np.linalg.lstsq(points.x, points.clean)
    assert rest < 1e-4
    with pytest.raises(ValueError, match="noise is -1, expected at least 0"):
        data.regression(jax.random.key(0), 7, DIM, noise=-1)


@pytest.mark.usefixtures("one_device")
def test_a_wide_network_fits_below_the_noise_and_a_sparse_one_does_not():
    """The sparse one keeps 5 % of the weights: enough for the signal alone."""
    points = data.regression(jax.random.key(0), N, DIM, noise=NOISE)
    model = models.MLP(1, widths=(64,))
    params = models.initialize(model, jax.random.key(1), (DIM,))
    loss_fn = squared_loss(model.apply)
    sparse = nfp.prune(nfp.snip(loss_fn), params, points[:2], sparsity=0.95)
    made = training.make_training(
        loss_fn,
        optax.adam(1e-2),
        metrics_fn=training.regression_metrics(model.apply),
        max_epochs=1500,
        stop=training.stop_when_still(patience=1500),
    )
    xyz = tuple(map(np.asarray, (points.x, points.y, points.z)))
    jobs = [
        ensemble.Job(params, mask, xyz, jax.random.key(2))
        for mask in (masks.dense_mask(params), sparse)
    ]
    (dense, thin), _ = ensemble.run(made, jobs, lanes=2)
    power = float(capacity.noise_power(points.z))
    for result, memorizes in ((dense, True), (thin, False)):
        error = float(result.metrics["loss"])
        below = float(robustness.excess(error, power))
        assert (below > power / 2) is memorizes
        assert (result.metrics["accuracy"] > 0.8) == memorizes
        correlation = float(result.metrics["noise_correlation"])
        assert (correlation > power / 2) is memorizes
        # By hand, of the weights that came out.
        outputs = np.asarray(model.apply(result.params, points.x))
        by_hand = np.mean(np.sum(outputs * xyz[2], axis=1))
        assert correlation == pytest.approx(by_hand, rel=1e-4, abs=1e-5)
        assert error == pytest.approx(np.mean((outputs - xyz[1]) ** 2), rel=1e-3)
