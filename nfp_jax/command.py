"""The command ``nfp``: runs an experiment from any directory.

    nfp run gaussian                     # a configuration that comes with the package
    nfp run gaussian:paper --config.out=DIR --config.grid.n="(200, 400)"
    nfp run my_config.py                 # your own
    nfp --help                           # the configurations, the fields, the flags
    nfp --version

``nfp run NAME`` is ``launch.py --config=NAME`` of a checkout: the same code, flags and
exit codes, which `nfp_jax.launching` lists. Importing this loads no numpy.
"""

import os
import sys
from collections.abc import Sequence

import nfp_jax

HELP = ("--help", "-help", "-h", "-?")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command ``nfp`` and returns the exit code.

    Args:
      argv: the command's name and what follows it; ``None``: of this process.
    """
    program, *arguments = sys.argv if argv is None else argv
    if not arguments or arguments[0] in HELP:
        return launch([program, "--help"])
    if arguments == ["--version"]:
        print(nfp_jax.__version__)
        return 0
    first, *rest = arguments
    if first != "run":
        print(f"error: {first!r} is no command, expected run", file=sys.stderr)
        return 2
    if rest and not rest[0].startswith("-"):
        rest[0] = f"--config={rest[0]}"
    return launch([program, *rest])


def launch(argv: Sequence[str]) -> int:
    """Runs the experiment of ``--config``, or prints the help; returns the exit code.

    Args:
      argv: the program's name and its flags.
    """
    # Read when numpy is imported. Networks and masks share the cores among themselves;
    # threads for the small matrices of each would only be in their way.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if any(argument in HELP for argument in argv[1:]):
        from nfp_jax.help_text import help_text

        print(help_text())
        return 0
    from nfp_jax import launching

    return launching.launch(argv)


if __name__ == "__main__":
    sys.exit(main())
