"""What setup.cfg can't say: installed, the configurations lie within the package.

``configs`` would be a name of everybody's there.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["nfp_jax*"]), "nfp_jax.configs"],
    package_dir={"nfp_jax.configs": "configs"},
)
