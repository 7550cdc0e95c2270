"""Moving the averages after an update: the one thing in which the backends differ.

Each function applies an optimizer's rule after update number `update`.
`counted` is None, or says whether the inner optimizer's last call was an update
at all (it may have skipped it, or only accumulated gradients). One condition
stands for all variables.
"""


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


def with_tensorflow(optimizer, update, counted):
    import tensorflow as tf

    native = optimizer._native

    def first_replica(strategy, value):
        return None if value is None else strategy.experimental_local_results(value)[0]

    def in_cross_replica_context(strategy, update, counted):
        # A condition around updates of mirrored variables has to stand here, outside the replicas;
        # every replica has counted the same updates.
        update, counted = first_replica(strategy, update), first_replica(strategy, counted)

        def move():
            fraction = _fraction(optimizer, update)
            for variable, average in zip(optimizer._averaged, optimizer._averages):
                variable, average = native(variable), native(average)
                strategy.extended.update(
                    average,
                    lambda a, w: a.assign(optimizer._moved(a, w, fraction)),
                    args=(variable,),
                    group=False,
                )
                if optimizer._rule.writes_back:
                    strategy.extended.update(
                        variable,
                        lambda w, a: w.assign(tf.cast(a, w.dtype)),
                        args=(average,),
                        group=False,
                    )
            if optimizer._snapshots is not None:
                optimizer._snapshots.assign_add(1)

        due = _due(optimizer, update, counted)
        if due is True:
            move()
        else:
            tf.cond(due, move, lambda: None)

    tf.__internal__.distribute.interim.maybe_merge_call(
        in_cross_replica_context, optimizer._distribution_strategy, update, counted
    )


def with_jax(optimizer, update, counted):
    # What is assigned in a branch of a condition leaks out of it: branches return values.
    changed = list(optimizer._averages)
    if optimizer._rule.writes_back:
        changed += optimizer._averaged
    if optimizer._snapshots is not None:
        changed.append(optimizer._snapshots)

    def moved():
        fraction = _fraction(optimizer, update)
        averages = [
            optimizer._moved(average.value, variable.value, fraction)
            for variable, average in zip(optimizer._averaged, optimizer._averages)
        ]
        weights = []
        if optimizer._rule.writes_back:
            # Two variables that share a buffer can't both be donated: a copy, also where no cast
            # makes one.
            weights = [
                optimizer._xp.copy(optimizer._cast(average, variable.dtype))
                for variable, average in zip(optimizer._averaged, averages)
            ]
        snapshots = [] if optimizer._snapshots is None else [optimizer._snapshots.value + 1]
        return averages + weights + snapshots

    due = _due(optimizer, update, counted)
    if due is True:
        values = moved()
    else:
        values = optimizer._xp.cond(due, moved, lambda: [variable.value for variable in changed])
    for variable, value in zip(changed, values):
        variable.assign(value)


def with_torch(optimizer, update, counted):
    import torch

    due = _due(optimizer, update, counted)
    if due is not True and not bool(due):
        return
    with torch.no_grad():
        fraction = _fraction(optimizer, update)
        for variable, average in zip(optimizer._averaged, optimizer._averages):
            average.assign(optimizer._moved(average.value, variable.value, fraction))
            if optimizer._rule.writes_back:
                variable.assign(optimizer._cast(average.value, variable.dtype))
        if optimizer._snapshots is not None:
            optimizer._snapshots.assign_add(1)
