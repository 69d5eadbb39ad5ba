"""The names that sft offers, their documentation, and its examples."""

import doctest
import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import sft

ROOT = Path(__file__).parents[2]
# The classes that a user makes; the others are results, made by functions.
WITH_EXAMPLES = {"Codec", "ErrorFeedback", "RateTable"}


def documented() -> dict[str, Any]:
    """Return the package, its public names, and the public members of its classes."""
    public = {name: getattr(sft, name) for name in sft.__all__ if name != "__version__"}
    classes = {name: item for name, item in public.items() if inspect.isclass(item)}
    members = {
        f"{name}.{member}": getattr(item, member)
        for name, item in classes.items()
        for member in vars(item)
        if not member.startswith("_") and name in WITH_EXAMPLES
    }
    return {"sft": sft, **public, **members}


@pytest.mark.parametrize("name", documented())
def test_examples_in_docstrings(name: str) -> None:
    docstring = documented()[name].__doc__
    assert docstring
    examples = doctest.DocTestParser().get_doctest(docstring, {}, name, None, None)
    results = doctest.DocTestRunner().run(examples)
    assert results.failed == 0


def test_functions_have_examples() -> None:
    callables = {name for name, item in documented().items() if inspect.isroutine(item)}
    assert {"Codec.encode", "decode", "RateTable.best", "allocate_bandwidth"} <= callables
    for name in callables | WITH_EXAMPLES:
        assert ">>> " in documented()[name].__doc__, name


def readme_examples() -> list[str]:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("code", readme_examples())
def test_examples_in_readme(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


def test_public_names_are_sorted_and_belong_to_sft() -> None:
    assert sft.__all__ == sorted(sft.__all__)
    for item in vars(sft).values():
        if inspect.isclass(item):
            assert item.__module__ == "sft"


def test_version_is_the_workspaces() -> None:
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    assert sft.__version__ == manifest["workspace"]["package"]["version"]
