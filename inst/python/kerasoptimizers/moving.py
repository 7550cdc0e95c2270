"""Moving the averages after an update: the one thing in which the backends differ.

Each function applies an optimizer's rule after update number `update`.
`counted` is None, or says whether the inner optimizer's last call was an update
at all (it may have skipped it, or only accumulated gradients). One condition
stands for all variables.

Where the optimizer has `check_finite`, the averages move only if all weights are finite. What tells
is the sum of each weight, the cheapest to compute: it is finite only if every element is.
(A sum of finite elements that overflows counts as not finite as well.) Small weights may be many:
what counts there is how long they take to trace and compile, so TensorFlow checks and moves alike
ones together, and JAX looks at their elements together.
"""

import numpy as np


def _due(optimizer, update, counted):
    due = optimizer._rule.due(update)
    if counted is None:
        return due
    return counted if due is True else counted & due


def _fraction(optimizer, update):
    def number(value):
        return None if value is None else optimizer._cast(value, "float32")

    snapshots = optimizer._snapshots
    return optimizer._rule.fraction(number(update), number(snapshots), optimizer._xp)


def _refusal(optimizer, update, position):
    """What `optimizer._refused` becomes: how many, and of the first one weight and update."""
    xp, refused = optimizer._xp, optimizer._refused

    def whole(value):
        return xp.cast(value, refused.dtype)

    count, *first = (refused[i] for i in range(3))
    now = position, update
    first = [xp.where(count > 0, old, whole(new)) for old, new in zip(first, now)]
    return xp.stack([count + 1, *first])


def _is_large(size):
    return size >= 2**14


