"""discover_symmetry: from a model to the permutations that leave its function unchanged."""

from __future__ import annotations

from sklmc._validation import check_flag
from sklmc.models import view
from sklmc.symmetry._labelling._extraction import extract
from sklmc.symmetry._labelling._walk import label_graphs
from sklmc.symmetry._proof._proof import prove_structure
from sklmc.symmetry._proof._prover import Prover
from sklmc.symmetry._proof._trial import Trial, own_change
from sklmc.symmetry._symmetry import PermutationSymmetry, symmetry_of
from sklmc.symmetry._tracing._subject import Subject, settings_of


def discover_symmetry(model, X=None, *, verify: bool = True) -> PermutationSymmetry:
    """Find the permutations of hidden units that leave a net's function unchanged.

    The forward pass is traced, index sets that must move together are unified operation by
    operation, and whatever an operation does not allow to move is fixed. Then the result is put
    to the test (see Notes). The model is not changed.

    Parameters
    ----------
    model : skorch net, fitted; sklmc estimator, fitted; or torch.nn.Module
        The net.
    X : array-like, tensor, or tuple of tensors, default=None
        A few samples as the net takes them (a single one is repeated), or the tuple of forward's
        arguments. None: what a fitted estimator remembers of its input, or the width of a leading
        Linear layer.
    verify : bool, default=True
        Whether to prove the result by test. Without, it is right as far as the rules are.

    Returns
    -------
    symmetry : PermutationSymmetry
        The groups, what each moves, and what is frozen for which reason.

    Raises
    ------
    TraceError
        If the forward pass cannot be traced: control flow that depends on values, packed
        sequences.
    SymmetryError
        If the forward pass is random in eval mode, or computes something else while it is traced.
    ValueError
        If X has the wrong shape, or is needed and not given; if tensors are on the meta device,
        quantised or sparse.

    See Also
    --------
    register_rule : Teach it an operation.

    Notes
    -----
    Verification runs the traced graph in float64 on the CPU with random weights and running
    statistics, in eval and in train mode (without dropout), and moves units:

    * The proof are 20 uniform elements of all groups together (an identity is drawn again). The
      elements that leave the function unchanged form a subgroup, so a wrong claim passes each
      draw with probability at most 1/2, and all of them with at most 1e-6.
    * Of every group alone one transposition, and where it has copies an element that moves one
      copy and one that moves some of them, find out which group is at fault; faults that these
      miss are found by halving the groups.

    A relative change above 1e-9 freezes the group that caused it, and no other; a group whose
    copies must move alike is kept with its copies tied. ``evidence`` counts the draws of each kind.
    The proof holds for the traced path: the same shapes of input apart from the batch, the same
    keyword arguments. At last the net itself is moved by as many uniform elements, with its own
    weights, in its own dtype and without a trace: where an output changes by more than 1e-5, and
    does so in float64 as well, forward is not what was traced, and the net is refused.

    An output is measured by its largest value, but at least by 1e-4 of the largest output of the
    net: what is zero up to rounding is not judged by its rounding. What the caller has set around
    the call (inference mode, autocast, another default dtype or device) changes nothing; tensors
    that forward makes without a dtype have the net's.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sklmc import discover_symmetry
    >>> net = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    >>> symmetry = discover_symmetry(net)
    >>> symmetry.groups
    (PermutationGroup('0', size=16),)
    >>> permuted = symmetry.apply(net, symmetry.random_permutation(random_state=0))
    >>> x = torch.randn(5, 4)
    >>> bool(torch.allclose(net.eval()(x), permuted.eval()(x), atol=1e-6))
    True
    """
    check_flag(verify, "discover_symmetry", "verify")
    look = view(model, caller="discover_symmetry")
    with settings_of(look):
        subject = Subject(look, X, "discover_symmetry")
        graphs = subject.graphs() if verify else [subject.graph(False)]
        trial = Trial.of(subject) if verify else None
        if trial is not None:
            trial.check_deterministic(subject.caller)
        labelling = label_graphs(graphs, subject.shapes, subject.aliases, subject.movable)
        structure, evidence = extract(labelling), None
        if trial is not None:
            structure, proof = prove_structure(
                Prover(subject, graphs), structure, subject.caller, fuse=True
            )
            evidence = proof.evidence(own_change(trial, structure, subject.caller))
        return symmetry_of(subject, structure, evidence, graphs[0].hash)
