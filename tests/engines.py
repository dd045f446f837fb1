"""What stands in the place of the engine: known results, or a look at its own."""

import collections
import itertools

import jax
import numpy as np

from nfp_jax import ensemble
from nfp_jax.engine.examples import Padded, pad
from nfp_jax.engine.jobs import rows_of
from nfp_jax.engine.stacks import job_of


def known_engine(result_of):
    """An engine that answers networks with ``result_of(job)``; and these as jobs."""
    done = []

    def engine(training, jobs, *, on_ended, on_error, inputs, summary, **_):
        before, waiting = len(done), collections.deque()
        source = itertools.chain.from_iterable(map(rows_of, jobs))
        while row := waiting.popleft() if waiting else next(source, None):
            job = job_of(row, training.batch_size, inputs)
            done.append(job)
            try:
                result = result_of(job)
                examples, n = pad(job.data, training.batch_size, inputs=inputs)
                measured = summary(result, Padded(examples, n), None)
                result = result._replace(summary=measured)
                stacked = jax.tree.map(lambda leaf: np.asarray(leaf)[None], result)
                further = on_ended([job.tag], stacked)
            except Exception as error:
                on_error(job, error)
            else:
                rows = [row for networks in further for row in rows_of(networks)]
                waiting.extendleft(reversed(rows))
        return [], ensemble.Stats(1.0, 0.0, 1.0, len(done) - before, 0.0)

    return engine, done


def watched_engine():
    """The engine that trains; and the list of its jobs with their results."""
    seen = []

    def engine(training, jobs, *, on_finish=None, on_ended=None, **options):
        begun = {}

        def noted(stacks):
            for networks in stacks:
                for row, tag in enumerate(networks.tags):
                    begun[id(tag)] = at(networks, row)._replace(tag=tag)
                yield networks

        def finish(job, result):
            seen.append((job, result))
            return on_finish(job, result)

        def ended(tags, results):
            for row, tag in enumerate(tags):
                seen.append((begun[id(tag)], at(results, row)))
            return list(noted(on_ended(tags, results)))

        if on_finish:
            return ensemble.run(training, jobs, on_finish=finish, **options)
        return ensemble.run(training, noted(jobs), on_ended=ended, **options)

    return engine, seen


def at(stacked, row):
    """A network of a stack as a job, or a result among those of several."""
    if isinstance(stacked, ensemble.Networks):
        parts = stacked[:4]
        return ensemble.Job(*jax.tree.map(lambda leaf: leaf[row], parts))
    return jax.tree.map(lambda leaf: leaf[row], stacked)


def parts_of(job):
    """The training set of a job: x, y, z, redrawn."""
    inputs, index, labels = job.data
    return inputs[index], labels.y, labels.z, labels.redrawn
