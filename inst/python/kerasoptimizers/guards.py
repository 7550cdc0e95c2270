"""What callbacks do so that a model gets its own weights back when something fails.

A mixin: the folders `keras3` and `tf_keras` join it to their callback classes.
"""


class Guards:
    """Functions of the callback's model that put something back when they fail.

    The class beside it supplies `model`.
    """

    def _guard(self, name, put_back):
        """Have a function of the model call `put_back()` when it fails or is interrupted.

        Args:
            name: str, the function: "evaluate" or "test_function", for example.
            put_back: function without arguments.

        Returns:
            Function without arguments that takes the guard away.
        """
        function = getattr(self.model, name)

        def guarded(*args, **kwargs):
            try:
                return function(*args, **kwargs)
            except StopIteration:
                # The data has ended: nothing failed.
                raise
            except BaseException:
                self._return_values(name, args)
                put_back()
                raise

        return self._replace(name, guarded)

    def _replace(self, name, function):
        """Put a function in the place of the model's own; returns one that takes it away again."""
        # Past the tracking of attributes.
        attributes = vars(self.model)
        own = attributes.get(name)
        attributes[name] = function

        def take_away():
            # Unless another stands in front of it by now.
            if attributes.get(name) is not function:
                return
            if own is None:
                del attributes[name]
            else:
                attributes[name] = own

        return take_away

    def _return_values(self, name, args):
        """Give the variables their values back, where a call of function `name` has taken them."""
