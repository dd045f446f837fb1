"""What figures and claims of all questions share: rows in words, looks, panels, tests.

Depends on `nfp_jax.results` and `estimates`; of rows it knows their coordinates and
nothing that only one question has. Loads no JAX.
"""
