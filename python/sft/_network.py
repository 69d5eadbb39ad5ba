"""The reference trainer with its devices in processes of their own."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

from sft import _sft
from sft._run import Run
from sft._train import Arrays, carry_out, finetune, labelled, without_spinning


def serve(
    *,
    model: str | os.PathLike[str],
    data: str | Arrays,
    out: str | os.PathLike[str],
    listen: str | _sft.Listener = "127.0.0.1:7443",
    certs: str | os.PathLike[str] | None = None,
    quorum: int | None = None,
    wait_s: float | None = None,
    keep_partial: bool = False,
    shape: bool = False,
    control: bool = False,
    even: bool = False,
    status: str | None = None,
    **settings: Any,
) -> Run:
    """Fine-tune a model by the Rust trainer, on devices that come by `join` from other processes.

    The run is that of `finetune` with the same arguments, bit for bit, if every device ends each of
    its rounds. A device that breaks off is left out of the round's average and takes part again once it
    is back. Every round is kept in `out` as a checkpoint, or as many as `checkpoint_every` says: a
    server that starts again with `resume` goes on from it, with the devices that are waiting. A device that
    was started anew has forgotten what it sent before, which a basis builds on: the rounds behind cross
    in more bytes, and come to slightly other numbers.

    Parameters
    ----------
    model, data
        As `finetune` takes them. The devices get their blocks of the model from here, and of the
        data the numbers of their samples alone: each has the data set itself.
    out : path
        As `finetune` takes it, with ``adapters-SCHEME`` for ``adapters``; for each cut layer a folder
        ``half-CUT`` holds what the devices get of the model.
    listen : str or Listener, default '127.0.0.1:7443'
        Address and port that devices come to, or what `listen` returned, which stays open.
    certs : path, optional
        The folder of `make_certificates`, or the one for the server in it: 'device-0' and so on come
        in. Without it only devices on this machine are let in, and have the numbers in which they come.
    quorum : int, optional
        Devices that must end a round for it to count; by default half of them.
    wait_s : float, optional
        Seconds that the first round waits for all of its devices, before it begins with a quorum; by
        default it waits for all.
    keep_partial : bool, default False
        Average what a device that is late did before `deadline_s`, by the samples that it has seen.
    shape : bool, default False
        Hold every link to its rate by the modelled channel, at the share of the band that P2 gives
        each device for what it moved in its last round.
    control : bool, default False
        Measure every link, and hold each to the share that P2 gives it of what all carried together,
        where that promises less time than free links take.
    even : bool, default False
        With `shape` or `control`: the same share for each device.
    status : str, optional
        Address of a page that tells how the run stands, of ``/status.json`` and of Prometheus'
        ``/metrics``, such as ``'127.0.0.1:8080'``; whoever reaches it may read them.
    **settings
        All other arguments of `finetune`; `scheme` is 'sft', 'sft-raw' or 'sl'.

    Returns
    -------
    Run

    Raises
    ------
    Interrupted
        On Ctrl-C.
    ValueError, TypeError, OSError, RuntimeError
        As `finetune` and `listen`; RuntimeError, too, if fewer than `quorum` ended a round.

    Examples
    --------
    >>> import sft
    >>> sft.serve(model="no.safetensors", data="folder:images", out="runs/edge")
    Traceback (most recent call last):
        ...
    FileNotFoundError: [Errno 2] model: No such file or directory: 'no.safetensors'

    """
    bound = inspect.signature(finetune).bind(model=model, data=data, out=out, **settings)
    bound.apply_defaults()
    own = {
        "quorum": quorum,
        "wait_s": wait_s,
        "keep_partial": keep_partial,
        "shape": shape,
        "control": control,
        "even": even,
        "status": status,
    }
    given = isinstance(listen, _sft.Listener)
    if given and certs is not None:
        raise ValueError("certs must be given to sft.listen where listen is what it returned")

    def train(config: dict[str, Any], arrays: Any, full: int, watch: Any) -> Any:
        listener = listen if isinstance(listen, _sft.Listener) else _sft.listen(listen, certs)
        try:
            return _sft._serve(config, arrays, full, watch, listener, own)
        finally:
            if not given:
                listener.close()

    return carry_out(bound.arguments, train)


def join(
    server: str,
    *,
    data: str | Arrays,
    certs: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] = "runs/device",
    full: int = 255,
    threads: int = 1,
    patience_s: float = 600.0,
    progress: Callable[[str], object] | None = None,
) -> None:
    """Take part in a run that `serve` serves, as one of its devices, until the run is over.

    The server tells all settings. The device gets its blocks of the model from there, unless it has
    them in `cache` or `model`; a link that breaks is made anew. Ctrl-C ends it within a mini-batch, and
    what it had done in the round is lost.

    Parameters
    ----------
    server : str
        As ``'host:port'``.
    data : str or (images, labels)
        The data set that the device's share is taken from, as `finetune` takes it: that of the
        server, or at least as many samples of the same classes.
    certs : path, optional
        The folder with this device's certificate, see `make_certificates`; without it the server must
        be on this machine.
    model : path, optional
        The whole model, where it is here: its first blocks are then not sent.
    cache : path, default 'runs/device'
        A folder that keeps what was sent of models.
    full : int, default 255
        The value of a uint8 pixel at full intensity.
    threads : int, default 1
        Threads; the result does not depend on them.
    patience_s : float, default 600
        Seconds that a server is looked for which is not found.
    progress : callable, optional
        Called with a line of text when the device is ready, after each round or part of one, and when
        its link broke.

    Raises
    ------
    ConnectionError
        If the server is not found for too long, or refuses this device: it tells why.
    ValueError, TypeError
        If an argument is out of its range, or the data are not as many and of as many classes as
        the run's.
    OSError
        If a file cannot be read or written, or is not what it should be.
    RuntimeError
        If values are not finite.

    Examples
    --------
    >>> import sft
    >>> sft.join("edge", data="folder:images")
    Traceback (most recent call last):
        ...
    ValueError: server must be host:port, got "edge"

    """
    if not 0 <= full <= 255:
        msg = f"full must be in 0..=255, got {full}"
        raise ValueError(msg)
    named, arrays = (data, None) if isinstance(data, str) else (None, labelled("data", data))
    without_spinning()
    tell = progress or (lambda line: None)
    _sft._join(server, certs, named, arrays, full, model, cache, threads, patience_s, tell)
