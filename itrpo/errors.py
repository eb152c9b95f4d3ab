"""The errors that itrpo raises on purpose.

Each carries one message for a person: what is wrong, where (file, field, row), and what to do. The command line prints
that message alone and exits with `exit_status`; Python users catch the class.
"""


class ItrpoError(Exception):
    """Base of every error raised on purpose. `exit_status` is what the command line returns."""

    exit_status = 1


class InputError(ItrpoError, ValueError):
    """The user's input (a file, a field, a flag, an array) can't be used as it is. Raised before any long work."""

    exit_status = 2


class DivergenceError(ItrpoError, ArithmeticError):
    """Training met a NaN, an infinity or a diverging Q. Names the quantity, the seed and the step."""


class StorageError(ItrpoError, OSError):
    """A file could not be written or read back: disk full, no permission, or every checkpoint damaged."""
