"""A device and a server train a model together over a network (needs torch and transformers).

With certificates of ``python -m sft certs --out certs --devices 1 --host edge`` on two machines:
    python two_processes.py server 0.0.0.0:7443 certs
    python two_processes.py device edge:7443 certs/device-0

Without arguments both run on this one.
"""

import multiprocessing
import sys
import tempfile
from typing import Any

import digits
import torch

import sft
import sft.torch as st


def device(address: str, certs: str, steps: int = 40) -> None:
    """Train the first half, on the device's own images."""
    device_model, _ = st.split(digits.base_model(), after="vit.layers.1")
    opt = torch.optim.AdamW(device_model.parameters(), lr=1e-3)
    (images, labels), _ = digits.load()
    with st.connect(address, certs=certs) as link:
        link.agree(device_model, images[:1])
        for batch in torch.randint(len(labels), (steps, 32)):
            link.backward(device_model(images[batch]), labels[batch])
            opt.step()
            opt.zero_grad()


def server(listener: sft.Listener) -> None:
    """Train the second half until the device leaves."""
    _, server_model = st.split(digits.base_model(), after="vit.layers.1")
    opt = torch.optim.AdamW(server_model.parameters(), lr=1e-3)
    call = torch.empty(1, 1, 8, 8)
    [served] = st.serve(server_model, opt, loss, inputs=call, listen=listener, devices=1)
    print(f"loss {served.losses[0]:.2f} to {served.losses[-1]:.2f}; {served.traffic}")


def loss(result: Any, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(result.logits, labels)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["server", address, certs]:
            server(sft.listen(address, certs))
        case ["device", address, certs]:
            device(address, certs)
        case _:
            with tempfile.TemporaryDirectory() as certs:
                sft.make_certificates(certs, 1)
                listener = sft.listen("localhost:0", certs)
                there = multiprocessing.get_context("spawn").Process
                there(target=device, args=(listener.address, f"{certs}/device-0")).start()
                server(listener)
