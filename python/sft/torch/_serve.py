"""A server that trains its half of a model with devices in other processes."""

from __future__ import annotations

import copy
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import sft
from sft.torch._crossing import Crossing
from sft.torch._cut import Cut
from sft.torch._exchange import AGREED, HELLO, LEAVE, STEP, Answer, Step, fault
from sft.torch._halves import ServerHalf
from sft.torch._message import error_of
from sft.torch._traffic import Traffic

_LOOK_S = 0.1
"""How often a wait looks whether the server is to end."""
_HELLO_S = 60.0
"""How long a device may take for its first message."""
_LOG = logging.getLogger("sft.torch")


@dataclass
class Served:
    """What a server did for a device, over one link.

    Attributes
    ----------
    peer : str
        The name in the device's certificate; empty without certificates.
    losses : list of float
        Of its steps.
    traffic : Traffic
        What crossed.
    fault : str or None
        Why it was let go, or how its link broke; None of a device that left, or is there.

    Examples
    --------
    >>> import sft.torch as st
    >>> st.Served("device-3", losses=[2.5, 1.25]).losses[-1]
    1.25
    """

    peer: str
    losses: list[float] = field(default_factory=list)
    traffic: Traffic = field(default_factory=Traffic)
    fault: str | None = None


def serve(
    server_model: ServerHalf,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Any, Any], Tensor],
    cut: Cut | None = None,
    *,
    inputs: Tensor | tuple[Any, ...] | Mapping[str, Any],
    listen: str | sft.Listener = "127.0.0.1:7443",
    certs: str | os.PathLike[str] | None = None,
    devices: int | None = None,
    progress: Callable[[Served], object] | None = None,
) -> list[Served]:
    """Train a half of a model with devices that have the other half, and come by `connect`.

    Every step of a device is one of the server: what it sent is decoded, the loss computed, its
    gradient sent back, and the optimizer steps. This is done on the thread that calls, one step at
    a time in the order in which they came; Ctrl-C ends it. A device that sends what it should not
    (bytes that are no message, other shapes, values that are not finite, another call than
    `inputs`) is told so and let go before a parameter has changed, with a warning to the logger
    'sft.torch', as is one on whose targets `loss` fails; the others go on.

    Parameters
    ----------
    server_model : ServerHalf
        What `split` returned.
    optimizer : torch.optim.Optimizer
        Of its parameters.
    loss : callable
        Given what the model returns, and the targets that the device sent (None where it sent
        none), on the model's device: the loss. On a GPU it should check targets itself: a label
        out of range fails there in a way that ends the process's use of it.
    cut : Cut, optional
        How gradients are compressed; by default ``Cut()``. Each device gets a copy.
    inputs : torch.Tensor, tuple or dict
        An example of the whole model's arguments, of any sizes (`ServerHalf.agree`): one tensor, a
        tuple of positional ones, or a dictionary of named ones.
    listen : str or sft.Listener
        Address and port that devices come to, or what `sft.listen` returned, which stays open.
    certs : path, optional
        The folder of `sft.make_certificates`, or the one for the server in it; without it only
        devices on this machine are let in.
    devices : int, optional
        End when so many devices have come, agreed and gone again, and nobody is left; one whose
        link broke and who comes back counts anew. By default never.
    progress : callable, optional
        Called after each step with what was done for its device.

    Returns
    -------
    list of Served
        For each link whose device agreed, in the order in which they came.

    Raises
    ------
    OSError, ValueError
        As `sft.listen`.
    TypeError
        If `inputs` are no example of a call.

    Examples
    --------
    See `ServerLink` for both sides.

    >>> import torch
    >>> import sft.torch as st
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(4, 2))
    >>> _, server_model = st.split(model, after="0")
    >>> optimizer = torch.optim.AdamW(server_model.parameters())
    >>> loss = torch.nn.functional.cross_entropy
    >>> st.serve(server_model, optimizer, loss, inputs=torch.empty(1, 8), devices=0)
    []
    """
    given = isinstance(listen, sft.Listener)
    if given and certs is not None:
        raise ValueError("certs must be given to sft.listen where listen is what it returned")
    listener = listen if isinstance(listen, sft.Listener) else sft.listen(listen, certs)
    server = _Server(server_model, optimizer, loss, cut or Cut(), _call(inputs), progress)
    try:
        return server.run(listener, devices)
    finally:
        if not given:
            listener.close()


