"""From a model to the permutations that leave its function unchanged, once per architecture."""

from __future__ import annotations

import hashlib
import io
import pickle
import threading
import types

import torch
from torch import nn

from sklmc._validation import check_flag
from sklmc.models import PROVENANCE, ModelView, fingerprint, private_copy, view
from sklmc.symmetry._labelling._extraction import extract
from sklmc.symmetry._labelling._walk import label_graphs
from sklmc.symmetry._proof._proof import prove_structure
from sklmc.symmetry._proof._prover import Prover
from sklmc.symmetry._proof._trial import Trial, own_change
from sklmc.symmetry._symmetry import PermutationSymmetry, symmetry_of
from sklmc.symmetry._tracing._subject import Subject, settings_of
from sklmc.symmetry._tracing._tensors import constant_digests

_LARGEST = 128  # architectures kept; the oldest goes first
# the module classes stay alive with their symmetry: their ids are part of the key
_found: dict[str, tuple[PermutationSymmetry, set[type]]] = {}
_lock = threading.Lock()


def discover_symmetry(model, X=None, *, verify: bool = True) -> PermutationSymmetry:
    """Find the permutations of hidden units that leave a net's function unchanged.

    The forward pass is traced, index sets that must move together are unified operation by
    operation, and whatever an operation does not allow to move is fixed. Then the result is put
    to the test (see Notes). The model is not changed.

    Parameters
    ----------
    model : skorch net, fitted; sklmc estimator, fitted; or torch.nn.Module
        The net.
    X : array-like of shape (n_samples, ...), tuple, dict, Dataset or DataLoader, default=None
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

    Casts to float32 in forward are made in float64 as well; an operation that runs in float32 alone
    runs there, and then ``evidence`` names float32 as its dtype, and 1e-5 as its tolerance.

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


def cached_symmetry(model: ModelView, X=None) -> PermutationSymmetry:
    """Return the proved symmetry of a model, discovered at most once per architecture.

    What counts as one architecture is everything that the forward pass can read: the module's
    whole Python state, what its classes and functions do, the shapes of its tensors, the values of
    its constants, and the shape of the input without its first axis. A module of which this cannot
    be read is discovered afresh.
    """
    key = architecture_key(model, model.sample(X))
    if key is None:
        return discover_symmetry(model, X)
    with _lock:
        if key in _found:
            return _found[key][0]
    symmetry = discover_symmetry(model, X)
    with _lock:
        while len(_found) >= _LARGEST:
            del _found[next(iter(_found))]
        _found[key] = symmetry, {type(part) for part in model.module.modules()}
    return symmetry


def architecture_key(model: ModelView, sample: tuple[torch.Tensor, ...]) -> str | None:
    """Return a digest of a module's structure and input, None where it cannot be read."""
    buffer = io.BytesIO()
    module = private_copy(model.original) if model.keeps_state else model.module
    vars(module).pop(PROVENANCE, None)  # of a copy: where a model came from is nothing it reads
    pickler = _StructurePickler(buffer, module)
    kinds = {type(part) for part in module.modules()}
    try:
        pickler.dump(module)
        # a class that was defined anew in a notebook keeps its name: its id tells, and what it
        # does tells whether a function or a constant that it reads was defined anew
        classes = sorted((id(kind), fingerprint(kind)) for kind in kinds)
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError):
        return None
    constants = sorted(constant_digests(model.original).items())
    shapes = [(tuple(part.shape[1:]), str(part.dtype)) for part in sample]
    parts = (buffer.getvalue(), repr(constants).encode(), repr((shapes, classes)).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


class _StructurePickler(pickle.Pickler):
    """Pickles a module with the shapes of its state's tensors in place of their values.

    Which names share a tensor is part of the structure: each tensor is numbered when first met.
    Tensors that are neither parameters nor buffers are constants of the forward pass: their
    values count. So does what functions do.
    """

    def __init__(self, file, module: nn.Module):
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._named = {id(t) for t in (*module.parameters(), *module.buffers())}
        self._numbers: dict[int, int] = {}

    def persistent_id(self, obj):
        if isinstance(obj, types.FunctionType):  # pickle would take its name alone
            return "function", fingerprint(obj)
        if not isinstance(obj, torch.Tensor):
            return None
        number = self._numbers.setdefault(id(obj), len(self._numbers))
        about = (number, tuple(obj.shape), str(obj.dtype), type(obj).__name__)
        return about if id(obj) in self._named else (*about, obj.detach().cpu().tolist())
