"""The example programs and notebooks run, and do what their text says."""

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


@pytest.mark.usefixtures("examples")
def test_two_processes_train_over_a_socket(capsys: pytest.CaptureFixture[str]) -> None:
    import two_processes

    losses, traffic = two_processes.main(steps=12)
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert traffic.up.messages == traffic.down.messages == 12
    assert traffic.ratio > 10
    assert "loss" in capsys.readouterr().out


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
    assert run["ratio"] > 20
