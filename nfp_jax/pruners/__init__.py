"""Pruners: one file a score over ``contract``; ``rounds`` and ``tickets`` make masks.

``rounds`` prunes at initialization, ``tickets`` through training. Depends on masks,
losses, jax and optax.
"""
