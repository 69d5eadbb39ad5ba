"""What a fine-tuning run did, round by round."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sft import _sft
from sft._tables import Table, html, text


@dataclass(frozen=True, kw_only=True)
class Round:
    """What a round did; every number is the round's own.

    Attributes
    ----------
    round : int
        From 1.
    devices : tuple of int
        The devices that took part, from 0.
    late : tuple of int
        Of the devices that were to take part, those that did not come to the end by `deadline_s`.
    accuracy : float
        Test accuracy of the aggregated model without compression, a fraction; of a language model that
        of the next tokens that count.
    accuracy_through_cut : float or None
        The same of the model as it is split, with what crosses the cut compressed as in training;
        where `evaluate_through_cut` asks for it and the scheme splits the model.
    test_loss : float
        Mean cross-entropy of a sample of the test data, of a language model of a next token that
        counts, nat.
    test_loss_through_cut : float or None
        The same through the cut, as `accuracy_through_cut`.
    perplexity, perplexity_through_cut : float or None
        Of a language model the exponentials of these.
    loss : float
        Mean training loss.
    bytes_up, bytes_down : int
        Activations with labels, and gradients, of all devices; where labels stay on the devices,
        activations without them and gradients of features up, gradients and features down.
    adapter_bytes_up, adapter_bytes_down : int
        Adapters and head of all devices.
    protocol_bytes_up, protocol_bytes_down : int
        Everything else that was sent: headers, names, sample numbers, other messages.
    product_lost : float or None
        With ``aggregation="product"`` the energy of the average of the products that the rank left
        out, over that of all.
    delay_s : float
        Modelled delay in seconds.
    wall_s : float
        Time that the round took once its devices were there, in seconds.

    Examples
    --------
    >>> import sft
    >>> sft.Round(
    ...     round=1,
    ...     accuracy=0.5,
    ...     test_loss=1.5,
    ...     loss=1.25,
    ...     bytes_up=1000,
    ...     bytes_down=200,
    ...     adapter_bytes_up=30,
    ...     adapter_bytes_down=40,
    ...     delay_s=1.5,
    ...     wall_s=0.1,
    ... ).bytes
    1270

    """

    __module__ = "sft"

    round: int
    devices: tuple[int, ...] = ()
    late: tuple[int, ...] = ()
    accuracy: float
    accuracy_through_cut: float | None = None
    test_loss: float
    test_loss_through_cut: float | None = None
    perplexity: float | None = None
    perplexity_through_cut: float | None = None
    loss: float
    bytes_up: int
    bytes_down: int
    adapter_bytes_up: int
    adapter_bytes_down: int
    protocol_bytes_up: int = 0
    protocol_bytes_down: int = 0
    product_lost: float | None = None
    delay_s: float
    wall_s: float

    @property
    def bytes(self) -> int:
        """Activations, labels, gradients, adapters and head: what the paper counts."""
        return self.bytes_up + self.bytes_down + self.adapter_bytes_up + self.adapter_bytes_down


@dataclass(frozen=True, kw_only=True)
class Generated:
    """How a tuned model goes on from the beginning of a test sample.

    Attributes
    ----------
    prompt : str
        The beginning.
    said : str
        What the model says, the likeliest token each time.
    expected : str
        How the sample goes on.

    Examples
    --------
    >>> import sft
    >>> sft.Generated(prompt="a", said=" b", expected=" c").said
    ' b'

    """

    __module__ = "sft"

    prompt: str
    said: str
    expected: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """A fine-tuning run; what `finetune` returns.

    Attributes
    ----------
    scheme : str
        How devices and server shared the work.
    rounds : tuple of Round
        The finished rounds.
    device_memory_bytes : float
        Modelled memory of the device that holds the most blocks.
    settings : dict
        The arguments that decide the result.
    contents : dict
        Digests of model, data and adapters: a folder knows its run again by them, whatever their
        files are called.
    generated : tuple of Generated
        What the tuned model says, where `generate` asked for it.

    Examples
    --------
    >>> import dataclasses
    >>> import sft
    >>> traffic = {"bytes_up": 1000, "bytes_down": 200}
    >>> adapters = {"adapter_bytes_up": 30, "adapter_bytes_down": 40}
    >>> one = sft.Round(
    ...     round=1,
    ...     accuracy=0.5,
    ...     test_loss=1.5,
    ...     loss=1.25,
    ...     delay_s=1.5,
    ...     wall_s=0.1,
    ...     **traffic,
    ...     **adapters,
    ... )
    >>> two = dataclasses.replace(one, round=2, accuracy=0.75)
    >>> run = sft.Run(scheme="sft", rounds=(one, two), device_memory_bytes=0.0)
    >>> run.accuracy, run.bytes.cumsum()
    (array([0.5 , 0.75]), array([1270, 2540]))

    """

    __module__ = "sft"

    scheme: str
    rounds: tuple[Round, ...]
    device_memory_bytes: float
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)
    contents: Mapping[str, str] = field(default_factory=dict, compare=False)
    generated: tuple[Generated, ...] = ()

    @property
    def accuracy(self) -> npt.NDArray[np.float64]:
        """Test accuracy after every round, [rounds]."""
        return np.array([r.accuracy for r in self.rounds])

    @property
    def accuracy_through_cut(self) -> npt.NDArray[np.float64]:
        """Test accuracy of the split model after every round, [rounds]; NaN where not measured."""
        return np.array([r.accuracy_through_cut for r in self.rounds], np.float64)

    @property
    def test_loss(self) -> npt.NDArray[np.float64]:
        """Mean cross-entropy on the test data after every round, nat, [rounds]."""
        return np.array([r.test_loss for r in self.rounds], np.float64)

    @property
    def test_loss_through_cut(self) -> npt.NDArray[np.float64]:
        """The same of the split model, [rounds]; NaN where not measured."""
        return np.array([r.test_loss_through_cut for r in self.rounds], np.float64)

    @property
    def perplexity(self) -> npt.NDArray[np.float64]:
        """Of a language model its test perplexity after every round, [rounds]; else not a number."""
        return np.array([r.perplexity for r in self.rounds], np.float64)

    @property
    def perplexity_through_cut(self) -> npt.NDArray[np.float64]:
        """The same through the cut, [rounds]; not a number where that was not measured."""
        return np.array([r.perplexity_through_cut for r in self.rounds], np.float64)

    @property
    def delay_s(self) -> npt.NDArray[np.float64]:
        """Modelled delay of every round in seconds, [rounds]."""
        return np.array([r.delay_s for r in self.rounds])

    @property
    def bytes(self) -> npt.NDArray[np.int64]:
        """Bytes that crossed all links in every round, [rounds]."""
        return np.array([r.bytes for r in self.rounds], np.int64)

    def summary(self) -> str:
        """Return the rounds as a table of text.

        Returns
        -------
        str

        Examples
        --------
        >>> import sft
        >>> sft.Run(scheme="sft", rounds=(), device_memory_bytes=0.0).summary()
        'round  accuracy  test loss  loss  cut MB up  cut MB down  adapter MB  delay, s'

        """
        return text(self._table())

    def _table(self) -> Table:
        tells = any(r.perplexity is not None for r in self.rounds)
        measure = "perplexity" if tells else "accuracy"
        traffic = ["cut MB up", "cut MB down", "adapter MB"]
        rows = [["round", measure, "test loss", "loss", *traffic, "delay, s"]]
        through = any(r.accuracy_through_cut is not None for r in self.rounds)
        if through:
            rows[0].insert(2, "through the cut")
        for r in self.rounds:
            adapters = r.adapter_bytes_up + r.adapter_bytes_down
            cells = [f"{n / 1e6:.3f}" for n in (r.bytes_up, r.bytes_down, adapters)]
            losses = [f"{loss:.4f}" for loss in (r.test_loss, r.loss)]
            rows.append([f"{r.round}", shown(r), *losses, *cells, f"{r.delay_s:.3f}"])
            if through:
                rows[-1].insert(2, shown_through_cut(r))
        return rows

    def _repr_html_(self) -> str:
        return html(self._table())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the run as JSON, as the command-line trainer does.

        Parameters
        ----------
        path : path
            The file, such as ``run.json``.

        Raises
        ------
        OSError
            If the file cannot be written; what it held before stays then.
        ValueError
            If a number is negative where bytes are counted, or not finite.

        Examples
        --------
        >>> import sft, tempfile, pathlib
        >>> run = sft.Run(scheme="sft", rounds=(), device_memory_bytes=0.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run.save(pathlib.Path(folder, "run.json"))
        ...     sft.Run.load(pathlib.Path(folder, "run.json")) == (run,)
        True

        """
        scheme = {
            "name": self.scheme,
            "device_memory_bytes": self.device_memory_bytes,
            "rounds": [asdict(r) for r in self.rounds],
            "generated": [asdict(each) for each in self.generated],
        }
        known = {"settings": self.settings, "contents": self.contents}
        content = known | {"schemes": [scheme]}
        _sft._write_run(path, json.dumps(content, allow_nan=False))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "tuple[Run, ...]":
        """Read the runs of a file that `save` or the command-line trainer wrote.

        Parameters
        ----------
        path : path
            The file.

        Returns
        -------
        tuple of Run
            One for every scheme.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is not the file of a run.

        Examples
        --------
        >>> import sft
        >>> sft.Run.load("no.json")
        Traceback (most recent call last):
            ...
        FileNotFoundError: [Errno 2] No such file or directory: 'no.json'

        """
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        try:
            return tuple(
                cls(
                    scheme=scheme["name"],
                    rounds=tuple(round_of(r) for r in scheme["rounds"]),
                    device_memory_bytes=scheme["device_memory_bytes"],
                    settings=content["settings"],
                    contents=content.get("contents", {}),
                    generated=tuple(Generated(**g) for g in scheme.get("generated", ())),
                )
                for scheme in content["schemes"]
            )
        except (KeyError, TypeError) as error:
            msg = f"{path} is not the file of a run: {error}"
            raise ValueError(msg) from error


