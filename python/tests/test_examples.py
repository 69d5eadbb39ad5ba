"""The example programs and notebooks run, and do what their text says."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_notebooks_run(path: Path) -> None:
    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    resources = {"metadata": {"path": str(EXAMPLES)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()


def test_two_processes_train_over_a_link() -> None:
    program = EXAMPLES / "two_processes.py"
    assert len(program.read_text().splitlines()) <= 60
    run = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True)
    told = re.fullmatch(
        r"loss (.*) to (.*); up .* in 40 messages .*, down .* in 40 messages .*, "
        r"together (.*)x smaller\n",
        run.stdout,
    )
    assert told, run.stdout
    first, last, ratio = map(float, told.groups())
    assert last < 0.6 * first
    assert ratio > 10


def test_the_benchmark_of_the_cut_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the rows of cargo, and without a look at the clock."""
    monkeypatch.syspath_prepend(EXAMPLES.parent / "benches")
    import cut

    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(cut, "SHAPE", (4, 17, 64))
    rows = cut.forward(1) | cut.two_threads(1) | cut.imports(1)
    assert {"activation_cut_s", "paper_torch_over_cut", "two_threads_speedup"} <= set(rows)


@pytest.mark.usefixtures("examples")
def test_the_main_job_learns_in_pytorch() -> None:
    """Two of the eight rounds; the committed result is that of all."""
    import vit_finetune

    run = vit_finetune.finetune(rounds=2)
    assert run["accuracy"][-1] > 0.8
    assert run["ratio"] > 60
