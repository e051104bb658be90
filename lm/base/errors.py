"""The exception for errors that the user can fix."""


class UserError(ValueError):
    """A mistake in a setting, a file or the environment that the user can fix.

    Its message says what is wrong, where, and what to do. `train.py` and the scripts show it as one line,
    `error: ...`, and exit with status 1; LM_TRACEBACK=1 shows the traceback too. Any other exception is a bug in the
    program and is shown with its traceback.
    """
