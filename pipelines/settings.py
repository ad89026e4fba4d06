"""Where things are, read from the environment each time they are asked for.

    PROMPTMINT_HOME           everything kept on this machine               ./.promptmint
    PROMPTMINT_STORE          file:///FOLDER or s3://BUCKET/PREFIX          file://HOME/store
    PROMPTMINT_LEDGER         a store that can create a key exclusively     the store
    PROMPTMINT_RECIPES        the recipes that deployments may run          ./recipes
    MLFLOW_TRACKING_URI       where runs and versions are recorded          sqlite:///HOME/mlflow.db
    PROMPTMINT_TOKENS         who may ask a server: a JSON file             (none: this machine)
    PROMPTMINT_S3_ENDPOINT    an S3 server that is not Amazon's             (Amazon's)
    PROMPTMINT_S3_PATH_STYLE  true: http://HOST/BUCKET, not BUCKET.HOST     false
    PROMPTMINT_S3_CHECKSUMS   when_supported: SHA-256 with every upload     when_required
    PROMPTMINT_S3_STALL_S     seconds without data that end a download      60

A variable that is empty counts as not set. Keys for S3 come from boto3's own chain (AWS_ACCESS_KEY_ID, AWS_PROFILE,
a role of the machine, ...) and the region from AWS_DEFAULT_REGION; promptmint never reads or keeps them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import StoreError, listed

_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off")
_CHECKSUMS = ("when_required", "when_supported")
_A_DAY_S = 86_400


@dataclass(frozen=True)
class S3Settings:
    """How to speak to S3.

    `endpoint` (None: Amazon's), how a bucket is addressed, when uploads carry checksums, and after how many seconds
    without data a download has stalled.
    """

    endpoint: str | None
    path_style: bool
    checksums: str
    stall_s: float = 60.0


def home() -> Path:
    """The absolute folder for everything that promptmint keeps on this machine."""
    return Path(_value("PROMPTMINT_HOME", ".promptmint")).expanduser().absolute()


def store_uri() -> str:
    """The store's URI, for `open_store`."""
    return _value("PROMPTMINT_STORE", f"file://{home()}/store")


def ledger_uri() -> str:
    """The URI of the store that holds the ledger: the store itself, unless that one cannot create exclusively."""
    return _value("PROMPTMINT_LEDGER", store_uri())


def recipes_folder() -> Path:
    """The folder of the recipes that a deployment may run, each by its name."""
    return Path(_value("PROMPTMINT_RECIPES", "recipes")).expanduser().absolute()


def cache_folder() -> Path:
    """The folder for trees fetched from the store; deleting it costs time only."""
    return home() / "cache"


def activations_folder(home: Path) -> Path:
    """The folder in a home for what a frozen base made of texts; deleting it costs time only."""
    return home / "activations"


def tracking_uri() -> str:
    """MLflow's tracking URI."""
    return _value("MLFLOW_TRACKING_URI", f"sqlite:///{home()}/mlflow.db")


def tokens_file() -> Path | None:
    """The file that says who may ask `promptmint serve`, or None: whoever reaches it."""
    name = _value("PROMPTMINT_TOKENS", "")
    return Path(name).expanduser() if name else None


def s3_settings() -> S3Settings:
    """How to speak to S3.

    Raises:
        StoreError: a variable holds a word that is not one of its choices, or no number of seconds.
    """
    return S3Settings(
        endpoint=_value("PROMPTMINT_S3_ENDPOINT", "") or None,
        path_style=_choice("PROMPTMINT_S3_PATH_STYLE", "false", _YES + _NO) in _YES,
        checksums=_choice("PROMPTMINT_S3_CHECKSUMS", "when_required", _CHECKSUMS),
        stall_s=_seconds("PROMPTMINT_S3_STALL_S", "60"),
    )


def _value(name: str, default: str) -> str:
    return os.environ.get(name, "").strip() or default


def _choice(name: str, default: str, choices: tuple[str, ...]) -> str:
    word = _value(name, default).lower()
    if word not in choices:
        raise StoreError(f"{name} is {word!r}; it can be {listed(choices)}. Correct it or unset it.")
    return word


def _seconds(name: str, default: str) -> float:
    word = _value(name, default)
    with suppress(ValueError):
        if 0 < (seconds := float(word)) <= _A_DAY_S:
            return seconds
    raise StoreError(
        f"{name} is {word!r}; it is a number of seconds above 0, at most {_A_DAY_S}. Correct it or unset it."
    )
