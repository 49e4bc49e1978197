"""A fast evaluator is taken where it agrees with the plain one; parallel work is the same work."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch

from sklmc.connectivity._pair_scoring import _run
from sklmc.connectivity._path_evaluator import PathEvaluator
from sklmc.connectivity._path_job import PROBE_ALPHA, _agrees, _run_between, make_plan
from sklmc.models import Batches
from tests.connectivity.test_plans import chains, job_of


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_evaluators_agree_up_to_rounding_of_the_largest_output(scale):
    looks, states, layers = chains(2, 4, 6, 3)
    for state in states:
        state["2.weight"], state["2.bias"] = scale * state["2.weight"], scale * state["2.bias"]
    x = torch.randn(10, 4)
    plain = PathEvaluator(looks[0], states, [PROBE_ALPHA], True)
    wanted = _run_between(plain, (x,))

    def agrees(wanted, layers=layers):
        return _agrees("chain", layers, looks[0], states, (x,), wanted, True)

    largest = wanted.abs().max()
    assert agrees(wanted)
    assert agrees(wanted + 0.8e-4 * largest)
    assert not agrees(wanted + 1.2e-4 * largest)
    assert not agrees(wanted[:, :-1])
    assert not agrees(wanted, layers=["0", "nowhere"])


def test_tasks_in_parallel_give_each_pair_its_curves():
    job = job_of(5, 4, 6, 3, calibration="in_sample")
    job.plan = dataclasses.replace(job.plan, group=1, most_pairs=1, side=2)
    pairs = [*itertools.combinations(range(5), 2), (0, 1), (2, 2)]
    wanted = _run(job, pairs, "test", SimpleNamespace(n_jobs=1, verbose=0))
    with joblib.parallel_config("threading"):
        found = _run(job, pairs, "test", SimpleNamespace(n_jobs=2, verbose=0))
    np.testing.assert_array_equal(found.values, wanted.values)
    assert found.values.shape == (4, len(pairs), 7)
    np.testing.assert_array_equal(found.values[:, 0], found.values[:, -2])
    assert found.failures == wanted.failures == {}


def test_no_pairs_have_no_curves():
    found = _run(job_of(2, 4, 6, 3), [], "test", SimpleNamespace(n_jobs=1, verbose=0))
    assert found.values.shape == (4, 0, 7)


def test_blocks_of_few_samples_hold_them_all_and_loaders_are_read_batch_by_batch():
    job = job_of(2, 4, 6, 3)
    assert job.plan.evaluator == "chain"
    assert job.plan.rows == 40
    x = job.samples.inputs.args[0]
    inputs = Batches(lambda: [(x[:9],), (x[9:18],)], lambda args: len(args[0]))
    job.samples = dataclasses.replace(job.samples, inputs=inputs, target=job.samples.target[:18])
    assert make_plan(job).rows == 9
