"""The documentation held to the code: its links, its commands, its recipes, and every table of keys and defaults."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from pydantic_core import PydanticUndefined

from pipelines import errors
from pipelines.prompts.methods import PRESETS
from pipelines.recipe import OWN_KEYS, Recipe, Section
from pipelines.training.compute import Compute
from promptmint.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "infra" / "README.md", *(ROOT / "docs").rglob("*.md")])
PACKAGES = ("promptmint", "flows", "tasks", "mlflow_config", "pipelines")
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
MAKE = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def name_of(page: Path) -> str:
    """A page as a failure names it."""
    return page.relative_to(ROOT).as_posix()


def fences(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def sections(page: Path) -> dict[str, str]:
    """`{heading of the second level: the text below it}`."""
    _, *parts = re.split(r"^## ", prose(page), flags=re.MULTILINE)
    return {title.strip(): body for title, _, body in (part.partition("\n") for part in parts)}


def table(text: str) -> list[list[str]]:
    """The rows of a text's first table, cell by cell, without its header."""
    found = re.search(r"^\|.*\|\n\|[-|]+\|\n((?:\|.*\|\n?)+)", text, re.MULTILINE)
    rows = found[1].splitlines() if found else []
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def quoted(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", text)


# Links and paths.


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings give."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_relative_links_lead_somewhere() -> None:
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)\s]+)\)", prose(page))]
    assert len(links) > 50
    for page, link in links:
        if not link.startswith(("http://", "https://")):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists() and target.is_relative_to(ROOT), f"{name_of(page)}: {link} leads nowhere"
            assert not anchor or anchor in anchors(target), f"{name_of(page)}: {link} names no heading"


def test_every_file_that_is_mentioned_exists() -> None:
    folders = (*PACKAGES, "tests", "docs", "benchmarks", "examples")
    for page in PAGES:
        recipes = re.findall(r"\b(?:recipes|infra/compute)/\w[\w-]*\.toml\b", page.read_text())
        others = re.findall(rf"`((?:{'|'.join(folders)})/[\w./-]+)`", prose(page))
        for path in [*recipes, *others]:
            assert (ROOT / path).exists(), f"{name_of(page)}: {path}"


def test_the_tree_in_the_readme_is_the_repository() -> None:
    (tree,) = [block for block in fences(ROOT / "README.md", "text") if block.startswith("promptmint/")]
    top, named = "", set()
    for line in tree.splitlines():
        path = line.split()[0]
        top = top if line.startswith(" ") else path
        assert (ROOT / (f"{top}{path}" if line.startswith(" ") else path)).exists(), line
        named.add(path if top == path else f"{top}{path}")
    inside = {
        f"pipelines/{path.name}{'/' * path.is_dir()}"
        for path in (ROOT / "pipelines").iterdir()
        if not path.name.startswith("_")
    }
    assert inside <= named, inside - named


def test_decisions_are_numbered_without_gaps_and_listed() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    index = (ROOT / "docs" / "README.md").read_text()
    for number, page in enumerate(pages, 1):
        assert page.name.startswith(f"{number:04d}-") and page.read_text().startswith(f"# {number:04d} "), page.name
        assert list(sections(page)) == ["Context", "Decision", "Consequences"], page.name
        assert f"(decisions/{page.name})" in index
    assert len(pages) >= 11


