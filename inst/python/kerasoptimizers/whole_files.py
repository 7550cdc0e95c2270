"""Saved models that are there whole or not at all."""

import contextlib
import functools
import os

_ENDINGS = (".keras", ".h5", ".hdf5")


@contextlib.contextmanager
def whole_files(model):
    """While it lasts, what the model saves replaces an older file only once it is written.

    Keras writes in place: a process that is killed meanwhile leaves a torn file,
    and has lost the one before. What is not a single local file (folders,
    TensorFlow's checkpoints, remote paths) is written as Keras does.

    Args:
        model: Keras model of either generation.
    """
    names = ("save", "save_weights")
    before = {name: vars(model)[name] for name in names if name in vars(model)}
    # Past Keras's tracking of attributes.
    vars(model).update({name: _whole(getattr(model, name)) for name in names})
    try:
        yield
    finally:
        for name in names:
            del vars(model)[name]
        vars(model).update(before)


def _whole(save):
    @functools.wraps(save)
    def save_whole(filepath, *args, **kwargs):
        path = os.path.realpath(filepath)
        folder, name = os.path.split(path)
        if not name.endswith(_ENDINGS) or not os.path.isdir(folder):
            return save(filepath, *args, **kwargs)
        # Keras goes by the ending.
        partial = os.path.join(folder, f".part-{name}")
        try:
            save(partial, *args, **kwargs)
            os.replace(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.remove(partial)
            raise

    return save_whole
