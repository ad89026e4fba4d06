"""Every error promptmint raises on purpose.

    PromptmintError                 exit  1   the root: catch this one
    ├── RecipeError                       2   the recipe cannot be read, or asks for something impossible
    ├── DataError                         4   the data cannot be read, is empty, or cannot be learnt from
    ├── BaseModelError                    5   a base model is missing, or is not the one that was pinned
    ├── StoreError                        6   the store cannot be read or written
    │   ├── NotInStore                        nothing lies under this key
    │   ├── AlreadyInStore                    an exclusive create found the key taken
    │   └── CorruptObject                     the bytes do not match their digest
    ├── TrainingError                     7   a worker failed
    │   └── DivergedError                     the loss is no longer a number
    ├── ArtifactError                     8   a prompt artifact is damaged, or does not fit its base or a layout
    ├── RegistryError                     9   MLflow cannot be reached or refuses the call
    ├── LedgerError                      10   a promotion was refused
    │   └── LedgerConflict                    somebody else wrote the ledger first
    └── TransientError                   11   the only error that a task retries: a network or a lock

A message says what happened, with the value, what is allowed, and what to do next. A refused prompt or a failed data
check is not an error: it is a report, and the command that made it exits with 0 (or 3 where the user asked for that).
"""

from __future__ import annotations

from collections.abc import Iterable


class PromptmintError(Exception):
    """The root of every error raised on purpose; `exit_code` is what the command line ends with."""

    exit_code = 1


class RecipeError(PromptmintError):
    exit_code = 2


class DataError(PromptmintError):
    exit_code = 4


class BaseModelError(PromptmintError):
    exit_code = 5


class StoreError(PromptmintError):
    exit_code = 6


class NotInStore(StoreError):
    pass


class AlreadyInStore(StoreError):
    pass


class CorruptObject(StoreError):
    pass


class TrainingError(PromptmintError):
    exit_code = 7


class DivergedError(TrainingError):
    """`step` says since when the loss is no number."""

    def __init__(self, message: str, step: int = 0) -> None:
        super().__init__(message)
        self.step = step


class ArtifactError(PromptmintError):
    exit_code = 8


class RegistryError(PromptmintError):
    exit_code = 9


class LedgerError(PromptmintError):
    exit_code = 10


class LedgerConflict(LedgerError):
    pass


class TransientError(PromptmintError):
    exit_code = 11


def listed(names: Iterable[object]) -> str:
    """The alternatives of an error message: `'a', 'b', 'c'`, sorted, or `(none)`."""
    return ", ".join(repr(str(name)) for name in sorted(names, key=str)) or "(none)"