# Commands.


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words of every command in a page's shell blocks, redirections left out."""
    for block in fences(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words[: words.index("<")] if "<" in words else words


LINES = [(page, words) for page in PAGES for words in command_lines(page)]


@pytest.mark.parametrize("line", sorted({" ".join(words) for _, words in LINES if words[0] == "promptmint"}))
def test_every_command_line_parses(line: str) -> None:
    (_, command, *rest) = next(words for _, words in LINES if " ".join(words) == line)
    COMMANDS[command].make_context(command, rest)


def test_every_target_and_script_exists() -> None:
    for page, (program, *rest) in LINES:
        if program == "make":
            assert set(rest) <= MAKE, f"{name_of(page)}: make {rest}"
        elif program == "python":
            assert (ROOT / rest[0]).is_file(), f"{name_of(page)}: python {rest}"


def test_commands_in_a_sentence_exist() -> None:
    for page in PAGES:
        for command, *rest in (words.split() for words in re.findall(r"`promptmint ([^`]+)`", prose(page))):
            if not command.isupper():
                known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
                options = {word for word in rest if word.startswith("--")}
                assert options <= known | {"--help"}, f"{name_of(page)}: {command} {options - known}"
        assert set(re.findall(r"`make ([a-z-]+)`", prose(page))) <= MAKE, name_of(page)


def test_the_reference_has_every_command_with_every_parameter() -> None:
    pages = sections(ROOT / "docs" / "reference" / "cli.md")
    described = {title.removeprefix("promptmint "): body for title, body in pages.items() if title != "Exit codes"}
    assert described.keys() == COMMANDS.keys()
    for name, body in described.items():
        documented = {word for row in table(body) for word in quoted(row[0])}
        actual = {
            word
            for parameter in COMMANDS[name].params
            for word in (
                [*parameter.opts, *parameter.secondary_opts]
                if parameter.param_type_name == "option"
                else [parameter.name.upper()]
            )
        }
        assert documented == actual - {"--help"}, name


def test_the_deployments_and_the_event_are_those_of_prefect_yaml() -> None:
    text = (ROOT / "prefect.yaml").read_text()
    deployments = yaml.safe_load(text)["deployments"]
    production = sections(ROOT / "docs" / "guide" / "production.md")["Deployments"]
    assert [quoted(row[0])[0] for row in table(production)] == [each["name"] for each in deployments]
    (event,) = [line.split(" #")[-1].strip() for line in text.splitlines() if "prefect event emit" in line]
    for page in (ROOT / "README.md", ROOT / "docs" / "guide" / "production.md"):
        assert event in page.read_text()
        (words,) = [words for words in command_lines(page) if words[:3] == ["prefect", "event", "emit"]]
        assert json.loads(words[-1]).keys() == {"recipe"}
        assert all(each["name"] in page.read_text() for each in deployments)


# Recipes.


def tables_of(section: type[Section], path: str = "") -> Iterator[tuple[str, type[Section]]]:
    """`(heading, section)` of a recipe's tables, as the reference names them."""
    yield path or "Top level", section
    for name, field in section.model_fields.items():
        if inner := section_in(field.annotation):
            inside = f"{path.strip('[]')}.{name}".strip(".")
            yield from tables_of(inner, f"[[{inside}]]" if "tuple" in str(field.annotation) else f"[{inside}]")


def section_in(annotation: Any) -> type[Section] | None:
    """The section named in an annotation, or None."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(section_in, getattr(annotation, "__args__", ()))), None)


def default_of(field: Any) -> str | None:
    """A field's default as the reference writes it; None for a table that has a heading of its own."""
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, Section):
        return None
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return "none" if value is None else f"`{json.dumps(value)}`"


SECTIONS = dict(tables_of(Recipe))


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_reference_has_every_key_with_its_default(heading: str) -> None:
    rows = table(sections(ROOT / "docs" / "reference" / "recipe.md")[heading])
    keys = [quoted(row[0])[0] for row in rows]
    fields = SECTIONS[heading].model_fields
    assert sorted(keys) == sorted(fields)
    for key, row in zip(keys, rows, strict=True):
        assert default_of(fields[key]) in (None, row[2]), key
        assert row[3], key


def test_the_reference_has_every_method_with_its_keys_and_starts() -> None:
    parts = sections(ROOT / "docs" / "reference" / "recipe.md")["[prompt]"].split("\n\n")
    methods, starts = (table(part) for name in ("method", "start") for part in parts if part.startswith(f"| {name} |"))
    assert {quoted(row[0])[0]: tuple(quoted(row[3])) for row in methods} == OWN_KEYS
    documented = {quoted(row[0])[0]: quoted(row[4]) for row in methods}
    assert documented == {name: list(preset.inits) for name, preset in PRESETS.items()}
    assert [quoted(row[0])[0] for row in starts] == list(PRESETS["prompt-tuning"].inits)


