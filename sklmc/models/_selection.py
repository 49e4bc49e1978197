"""Which of a module's outputs counts, where it is not the logits."""

from __future__ import annotations

import copy

from sklmc.models._outputs import FIELD
from sklmc.models._view import view


def select_output(model, field):
    """Return a model of which another output counts than its logits.

    Some modules return several tensors: a dict, a tuple, or an object with fields as models of
    `transformers` do. sklmc scores, aligns and repairs by "logits" or the first of a tuple; this
    names another. The module still returns all of them.

    Parameters
    ----------
    model : skorch net, fitted sklmc estimator, Pipeline or torch.nn.Module
        The model. It is not changed.
    field : str or int
        Key of a dict, attribute of an object, or place in a tuple.

    Returns
    -------
    model : same kind as `model`
        It shares the weights with `model`. What sklmc makes of it (a merged model, for example)
        keeps the choice.

    Examples
    --------
    >>> import torch
    >>> from sklmc import merge_models, select_output
    >>> class Reader(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.start, self.end = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    ...     def forward(self, x):
    ...         return {"start_logits": self.start(x), "end_logits": self.end(x)}
    >>> readers = [select_output(Reader(), "end_logits") for _ in range(2)]
    >>> sorted(merge_models(readers, torch.randn(60, 3))(torch.ones(1, 3)))
    ['end_logits', 'start_logits']
    """
    caller = "select_output"
    if isinstance(field, bool) or not isinstance(field, (str, int)):
        raise TypeError(f"{caller}: 'field' must be a name or a place in a tuple, got {field!r}.")
    look = view(model, caller=caller)
    module = copy.copy(look.original)
    vars(module)[FIELD] = field
    return look.around_module(module)
