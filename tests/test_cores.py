"""Work that cores or devices share: in order, on every device, with its errors."""

import threading

import jax
import jax.numpy as jnp
import pytest

from nfp_jax import cores


def test_items_come_back_in_order_from_every_device():
    devices = jax.local_devices()
    barrier = threading.Barrier(len(devices))

    def where(i):
        if i < len(devices):
            barrier.wait(timeout=60)  # a thread each, or this breaks
        return i, next(iter(jnp.zeros(1).devices()))

    found = cores.each(where, range(3 * len(devices)), devices)
    assert [i for i, _ in found] == list(range(3 * len(devices)))
    assert {device for _, device in found} == set(devices)
    assert cores.each(where, []) == []


def test_the_first_error_is_raised():
    with pytest.raises(ZeroDivisionError):
        cores.each(lambda x: 1 / x, [1, 0, 2])