def _call(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, tuple):
        return inputs, {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    raise TypeError(f"inputs must be a tensor, a tuple or a dict, got {type(inputs).__name__}")


@dataclass
class _Device:
    link: sft.Link
    cut: Cut
    served: Served
    agreed: bool = False


@dataclass
class _Server:
    """Threads that receive and send, one for each device; computing is on the one that calls `run`."""

    model: ServerHalf
    optimizer: torch.optim.Optimizer
    loss: Callable[[Any, Any], Tensor]
    cut: Cut
    call: tuple[tuple[Any, ...], dict[str, Any]]
    progress: Callable[[Served], object] | None

    def __post_init__(self) -> None:
        self.turns: queue.SimpleQueue[tuple[_Device, bytes, Future[bytes]]] = queue.SimpleQueue()
        self.stop = threading.Event()
        self.threads: dict[threading.Thread, _Device] = {}
        self.served: list[Served] = []
        # Of devices that agreed.
        self.gone, self.lock = 0, threading.Lock()

    def run(self, listener: sft.Listener, devices: int | None) -> list[Served]:
        """Compute what devices ask for until so many are gone."""
        acceptor = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        acceptor.start()
        try:
            while devices is None or self.gone < max(devices, len(self.served)):
                try:
                    device, message, reply = self.turns.get(timeout=_LOOK_S)
                except queue.Empty:
                    continue
                self._take_turn(device, message, reply)
        finally:
            self.stop.set()
            acceptor.join()
            for thread, device in self.threads.items():
                thread.join(4 * _LOOK_S)
                if thread.is_alive():
                    # It sends to a device that does not read.
                    device.link.close()
        return self.served

    def _accept(self, listener: sft.Listener) -> None:
        while not self.stop.is_set():
            try:
                link = listener.accept(_LOOK_S)
            except ConnectionError:
                return
            if link is None:
                continue
            device = _Device(link, copy.deepcopy(self.cut), Served(link.peer))
            device.served.traffic = device.cut.traffic
            self.threads = {t: d for t, d in self.threads.items() if t.is_alive()}
            thread = threading.Thread(target=self._serve, args=(device,), daemon=True)
            self.threads[thread] = device
            thread.start()

    def _serve(self, device: _Device) -> None:
        """Serve a device until it leaves; what it does wrong is told to it alone."""
        served, link = device.served, device.link
        with link:
            try:
                while (message := self._receive(device)) != LEAVE:
                    link.send(self._in_turn(device, message))
            except ConnectionError as error:
                served.fault = str(error)
            except Exception as error:
                served.fault = f"{type(error).__name__}: {error}"
                _LOG.warning("device %r is let go: %s", served.peer, served.fault)
                # It may be gone already.
                with suppress(ConnectionError):
                    link.send(fault(error))
        with self.lock:
            self.gone += device.agreed

    def _receive(self, device: _Device) -> bytes:
        waited_s = 0.0
        while not self.stop.is_set():
            message = device.link.receive(_LOOK_S)
            if message is not None:
                return message
            waited_s += _LOOK_S
            if not device.agreed and waited_s > _HELLO_S:
                raise TimeoutError(f"no hello came within {_HELLO_S:.0f} s")
        raise ConnectionError("the server has ended")

    def _in_turn(self, device: _Device, message: bytes) -> bytes:
        """Have something computed, and wait for what comes of it."""
        reply: Future[bytes] = Future()
        self.turns.put((device, message, reply))
        while not wait([reply], _LOOK_S).done:
            if self.stop.is_set():
                raise ConnectionError("the server has ended")
        return reply.result()

    def _take_turn(self, device: _Device, message: bytes, reply: Future[bytes]) -> None:
        try:
            answer = self._answer(device, message)
        except Exception as error:
            reply.set_exception(error)
            return
        reply.set_result(answer)
        if message[:1] == STEP and self.progress is not None:
            self.progress(device.served)

    def _answer(self, device: _Device, message: bytes) -> bytes:
        kind, data = message[:1], message[1:]
        if kind == HELLO:
            args, kwargs = self.call
            self.model.agree(data, *args, **kwargs)
            if not device.agreed:
                device.agreed = True
                self.served.append(device.served)
            return AGREED
        if kind != STEP:
            raise error_of("corrupt", f"the message is of no kind that there is: {kind!r}")
        if not device.agreed:
            raise error_of("unknown_plan", "a step came before a hello")
        return self._step(device, Step.of(data)).to_bytes()

    def _step(self, device: _Device, step: Step) -> Answer:
        cut, where = device.cut, next(self.model.parameters()).device
        batch = {"samples": step.samples, "mask": step.mask}
        z = cut.decode(step.message, self.model, **batch, device=where)
        _check_finite(z)
        z = z.requires_grad_()
        targets = None if step.targets is None else step.targets.to(where)
        with self._without_traces():
            value = self.loss(self.model(z), targets)
            value.backward()
            self._check_gradients(value)
        answer = Answer(value.item(), cut.encode_gradient(z.grad, mask=step.mask), cut.learn())
        if answer.bases is not None:
            cut.bases = answer.bases
        self.optimizer.step()
        self.optimizer.zero_grad()
        device.served.losses.append(answer.loss)
        return answer

    @contextmanager
    def _without_traces(self) -> Iterator[None]:
        """Forget the gradients of a step that fails."""
        self.optimizer.zero_grad()
        try:
            yield
        except BaseException:
            self.optimizer.zero_grad()
            raise

    def _check_gradients(self, loss: Tensor) -> None:
        parameters = (p for group in self.optimizer.param_groups for p in group["params"])
        grads = [p.grad for p in parameters if p.grad is not None]
        if not all(bool(x.isfinite().all()) for x in (loss, *grads)):
            raise error_of("non_finite", "the loss or a gradient of it is not finite")


def _check_finite(z: Tensor | Crossing) -> None:
    """Refuse values that would spoil the model, in a hidden state or beside it.

    What is beside may have infinities, as the masks of attention do.
    """
    hidden, beside = (z.hidden, z.sent) if isinstance(z, Crossing) else (z, ())
    if not bool(hidden.isfinite().all()) or any(bool(x.isnan().any()) for x in beside):
        raise error_of("non_finite", "the activation holds NaN or infinities")
