"""Split training between two processes over a plain socket: a device and a server.

The device has the images and the first layers, the server the others; both build the same model.
Up go compressed activations and labels, down compressed gradients.

    python examples/two_processes.py            # needs torch and transformers
"""

import multiprocessing
import socket
import struct

import digits
import torch
from torch import nn

import sft
import sft.torch as st

ACTIVATION = sft.Codec.activation(keep=0.5, levels=8)
GRADIENT = sft.Codec.gradient(keep=0.1, levels=8)


def send(link: socket.socket, message: bytes) -> None:
    """Send a message with its length before it."""
    link.sendall(struct.pack("<I", len(message)) + message)


def receive(link: socket.socket) -> bytes:
    """Receive a message; empty at the end."""
    size = link.recv(4, socket.MSG_WAITALL)
    return link.recv(int.from_bytes(size, "little"), socket.MSG_WAITALL) if size else b""


def serve(listener: socket.socket) -> None:
    """Train the server half with whatever a device sends."""
    _, server_model = st.split(digits.base_model(), after="vit.layers.1")
    cut, opt = st.Cut(ACTIVATION, GRADIENT), torch.optim.AdamW(server_model.parameters(), 1e-3)
    link, _ = listener.accept()
    while message := receive(link):
        labels = torch.frombuffer(bytearray(receive(link)), dtype=torch.int64)
        z = cut.decode(message).requires_grad_()
        loss = nn.functional.cross_entropy(server_model(z).logits, labels)
        loss.backward()
        opt.step()
        opt.zero_grad()
        send(link, cut.encode_gradient(z.grad))
        send(link, struct.pack("<f", loss.item()))


def train(port: int, steps: int) -> tuple[list[float], st.Traffic]:
    """Train the device half; return the losses and what crossed."""
    device_model, _ = st.split(digits.base_model(), after="vit.layers.1")
    cut, opt = st.Cut(ACTIVATION, GRADIENT), torch.optim.AdamW(device_model.parameters(), 1e-3)
    (images, labels), _ = digits.load()
    losses: list[float] = []
    with socket.create_connection(("localhost", port)) as link:
        for step in range(steps):
            batch = torch.arange(32 * step, 32 * step + 32) % len(labels)
            h = device_model(images[batch])
            send(link, cut.encode(h))
            send(link, labels[batch].numpy().tobytes())
            h.backward(cut.decode_gradient(receive(link)))
            losses += struct.unpack("<f", receive(link))
            opt.step()
            opt.zero_grad()
    return losses, cut.traffic


def main(steps: int = 40) -> tuple[list[float], st.Traffic]:
    """Run the server in a process of its own and the device in this one."""
    with socket.create_server(("localhost", 0)) as listener:
        port: int = listener.getsockname()[1]
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(listener,))
        server.start()
    losses, traffic = train(port, steps)
    server.join()
    print(f"loss {losses[0]:.2f} to {losses[-1]:.2f}; {traffic}")
    return losses, traffic


if __name__ == "__main__":
    main()
