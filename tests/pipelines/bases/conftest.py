"""A small base to pin, a pin that names its digests, and a store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.digests import digest_file
from pipelines.recipe import BasePin
from pipelines.store.local import LocalStore


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base's folder, with files that no base needs beside it; none of them is a real model."""
    folder = tmp_path / "recipes/base"
    (folder / "onnx").mkdir(parents=True)
    files = {
        "config.json": "{}", "model.safetensors": "weights", "tokenizer.json": "tokens", "tokenizer_config.json": "{}",
        "pytorch_model.bin": "a pickle", "modeling.py": "code", "README.md": "words", "onnx/config.json": "other",
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


@pytest.fixture
def digests(base: Path) -> dict[str, str]:
    """What a recipe says of the base's four files."""
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    return {name: digest_file(base / name) for name in names}


@pytest.fixture
def pin(digests: dict[str, str]) -> BasePin:
    """The base from a folder beside the recipe, its digests listed."""
    return BasePin(name="tiny/base", sources=("file://base",), files=digests)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store."""
    return LocalStore(tmp_path / "store")


@pytest.fixture
def spoilt(base: Path, tmp_path: Path) -> Path:
    """Another folder with the same files but one bit of the weights."""
    folder = shutil.copytree(base, tmp_path / "recipes/spoilt")
    (folder / "model.safetensors").write_text("weightt")
    return folder
