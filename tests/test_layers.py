"""What imports what: the layers, what is left for later, and what travels in a packaged model."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_config.package import TRAVELLING
from pipelines.recipe import load_recipe

ROOT = Path(__file__).parents[1]
OURS = {"promptmint", "flows", "tasks", "mlflow_config", "pipelines"}
HEAVY = ("torch", "transformers", "datasets", "great_expectations", "pandera", "peft", "matplotlib", "scipy")
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))


def fresh(code: str) -> list[str]:
    """The lines that a new Python prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def loaded_by(modules: str) -> set[str]:
    """The top-level packages that a new Python has loaded after an import."""
    (line,) = fresh(
        f"import json, sys, {modules}; print(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    )
    return set(json.loads(line))


def test_importing_promptmint_loads_nothing_and_takes_no_time() -> None:
    seconds = []
    for _ in range(3):
        elapsed, *names = fresh(
            "import sys, time; before = set(sys.modules); start = time.perf_counter(); import promptmint;"
            "print(time.perf_counter() - start); print(*sorted(set(sys.modules) - before), sep='\\n')"
        )
        seconds.append(float(elapsed))
        assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names == {"promptmint"}
    assert min(seconds) < 0.5


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        ("promptmint.client", {*HEAVY, "prefect", "mlflow", "pandas", "boto3"}),
        ("promptmint.cli", {*HEAVY, "prefect", "mlflow", "pandas", "boto3"}),
        ("flows.retrain, flows.promote", set(HEAVY)),
        ("pipelines.recipe, pipelines.store.store, pipelines.runs", {*HEAVY, "pandas", "boto3"}),
    ],
    ids=["client", "cli", "flows", "spine"],
)
def test_what_is_heavy_is_left_for_later(modules: str, unwanted: set[str]) -> None:
    assert loaded_by(modules) & unwanted == set()


def test_a_serving_team_needs_no_pipeline() -> None:
    """The name that promptmint gives away loads none of what only mints prompts."""
    (line,) = fresh(
        "import json, sys, promptmint; promptmint.load; import pipelines.inference.predictor, mlflow_config.registry;"
        "import pipelines.inference.engine, promptmint.serving.server;"
        "print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    )
    assert (
        set(json.loads(line)) & {"prefect", "great_expectations", "pandera", "peft", "datasets", "flows", "tasks"}
        == set()
    )


def test_another_name_is_refused_with_the_known_ones() -> None:
    import promptmint

    with pytest.raises(AttributeError, match="no attribute 'lod'; it has 'load' and '__version__'"):
        promptmint.lod  # noqa: B018


def test_imports_run_downhill() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


# What travels in a packaged model.


def imports_of(path: Path) -> list[tuple[int, str]]:
    """`(level, module)` of every import in a file, wherever it stands; level 0 is absolute."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or ""))
    return found


@pytest.mark.parametrize("name", TRAVELLING)
def test_travelling_code_names_nothing_of_ours_absolutely(name: str) -> None:
    absolute = {module.partition(".")[0] for level, module in imports_of(ROOT / "pipelines" / name) if level == 0}
    assert absolute & OURS == set()


@pytest.mark.parametrize("name", TRAVELLING)
def test_travelling_code_takes_along_all_that_it_imports(name: str) -> None:
    for level, module in imports_of(ROOT / "pipelines" / name):
        if level:
            folder = (Path("pipelines") / name).parents[level - 1]
            assert folder.is_relative_to("pipelines"), f"{'.' * level}{module} leaves the package"
            needed = (folder / module.replace(".", "/")).relative_to("pipelines")
            assert f"{needed}.py" in TRAVELLING or f"{needed}/__init__.py" in TRAVELLING


# Recipes.


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.description, "one line that says what it shows"
    files = recipe.base.files
    if files is None:  # then a commit is the pin
        assert all(
            source.startswith("hf://") and len(source.rpartition("@")[2]) == 40 for source in recipe.base.sources
        )
    else:
        assert {"config.json", "tokenizer.json"} <= set(files) and any(name.endswith(".safetensors") for name in files)
        assert len(set(files.values())) == len(files)


def test_recipes_have_names_of_their_own() -> None:
    names = [load_recipe(path).name for path in RECIPES]
    assert len(RECIPES) >= 5 and len(set(names)) == len(names)