def test_the_reference_names_no_other_section_and_every_key_of_a_profile() -> None:
    pages = sections(ROOT / "docs" / "reference" / "recipe.md")
    assert list(pages) == [*SECTIONS, "Compute profiles"]
    rows = table(pages["Compute profiles"])
    assert [quoted(row[0])[0] for row in rows] == list(Compute.model_fields)
    assert [row[2] for row in rows] == [default_of(field) for field in Compute.model_fields.values()]


def test_the_readme_explains_every_key_of_the_demos_recipe() -> None:
    recipe = tomllib.loads((ROOT / "recipes" / "ticket_routing.toml").read_text())
    explained, top = set(), "top"
    rows = table(sections(ROOT / "README.md")["A recipe, line by line"])
    for section, keys, meaning in rows:
        top = section.strip("`[]") or top
        explained |= {(top, key) for key in quoted(keys)}
        explained |= {(top, inner) for inner in quoted(meaning) if top == "gates"}
    assert keys_of(recipe) <= explained, keys_of(recipe) - explained


def keys_of(recipe: dict[str, Any]) -> set[tuple[str, str]]:
    """`(section, key)` of all that a recipe says; what a gate or a budget says counts as the section's."""
    found = set()
    for name, value in recipe.items():
        inner = {name: value}
        if name == "baselines":  # a method is a table in it, what all of them share is a key
            inner = {f"{name}.{key}": each for key, each in value.items() if isinstance(each, dict)}
            inner[name] = dict.fromkeys(value.keys() - {each.partition(".")[2] for each in inner})
        for section, settings in inner.items():
            found |= {(section, key) for key in settings} if isinstance(settings, dict) else {("top", section)}
    for key in ("to", "margin", *recipe["gates"]["budgets"]):
        found.add(("gates", key))
    return found


def test_toml_names_only_keys_that_a_recipe_has() -> None:
    blocks = [tomllib.loads(block) for page in PAGES for block in fences(page, "toml")]
    assert blocks
    for block in blocks:
        assert unknown_keys(block, Recipe) == set(), block


def unknown_keys(settings: dict[str, Any], section: type[Section]) -> set[str]:
    """The keys of a table, and of those in it, that its section does not have."""
    unknown = set(settings) - set(section.model_fields)
    for key in set(settings) - unknown:
        inner = section_in(section.model_fields[key].annotation)
        if inner and isinstance(settings[key], dict):
            unknown |= unknown_keys(settings[key], inner)
    return unknown


# Python, variables, errors, stages.


def test_python_imports_what_is_there() -> None:
    blocks = [block for page in PAGES for block in fences(page, "python")]
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in PACKAGES:
                source = (ROOT / str(node.module).replace(".", "/")).with_suffix(".py").read_text()
                parts = ast.parse(source).body
                defined = {part.name for part in parts if isinstance(part, ast.FunctionDef | ast.ClassDef)}
                assert {alias.name for alias in node.names} <= defined, block


def test_every_variable_is_one_that_the_code_reads() -> None:
    sources = [path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    name = r"\b(PROMPTMINT_[A-Z0-9_]*[A-Z0-9]|MLFLOW_TRACKING_URI)\b"
    read = {found for source in sources for found in re.findall(name, source)} - {"PROMPTMINT_SERVER"}
    rows = table((ROOT / "docs" / "reference" / "environment.md").read_text())
    assert {quoted(row[0])[0] for row in rows} == read
    for page in PAGES:
        mentioned = set(re.findall(name, page.read_text())) - {"PROMPTMINT_RECIPES"}
        assert mentioned <= read, page


def test_every_error_has_its_exit_code() -> None:
    rows = table((ROOT / "docs" / "reference" / "errors.md").read_text())
    documented = {quoted(row[0])[0]: int(row[1]) for row in rows}
    actual = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.PromptmintError)
    }
    assert documented == actual


def test_every_stage_has_its_version() -> None:
    sources = [path.read_text() for path in (ROOT / "pipelines").rglob("*.py")]
    stages = {pair for source in sources for pair in re.findall(r'= Stage\("(\w+)", (\d+)\)', source)}
    rows = table(sections(ROOT / "docs" / "reference" / "store-layout.md")["Stages"])
    assert {(quoted(row[0])[0], row[1]) for row in rows} == stages
