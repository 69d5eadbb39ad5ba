"""A device and a server train a model together over a socket (needs torch and transformers)."""

import multiprocessing
import socket

import digits
import torch

import sft.torch as st


def send(link: socket.socket, message: bytes) -> None:
    link.sendall(len(message).to_bytes(4) + message)


def receive(link: socket.socket) -> bytes:
    return link.recv(int.from_bytes(link.recv(4, socket.MSG_WAITALL)), socket.MSG_WAITALL)


def device(address: tuple[str, int], steps: int) -> None:
    """Train the first half, on the device's own images."""
    device_model, _ = st.split(digits.base_model(), after="vit.layers.1")
    cut, opt = st.Cut(), torch.optim.AdamW(device_model.parameters(), lr=1e-3)
    (images, labels), _ = digits.load()
    with socket.create_connection(address) as link:
        send(link, device_model.hello(images[:1]))
        for batch in torch.randint(len(labels), (steps, 32)):
            h = device_model(images[batch])
            send(link, cut.encode(h))
            send(link, labels[batch].numpy().tobytes())
            h.backward(cut.decode_gradient(receive(link)))
            opt.step()
            opt.zero_grad()


def server(link: socket.socket) -> tuple[list[float], st.Traffic]:
    """Train the second half until the device hangs up; return the losses and what crossed."""
    _, server_model = st.split(digits.base_model(), after="vit.layers.1")
    cut, opt = st.Cut(), torch.optim.AdamW(server_model.parameters(), lr=1e-3)
    losses: list[float] = []
    server_model.agree(receive(link), torch.empty(1, 3, 8, 8))  # how the model is called
    while frame := receive(link):
        labels = torch.frombuffer(bytearray(receive(link)), dtype=torch.int64)
        z = cut.decode(frame, server_model).requires_grad_()
        loss = torch.nn.functional.cross_entropy(server_model(z).logits, labels)
        loss.backward()
        send(link, cut.encode_gradient(z.grad))
        opt.step()
        opt.zero_grad()
        losses.append(loss.item())
    return losses, cut.traffic


if __name__ == "__main__":
    with socket.create_server(("localhost", 0)) as listener:
        process = multiprocessing.get_context("spawn").Process
        process(target=device, args=(listener.getsockname(), 40)).start()
        losses, traffic = server(listener.accept()[0])
    print(f"loss {losses[0]:.2f} to {losses[-1]:.2f}; {traffic}")
