"""Curves of fine-tuning runs, by matplotlib (``pip install sft[plot]``).

Every function takes a `sft.Run`, several of them, or the path of a ``run.json``, draws one
curve for each, and returns the axes.

Examples
--------
>>> import matplotlib
>>> matplotlib.use("agg")
>>> import sft, sft.plot
>>> rounds = [
...     sft.Round(round=n, accuracy=0.5 + 0.1 * n, test_loss=1.0, loss=1.0,
...               bytes_up=10**6, bytes_down=10**5, adapter_bytes_up=10**4,
...               adapter_bytes_down=10**4, delay_s=2.0, wall_s=1.0)
...     for n in (1, 2, 3)
... ]
>>> run = sft.Run(scheme="sft", rounds=tuple(rounds), device_memory_bytes=1e6)
>>> sft.plot.accuracy(run).get_ylabel()
'test accuracy, %'

"""

import os
from collections.abc import Callable, Iterable

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sft import Run

__all__ = ["accuracy", "delay", "traffic"]

Runs = Run | Iterable[Run] | str | os.PathLike[str]


def accuracy(run: Runs, *, ax: Axes | None = None) -> Axes:
    """Draw test accuracy, of language models perplexity, over rounds.

    Parameters
    ----------
    run : Run, iterable of Run, or path
        What to draw.
    ax : matplotlib.axes.Axes, optional
        Where; a new figure without it.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    OSError, ValueError
        If a file cannot be read or is not that of a run.

    Examples
    --------
    >>> import sft, sft.plot
    >>> run = sft.Run(scheme="sft", rounds=(), device_memory_bytes=0.0)
    >>> sft.plot.accuracy(run).get_xlabel()
    'round'

    """
    ax = _draw(run, ax, "round", lambda r: np.array([x.round for x in r.rounds]))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def traffic(run: Runs, *, ax: Axes | None = None) -> Axes:
    """Draw test accuracy, of language models perplexity, over the traffic of all devices until then.

    Parameters
    ----------
    run, ax
        As `accuracy` takes them.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    OSError, ValueError
        As `accuracy`.

    Examples
    --------
    >>> import sft, sft.plot
    >>> run = sft.Run(scheme="sft", rounds=(), device_memory_bytes=0.0)
    >>> sft.plot.traffic(run).get_xlabel()
    'traffic of all devices, MB'

    """
    return _draw(run, ax, "traffic of all devices, MB", lambda r: r.bytes.cumsum() / 1e6)


def delay(run: Runs, *, ax: Axes | None = None) -> Axes:
    """Draw test accuracy, of language models perplexity, over the modelled delay until then.

    Parameters
    ----------
    run, ax
        As `accuracy` takes them.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    OSError, ValueError
        As `accuracy`.

    Examples
    --------
    >>> import sft, sft.plot
    >>> run = sft.Run(scheme="sft", rounds=(), device_memory_bytes=0.0)
    >>> sft.plot.delay(run).get_xlabel()
    'modelled time, s'

    """
    return _draw(run, ax, "modelled time, s", lambda r: r.delay_s.cumsum())


def _draw(
    run: Runs, ax: Axes | None, xlabel: str, x: Callable[[Run], npt.NDArray[np.float64]]
) -> Axes:
    """Draw the accuracy of every run over what `x` tells of it, of language models the perplexity."""
    if isinstance(run, str | os.PathLike):
        run = Run.load(run)
    if ax is None:
        ax = plt.figure(layout="constrained").subplots()
    runs = [run] if isinstance(run, Run) else list(run)
    tells = any(r.perplexity is not None for one in runs for r in one.rounds)
    for one in runs:
        y = one.perplexity if tells else 100 * one.accuracy
        ax.plot(x(one), y, marker="o", label=one.scheme)
    ax.set(xlabel=xlabel, ylabel="test perplexity" if tells else "test accuracy, %")
    ax.grid(alpha=0.3)
    ax.legend(loc="upper right" if tells else "lower right")
    return ax
