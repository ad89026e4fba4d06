"""Where things are: the defaults, the variables that move them, and words that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import settings
from pipelines.errors import StoreError
from pipelines.settings import S3Settings
from pipelines.store.local import LocalStore
from pipelines.store.opening import open_store, the_ledger, the_store

NAMES = ("HOME", "STORE", "LEDGER", "S3_ENDPOINT", "S3_PATH_STYLE", "S3_CHECKSUMS", "S3_STALL_S")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in NAMES:
        monkeypatch.delenv(f"PROMPTMINT_{name}", raising=False)
    monkeypatch.chdir(tmp_path)


def test_everything_is_below_the_working_folder_by_default(tmp_path: Path) -> None:
    assert settings.home() == tmp_path / ".promptmint"
    assert settings.store_uri() == settings.ledger_uri() == f"file://{tmp_path}/.promptmint/store"
    assert settings.cache_folder() == tmp_path / ".promptmint/cache"
    assert settings.tracking_uri() == f"sqlite:///{tmp_path}/.promptmint/mlflow.db"
    assert settings.s3_settings() == S3Settings(None, path_style=False, checksums="when_required", stall_s=60)
    assert list(tmp_path.iterdir()) == []


def test_each_variable_moves_its_thing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROMPTMINT_HOME", "a home")
    assert settings.cache_folder() == tmp_path / "a home/cache"
    store = open_store(settings.store_uri())
    assert isinstance(store, LocalStore) and store.folder == tmp_path / "a home/store"
    monkeypatch.setenv("PROMPTMINT_STORE", "s3://bucket/prefix")
    assert settings.store_uri() == settings.ledger_uri() == "s3://bucket/prefix"
    monkeypatch.setenv("PROMPTMINT_LEDGER", "file:///shared")
    assert (settings.store_uri(), settings.ledger_uri()) == ("s3://bucket/prefix", "file:///shared")
    assert (the_store().uri, the_ledger().uri) == ("s3://bucket/prefix", "file:///shared")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert settings.tracking_uri() == "http://127.0.0.1:5000"
    monkeypatch.setenv("PROMPTMINT_S3_ENDPOINT", "http://127.0.0.1:9000")
    monkeypatch.setenv("PROMPTMINT_S3_CHECKSUMS", "when_supported")
    monkeypatch.setenv("PROMPTMINT_S3_PATH_STYLE", "True")
    monkeypatch.setenv("PROMPTMINT_S3_STALL_S", "2.5")
    assert settings.s3_settings() == S3Settings(
        "http://127.0.0.1:9000", path_style=True, checksums="when_supported", stall_s=2.5
    )


def test_the_home_may_be_below_the_person_s_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    monkeypatch.setenv("PROMPTMINT_HOME", "~/prompts")
    assert settings.home() == tmp_path / "person" / "prompts"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in NAMES:
        monkeypatch.setenv(f"PROMPTMINT_{name}", " ")
    assert settings.home() == tmp_path / ".promptmint"
    assert settings.s3_settings() == S3Settings(None, path_style=False, checksums="when_required", stall_s=60)


@pytest.mark.parametrize(("word", "means"), [("1", True), ("on", True), ("YES", True), ("0", False), ("off", False)])
def test_yes_and_no_have_several_words(monkeypatch: pytest.MonkeyPatch, word: str, means: bool) -> None:
    monkeypatch.setenv("PROMPTMINT_S3_PATH_STYLE", word)
    assert settings.s3_settings().path_style is means


@pytest.mark.parametrize("name", ["PROMPTMINT_S3_PATH_STYLE", "PROMPTMINT_S3_CHECKSUMS"])
def test_another_word_is_refused_with_the_choices(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "perhaps")
    with pytest.raises(StoreError, match=rf"{name} is 'perhaps'; it can be '\w+', '\w+'.*Correct it or unset it"):
        settings.s3_settings()


@pytest.mark.parametrize("word", ["soon", "0", "-1", "inf", "nan", "1e9"])
def test_what_is_no_time_is_refused(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("PROMPTMINT_S3_STALL_S", word)
    with pytest.raises(StoreError, match=rf"PROMPTMINT_S3_STALL_S is '{word}'; it is a number of seconds above 0, at"):
        settings.s3_settings()


def test_every_variable_is_in_the_table() -> None:
    for name in NAMES:
        assert f"    PROMPTMINT_{name} " in (settings.__doc__ or "")
