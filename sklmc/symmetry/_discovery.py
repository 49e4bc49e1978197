"""discover_symmetry: from a model to the permutations that leave its function unchanged."""

from __future__ import annotations

import hashlib
import re
import warnings

import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin

from sklmc._torch import to_device
from sklmc._validation import check_flag
from sklmc.exceptions import SymmetryError, TraceError
from sklmc.models import view
from sklmc.symmetry._application import Mover
from sklmc.symmetry._execution import ModuleRunner
from sklmc.symmetry._extraction import Structure, extract
from sklmc.symmetry._fusion import fusions
from sklmc.symmetry._graph import Graph, export_graph, trace_input
from sklmc.symmetry._labelling import label_graphs
from sklmc.symmetry._origin import Origin
from sklmc.symmetry._spec import structure_from_axes
from sklmc.symmetry._symmetry import PermutationSymmetry
from sklmc.symmetry._trial import Moved, Trial, settings_of
from sklmc.symmetry._verification import TOLERANCE, Proof, Prover, output_change, prove

_QUANTISING = re.compile(r"torch\.ao\..*\b(quantized|qat|fake_quantize|observer)\.")
_NOISE = 1e-5  # relative difference of two runs of one net in its own precision


class Subject:
    """A model seen by this room: its tensors, which are tied, which are buffers, its sample."""

    def __init__(self, model, X, caller: str):
        self.caller = caller
        self.view = view(model, caller=caller)
        check_dense(self.view.original, caller)
        self.state = self.view.state
        self.module: nn.Module = self.view.module
        self.aliases = tied_names(self.view.original)
        buffers = {name for name, _ in self.view.original.named_buffers(remove_duplicate=False)}
        self.buffers = frozenset(buffers & self.state.keys())
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self.state.items()}
        self.sample = trace_input(tuple(map(_plain, self.view.sample(X))))
        self._given = X

    def graph(self, training: bool) -> Graph:
        """Export the forward pass in one mode."""
        try:
            return export_graph(self.module, self.sample, training=training, caller=self.caller)
        except TraceError:
            if not self.takes_any_rows():
                return self.graph(training)
            self.trial()  # an input that forward refuses is not the fault of the trace
            raise

    def takes_any_rows(self) -> bool:
        """Go back to all of X, once, where forward wants exactly its rows (nodes of a graph)."""
        if self._given is None:
            return True
        whole, self._given = self.view.to_input(self._given), None
        self.sample = whole.args
        return False

    def trial(self) -> Trial:
        """Run the net as it is, with its own weights, in its own dtype, where it lies."""
        inputs = tuple(
            to_device(value, self.view.device) if isinstance(value, torch.Tensor) else value
            for value in self.sample
        )
        try:
            return Trial(self.module, inputs, self.state, self.aliases)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            shapes = [tuple(v.shape) for v in self.sample if isinstance(v, torch.Tensor)]
            raise SymmetryError(
                f"{self.caller}: the net does not take 'X' (traced as {shapes[0]}, "
                f"{len(shapes)} tensors in all): {error}. Pass a few samples as the net takes them."
            ) from error

    def graphs(self) -> list[Graph]:
        """Export eval mode, and train mode where that can be exported."""
        found, rows = [self.graph(False)], self.sample
        try:
            found.append(self.graph(True))
            if self.sample is not rows:  # train mode wanted all rows: both have the same
                found[0] = self.graph(False)
        except TraceError:
            self.sample = rows
            warnings.warn(
                f"{self.caller}: the forward pass could not be traced in train mode; the symmetry "
                "is proved for eval mode only.",
                stacklevel=4,
            )
        return found

    @property
    def movable(self) -> set[str]:
        """Floating tensors of the state; all others are constants of the net."""
        return {
            name
            for name, tensor in self.state.items()
            if tensor.is_floating_point() or tensor.is_complex()
        }

    def check_deterministic(self, trial: Trial) -> None:
        """Run the net again as it is: an answer that changes by itself proves nothing."""
        if output_change(trial.before, trial.outputs(self.module)) > _NOISE:
            raise SymmetryError(
                f"{self.caller}: the forward pass of {type(self.module).__name__} is random in "
                "eval mode (two runs on the same input differ); switch the random step off in "
                "eval mode, for example functional dropout without training=self.training."
            )


def _plain(value):
    """Return a tensor that can be traced: one made under inference mode is copied."""
    inference = isinstance(value, torch.Tensor) and value.is_inference()
    return value.clone() if inference else value


