"""Holds a flow run in the middle of a step, so that a test can kill what it likes just there.

Python imports this file when it starts, wherever this folder is on PYTHONPATH. `PROMPTMINT_STOPS` names a folder in
which `points.json` says `{step: "module:function"}`. Whoever calls such a function first makes the file STEP.reached
and waits for STEP.go; everybody after that passes. Nothing else differs: what is called is the real function.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any


class Stops(importlib.abc.MetaPathFinder):
    """Finds the modules of the points, and puts a stop before their functions once they are imported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.points: dict[str, dict[str, str]] = {}
        for step, point in json.loads((folder / "points.json").read_text()).items():
            module, _, function = point.partition(":")
            self.points.setdefault(module, {})[step] = function

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(fullname, path) if fullname in self.points else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                for step, function in self.points[fullname].items():
                    setattr(module, function, self.stopping(step, getattr(module, function)))

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def stopping(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, behind a stop."""

        def stop(*args: Any, **kwargs: Any) -> Any:
            try:
                (self.folder / f"{step}.reached").open("x").close()
            except FileExistsError:
                return function(*args, **kwargs)
            while not (self.folder / f"{step}.go").exists():
                time.sleep(0.05)
            return function(*args, **kwargs)

        return stop


if "PROMPTMINT_STOPS" in os.environ:
    sys.meta_path.insert(0, Stops(Path(os.environ["PROMPTMINT_STOPS"])))