def _groups(sizes, kinds, most=2**16):
    """Positions of the small weights, in groups of up to `most` alike ones, and of those left alone.

    A group takes a few operations only.
    """
    groups: dict = {}
    for i, (size, kind) in enumerate(zip(sizes, kinds)):
        if not _is_large(size):
            # Not too many in one: what is stacked takes memory.
            full = min(most, 2**16 // max(size, 1))
            listed = groups.setdefault(kind, [[]])
            if len(listed[-1]) == full:
                listed.append([])
            listed[-1].append(i)
    found = [group for listed in groups.values() for group in listed]
    alone = sorted(set(range(len(sizes))) - {i for group in found for i in group})
    return found, alone


def with_tensorflow(optimizer, update, counted):
    import tensorflow as tf

    native, rule = optimizer._native, optimizer._rule
    averages = [native(average) for average in optimizer._averages]
    variables = [native(variable) for variable in optimizer._averaged]
    compiles = tf.test.is_built_with_xla() and all("CPU" in a.device for a in averages)
    if tf.distribute.has_strategy():
        # Of a mirrored variable every replica has a part, which TensorFlow has to find.
        groups, alone = [], list(range(len(averages)))
    else:
        sizes = [variable.shape.num_elements() for variable in variables]
        kinds = [(tuple(v.shape), a.dtype, v.dtype, a.device) for a, v in zip(averages, variables)]
        groups, alone = _groups(sizes, kinds)
    grouped = [i for group in groups for i in group]

    def first_replica(strategy, value):
        return None if value is None else strategy.experimental_local_results(value)[0]

    def in_cross_replica_context(strategy, update, counted):
        # A condition around updates of mirrored variables has to stand here, outside the replicas;
        # every replica has counted the same updates.
        update, counted = first_replica(strategy, update), first_replica(strategy, counted)

        def on_each_replica(change, variable, *args):
            strategy.extended.update(variable, change, args=args, group=False)

        def directly(change, variable, *args):
            change(variable, *args)

        def move_alone(fraction, change):
            for i in alone:
                average, variable = averages[i], variables[i]
                change(lambda a, w: a.assign(optimizer._moved(a, w, fraction)), average, variable)
                if rule.writes_back:
                    change(lambda w, a: w.assign(tf.cast(a, w.dtype)), variable, average)

        def stacked(group, of):
            return tf.stack([of[i] for i in group])

        def assign_stacked(group, of, values):
            for i, value in zip(group, tf.unstack(values)):
                of[i].assign(value, read_value=False)

        def move_group(group, fraction):
            weights = stacked(group, variables)
            moved = optimizer._moved(stacked(group, averages), weights, fraction)
            assign_stacked(group, averages, moved)
            if rule.writes_back:
                assign_stacked(group, variables, tf.cast(moved, weights.dtype))

        def move():
            fraction = _fraction(optimizer, update)
            for group in groups:
                move_group(group, fraction)
            if tf.distribute.has_strategy():
                move_alone(fraction, on_each_replica)
            elif tf.executing_eagerly() or not compiles:
                move_alone(fraction, directly)
            elif alone:
                # On CPUs memory is the limit: compiled, these take one pass over it instead of four.
                tf.function(
                    lambda fraction: move_alone(fraction, directly), jit_compile=True, autograph=False
                )(fraction)
            if optimizer._snapshots is not None:
                optimizer._snapshots.assign_add(1)

        def total(variable, axes=None):
            narrow = variable.dtype in (tf.float16, tf.bfloat16)
            return tf.reduce_sum(tf.cast(variable, tf.float32) if narrow else variable, axes)

        def are_finite():
            weights = [stacked(group, variables) for group in groups]
            found = [total(w, list(range(1, w.shape.rank))) for w in weights]
            found += [[total(variables[i])] for i in alone]
            finite = tf.concat([tf.math.is_finite(totals) for totals in found], 0)
            return tf.gather(finite, np.argsort(grouped + alone))

        def refuse(finite):
            position = tf.argmin(tf.cast(finite, tf.int32))
            optimizer._refused.assign(_refusal(optimizer, update, position))

        due = _due(optimizer, update, counted)
        if not optimizer.check_finite:
            move() if due is True else tf.cond(due, move, lambda: None)
            return
        if due is True:
            finite = are_finite()
        else:
            finite = tf.cond(due, are_finite, lambda: tf.ones(len(variables), tf.bool))
        go = tf.reduce_all(finite)
        tf.cond(go if due is True else go & due, move, lambda: None)
        tf.cond(go, lambda: None, lambda: refuse(finite))

    tf.__internal__.distribute.interim.maybe_merge_call(
        in_cross_replica_context, optimizer._distribution_strategy, update, counted
    )
    if tf.executing_eagerly():
        optimizer.warn_of_refusals()


def with_jax(optimizer, update, counted):
    import jax
    import jax.numpy as jnp

    rule = optimizer._rule
    weights = [variable.value for variable in optimizer._averaged]
    averages = [average.value for average in optimizer._averages]
    go = due = _due(optimizer, update, counted)
    nowhere = np.int32(len(weights))

    def total(w):
        # On CPUs a product with ones is faster than a sum.
        w = w.astype(jnp.promote_types(w.dtype, "float32"))
        return jnp.sum(jnp.tensordot(jnp.ones(w.shape[0], w.dtype), w, 1))

    def first_not_finite():
        # A kernel for each small weight takes long to compile, and so does one for hundreds.
        kinds = [(w.shape, w.dtype) for w in weights]
        groups, alone = _groups([w.size for w in weights], kinds, most=32)
        found = [jnp.where(jnp.isfinite(total(weights[i])), nowhere, i) for i in alone]
        for group in groups:
            first = jax.lax.full_like(weights[group[0]], nowhere, nowhere.dtype)
            for i in group[::-1]:
                here = jax.lax.full_like(first, i)
                first = jax.lax.select(jax.lax.is_finite(weights[i]), first, here)
            found.append(jnp.min(first, initial=nowhere))
        return jnp.min(jnp.stack(found))

    if optimizer.check_finite:
        if due is True:
            first = first_not_finite()
        else:
            first = jax.lax.cond(due, first_not_finite, lambda: jnp.asarray(nowhere))
        finite = first == nowhere
        go = finite & due
        refused = optimizer._refused.value
        refusal = _refusal(optimizer, update, first)
        optimizer._refused.assign(jnp.where(finite, refused, refusal))
        if not isinstance(refusal, jax.core.Tracer):
            optimizer.warn_of_refusals()

    def moved():
        fraction = _fraction(optimizer, update)
        return [optimizer._moved(a, w, fraction) for a, w in zip(averages, weights)]

    def where_due(new, old):
        return new if go is True else jnp.where(go, new, old)

    if due is True or rule.writes_back:
        # One pass together with the inner optimizer's: what a condition returns is copied first.
        moved_to = [where_due(new, old) for new, old in zip(moved(), averages)]
    else:
        # What is assigned in a branch of a condition leaks out of it: branches return values.
        moved_to = jax.lax.cond(go, moved, lambda: averages)
    for variable, value in zip(optimizer._averages, moved_to):
        variable.assign(value)
    if rule.writes_back:
        for variable, average, own in zip(optimizer._averaged, moved_to, weights):
            # Two variables that share a buffer can't both be donated: a copy, also where no cast
            # makes one.
            variable.assign(where_due(jnp.copy(average.astype(own.dtype)), own))
    if optimizer._snapshots is not None:
        optimizer._snapshots.assign_add(jnp.asarray(go, optimizer._snapshots.dtype))


class HostCount:
    """A count on a PyTorch device, known without asking the device, which would wait for it."""

    def __init__(self):
        self._seen = None

    def read(self, tensor):
        """The count; asked for only if something else has written to the tensor."""
        if self._seen is None or tensor is not self._seen or tensor._version != self._version:
            self._number = int(tensor)
        return self._number

    def note(self, tensor, number):
        """Take note that the tensor holds this number now."""
        self._seen, self._version, self._number = tensor, tensor._version, number


def _is_host(tensor):
    return tensor.device.type == "cpu"


def _host_fraction(optimizer, update):
    """The fraction as a Python number, computed as the other backends compute it: in float32."""

    def number(value):
        # Not of no dimensions: NumPy would take these to float64.
        return None if value is None else np.array([int(value)], "float32")

    snapshots = None if optimizer._snapshots is None else optimizer._snapshots.value
    fraction = optimizer._rule.fraction(number(update), number(snapshots), np)
    return np.asarray(fraction).item()


def with_torch(optimizer, update, counted):
    import torch

    rule, update = optimizer._rule, int(update)
    if not _due(optimizer, update, counted):
        return
    weights = [variable.value for variable in optimizer._averaged]
    averages = [average.value for average in optimizer._averages]
    with torch.no_grad():
        go = True
        if optimizer.check_finite:
            wide = any(w.dtype == torch.float64 for w in weights)
            dtype = torch.float64 if wide else torch.float32
            finite = torch.isfinite(torch.stack([torch.sum(w, dtype=dtype) for w in weights]))
            go = finite.all()
            # Another device than the host decides for itself: to ask it would be to wait for it.
            if _is_host(go):
                go = bool(go)
            if go is not True:
                refusal = _refusal(optimizer, update, torch.argmin(finite.int()))
                refused = optimizer._refused
                refused.assign(refusal if go is False else torch.where(go, refused.value, refusal))
            if go is False:
                optimizer.warn_of_refusals()
                return
        fraction = _host_fraction(optimizer, update)
        # Beyond one half, lerp() computes another, less exact formula.
        if go is True and fraction <= 0.5 and all(w.dtype == a.dtype for w, a in zip(weights, averages)):
            torch._foreach_lerp_(averages, weights, fraction)
        else:
            for average, w in zip(averages, weights):
                w = w.to(average.dtype)
                w = w if go is True else torch.where(go, w, average)
                if fraction == 1.0:
                    average.copy_(w)
                else:
                    average.add_(w - average, alpha=fraction)
        if rule.writes_back and go is True:
            torch._foreach_copy_(weights, averages)
        elif rule.writes_back:
            for average, w in zip(averages, weights):
                w.copy_(torch.where(go, average.to(w.dtype), w))
        if optimizer._snapshots is not None:
            optimizer._snapshots.assign_add(torch.as_tensor(go, dtype=torch.int32))
