"""Exact batch-norm statistics, for both Keras generations.

A pass runs the model in training mode over the data, watches what goes into its
batch-norm layers, and takes for each batch the number, mean and variance of the
examples. Merged by the law of total variance these are the exact mean and
variance over all examples, however unequal the batches. The momentum of the
layers plays no part, and a forward pass changes nothing but what is written at
its end.
"""

import contextlib
import itertools
import threading
import warnings

import numpy as np

from . import arguments


def merge(rows):
    """Number, mean and variance of the examples of several groups together.

    Args:
        rows: array of shape (groups, 3, channels): number, mean and (biased)
            variance of each group.

    Returns:
        Array of shape (3, channels), float64.
    """
    # In place where possible: what this takes is the time that memory takes.
    count, mean, variance = (np.array(part, "float64") for part in np.moveaxis(rows, 1, 0))
    if not np.all(count > 0):
        # A group without examples has no mean: 0 / 0.
        mean[count == 0] = variance[count == 0] = 0
    total = count.sum(axis=0)
    count /= np.where(total > 0, total, 1)
    center = np.einsum("gc,gc->c", count, mean)
    mean -= center
    mean *= mean
    variance += mean
    return np.stack([total, center, np.einsum("gc,gc->c", count, variance)])


class Pass:
    """One pass of training-mode forward steps that watches the batch-norm layers of a model.

    Use it as a context manager: on leaving, also by an error, the model is as it
    was. `write()` then sets the statistics.

    The class beside it supplies `_keras` (the generation's module), `_layer_type`
    (the base of its batch-norm layers), `_xp` (functions on tensors), `_native`
    (whether a value is a tensor of the backend), `_read(variable)` (a copy of its value as an
    array), `_write(variable, value)`, `_forward(x)`, and `_update_metrics(x, y, y_pred,
    sample_weight)`.
    """

    #: Results of so many batches wait on the device before they are fetched and merged.
    _patience = 16

    def __init__(self, model):
        self.model = model
        self.layers = self.layers_of(model)
        self._widths = [int(np.prod(layer.moving_mean.shape)) for layer in self.layers]
        wide = any(self._type_of(layer) == "float64" for layer in self.layers)
        self._dtype = "float64" if wide else "float32"
        self._seen = set()
        self._local = threading.local()
        self._with_loss = False
        self._weights = []
        self._start_over()

    @classmethod
    def layers_of(cls, model):
        """The batch-norm layers that training-mode steps update, at any depth.

        Frozen ones run in inference mode and keep their statistics.
        """
        layers = {id(layer): layer for layer in model._flatten_layers()}
        return [
            layer
            for layer in layers.values()
            if isinstance(layer, cls._layer_type)
            and layer.trainable
            and getattr(layer, "moving_mean", None) is not None
        ]

    @staticmethod
    def _type_of(layer):
        dtype = layer.moving_mean.dtype
        return getattr(dtype, "name", dtype)

    def _start_over(self):
        self._total = np.zeros((1, 3, sum(self._widths)))
        self._waiting = []

    def __enter__(self):
        self._start_over()
        return self

    def __exit__(self, *error):
        return False

    # Watching.

    @contextlib.contextmanager
    def _watching(self):
        """While it lasts, the layers report the moments of their inputs."""
        # Into the instance's dictionary directly: Keras takes note of every attribute that is set.
        for i, layer in enumerate(self.layers):
            vars(layer).update(self._watched(i, layer))
            # Batch renormalization would normalize by statistics of other weights.
            if getattr(layer, "renorm", False):
                layer.renorm = None
        try:
            yield
        finally:
            for layer in self.layers:
                for name in ("call", *self._inner):
                    vars(layer).pop(name, None)
                if getattr(layer, "renorm", False) is None:
                    layer.renorm = True

    #: Methods of the layers that compute moments, where they can be watched.
    _inner: tuple[str, ...] = ()

    def _watched(self, i, layer):
        """Methods of a layer that do the same and report the moments: name and function."""
        call = layer.call

        def watched_call(inputs, *args, **kwargs):
            self._seen.add(i)
            recorded = len(self._local.rows.get(i, ()))
            outputs = call(inputs, *args, **kwargs)
            training = kwargs.get("training", args[0] if args else None)
            missing = len(self._local.rows.get(i, ())) == recorded
            if missing and isinstance(training, (bool, int)) and training:
                self._compute(i, layer, inputs, kwargs.get("mask"))
            return outputs

        return {"call": watched_call}

    def _compute(self, i, layer, inputs, mask):
        """Record the moments of inputs of a layer that doesn't report its own."""
        xp = self._xp
        x = xp.cast(inputs, self._dtype)
        # Keras 2 counts an axis more where it splits the batch into virtual ones.
        shift = 1 if getattr(layer, "virtual_batch_size", None) else 0
        axis = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
        kept = {(a - shift) % len(x.shape) for a in axis}
        axes = [a for a in range(len(x.shape)) if a not in kept]
        if mask is None:
            self._record(i, x, *xp.moments(x, axes))
            return
        mask = self._spread(mask, x)
        count = xp.sum(xp.cast(mask, self._dtype), axes)
        some = xp.where(count > 0, count, xp.ones_like(count))
        mean = xp.sum(xp.where(mask, x, xp.zeros_like(x)), axes) / some
        deviation = xp.where(mask, x - mean, xp.zeros_like(x))
        self._record(i, x, mean, xp.sum(deviation * deviation, axes) / some, count)

    def _spread(self, mask, x):
        xp = self._xp
        return xp.broadcast_to(xp.expand_dims(xp.cast(mask, "bool"), -1), xp.shape(x))

    def _record(self, i, x, mean, variance, count=None):
        """Record the moments of inputs `x`; `count` is of all examples if not given."""
        if count is None:
            count = self._xp.size(x) // self._widths[i]
        self._local.rows.setdefault(i, []).append((count, mean, variance))

    def _full(self, i, value):
        xp = self._xp
        return xp.broadcast_to(xp.cast(value, self._dtype), (self._widths[i],))

    def _flat(self, i, part):
        """One of the moments of a layer, or its number of examples, as a vector of its channels."""
        rank = len(getattr(part, "shape", ()))
        if rank == 0:
            return self._full(i, part)
        part = self._xp.cast(part, self._dtype)
        return part if rank == 1 else self._xp.reshape(part, (self._widths[i],))

    def _start(self):
        self._local.rows = {}

    def _rows(self):
        """What the step has recorded: a tensor of shape (calls, 3, channels of all layers).

        A layer used several times in a step has several rows.
        """
        recorded = self._local.rows
        self._local.rows = {}
        calls = max([1, *(len(rows) for rows in recorded.values())])
        parts = []
        for call in range(calls):
            cells = [
                recorded[i][call] if call < len(recorded.get(i, ())) else (0, 0, 0)
                for i in range(len(self.layers))
            ]
            parts += [self._flat(i, part) for row in zip(*cells) for i, part in enumerate(row)]
        rows = self._xp.concatenate(parts)
        return self._xp.reshape(rows, (calls, 3, sum(self._widths)))

    # The steps.

    def _step(self, data, with_loss):
        """Run a step and return its rows; `data` is (x,), or (x, y, sample_weight) for the loss."""
        raise NotImplementedError

    def step(self, x):
        """Run a training-mode forward step on a batch.

        Args:
            x: the model's input, arrays or tensors, batch first.
        """
        self._keep(self._step((map_leaves(self._to_tensor, x),), False))

    def _keep(self, rows):
        self._waiting.append(rows)
        if len(self._waiting) >= self._patience:
            self._fetch()

    def _fetch(self):
        rows = [self._to_numpy(rows) for rows in self._waiting]
        self._waiting = []
        if np.any(self._total[:, 0]):
            rows.append(self._total)
        if rows:
            self._total = merge(np.concatenate(rows))[np.newaxis]

    def _to_tensor(self, leaf):
        if leaf is None or self._native(leaf):
            return leaf
        if hasattr(leaf, "detach"):
            leaf = leaf.detach().cpu()
        array = leaf.toarray() if hasattr(leaf, "toarray") else np.asarray(leaf)
        if array.dtype.kind == "f" and array.dtype.itemsize > 4:
            array = array.astype(self._keras.backend.floatx())
        return array

    # The result.

    def statistics(self):
        """Number, mean and variance over all steps, each of the shape of the moving statistics.

        Returns:
            List of (layer, count, mean, variance), float64.
        """
        self._fetch()
        columns = np.split(self._total[0], np.cumsum(self._widths)[:-1], axis=1)
        return [
            (layer, *column.reshape(3, *layer.moving_mean.shape))
            for layer, column in zip(self.layers, columns)
        ]

    def write(self):
        """Set the layers' statistics. Layers that no step has used keep theirs."""
        values = []
        for layer, count, mean, variance in self.statistics():
            if not np.any(count > 0):
                continue
            deviation = np.sqrt(variance + layer.epsilon)
            every = np.all(count > 0)
            values += [
                (variable, value if every else np.where(count > 0, value, self._read(variable)))
                for variable, value in (
                    (layer.moving_mean, mean),
                    (layer.moving_variance, variance),
                    # Those of batch renormalization.
                    (getattr(layer, "moving_stddev", None), deviation),
                    (getattr(layer, "renorm_mean", None), mean),
                    (getattr(layer, "renorm_stddev", None), deviation),
                )
                if variable is not None
            ]
        assign_all(values, self)

    @staticmethod
    def _to_numpy(rows):
        return rows.numpy()

    # For a callback whose epoch of fit() is the pass.

    def in_fit(self, weights):
        """Prepare for steps of the model's fit(): on all of its replicas, with metrics.

        Between the steps the model holds its own values, whatever happens there.

        Args:
            weights: list of (variable, array), the values to run with; the model keeps its own.
        """
        self._with_loss = not self._has_own_train_step
        self._weights = weights

    def train_function(self, *args):
        """What stands in for the model's train function: forward steps and metrics only."""
        raise NotImplementedError

    @property
    def _has_own_train_step(self):
        # Its loss is unknown: such a model only runs forward, without logs.
        return type(self.model).train_step is not self._keras.Model.train_step

    def _next(self, iterator, steps):
        """Up to `steps` batches: (x, y, sample_weight)."""
        batches = list(itertools.islice(iterator, steps))
        if not batches:
            raise StopIteration
        return [self._keras.utils.unpack_x_y_sample_weight(batch) for batch in batches]


