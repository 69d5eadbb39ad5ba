"""The names that sft offers, their documentation, and its examples."""

import doctest
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import sft
import sft.plot
import sft.torch

ROOT = Path(__file__).parents[2]
# The classes that a user makes; the others are results, made by functions.
WITH_EXAMPLES = {
    "Accuracy",
    "Codec",
    "Compression",
    "Device",
    "ErrorFeedback",
    "RateTable",
    "Server",
    "Setting",
    "System",
    "Training",
    "Vit",
    "torch.Cut",
}
# Results that have methods.
WITH_METHODS = {"Plan", "Prediction", "Run"}
# What `torch.nn.Module` asks of its subclasses.
HOOKS = {"forward", "extra_repr", "get_extra_state", "set_extra_state"}


def documented() -> dict[str, Any]:
    """Return the packages, their public names, and the public members of their classes."""
    public = {name: getattr(sft, name) for name in sft.__all__ if name != "__version__"}
    public |= {f"plot.{name}": getattr(sft.plot, name) for name in sft.plot.__all__}
    public |= {f"torch.{name}": getattr(sft.torch, name) for name in sft.torch.__all__}
    classes = {name: item for name, item in public.items() if inspect.isclass(item)}
    members = {
        f"{name}.{member}": getattr(item, member)
        for name, item in classes.items()
        for member in vars(item)
        if not member.startswith("_") and name in WITH_EXAMPLES | WITH_METHODS
        # Not the defaults of a dataclass.
        if callable(getattr(item, member)) or inspect.isdatadescriptor(getattr(item, member))
    }
    return {"sft": sft, "sft.plot": sft.plot, "sft.torch": sft.torch, **public, **members}


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
    for name in {n for n in callables if n.rpartition(".")[2] not in HOOKS} | WITH_EXAMPLES:
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
    assert sft.torch.__all__ == sorted(sft.torch.__all__)
    for item in vars(sft).values():
        if inspect.isclass(item):
            assert item.__module__ == "sft"


def test_importing_sft_does_not_import_torch() -> None:
    code = "import sft, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(run.stdout.split())
    assert "sft._sft" in modules
    assert not modules & {"torch", "sft.torch", "matplotlib", "ml_dtypes", "transformers"}


def test_sft_torch_without_torch_names_the_extra() -> None:
    code = "import sys; sys.modules['torch'] = None; import sft.torch"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "sft.torch needs PyTorch: pip install 'sft[torch]'" in run.stderr


def test_numpy_is_the_only_dependency_and_torch_an_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [re.split(r"[<>=]", item)[0] for item in project["dependencies"]] == ["numpy"]
    extras = project["optional-dependencies"]
    assert [re.split(r"[<>=]", item)[0] for item in extras["torch"]] == ["torch"]


def test_version_is_the_workspaces() -> None:
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    assert sft.__version__ == manifest["workspace"]["package"]["version"]
