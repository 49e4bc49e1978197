"""Sums over a block, folds, and calibrated losses."""

import numpy as np
import pytest
import torch

from sklmc.connectivity._path_losses import (
    block_sums,
    calibrate,
    calibrate_crossfit,
    fold_of_samples,
)
from sklmc.models import (
    fit_inverse_temperature,
    per_sample_error,
    per_sample_loss,
    scaled_cross_entropy,
)


def logits_and_codes(n=50, n_classes=4, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(2, 3, n_classes, n, generator=generator)
    return logits, torch.randint(0, n_classes, (n,), generator=generator)


def check_against_single_samples(logits, codes, rel=1e-6):
    loss, error = block_sums(logits, codes, classify=True)
    assert loss.dtype == error.dtype == torch.float64
    for i in range(2):
        for k in range(3):
            one = logits[i, k].T.double()
            assert float(loss[i, k]) == pytest.approx(
                float(per_sample_loss(one, codes, "test").sum()), rel=rel
            )
            assert float(error[i, k]) == float(per_sample_error(one, codes, "test").sum())


def test_sums_are_those_of_single_samples():
    check_against_single_samples(*logits_and_codes())


def test_losses_far_below_float32_s_step_keep_their_digits():
    logits, _ = logits_and_codes(scale=1e-3)
    codes = torch.zeros(50, dtype=torch.long)
    logits[:, :, 0] += 25.0
    assert float(block_sums(logits, codes, classify=True)[0].max()) < 1e-8
    check_against_single_samples(logits, codes, rel=1e-5)


def test_confidently_wrong_logits_do_not_overflow():
    logits, codes = logits_and_codes(scale=300.0)
    check_against_single_samples(logits, codes)


def test_equal_logits_go_to_the_first_class_as_in_predict():
    logits, codes = logits_and_codes()
    logits[:] = 0.5
    check_against_single_samples(logits, codes)
    logits[:, :, 3] = 0.0
    check_against_single_samples(logits, codes)


def test_nan_is_an_error_and_a_nan_loss():
    logits, codes = logits_and_codes(n=3)
    logits[0, 0, 1, 2] = torch.nan
    loss, error = block_sums(logits, codes, classify=True)
    assert torch.isnan(loss[0, 0])
    assert torch.isfinite(loss[1]).all()
    assert error[0, 0] == 1 + float(
        per_sample_error(logits[0, 0, :, :2].T.double(), codes[:2], "test").sum()
    )


def test_squared_errors():
    outputs = torch.arange(12.0).reshape(2, 2, 3)  # two nets, two outputs, three samples
    target = torch.zeros(2, 3)
    loss, error = block_sums(outputs, target, classify=False)
    wanted = outputs.double().square().mean(dim=1).sum(dim=1)
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(error, wanted)


def test_folds_are_balanced_within_classes_and_always_the_same():
    target = np.array([0] * 20 + [1] * 31 + [2] * 9)
    folds = fold_of_samples(target)
    assert sorted(np.bincount(folds)) == [12] * 5
    for code in range(3):
        counts = np.bincount(folds[target == code], minlength=5)
        assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(folds, fold_of_samples(target.copy()))
    assert len(np.unique(fold_of_samples(np.array([0, 1])))) == 2


def test_in_sample_is_never_above_the_loss():
    logits, codes = logits_and_codes()
    logits = logits.flatten(0, 1)
    loss, beta = calibrate(logits, codes)
    raw = block_sums(logits, codes, classify=True)[0] / len(codes)
    assert (loss <= raw + 1e-12).all()
    assert beta.shape == (6,)


def test_crossfit_scores_every_fold_with_the_others():
    logits, codes = logits_and_codes(n=61)
    logits = logits.flatten(0, 1)
    folds = torch.from_numpy(fold_of_samples(codes.numpy()))
    loss, beta = calibrate_crossfit(logits, codes, folds)
    for k in range(6):
        total, logs = 0.0, []
        for fold in range(5):
            held = folds == fold
            one = logits[k].T
            b = fit_inverse_temperature(one[~held], codes[~held], held_out=True)
            total += float(per_sample_loss(b * one[held].double(), codes[held], "test").sum())
            logs.append(np.log(b))
        assert float(loss[k]) == pytest.approx(total / 61, rel=1e-6)
        assert float(beta[k]) == pytest.approx(np.exp(np.mean(logs)), rel=1e-5)


def test_given_data_decide_and_other_data_are_scored():
    logits, codes = logits_and_codes(n=80)
    logits = logits.flatten(0, 1)
    loss, beta = calibrate(logits[..., :30], codes[:30], (logits[..., 30:], codes[30:]))
    wanted = fit_inverse_temperature(logits[2, :, 30:].T, codes[30:], held_out=True)
    assert float(beta[2]) == pytest.approx(wanted)
    scaled = wanted * logits[2, :, :30].T.double()
    assert float(loss[2]) == pytest.approx(
        float(per_sample_loss(scaled, codes[:30], "test").mean())
    )


@pytest.mark.parametrize("n", [50, 100, 200, 1000])
@pytest.mark.parametrize("beta", [0.2, 4.0])
def test_cross_fitting_costs_little_beside_the_inverse_temperature_of_the_population(n, beta):
    """One parameter fitted on four fifths of n costs 1 / (2 * .8 * n) where nothing shrinks it."""
    excess = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        logits = 2.0 * torch.randn(4, n, generator=generator, dtype=torch.float64)
        codes = torch.multinomial(torch.softmax(logits.T, dim=1), 1, generator=generator)[:, 0]
        logits = logits[None] / beta
        folds = torch.from_numpy(fold_of_samples(codes.numpy()))
        seen, _ = calibrate_crossfit(logits, codes, folds)
        known = scaled_cross_entropy(logits, codes, torch.tensor([beta])).mean()
        excess.append(float(seen - known))
    assert abs(np.mean(excess)) < 2.0 / n
