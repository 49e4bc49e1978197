"""What a site does: it reads a request, runs its net on its samples and answers with sums."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from sklmc._validation import check_integer
from sklmc.exceptions import NonFiniteError
from sklmc.merging._repairs._own_targets import gather_own, takes_labels
from sklmc.merging._repairs._refit import find_steps, in_turn
from sklmc.merging._repairs._repair import MOST_SAMPLES
from sklmc.merging._repairs._sample_set import SampleSet
from sklmc.merging._repairs._steps import Step
from sklmc.merging._sites._messages import MomentsRequest, SiteMoments
from sklmc.merging._sites._step_sums import are_finite, to_tensors
from sklmc.models import ModelView, State, check_finite, read_data, state_fingerprint, view

MIN_SAMPLES = 50


def site_moments(request, net, X, y=None, *, site, min_samples=MIN_SAMPLES):
    """Answer a request with sums over a site's own samples; no sample is in them.

    The merged net so far, which the request brings, runs on X as far as the layer in question; the
    site's own aligned net says what should come out of that layer there. The sums of products of
    the two are all that a least squares fit needs to know.

    Parameters
    ----------
    request : MomentsRequest
        What the coordinator asks; from bytes with ``MomentsRequest.from_bytes``.
    net : skorch net, fitted sklmc estimator or torch.nn.Module
        The site's net as the coordinator aligned it, ``coordinator.models_[i]``. It is not changed.
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader
        The site's samples: the same in every round. At most 10,000 are used, evenly spaced.
    y : array-like of shape (n_samples,), default=None
        Their labels, needed where the request is for "labels"; not looked at otherwise.
    site : str
        The site's name, as the coordinator knows it.
    min_samples : int, default=50
        With fewer samples nothing is sent: the site's own bound, beside that of the request.

    Returns
    -------
    SiteMoments
        The answer; ``to_bytes`` makes it ready to be sent.

    Raises
    ------
    NonFiniteError
        If X, or what a net makes of it, is NaN or infinite (a ValueError).
    ValueError
        If the site is not asked, if `net` is not its aligned net, if the net's layers are other
        than the coordinator's, if there are too few samples, or labels are missing or unfit.

    See Also
    --------
    SiteCoordinator : Asks, and solves.

    Notes
    -----
    Equal calls give equal answers, so that one that was lost can be made again.

    No differential privacy is claimed: sums over few samples say much. The first layer's tell the
    mean and the covariance of X itself, and with "labels" the last layer's tell how many samples
    of each class there are. A layer with p inputs whose sums rest on n rows, n not well above p,
    gives away the space that these rows lie in; where the layers before it can be inverted, or
    samples have a known form (counts, zeros), the samples themselves may be solved for. Of images
    every position is a row, but only samples count against `min_samples`. Sums sent for a set of
    samples and again for the set less one give that one away: answer every request of one merge
    from the same samples. Whoever must rule this out adds noise, or sums the answers of all sites
    by secure aggregation before anyone sees them.

    Examples
    --------
    >>> import numpy as np
    >>> from sklmc.merging import SiteCoordinator, site_moments
    >>> from sklmc.nets import MLP
    >>> nets = [MLP(n_features=2, n_outputs=2, width=4) for _ in range(2)]
    >>> coordinator = SiteCoordinator(nets, sites=["Bern", "Graz"])
    >>> X = np.random.default_rng(0).normal(size=(60, 2))
    >>> sums = site_moments(coordinator.next_request(), coordinator.models_[1], X, site="Graz")
    >>> bool(np.allclose(sums.tensors["input_means"], X.mean(axis=0)))
    True
    """
    caller = "site_moments"
    if not isinstance(request, MomentsRequest):
        raise TypeError(
            f"{caller}: 'request' must be a MomentsRequest, got {type(request).__name__}; bytes go "
            "through MomentsRequest.from_bytes."
        )
    min_samples = check_integer(min_samples, caller, "min_samples", 1)
    look = view(net, caller=caller, name="net")
    check_finite(look.state, caller, "net")
    _check_site(request, site, look)
    inputs, labels = read_data(look, X, y)
    least = max(min_samples, request.min_samples)
    if len(inputs) < least:
        raise ValueError(
            f"{caller}: 'X' holds {len(inputs)} samples, fewer than {least} ('min_samples', here "
            "or of the request); sums over so few would tell too much, and nothing was sent."
        )
    merged = {name: tensor.to(look.device) for name, tensor in request.state.items()}
    state = {**look.state, **merged}  # what the request leaves out is not reached
    steps = list(in_turn(find_steps(look, state, inputs)[0]))
    if architecture_digest(state, steps) != request.architecture:
        raise ValueError(
            f"{caller}: 'net' runs other layers than the coordinator's; use the same code and the "
            "same versions of torch and sklmc at all sites."
        )
    # drawn as merge_models draws of each net's own samples
    own = SampleSet(inputs, labels, torch.zeros(len(inputs), dtype=torch.long))
    own = own.spread(MOST_SAMPLES).own(0)
    if request.by_labels and not takes_labels(state, steps, own):
        raise ValueError(
            f"{caller}: the request is for labels; pass 'y', one label for each sample of X."
        )
    moments = gather_own(look, state, steps[request.round], look.state, own, request.by_labels)
    tensors = to_tensors(moments)
    if not are_finite(tensors):
        raise NonFiniteError(
            f"{caller}: 'X', or what a net makes of it, is NaN or infinite in round "
            f"{request.round}; remove or impute these values. Nothing was sent."
        )
    return SiteMoments(request.task, site, request.round, len(own), tensors)


def architecture_digest(state: State, steps: Sequence[Step]) -> str:
    """Return a digest of the shapes of a net and of the regressions in it."""
    shapes = [(name, tuple(one.shape), str(one.dtype)) for name, one in state.items()]
    return hashlib.sha256(repr((sorted(shapes), steps)).encode()).hexdigest()[:32]


def _check_site(request: MomentsRequest, site, look: ModelView) -> None:
    """Refuse a site that is not asked, and a net that is not its own."""
    if site not in (list(request.nets) if isinstance(site, str) else ()):
        raise ValueError(
            f"{look.caller}: 'site' must be one of those that are asked, {list(request.nets)!r}, "
            f"got {site!r}."
        )
    if state_fingerprint(look.state) != request.nets[site]:
        raise ValueError(
            f"{look.caller}: 'net' is not the aligned net of site {site!r}; pass what the "
            "coordinator gave back for it (models_), with not a bit changed."
        )