def discover_symmetry(model, X=None, verify: bool = True) -> PermutationSymmetry:
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
    >>> from sklmc.symmetry import discover_symmetry
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
        if not verify:
            return symmetry_of(subject, [subject.graph(False)])
        graphs = subject.graphs()
        trial = subject.trial()
        subject.check_deterministic(trial)
        return symmetry_of(subject, graphs, trial)


def symmetry_of(
    subject: Subject, graphs: list[Graph], trial: Trial | None = None
) -> PermutationSymmetry:
    """Label graphs, prove what the labels claim where there is a trial, and wrap up."""
    labelling = label_graphs(graphs, subject.shapes, subject.aliases, subject.movable)
    structure = extract(labelling)
    found = None
    if trial is not None:
        prover = Prover(graphs, subject.sample, subject.state, subject.aliases, subject.buffers)
        structure, proof = proved(prover, structure, subject.caller, fuse=True)
        found = evidence(proof, own_change(trial, structure, subject.caller))
    return _wrapped(subject, structure, found, graphs[0].hash)


def symmetry_from_axes(spec, model, X, verify: bool) -> PermutationSymmetry:
    """Return the symmetry of an axes_to_perm spec; refuse it with the group that breaks it."""
    check_flag(verify, "PermutationSymmetry.from_axes_to_perm", "verify")
    look = view(model, caller="PermutationSymmetry.from_axes_to_perm")
    with settings_of(look):
        return _symmetry_from_axes(spec, Subject(look, X, look.caller), verify)


def _symmetry_from_axes(spec, subject: Subject, verify: bool) -> PermutationSymmetry:
    """Test a spec on a model that is seen by this room."""
    caller = subject.caller
    structure = structure_from_axes(spec, subject.shapes, subject.aliases)
    found = graph_hash = None
    if verify:
        try:
            graphs = subject.graphs()
        except TraceError:
            prover = Prover([], subject.sample, subject.state, subject.aliases, subject.buffers)
            prover.add("eval", ModuleRunner(subject.module, prover.inputs))
        else:
            graph_hash = graphs[0].hash
            prover = Prover(graphs, subject.sample, subject.state, subject.aliases, subject.buffers)
        structure, proof = proved(prover, structure, caller)
        if proof.failed:
            name, error = max(proof.failed.items(), key=lambda item: item[1])
            raise SymmetryError(
                f"{caller}: the spec is wrong: moving the units of group {name!r} changes the "
                f"function (relative error {error:.1e}); all groups that fail: "
                f"{', '.join(map(repr, proof.failed))}. Compare with discover_symmetry(model, X)."
            )
        found = evidence(proof, own_change(subject.trial(), structure, caller))
    return _wrapped(subject, structure, found, graph_hash)


def _wrapped(subject: Subject, structure: Structure, found, graph_hash) -> PermutationSymmetry:
    """Put everything that was found into one object."""
    return PermutationSymmetry(
        groups=structure.groups,
        blocks=structure.blocks,
        shapes=subject.shapes,
        aliases=alias_sets(subject.aliases),
        buffers=subject.buffers,
        frozen=structure.frozen,
        constants=constant_digests(subject.view.original),
        graph_hash=graph_hash,
        evidence=found,
        origin=Origin(subject.view.original, subject.sample) if found else None,
    )


def proved(
    prover: Prover, structure: Structure, caller: str, fuse: bool = False
) -> tuple[Structure, Proof]:
    """Return the part of a structure that passes the test, and what was measured."""
    eval_runner = prover.runners["eval"]
    if eval_runner.is_random or prover.noise("eval") > TOLERANCE:
        raise SymmetryError(
            f"{caller}: the forward pass is random in eval mode; switch the random step off in "
            "eval mode, for example functional dropout without training=self.training."
        )
    proof = prove(prover, structure.blocks, structure.groups)
    if proof.failed and "train" in prover.runners and prover.runners["train"].is_random:
        del prover.runners["train"]  # what it draws may belong to single units
        proof = prove(prover, structure.blocks, structure.groups)
    passed = {group.name: group for group in proof.groups}
    reasons = {
        name: f"failed verification (relative error {error:.1e})"
        for name, error in proof.failed.items()
    }
    structure = structure.with_groups(passed).without(reasons)
    for _ in structure.groups if fuse else ():
        errors = (
            (fused, _error(prover, fused)) for fused in fusions(structure, proof.unobservable)
        )
        found = next((pair for pair in errors if pair[1] <= TOLERANCE), None)
        if found is None:
            break
        structure, proof.error = found
    if proof.error > TOLERANCE:
        raise SymmetryError(
            f"{caller}: the function changes (relative error {proof.error:.1e}) although every "
            "group that failed was frozen; please report this net."
        )
    groups = tuple(
        group.marked(proof.unobservable.get(group.name, ())) for group in structure.groups
    )
    return Structure(groups, structure.blocks, structure.frozen), proof


