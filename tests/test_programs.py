"""Compiled programs, freed."""

import jax

from nfp_jax.engine import programs


def test_freed_programs_are_gone_and_compiled_again_when_called():
    double = jax.jit(lambda x: 2 * x)
    assert double(1.0) == 2 and double._cache_size() == 1
    programs.free()
    assert double._cache_size() == 0
    assert double(3.0) == 6 and double._cache_size() == 1
