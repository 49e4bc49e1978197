"""How work is cut: samples per block, alphas and pairs per product, nets and pairs per task."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from sklmc.connectivity import _chain_evaluator, _path_job
from sklmc.connectivity._chain_evaluator import (
    CACHE_BYTES,
    GROUP_OUTPUTS,
    MAX_ROWS,
    MIN_ROWS,
    WEIGHT_SHARE,
    ChainEvaluator,
)
from sklmc.connectivity._path_evaluator import PathEvaluator
from sklmc.connectivity._path_job import LOGIT_BYTES, PathJob, make_plan
from sklmc.connectivity._path_losses import Samples
from sklmc.connectivity._population import Population
from sklmc.models import Arrays, view

ALPHAS = np.linspace(0, 1, 7)


def chains(n, *widths):
    """Views of n chains of linear layers, their states and the names of their layers."""
    torch.manual_seed(0)
    parts = [
        [part for pair in zip(widths, widths[1:]) for part in (nn.Linear(*pair), nn.ReLU())][:-1]
        for _ in range(n)
    ]
    looks = [view(nn.Sequential(*part), caller="test") for part in parts]
    return looks, [look.state for look in looks], [str(k) for k in range(len(parts[0]))]


def chain_evaluator(n, *widths):
    looks, states, layers = chains(n, *widths)
    return ChainEvaluator(looks[0], states, ALPHAS[1:-1], True, layers)


def job_of(n, *widths, n_samples=40, **options):
    looks, _, _ = chains(n, *widths)
    x = np.random.default_rng(0).normal(size=(n_samples, widths[0])).astype(np.float32)
    samples = Samples(Arrays(torch.from_numpy(x)), np.arange(n_samples) % widths[-1])
    defaults = {"calibration": None, "aligner": None, "repair": None, "catch": False}
    job = PathJob(Population(looks), samples, ALPHAS, True, **defaults | options)
    job.plan = make_plan(job)
    return job


@pytest.mark.parametrize("width", [4, 64, 200, 400, 3000, 100_000])
def test_block_is_the_largest_power_of_two_whose_activations_fit_the_cache(width):
    rows = chain_evaluator(2, 3, width, 2).rows(())
    assert rows & (rows - 1) == 0
    bytes_of_a_row = 5 * width * 4  # inner alphas, units, float32
    assert rows == MIN_ROWS or (rows < 2 * MAX_ROWS and rows * bytes_of_a_row <= CACHE_BYTES)
    assert rows == MAX_ROWS or (rows >= MIN_ROWS and 2 * rows * bytes_of_a_row > CACHE_BYTES)


def test_block_of_a_wide_net_is_worth_the_interpolation_of_its_weights():
    """Weights are interpolated for each block: it has up to WEIGHT_SHARE activations for each."""
    weights, units = 512 * 512 + 512 * 2, 512 + 512 + 2
    rows = chain_evaluator(2, 3, 512, 512, 2).rows(())
    assert WEIGHT_SHARE / 2 * weights < rows * units <= WEIGHT_SHARE * weights


@pytest.mark.parametrize("fits", [0, 1, 2, 4, 5, 9, 10, 1000])
def test_products_of_any_size_give_the_same(monkeypatch, fits):
    """One product takes as many alphas, or whole pairs, as keep their activations in cache."""
    looks, states, layers = chains(3, 4, 6, 3)
    x = torch.randn(10, 4)
    monkeypatch.setattr(_chain_evaluator, "CACHE_BYTES", fits * 10 * 6 * 4)
    fast = ChainEvaluator(looks[0], states, ALPHAS[1:-1], True, layers)
    plain = PathEvaluator(looks[0], states, ALPHAS[1:-1], True)
    pairs = [(0, 1), (0, 2), (1, 2)]
    found = []
    for evaluator in (fast, plain):
        evaluator.load((x,))
        found.append(evaluator.between(pairs, [None] * 3))
    torch.testing.assert_close(*found)
    n_pairs, n_alphas = fast._batch(10)
    assert n_pairs * n_alphas <= max(1, fits)
    assert (n_pairs, n_alphas) == (max(1, fits // 5), min(5, max(1, fits)))


@pytest.mark.parametrize("rows", [128, 2048])
@pytest.mark.parametrize("n_outputs", [1, 3, 1000])
def test_pairs_whose_losses_are_worked_out_together_are_whole_products(rows, n_outputs):
    """As many as their outputs stay few; one product where those of a single one are many."""
    evaluator = chain_evaluator(2, 4, 6, 3)
    batch, _ = evaluator._batch(rows)
    n_products, rest = divmod(evaluator.group(rows, n_outputs), batch)
    outputs_of_a_product = batch * 5 * n_outputs * rows
    assert rest == 0
    assert n_products == 1 or n_products * outputs_of_a_product <= GROUP_OUTPUTS
    assert n_products >= 1
    assert (n_products + 1) * outputs_of_a_product > GROUP_OUTPUTS


def test_progress_adds_up_to_the_pairs():
    job = job_of(3, 4, 6, 3)
    job.plan = dataclasses.replace(job.plan, rows=7, group=2)
    done: list[float] = []
    job.run([(0, 1), (0, 2), (1, 1), (1, 2)], done.append)
    assert sum(done) == pytest.approx(4)


@pytest.mark.parametrize("calibration", [None, "in_sample"])
@pytest.mark.parametrize("n_samples", [40, 5000, 200_000])
def test_task_holds_no_more_pairs_than_their_nets_and_logits_allow(calibration, n_samples):
    plan = job_of(2, 4, 6, 3, n_samples=n_samples, calibration=calibration).plan
    assert plan.most_pairs % plan.group == 0
    assert plan.most_pairs <= max(plan.group, 64 * 64)
    bytes_of_a_pair = 5 * 3 * 4 * n_samples if calibration else 0
    assert plan.most_pairs == plan.group or plan.most_pairs * bytes_of_a_pair <= LOGIT_BYTES
    assert plan.side == 64 or (calibration and plan.side <= 64)


@pytest.mark.parametrize("room, side", [(0, 1), (1, 1), (3, 3), (1000, 64)])
def test_task_holds_as_many_nets_on_each_side_as_its_memory_does(monkeypatch, room, side):
    bytes_of_a_net = 4 * (4 * 6 + 6 + 6 * 3 + 3)
    monkeypatch.setattr(_path_job, "STATE_BYTES", 2 * room * bytes_of_a_net)
    assert job_of(2, 4, 6, 3).plan.side == side
