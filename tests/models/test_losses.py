"""Losses and errors of single samples."""

import pytest
import torch
from torch.nn import functional

from sklmc.models import class_logits, is_classification, per_sample_error, per_sample_loss
from sklmc.models._losses import IGNORED

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 3.0]])


def test_cross_entropy_is_natural_log_and_per_sample():
    target = torch.tensor([0, 1])
    seen = per_sample_loss(LOGITS, target, "f")
    assert seen.dtype == torch.float64
    torch.testing.assert_close(
        seen, functional.cross_entropy(LOGITS.double(), target, reduction="none")
    )
    assert per_sample_error(LOGITS, target, "f").tolist() == [0.0, 1.0]


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_one_logit_means_two_classes(shape):
    z = torch.tensor([0.3, -2.0])
    target = torch.tensor([1, 1])
    seen = per_sample_loss(z.reshape(shape), target, "f")
    torch.testing.assert_close(seen, functional.softplus(-z.double()))
    assert per_sample_error(z.reshape(shape), target, "f").tolist() == [0.0, 1.0]


def test_tokens_of_a_sample_are_averaged():
    logits = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    target = torch.arange(20).reshape(4, 5) % 3
    wanted = functional.cross_entropy(logits.double().transpose(1, 2), target, reduction="none")
    torch.testing.assert_close(per_sample_loss(logits, target, "f"), wanted.mean(dim=1))


def test_squared_error_is_the_mean_over_outputs():
    target = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    outputs = torch.tensor([[1.0, 0.0], [3.0, 1.0]])
    assert per_sample_loss(outputs, target, "f").tolist() == [2.0, 5.0]
    assert per_sample_error(outputs, target, "f").tolist() == [2.0, 5.0]


def test_column_and_vector_targets_are_the_same():
    outputs, target = torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 4.0])
    assert per_sample_loss(outputs, target, "f").tolist() == [1.0, 4.0]
    assert per_sample_loss(outputs[:, 0], target[:, None], "f").tolist() == [1.0, 4.0]


def test_nan_logits_predict_nothing():
    logits = torch.tensor([[torch.nan, 0.0]])
    assert per_sample_error(logits, torch.tensor([0]), "f").tolist() == [1.0]
    assert torch.isnan(per_sample_loss(logits, torch.tensor([0]), "f")).all()


def test_dtype_of_the_target_decides():
    assert is_classification(torch.tensor([1]))
    assert not is_classification(torch.tensor([1.0]))


@pytest.mark.parametrize("label, text", [(3, "holds label 3"), (-1, "holds label -1")])
def test_labels_outside_the_classes_are_named(label, text):
    with pytest.raises(ValueError, match=rf"f: 'y' {text}, but the net has 3 outputs"):
        per_sample_loss(LOGITS, torch.tensor([0, label]), "f")


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"'y' of shape \(2, 2\) does not fit logits"):
        per_sample_loss(LOGITS, torch.zeros(2, 2, dtype=torch.long), "f")
    with pytest.raises(ValueError, match=r"'y' of shape \(2,\) does not fit outputs"):
        per_sample_loss(LOGITS, torch.zeros(2), "f")


@pytest.mark.parametrize("judge", [per_sample_loss, per_sample_error])
def test_as_many_tokens_as_classes_are_not_guessed(judge):
    """torch's losses would read axis 1 as the classes, this library the last axis."""
    with pytest.raises(ValueError, match=r"f: 'y' of shape \(4, 3\) fits .* cannot be told; pad"):
        judge(torch.zeros(4, 3, 3), torch.zeros(4, 3, dtype=torch.long), "f")


def test_classes_on_axis_1_are_named():
    with pytest.raises(ValueError, match=r"must be the last axis .*: return outputs.movedim"):
        per_sample_loss(torch.zeros(4, 3, 5), torch.zeros(4, 5, dtype=torch.long), "f")


def test_rows_of_tokens_and_their_codes():
    logits, codes = torch.randn(4, 5, 3), torch.arange(20).reshape(4, 5) % 3
    rows, flat = class_logits(logits, codes, "f")
    assert rows.dtype == torch.float64
    assert torch.equal(rows.float().reshape(4, 5, 3), logits)
    assert torch.equal(flat, codes.flatten())
    assert class_logits(torch.randn(4, 1), codes[:, 0] % 2, "f")[0].shape == (4, 2)


# tokens without a label


def test_tokens_without_a_label_do_not_count():
    logits = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    target = torch.randint(0, 3, (4, 5), generator=torch.Generator().manual_seed(1))
    target[0, 2:] = target[1, :] = target[3, 4] = IGNORED
    counts = target != IGNORED
    loss = per_sample_loss(logits, target, "f")
    assert loss.shape == (4,)
    expected = functional.cross_entropy(logits[counts].double(), target[counts])
    torch.testing.assert_close(loss.mean(), expected)
    wrong = (logits.argmax(-1) != target)[counts].double().mean()
    torch.testing.assert_close(per_sample_error(logits, target, "f").mean(), wrong)
    rows, codes = class_logits(logits, target, "f")
    assert len(rows) == len(codes) == int(counts.sum())


def test_all_tokens_without_a_label_are_refused():
    with pytest.raises(ValueError, match="f: no label in 'y' counts, all are -100"):
        per_sample_loss(torch.zeros(2, 3, 4), torch.full((2, 3), IGNORED), "f")
