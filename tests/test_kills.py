"""SIGKILL at any write of a run costs none of its rows: launch.py's runs, see kills.py.

``pytest --kills=100`` kills more often.
"""

import pytest
from kills import kill_often

from nfp_jax import questions


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("question", questions.names())
def test_killed_runs_end_with_the_rows_of_a_whole_one(
    question, tmp_path, cache, request
):
    kills = request.config.getoption("kills")
    died = kill_often(question, tmp_path, cache, kills=kills)
    assert died.kills == kills
