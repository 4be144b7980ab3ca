"""The rules of the house that no linter knows, each as a test."""

from __future__ import annotations

import ast
import io
import os
import re
import shutil
import subprocess
import sys
import tokenize
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from bridge import providers, samples

ROOT = Path(__file__).parents[1]
OURS = tuple(sorted(path for part in ("bridge", "transforms") for path in (ROOT / part).rglob("*.py")))
ALL = (
    *OURS,
    *(
        path
        for part in ("tests", "bench", "chaos", "fuzz", "deploy/checks")
        for path in sorted((ROOT / part).rglob("*.py"))
    ),
)
LONGEST_FILE, LONGEST_FUNCTION, LONGEST_MEDIAN = 300, 60, 10
EXCUSE = re.compile(r"# (?:noqa|type: ignore)\b.*")
# One code or several, then why.
GOOD_EXCUSE = re.compile(r"# (noqa: [A-Z]+[0-9]+(, [A-Z]+[0-9]+)* - |type: ignore\[[a-z-]+(, [a-z-]+)*\]  # )\S.*")
PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[0-9][0-9a-z.!]*)(?: ; [^\\]+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")
ORIGIN = re.compile(r"    #(?: via.*|   .*)")


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def functions(path: Path) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    """Each function and how many lines it has."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, (node.end_lineno or 0) - node.lineno + 1


def calls_of(called: str, path: Path) -> list[str]:
    """Where it is called, by its name or as an attribute of something."""
    return [
        where(path, node.lineno)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and called in (getattr(node.func, "id", None), getattr(node.func, "attr", None))
    ]


def comments(path: Path) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def test_a_module_says_first_what_it_is_for() -> None:
    said = {path: (ast.get_docstring(tree(path)) or "").partition("\n\n")[0] for path in ALL}
    silent = [where(path, 1) for path, first in said.items() if len(first.split()) < 4 or not first.endswith(".")]
    assert not silent


def test_a_file_fits_into_a_head() -> None:
    sizes = {where(path, 1): len(path.read_text().splitlines()) for path in ALL}
    assert {path: size for path, size in sizes.items() if size > LONGEST_FILE} == {}


def test_a_function_fits_on_a_screen_and_most_are_short() -> None:
    long = [where(path, node.lineno) for path in ALL for node, size in functions(path) if size > LONGEST_FUNCTION]
    assert not long
    ours = sorted(size for path in OURS for _, size in functions(path))
    assert ours[len(ours) // 2] < LONGEST_MEDIAN


def test_only_verification_makes_a_delivery() -> None:
    makers = {place.partition(":")[0] for path in OURS for place in calls_of("Delivery", path)}
    assert makers == {"bridge/verify.py"}


def test_imports_run_one_way() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_only_commands_print() -> None:
    printed = [place for path in OURS if path.parent.name != "cli" for place in calls_of("print", path)]
    assert not printed


def test_an_assertion_is_for_the_type_checker_alone_and_says_so() -> None:
    """`python -O` leaves them out: none may decide anything."""
    for path in OURS:
        excused = {line for line, comment in comments(path) if comment.startswith("# noqa: S101 - ")}
        asserted = {node.lineno for node in ast.walk(tree(path)) if isinstance(node, ast.Assert)}
        assert asserted <= excused, path


def test_an_exception_from_a_rule_has_a_code_and_a_reason() -> None:
    bare = [
        f"{where(path, line)}: {excuse[0]}"
        for path in ALL
        for line, comment in comments(path)
        if (excuse := EXCUSE.search(comment)) and not GOOD_EXCUSE.fullmatch(excuse[0])
    ]
    assert not bare


def test_every_provider_is_found_and_has_samples_and_every_transform_a_provider() -> None:
    modules = {path.stem for path in (ROOT / "bridge/providers").glob("*.py")} - {"__init__"}
    assert set(providers.load()) == modules
    assert [provider for provider in modules if not samples.names(provider)] == []
    assert {path.stem for path in (ROOT / "transforms").glob("*.py")} - {"__init__"} <= modules


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def pinned(lock: str) -> dict[str, tuple[str, ...]]:
    """Versions by name: one for each Python where they differ. Raises AssertionError for a line that is neither a pin, nor its hashes, nor where it comes from."""
    found, hashes = dict[str, tuple[str, ...]](), dict[str, int]()
    for line in (ROOT / lock).read_text().splitlines():
        if pin := PIN.fullmatch(line):
            found[pin["name"]] = (*found.get(pin["name"], ()), pin["version"])
        elif HASH.fullmatch(line):
            name = list(found)[-1]
            hashes[name] = hashes.get(name, 0) + 1
        else:
            assert ORIGIN.fullmatch(line), line
    assert set(hashes) == set(found)
    return found


@pytest.mark.parametrize(
    ("lock", "asked"),
    [
        ("requirements.lock", ("project", "build")),
        ("requirements-image.lock", ("project", "traces", "build", "image")),
        ("requirements-dev.lock", ("project", "traces", "build", "dev")),
        ("requirements-deploy.lock", ("deploy",)),
        ("requirements-fuzz.lock", ("fuzz",)),
    ],
)
def test_a_lock_file_pins_with_hashes_all_that_is_asked_for_and_names_no_registry(
    lock: str, asked: tuple[str, ...]
) -> None:
    about = project()["project"]
    groups = {**project()["dependency-groups"], **about["optional-dependencies"], "project": about["dependencies"]}
    versions = pinned(lock)  # knows no line that could name one
    for requirement in map(Requirement, (each for group in asked for each in groups[group])):
        assert requirement.name in versions
        assert any(requirement.specifier.contains(version) for version in versions[requirement.name]), requirement
    assert "://" not in (ROOT / lock).read_text()


def test_what_is_tested_is_what_is_installed() -> None:
    tested = pinned("requirements-dev.lock").items()
    assert pinned("requirements.lock").items() <= tested
    assert dict(pinned("requirements-image.lock").items() - tested).keys() == {"dumb-init"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: nothing is left behind in the tree."""
    copy, built = tmp_path_factory.mktemp("copy") / "tree", tmp_path_factory.mktemp("built")
    copy.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in ("bridge", "transforms", "tests"):
        shutil.copytree(ROOT / part, copy / part, ignore=unwanted)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--wheel-dir", built, copy], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [found] = built.glob("*.whl")
    return found


def test_the_wheel_has_all_of_the_package_and_nothing_else(wheel: Path) -> None:
    expected = {
        str(path.relative_to(ROOT))
        for part in ("bridge", "transforms")
        for path in (ROOT / part).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    about = {name for name in names if name.partition("/")[0].endswith(".dist-info")}
    assert names - about == expected
    assert {"bridge/py.typed", "bridge/samples/slack/slash_command.form"} <= names
    assert any(name.endswith("/LICENSE") for name in about)


def test_the_wheel_works_without_the_tree_it_was_built_from(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    libraries = Path(pytest.__file__).parents[1]
    # The interpreter of no virtual environment: it does not read the link from there to the tree.
    python = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'unpacked'}{os.pathsep}{libraries}"}

    def said(*command: str) -> str:
        done = subprocess.run(
            [python, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert said("-c", "import bridge; print(bridge.__file__)").startswith(str(tmp_path))
    assert said("-c", "from bridge.cli import main; main()", "--version") == f"bridge, version {version()}\n"
    assert "customer.created" in said("-c", "from bridge.cli import main; main()", "send", "stripe")


def version() -> str:
    return str(project()["project"]["version"])