def round_of(record: Mapping[str, Any]) -> Round:
    lists = {name: tuple(record.get(name, ())) for name in ("devices", "late")}
    return Round(**{**record, **lists})


def shown(r: Round) -> str:
    """Return how well a round's model does: of a language model the perplexity."""
    return f"{r.accuracy:.1%}" if r.perplexity is None else f"{r.perplexity:.2f}"


def shown_through_cut(r: Round) -> str:
    """Return the same of the model as it is split; nothing where that was not measured."""
    if r.accuracy_through_cut is None:
        return ""
    if r.perplexity_through_cut is not None:
        return f"{r.perplexity_through_cut:.2f}"
    return f"{r.accuracy_through_cut:.1%}"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during `finetune`, with what was finished until then.

    Attributes
    ----------
    run : Run
        The finished rounds.

    Examples
    --------
    >>> import sft
    >>> try:
    ...     raise sft.Interrupted(sft.Run(scheme="sft", rounds=(), device_memory_bytes=0.0))
    ... except sft.Interrupted as interrupted:
    ...     print(interrupted, "by", interrupted.run.scheme)
    0 rounds finished by sft

    """

    __module__ = "sft"

    def __init__(self, run: Run) -> None:
        super().__init__(f"{len(run.rounds)} rounds finished")
        self.run = run

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[Run]]:
        """Copy and pickle by the run, not by the message."""
        return Interrupted, (self.run,)