def own_change(trial: Trial, structure: Structure, caller: str) -> Moved:
    """Move the net itself; refuse it where it does what its trace does not."""
    own = trial.moved(Mover(structure.blocks, structure.groups), structure.groups)
    if own.worst is not None:
        raise SymmetryError(
            f"{caller}: run as it is, the net changes when the units of group {own.worst!r} move "
            f"(relative error {own.error:.1e}), although its trace does not: forward takes another "
            "path while it is traced. Let both paths compute the same (look for torch.compiler."
            "is_compiling and for tensors kept from an earlier call), or trust the trace: "
            "verify=False."
        )
    return own


def _error(prover: Prover, structure: Structure) -> float:
    """Return the largest change when all groups of a structure move together."""
    mover = Mover(structure.blocks, structure.groups)
    return prover.together(mover, structure.groups)


def evidence(proof: Proof, own: Moved) -> dict:
    """Return what a proof rests on, as plain values."""
    return {
        "modes": list(proof.modes),
        "n_draws": sum(proof.draws.values()),
        "draws": dict(proof.draws),
        "seed": proof.seed,
        "tolerance": TOLERANCE,
        "error": proof.error,
        "errors": dict(proof.errors),
        "failed": dict(proof.failed),
        "tied": list(proof.tied),
        "own_error": own.error,
        "own_dtype": own.dtype,
        "torch": torch.__version__,
    }


def tied_names(module: nn.Module) -> dict[str, str]:
    """Map the name of a tied tensor to the first name of the same tensor."""
    first: dict[int, str] = {}
    tied = {}
    for named in (module.named_parameters, module.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            known = first.setdefault(id(tensor), name)
            if known != name:
                tied[name] = known
    return tied


def alias_sets(tied: dict[str, str]) -> tuple[tuple[str, ...], ...]:
    """Return tuples of names that stand for one tensor."""
    sets: dict[str, list[str]] = {}
    for name, first in tied.items():
        sets.setdefault(first, [first]).append(name)
    return tuple(tuple(names) for names in sets.values())


def constant_digests(module: nn.Module) -> dict[str, str]:
    """Return digests of the buffers that cannot move: two nets must share them."""
    persistent = module.state_dict().keys()
    found = {}
    for name, tensor in module.named_buffers(remove_duplicate=False):
        if tensor.ndim and (name not in persistent or not tensor.is_floating_point()):
            values = tensor.detach().cpu().contiguous().reshape(-1)
            data = values.view(torch.uint8).numpy().tobytes()
            found[name] = hashlib.sha256(data).hexdigest()
    return found


def check_dense(module: nn.Module, caller: str) -> None:
    """Refuse modules that quantise, and tensors whose entries cannot be moved."""
    for path, part in module.named_modules():
        kind = f"{type(part).__module__}.{type(part).__qualname__}"
        if _QUANTISING.match(kind) and not kind.endswith(".FloatFunctional"):
            raise SymmetryError(
                f"{caller}: module {path!r} ({kind}) quantises; permute the floating-point net "
                "and quantise it afterwards."
            )
    tensors = (module.named_parameters, module.named_buffers)
    for name, tensor in (pair for named in tensors for pair in named(remove_duplicate=False)):
        if isinstance(tensor, UninitializedTensorMixin) or tensor.is_meta:
            raise SymmetryError(
                f"{caller}: tensor {name!r} has no values yet (a lazy layer or the meta device); "
                "run the module on data, or load its weights (module.to_empty(device=...), then "
                "load_state_dict), first."
            )
        if tensor.is_inference():
            raise SymmetryError(
                f"{caller}: tensor {name!r} was made under torch.inference_mode and cannot be "
                "traced; make the net outside of it, then load_state_dict."
            )
        if tensor.is_quantized:
            kind = "quantised"
        elif tensor.layout is not torch.strided or tensor.is_nested:
            kind = "nested" if tensor.is_nested else f"stored as {tensor.layout}"
        elif tensor.is_floating_point() and tensor.itemsize == 1:
            kind = f"of {tensor.dtype}"
        else:
            continue
        raise SymmetryError(
            f"{caller}: tensor {name!r} is {kind}; permute the dense floating-point net and "
            "convert it afterwards."
        )
