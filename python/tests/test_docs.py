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
# What `torch.nn.Module` asks of its subclasses, and what a loop asks of a tensor.
HOOKS = {"forward", "extra_repr", "get_extra_state", "set_extra_state"}
TENSOR = {"backward", "detach", "requires_grad_"}


def attributes(item: type) -> set[str]:
    """Return the names of the section `Attributes`."""
    section = re.search(r"^Attributes\n-+\n((?: .*\n|\w.*\n)*)", inspect.getdoc(item) or "", re.M)
    names = re.findall(r"^(\w.*?)(?: : |$)", section[1], re.M) if section else []
    return {name for line in names for name in line.split(", ")}


def members(item: type) -> dict[str, Any]:
    """Return public methods and properties; fields are told by the class."""
    ours = [base for base in item.__mro__ if base.__module__.split(".")[0] == "sft"]
    names = [name for base in ours for name in vars(base) if not name.startswith("_")]
    found = {name: getattr(item, name) for name in names}
    return {
        name: member
        for name, member in found.items()
        if (callable(member) or inspect.isdatadescriptor(member)) and name not in attributes(item)
    }


def documented() -> dict[str, Any]:
    """Return the packages, their public names, and the public members of their classes."""
    packages = {"sft": sft, "sft.plot": sft.plot, "sft.torch": sft.torch}
    public = {
        f"{package}.{name}": getattr(module, name)
        for package, module in packages.items()
        for name in module.__all__
        if name != "__version__"
    }
    inner = {
        f"{name}.{member}": value
        for name, item in public.items()
        if inspect.isclass(item)
        for member, value in members(item).items()
    }
    return {**packages, **public, **inner}


@pytest.mark.parametrize("name", documented())
def test_examples_in_docstrings(name: str) -> None:
    item = documented()[name]
    docstring = inspect.cleandoc(item.__doc__ or "")
    assert docstring
    examples = doctest.DocTestParser().get_doctest(docstring, {}, name, None, None)
    if not inspect.isdatadescriptor(item) and name.rpartition(".")[2] not in HOOKS | TENSOR:
        assert "\nExamples\n--------\n" in docstring
        assert examples.examples
    assert doctest.DocTestRunner().run(examples).failed == 0


def test_members_of_classes_are_documented() -> None:
    names = {"sft.Codec.encode", "sft.RateTable.best", "sft.Run.bytes", "sft.torch.Cut.encode"}
    assert names <= documented().keys()
    assert attributes(sft.Phases) >= {"uplink_s", "downlink_s", "total_s"}


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