class TensorFlowPass(Pass):
    """The pass on TensorFlow, where a forward step changes the model's variables in place."""

    #: Whether Python conditions and loops of a model become TensorFlow's, as in its fit().
    _autograph = False

    def __init__(self, model):
        super().__init__(model)
        import tensorflow as tf

        self._tf = tf
        self._strategy = tf.distribute.get_strategy()
        self._eager = bool(model.run_eagerly)
        self._compiled = {}
        self._graph = None
        self._exchange = None

    def in_fit(self, weights):
        super().in_fit(weights)
        self._strategy = self.model.distribute_strategy

        def exchange(values):
            before = [variable.read_value() for variable, _ in self._saved]
            for (variable, _), value in zip(self._saved, values):
                variable.assign(value)
            return before

        # One call, which no interrupt divides.
        self._exchange = self._tf.function(exchange, autograph=False)

    def __enter__(self):
        variables = {id(v): v for v in self._variables()}
        self._saved = [(v, v.read_value()) for v in variables.values()]
        assign_all(self._weights, self)
        if self._exchange is not None:
            self._leave_model()
        return super().__enter__()

    def __exit__(self, *error):
        saved, self._saved = self._saved, ()
        for variable, value in saved:
            variable.assign(value, read_value=False)
        return super().__exit__(*error)

    def _leave_model(self):
        self._values = self._exchange([value for _, value in self._saved])

    @contextlib.contextmanager
    def _in_model(self):
        """While it lasts, the model holds the values of the pass."""
        try:
            self._exchange(self._values)
            yield
        finally:
            self._leave_model()

    def _record(self, *args):
        if not self._tf.executing_eagerly():
            if self._tf.compat.v1.get_default_graph() is not self._graph:
                # In a loop, a condition or a function of its own: no value gets out of there.
                self._hidden = True
                return
        super()._record(*args)

    def _replica_step(self, data, with_loss):
        self._start()
        x, *targets = data
        y_pred = self._forward(x)
        if with_loss:
            y, sample_weight = targets
            self._update_metrics(x, y, y_pred, sample_weight)
        return self._rows()

    def _traced(self, data, with_loss):
        if not self._tf.executing_eagerly():
            self._graph = self._tf.compat.v1.get_default_graph()
        with self._watching():
            rows = self._strategy.run(self._replica_step, args=(data, with_loss))
        if self._strategy.num_replicas_in_sync == 1:
            return rows
        return self._strategy.gather(rows, axis=0)

    def _step(self, data, with_loss):
        if self._eager:
            return self._step_eagerly(data, with_loss)
        first = with_loss not in self._compiled
        if first:

            def step(*data):
                return self._traced(data, with_loss)

            self._compiled[with_loss] = self._tf.function(
                step, reduce_retracing=True, autograph=self._autograph
            )
        self._hidden = False
        rows = self._compiled[with_loss](*data)
        if not self._hidden and not (first and len(self._seen) < len(self.layers)):
            return rows
        # Layers weren't seen, or not where their values can be fetched: eagerly all can be. If the
        # model doesn't use them, its steps stay compiled.
        seen = len(self._seen)
        eager_rows = self._step_eagerly(data, False)
        if not self._hidden and len(self._seen) == seen:
            return rows
        self._eager = True
        return eager_rows

    def _step_eagerly(self, data, with_loss):
        if self._strategy.num_replicas_in_sync > 1:
            raise RuntimeError(
                "Batch-norm layers in a loop, a condition or a tf.function of their own can't be "
                "recalibrated on several replicas: give `data`, or call update_batch_norm()."
            )
        config = self._tf.config
        before = config.functions_run_eagerly()
        if not before:
            config.run_functions_eagerly(True)
        try:
            return self._traced(data, with_loss)
        finally:
            if not before:
                config.run_functions_eagerly(False)

    def _steps_per_execution(self):
        return 1

    def train_function(self, iterator):
        batches = self._next(iterator, self._steps_per_execution())
        with self._in_model():
            for data in batches:
                self._keep(self._step(data, self._with_loss))
        return self.model.get_metrics_result() if self._with_loss else {}


