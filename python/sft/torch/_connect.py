"""A device's link to a server that trains the other half."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Any, Self

from torch import Tensor

import sft
from sft.torch._crossing import Crossing
from sft.torch._cut import Cut
from sft.torch._exchange import AGREED, GRADIENT, HELLO, LEAVE, Answer, Step, tensor_of, told
from sft.torch._halves import DeviceHalf


def connect(
    server: str,
    cut: Cut | None = None,
    *,
    certs: str | os.PathLike[str] | None = None,
) -> ServerLink:
    """Connect a device to a server that trains the other half of its model by `serve`.

    Parameters
    ----------
    server : str
        As ``'host:port'``.
    cut : Cut, optional
        How activations are compressed; by default ``Cut()``. How gradients are, the server's tells.
    certs : path, optional
        The folder with this device's certificate, see `sft.make_certificates`; without it the
        server must be on this machine.

    Returns
    -------
    ServerLink

    Raises
    ------
    ConnectionError, OSError, ValueError
        As `sft.connect`.

    Examples
    --------
    >>> import sft.torch as st
    >>> st.connect("edge")
    Traceback (most recent call last):
        ...
    ValueError: server must be host:port, got "edge"
    """
    return ServerLink(sft.connect(server, certs), Cut() if cut is None else cut)


class ServerLink:
    """A device's link to a server; what `connect` returns.

    A device whose link broke connects anew, with a cut that has crossed nothing yet.

    Attributes
    ----------
    link : sft.Link
        What carries the messages.
    cut : Cut
        What compresses them, and counts what crossed.

    Examples
    --------
    >>> import threading
    >>> import torch
    >>> import sft
    >>> import sft.torch as st
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.GELU(), torch.nn.Linear(4, 2))
    >>> device_model, server_model = st.split(model, after="1")
    >>> optimizer = torch.optim.SGD(server_model.parameters(), lr=0.1)
    >>> loss = torch.nn.functional.cross_entropy
    >>> listener = sft.listen("127.0.0.1:0")
    >>> settings = {"inputs": torch.empty(1, 8), "listen": listener, "devices": 1}
    >>> server = threading.Thread(
    ...     target=st.serve, args=(server_model, optimizer, loss), kwargs=settings
    ... )
    >>> server.start()
    >>> with st.connect(listener.address) as link:
    ...     link.agree(device_model, torch.empty(1, 8))
    ...     loss = link.backward(device_model(torch.randn(3, 8)), torch.tensor([0, 1, 0]))
    >>> server.join()
    >>> loss > 0, device_model.get_parameter("0.weight").grad.shape
    (True, torch.Size([4, 8]))
    """

    def __init__(self, link: sft.Link, cut: Cut) -> None:
        self.link = link
        self.cut = cut

    def agree(self, device_model: DeviceHalf, *args: Any, **kwargs: Any) -> None:
        """Agree with the server on how the model is called; before the first step.

        Parameters
        ----------
        device_model : DeviceHalf
            This device's half.
        *args, **kwargs
            An example of what it will be called with, see `DeviceHalf.hello`. A device that calls
            its model in more than one way agrees on each.

        Raises
        ------
        ConnectionError
            If the link broke, or the server serves no such calls or has another model: it tells
            why.
        TypeError, ValueError
            As `DeviceHalf.hello`.

        Examples
        --------
        >>> import torch
        >>> import sft.torch as st
        >>> def train(link: st.ServerLink, device_model: st.DeviceHalf) -> None:
        ...     link.agree(device_model, torch.empty(1, 8))
        """
        told(self._exchange(HELLO + device_model.hello(*args, **kwargs)), AGREED)

    def backward(
        self,
        h: Tensor | Crossing,
        targets: Tensor | None = None,
        *,
        samples: Iterable[int] | Tensor | None = None,
        mask: Tensor | None = None,
    ) -> float:
        """Have the server compute a loss and train on it, and go on with the backward pass here.

        Waits until the server has come to it.

        Parameters
        ----------
        h : torch.Tensor or Crossing
            What `device_model` returned.
        targets : torch.Tensor, optional
            What the server's loss takes beside what the model returns, such as labels; they cross
            as they are.
        samples, mask
            As `Cut.encode` takes them; they cross, too.

        Returns
        -------
        float
            The loss.

        Raises
        ------
        ConnectionError
            If the link broke, or the server let this device go: it tells why.
        TypeError, ValueError, sft.CodecError
            As `Cut.encode`.

        Examples
        --------
        >>> import torch
        >>> import sft.torch as st
        >>> def train(link: st.ServerLink, device_model: st.DeviceHalf, batches) -> None:
        ...     optimizer = torch.optim.AdamW(device_model.parameters())
        ...     for x, labels in batches:
        ...         link.backward(device_model(x), labels)
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        """
        targets, samples = tensor_of(targets, "targets"), tensor_of(samples, "samples")
        message = self.cut.encode(h, samples=samples, mask=mask)
        step = Step(message, targets, samples, mask)
        answer = Answer.of(told(self._exchange(step.to_bytes()), GRADIENT))
        grad = self.cut.decode_gradient(answer.frame, mask=mask, device=h.device)
        if answer.bases is not None:
            self.cut.bases = answer.bases
        if h.requires_grad:
            h.backward(grad.to(h.dtype))
        return answer.loss

    def close(self) -> None:
        """Leave the server.

        Examples
        --------
        >>> import sft
        >>> import sft.torch as st
        >>> with sft.listen("127.0.0.1:0") as listener:
        ...     link = st.connect(listener.address)
        ...     link.close()
        """
        # Who was let go has left.
        with contextlib.suppress(ConnectionError):
            self.link.send(LEAVE)
        self.link.close()

    def _exchange(self, message: bytes) -> bytes:
        self.link.send(message)
        reply = self.link.receive()
        assert reply is not None
        return reply

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.link.close()
