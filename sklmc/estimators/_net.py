"""What turns a skorch net into a scikit-learn estimator: data in, seeds, training, outputs."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping

import torch
from torch import nn
from torch.utils.data import DataLoader

from sklmc._sklearn import check_is_fitted
from sklmc._torch import all_finite, seeded, single_thread, torch_defaults
from sklmc.estimators._net_callbacks import NetCallbacks
from sklmc.estimators._net_data import NetData, array_batches, may_leave_one
from sklmc.estimators._parameters import NetParameters, check_arguments, named_arguments
from sklmc.estimators._sample_weights import WeightedData, each_loss, weighted_mean
from sklmc.estimators._seeds import epoch_seed, resolve_seed
from sklmc.exceptions import SklmcWarning

BATCH_NORM = nn.modules.batchnorm._BatchNorm


class ArrayNet(NetCallbacks, NetData, NetParameters):
    """Base of NetClassifier and NetRegressor, to be mixed into a ``skorch.NeuralNet``.

    A fit consumes random numbers in this order and no other: the module is built on torch's
    generator seeded with ``seed_``; epoch number e (counted over the life of the net, so that
    partial_fit goes on where fit ended) runs on generators seeded with ``epoch_seed(seed_, e)``,
    of which the order of the samples takes the first draw.
    """

    _spawned_from: tuple[int, int] | None = None  # whose initial weights and first epochs it has
    _batch_weights: torch.Tensor | None = None  # of the samples in the batch that is trained on

    # Training

    def initialize(self):
        """Build module, criterion, optimizer and callbacks anew; ``fit`` calls this.

        Returns
        -------
        self
            The net, not trained yet.
        """
        self._check_parameters()
        self.seed_ = resolve_seed(self.random_state)
        with torch_defaults(self._built_dtype()), seeded(self.seed_), single_thread():
            return super().initialize()

    def _built_dtype(self) -> torch.dtype | None:
        """Return the default dtype that modules are built in; they are cast to `dtype` next."""
        return None if self.dtype is None else torch.float32

    def _torch_dtype(self) -> torch.dtype | None:
        """Return the default dtype that modules run in, None where it is the caller's."""
        return None if self.dtype is None else getattr(torch, self.dtype)

    def _epoch_seed(self, epoch: int) -> int:
        """Return the seed of an epoch, counted from 0; nets of one spawn share the first ones."""
        seed, n_shared = self._spawned_from or (self.seed_, 0)
        return epoch_seed(seed if epoch < n_shared else self.seed_, epoch)

    def initialize_module(self):
        """Build the module from ``module__...`` and from the sizes of the data.

        Returns
        -------
        self
            The net, with a new ``module_``.
        """
        given = self.get_params_for("module")
        check_arguments(self.module, "module", given, type(self).__name__)
        taken, _ = named_arguments(self.module)
        sizes = {name: size for name, size in self._sizes.items() if name in taken}
        seed = self._spawned_from[0] if self._spawned_from else self.seed_
        with torch_defaults(self._built_dtype()), seeded(seed):
            module = self.module(**{**sizes, **given})
        if self.dtype is not None:
            module.to(self._torch_dtype())
        self.module_ = module
        return self

    def check_data(self, X, y=None):
        """Do nothing: data are checked before they get here.

        Parameters
        ----------
        X : object
            What the module will see.
        y : object, default=None
            What the criterion will see.
        """

    def fit(self, X, y=None, sample_weight=None, **fit_params):
        """Train a new net (with ``warm_start=True`` and a fitted one: train it further).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Numbers: array, list, DataFrame or torch tensor. A ``torch.utils.data.Dataset`` and
            a dict of arrays go to skorch as they are.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels, or target values; two axes for regression only.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, not negative. The loss of a batch is the mean of its samples'
            losses with these weights; only their ratios matter. Samples of weight zero are left
            out altogether, but their labels count as known. None means equal weights.
        **fit_params : object
            Handed to the module's forward and to ``train_split``, as in skorch.

        Returns
        -------
        self
            The fitted net.
        """
        return self._train(X, y, None, None, sample_weight, fit_params)

    def partial_fit(self, X, y=None, classes=None, sample_weight=None, **fit_params):
        """Train for ``max_epochs`` more, from scratch if the net is new.

        The epochs go on where the last ones ended: two calls see the same orders of the samples
        as one call with twice the epochs.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            As for fit.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            As for fit.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come; None takes those of the first `y`. Only the first
            call reads it, and only a classifier.
        sample_weight : array-like of shape (n_samples,), default=None
            As for fit.
        **fit_params : object
            As for fit.

        Returns
        -------
        self
            The net, trained further.
        """
        return self._train(X, y, not self.initialized_, classes, sample_weight, fit_params)

    def _train(self, X, y, new, classes, sample_weight, fit_params):
        """Check everything and run skorch's own training, on a net built anew if it is `new`.

        None leaves that to ``warm_start``.
        """
        self.check_training_readiness()
        self._check_parameters()
        if new is None:
            new = not (self.warm_start and self.initialized_)
        try:
            X, y, fit_params = self._take_training_data(
                X, y, new, classes, sample_weight, fit_params
            )
            if new:
                self.initialize()
            with torch_defaults(self._torch_dtype()), seeded(self.seed_), single_thread():
                super().partial_fit(X, y, **fit_params)
        finally:
            vars(self).pop("_weights", None)
        self._set_training(False)
        state = {n: v for n, v in self.module_.state_dict().items() if isinstance(v, torch.Tensor)}
        if not all_finite(state.values()):
            bad = [name for name, value in state.items() if not torch.isfinite(value).all()]
            warnings.warn(
                f"{type(self).__name__}: training diverged, {bad[0]!r} is no longer finite. "
                f"Lower 'lr' (now {self.lr!r}), or clip gradients with "
                "skorch.callbacks.GradientNormClipping.",
                SklmcWarning,
                stacklevel=3,
            )
        return self

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        """Run the epochs; skorch keeps what is there when the user interrupts them.

        Parameters
        ----------
        X : object
            Checked data.
        y : object, default=None
            Checked targets.
        epochs : int, default=None
            How many; None means ``max_epochs``.
        **fit_params : object
            As for fit.

        Returns
        -------
        self
            The net.
        """
        self._interrupted = True
        super().fit_loop(X, y, epochs, **fit_params)
        self._interrupted = False
        return self

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run one pass over the data; a training pass runs on its own seed.

        Parameters
        ----------
        iterator : iterable or None
            The batches; None skips the pass.
        training : bool
            Whether the weights are trained.
        prefix : str
            Under which name the history keeps loss and batch size.
        step_fn : callable
            What is done with a batch.
        **fit_params : object
            Handed to `step_fn`.
        """
        seed = contextlib.nullcontext()
        if training:
            seed = seeded(self._epoch_seed(len(self.history) - 1))
        with seed:
            if iterator is not None and self._weights is not None:
                iterator = self._weighed(iterator)
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)

    def _weighed(self, batches):
        """Yield batches of X and y, and note the weights of their samples for `get_loss`."""
        for x, y, *weights in batches:
            with self._weighing(*weights):
                yield x, y

    @contextlib.contextmanager
    def _weighing(self, weights: torch.Tensor | None = None):
        """Let `get_loss` weigh the samples of the batch; None weighs all alike."""
        vars(self)["_batch_weights"] = weights
        try:
            yield
        finally:
            vars(self).pop("_batch_weights", None)

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        """Return the loss of one batch: where its samples have weights, their weighted mean.

        Parameters
        ----------
        y_pred : torch.Tensor
            What the module returned.
        y_true : torch.Tensor
            The targets.
        *args : object
            Handed on to skorch.
        **kwargs : object
            Handed on to skorch.

        Returns
        -------
        torch.Tensor
            The loss, a scalar.

        Raises
        ------
        ValueError
            If there are weights and the criterion cannot give the loss of each sample.
        """
        if self._batch_weights is None:
            return super().get_loss(y_pred, y_true, *args, **kwargs)
        criterion, caller = self.criterion_, type(self).__name__
        with each_loss(criterion, caller):
            losses = super().get_loss(y_pred, y_true, *args, **kwargs)
        return weighted_mean(losses, self._batch_weights, criterion, y_true, caller)

    def get_split_datasets(self, X, y=None, **fit_params):
        """Return the data to train on, and those to validate on or None.

        What ``skorch.helper.predefined_split`` holds is treated like X and y of fit.

        Parameters
        ----------
        X : object
            Checked data.
        y : object, default=None
            Checked targets.
        **fit_params : object
            Handed to `train_split`.

        Returns
        -------
        tuple of torch.utils.data.Dataset
            Two of them; the second may be None.
        """
        data = X if self._weights is None else WeightedData(self.get_dataset(X, y), self._weights)
        train, valid = super().get_split_datasets(data, y, **fit_params)
        given = getattr(self.train_split, "keywords", {}).get("valid_ds")
        if y is not None and valid is not None and valid is given:
            valid = self._check_validation_data(valid)
        return train, valid

    def get_iterator(self, dataset, training=False):
        """Return an iterator over mini-batches of a dataset.

        Arrays are cut in one piece; whatever else asks for a ``DataLoader`` gets one. Where a
        net with batch norm would train on a last batch of one sample, that batch is left out:
        it has no variance.

        Parameters
        ----------
        dataset : torch.utils.data.Dataset
            The data.
        training : bool, default=False
            Whether ``iterator_train`` or ``iterator_valid`` counts.

        Returns
        -------
        iterable
            Pairs of inputs and targets.
        """
        name = "iterator_train" if training else "iterator_valid"
        iterator, options = getattr(self, name), self.get_params_for(name)
        options.setdefault("batch_size", self.batch_size)
        if options["batch_size"] == -1:
            options["batch_size"] = len(dataset)
        if training and self._has_batch_norm() and may_leave_one(options, len(dataset)):
            options["drop_last"] = True
        batches = array_batches(iterator, dataset, options)
        if batches is not None:
            return batches
        if not training and iterator is DataLoader:
            # else each pass over a Dataset draws from torch's own generator
            options.setdefault("generator", torch.Generator().manual_seed(0))
        return iterator(dataset, **options)

    def _has_batch_norm(self) -> bool:
        """Say whether the module needs more than one sample to train on."""
        return any(isinstance(part, BATCH_NORM) for part in self.module_.modules())

    def infer(self, x, **fit_params):
        """Send one batch through the module.

        Parameters
        ----------
        x : torch.Tensor or dict
            The batch.
        **fit_params : object
            Handed to the module's forward.

        Returns
        -------
        torch.Tensor or tuple
            What the module returns.

        Raises
        ------
        ValueError
            If the module cannot take the batch.
        TypeError
            If the module's forward cannot take what fit was given besides X and y.
        """
        try:
            return super().infer(x, **fit_params)
        except torch.OutOfMemoryError:
            raise
        except TypeError as error:
            module = type(getattr(self.module_, "_orig_mod", self.module_)).__name__
            if isinstance(x, Mapping):
                raise TypeError(
                    f"{type(self).__name__}: 'X' is a dict with {', '.join(map(repr, x))}, which "
                    f"{module} cannot take: {error}."
                ) from error
            if not fit_params:
                raise
            raise TypeError(
                f"{type(self).__name__}: fit got {', '.join(map(repr, fit_params))}, which is "
                f"handed to the module's forward, but forward cannot take it: {error}."
            ) from error
        except (RuntimeError, ValueError, IndexError) as error:
            module = type(getattr(self.module_, "_orig_mod", self.module_)).__name__
            raise ValueError(
                f"{type(self).__name__}: {module} cannot take a batch {_describe(x)}: "
                f"{str(error).rstrip('. ')}. Check the sizes (module__...) and 'dtype' (None "
                "keeps integers)."
            ) from error

    # Prediction

    def evaluation_step(self, batch, training=False):
        """Send one batch through the module for prediction, on one thread.

        Parameters
        ----------
        batch : tuple
            Inputs and targets.
        training : bool, default=False
            Whether the module runs in training mode.

        Returns
        -------
        torch.Tensor or tuple
            What the module returns.
        """
        with torch_defaults(self._torch_dtype()), single_thread():
            return super().evaluation_step(batch, training=training)

    def forward_iter(self, X, training=False, device="cpu"):
        """Yield the module's outputs batch by batch; every predicting method goes through here.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            As for fit.
        training : bool, default=False
            Whether the module runs in training mode.
        device : str, default="cpu"
            Where the outputs are stored.

        Returns
        -------
        iterator of torch.Tensor
            Outputs; logits of a classifier.
        """
        check_is_fitted(self)
        return super().forward_iter(self._check_input(X), training=training, device=device)

    def predict_proba(self, X):
        """Return the module's outputs, sent through `predict_nonlinearity`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            As for fit.

        Returns
        -------
        ndarray of shape (n_samples, ...)
            Probabilities of a classifier.
        """
        check_is_fitted(self)
        with torch_defaults(self._torch_dtype()):
            return super().predict_proba(X)


def _describe(x) -> str:
    """Return shape and dtype of a batch in words."""
    if isinstance(x, torch.Tensor):
        return f"of shape {tuple(x.shape)} and dtype {str(x.dtype).removeprefix('torch.')}"
    return f"({type(x).__name__})"