# The data.


def map_leaves(function, value):
    """`value` with `function` applied to each array in its lists, tuples and dicts."""
    if isinstance(value, dict):
        return {key: map_leaves(function, part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [map_leaves(function, part) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    return function(value)


def leaves(value):
    found = []
    map_leaves(found.append, value)
    return [leaf for leaf in found if leaf is not None]


_INPUTS = "an array, a list or dict of arrays, a data set, or a generator"


def batches(x, batch_size, steps, name="x"):
    """Batches of model inputs from whatever `fit()` takes.

    Args:
        x: see `update_batch_norm()`.
        batch_size: int >= 1, for arrays.
        steps: int >= 1 or None for all.
        name: str, the argument that `x` was given as.

    Returns:
        (number of batches or None where it isn't known, iterator)

    Raises:
        TypeError, ValueError: in one line, before anything is drawn.
    """
    if hasattr(x, "__next__"):
        if steps is None:
            raise ValueError("`steps` must be given for a generator: it says where a pass ends.")
        return steps, _inputs(x, steps)
    if hasattr(x, "element_spec"):
        count = int(x.cardinality()) if hasattr(x, "cardinality") else -2
        if count == -1 and steps is None:
            raise ValueError("`steps` must be given for a data set that repeats without end.")
        return _number(count if count >= 0 else None, steps), _inputs(x, steps)
    if hasattr(x, "__getitem__") and hasattr(x, "on_epoch_end"):
        count = _length(x)
        if count is None and steps is None:
            raise ValueError("`steps` must be given for a data set without a length.")
        steps = _number(count, steps)
        return steps, _inputs((x[i] for i in range(steps)), steps)
    arrays = hasattr(x, "shape") or isinstance(x, (list, tuple, dict, str))
    if hasattr(x, "__iter__") and not arrays:
        return _number(_length(x), steps), _inputs(x, steps)
    return _slices(x, batch_size, steps, name)


def _length(x):
    try:
        return len(x)
    except TypeError:
        return None


def _number(count, steps):
    return steps if count is None else count if steps is None else min(count, steps)


def _inputs(elements, steps):
    for element in itertools.islice(elements, steps):
        # As in Keras, a list or tuple is (inputs, targets, sample weights).
        if isinstance(element, (list, tuple)):
            if not 1 <= len(element) <= 3:
                raise ValueError(
                    "`x` must give inputs, or tuples of inputs, targets and sample weights, not "
                    f"{type(element).__name__}s of {len(element)}."
                )
            element = element[0]
        yield element


def _slices(x, batch_size, steps, name):
    arrays = leaves(x)
    if not arrays or not all(len(getattr(array, "shape", ())) > 0 for array in arrays):
        arguments.refuse(name, _INPUTS, x)
    sizes = sorted({int(array.shape[0]) for array in arrays})
    if len(sizes) > 1:
        raise ValueError(
            f"`{name}` must hold arrays of one length, not of "
            + " and ".join(str(size) for size in sizes)
            + "."
        )
    if sizes == [0]:
        raise ValueError(f"`{name}` must hold at least one example.")
    x = map_leaves(lambda a: a.to_numpy() if hasattr(a, "to_numpy") else a, x)
    starts = range(0, sizes[0], batch_size)[:steps]

    def slices():
        for start in starts:
            stop = start + batch_size
            yield map_leaves(lambda a: None if a is None else a[start:stop], x)  # noqa: B023

    return len(starts), slices()


def assign_all(values, kind):
    """Set variables to values: all of them, or, if that fails, none.

    Args:
        values: list of (variable, array).
        kind: a class of passes: how variables of its generation are read and written.
    """
    before = [(variable, kind._read(variable)) for variable, _ in values]
    try:
        for variable, value in values:
            kind._write(variable, value)
    except BaseException:
        for variable, value in before:
            kind._write(variable, value)
        raise


# The function.


def recalibrate(pass_type, model, x, batch_size, steps, verbose):
    """`update_batch_norm()` with the pass of a generation and backend."""
    keras = pass_type._keras
    if not isinstance(model, keras.Model):
        arguments.refuse("model", f"a {pass_type._generation} model", model)
    batch_size = arguments.whole("batch_size", batch_size, 1)
    steps = arguments.optional(lambda name, value: arguments.whole(name, value, 1), "steps", steps)
    if not isinstance(verbose, (str, int)) or verbose not in ("auto", 0, 1, 2):
        arguments.refuse("verbose", "'auto', 0, 1 or 2", verbose)
    if not model.built:
        raise ValueError(
            f"`model` must be built, and '{model.name}' is not: it has no weights yet. Train it, "
            "or call it on data."
        )
    if not pass_type.layers_of(model):
        return
    count, inputs = batches(x, batch_size, steps)
    run = _cached(pass_type, model)
    verbose = 1 if verbose == "auto" else int(verbose)
    bar = keras.utils.Progbar(count, verbose=verbose, unit_name="batch") if verbose else None
    done = 0
    with run:
        for batch in inputs:
            run.step(batch)
            done += 1
            if bar is not None:
                bar.update(done, finalize=False)
    if not done:
        raise ValueError("`x` must hold at least one example.")
    if bar is not None:
        bar.update(done, finalize=True)
    if steps is not None and done < steps:
        warnings.warn(
            f"`steps` is {steps}, but `x` held {done} batches only: the statistics are of those.",
            stacklevel=3,
        )
    run.write()


def _cached(pass_type, model):
    """A pass over the model: one made before, where it still fits, and need not be traced."""
    fresh = pass_type(model)
    fresh.key = (
        pass_type,
        fresh.layers,
        [id(v) for v in model.trainable_variables],
        [id(v) for v in model.non_trainable_variables],
        model.run_eagerly,
    )
    old = vars(model).get("_recalibration")
    if old is not None and old.key == fresh.key:
        return old
    # Not as an attribute that Keras takes note of, and would save.
    vars(model)["_recalibration"] = fresh
    return fresh


def updater(pass_type_of):
    """The public function `update_batch_norm()` of a generation.

    Args:
        pass_type_of: function that gives the class of passes for the backend in use.
    """

    def update_batch_norm(model, x, batch_size=32, steps=None, verbose="auto"):
        """Recompute the batch-norm statistics of a model for the weights it holds now.

        Averaged weights need it: the statistics that training collected belong
        to other weights. The model runs in training mode over `x`, each
        batch-norm layer seeing inputs that the layers before it normalized by
        their batch, and the moving statistics become the exact mean and
        (biased) variance of the layer's inputs over all examples. Nothing else
        changes: no trainable weight, no momentum, no seed, no training flag. A
        pass that fails or is interrupted leaves the old statistics.

        All of Keras's batch-norm layers count, in nested models too. Frozen
        ones (`trainable = False`) run in inference mode and keep their
        statistics. Masked elements do not count. Batch renormalization is
        off during the pass, and its own statistics are set as well. A model
        without batch norm returns at once; `x` is not touched.

        Args:
            model: Keras model, built. It need not be compiled.
            x: the inputs: an array, batch first; a list or dict of arrays for
                several inputs; or batches of inputs, of (inputs, targets) or
                of (inputs, targets, sample weights): a tf.data.Dataset, a
                Keras PyDataset or Sequence, a PyTorch DataLoader, or a
                generator. Targets and weights are not used.
            batch_size: int >= 1, examples in a batch of arrays.
            steps: int >= 1, batches to draw; None for all. Generators need it.
            verbose: "auto" or 1 for a progress bar, 2 for one line, 0 for nothing.

        Raises:
            TypeError, ValueError: in one line, for an argument that is not as
                described, an unbuilt model or empty data. Nothing is changed then.

        References:
            Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and
            Better Generalization, arXiv 1803.05407, section 3.2.
        """
        recalibrate(pass_type_of(), model, x, batch_size, steps, verbose)

    update_batch_norm.__module__ = pass_type_of.__module__
    update_batch_norm.__qualname__ = "update_batch_norm"
    return update_batch_norm
