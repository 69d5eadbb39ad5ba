"""Runs of the trainer over links, by functions and by commands."""

import _thread
import dataclasses
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from test_net import interrupted
from test_train import MODEL, few

import sft
from sft.__main__ import main


def comparable(run: sft.Run) -> list[sft.Round]:
    """Return rounds without what the clock says."""
    return [dataclasses.replace(one, wall_s=0.0) for one in run.rounds]


def adapters(out: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(out.iterdir())]


def test_a_run_over_links_is_that_in_one_process(certs: Path, tmp_path: Path) -> None:
    arguments = few()
    expected = sft.finetune(model=MODEL, **arguments, out=tmp_path / "here")
    told: dict[int, list[str]] = {0: [], 1: []}
    with (
        sft.listen("localhost:0", certs) as listener,
        ThreadPoolExecutor() as pool,
    ):
        joined = [
            pool.submit(
                sft.join,
                listener.address,
                data=arguments["data"],
                full=16,
                certs=certs / f"device-{device}",
                cache=tmp_path / f"cache-{device}",
                progress=lines.append,
            )
            for device, lines in told.items()
        ]
        run = sft.serve(model=MODEL, **arguments, out=tmp_path / "net", listen=listener)
        for one in joined:
            one.result(timeout=60)
    assert comparable(run) == comparable(expected)
    assert run.contents == expected.contents
    assert run.device_memory_bytes == expected.device_memory_bytes
    assert sft.Run.load(tmp_path / "net" / "run.json") == (run,)
    assert adapters(tmp_path / "net" / "adapters-sft") == adapters(tmp_path / "here" / "adapters")
    for device, lines in told.items():
        assert [line.split(":")[0] for line in lines[1:] if "across the cut" in line] == [
            "round 1",
            "round 2",
        ]
        assert lines[0].startswith(f"device {device} with 32 samples and 2 blocks")


def test_a_server_goes_on_from_what_it_kept(tmp_path: Path) -> None:
    """With devices that wait for it meanwhile, and remember what they sent."""
    arguments = few() | {"rounds": 3}
    expected = sft.finetune(model=MODEL, **arguments)
    out: dict[str, Any] = {"out": tmp_path / "out"}
    lost: list[str] = []

    def stop(one: sft.Round) -> None:
        raise KeyboardInterrupt

    with ThreadPoolExecutor() as pool:
        with sft.listen("127.0.0.1:0") as listener:
            address = listener.address
            joined = [
                pool.submit(
                    sft.join,
                    address,
                    data=arguments["data"],
                    full=16,
                    cache=tmp_path / f"cache-{device}",
                    patience_s=20.0,
                    progress=lost.append,
                )
                for device in range(2)
            ]
            with pytest.raises(sft.Interrupted) as caught:
                sft.serve(model=MODEL, **arguments | out | {"progress": stop}, listen=listener)
        before = caught.value.run.rounds
        assert 1 <= len(before) < 3
        more = out | {"resume": tmp_path / "out"}
        run = sft.serve(model=MODEL, **arguments | more, listen=address)
        for one in joined:
            one.result(timeout=60)
    assert any("; again in" in line for line in lost)
    assert comparable(run) == comparable(expected)


def test_a_device_with_other_data_is_refused(tmp_path: Path) -> None:
    arguments = few() | {"devices": 1}
    images, labels = arguments["data"]
    with sft.listen("127.0.0.1:0") as listener, ThreadPoolExecutor() as pool:
        settings = arguments | {"out": tmp_path / "out", "listen": listener}
        run = pool.submit(sft.serve, model=MODEL, **settings)
        device: dict[str, Any] = {"full": 16, "cache": tmp_path / "cache"}
        with pytest.raises(ValueError, match="data must have the 64 samples of the run, got 10"):
            sft.join(listener.address, data=(images[:10], np.arange(10)), **device)
        sft.join(listener.address, data=(images, labels), **device)
        assert len(run.result(timeout=60).rounds) == 2


def test_ctrl_c_ends_server_and_device(tmp_path: Path) -> None:
    with sft.listen("127.0.0.1:0") as listener:
        out = tmp_path / "out"
        timer = threading.Timer(0.5, _thread.interrupt_main)
        timer.start()
        with pytest.raises(sft.Interrupted) as caught:
            sft.serve(model=MODEL, **few(), out=out, listen=listener)
        timer.join()
        assert caught.value.run.rounds == ()
    interrupted(lambda: sft.join(listener.address, data=few()["data"], cache=tmp_path / "cache"))


def test_arguments_of_serve_and_join_are_checked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(TypeError, match="unexpected keyword argument 'lrr'"):
        sft.serve(model=MODEL, **few(), out=out, lrr=1)
    with sft.listen("127.0.0.1:0") as listener:
        serving: list[tuple[dict[str, Any], str]] = [
            ({"quorum": 3}, r"quorum must be in 1\.\.=2, got 3"),
            ({"wait_s": -1.0}, "wait_s must be at least 0"),
            ({"shape": True, "control": True}, "control must be False where shape is True"),
            ({"even": True}, "even must be False where neither shape nor control is True"),
            ({"status": "nowhere"}, 'status cannot be "nowhere"'),
            ({"scheme": "fl-lora"}, "scheme must be sft, sft-raw or sl"),
            ({"certs": "certs"}, r"certs must be given to sft\.listen"),
        ]
        for wrong, reason in serving:
            with pytest.raises(ValueError, match=reason):
                sft.serve(model=MODEL, **few(), out=out, listen=listener, **wrong)
        joining: list[tuple[dict[str, Any], str]] = [
            ({"threads": 0}, "threads must be at least 1"),
            ({"patience_s": -1.0}, "patience_s must be at least 0"),
            ({"full": 256}, r"full must be in 0\.\.=255"),
        ]
        for wrong, reason in joining:
            with pytest.raises(ValueError, match=reason):
                sft.join(listener.address, data=few()["data"], **wrong)
        address = listener.address
    with pytest.raises(ConnectionError, match="is not there"):
        sft.join(address, data="folder:none", patience_s=0.0, cache=tmp_path)


def files(folder: Path) -> tuple[Path, str]:
    """Write a small model of colour images, and a few digits as files."""
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    shapes: dict[str, Any] = {"intermediate_size": 64, "image_size": 8, "patch_size": 4}
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, **shapes))
    model.save_pretrained(folder / "model")
    digits = few(40)
    for part, (images, labels) in (("train", digits["data"]), ("test", digits["test"])):
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / "images" / part / str(label) / f"{number}.pgm"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = (image.astype(np.uint16) * 255 // 16).astype(np.uint8)
            path.write_bytes(b"P5 8 8 255\n" + pixels.tobytes())
    return folder / "model" / "model.safetensors", f"folder:{folder / 'images'}"


def test_the_commands_do_what_the_functions_do(tmp_path: Path) -> None:
    model, data = files(tmp_path)
    settings: dict[str, Any] = {"devices": 2, "rounds": 2, "device_cuts": [2, 3]}
    expected = sft.finetune(model=model, data=data, progress=False, **settings)
    command = [sys.executable, "-m", "sft"]
    made = tmp_path / "certs"
    subprocess.run([*command, "certs", "--out", made, "--devices", "2"], check=True)
    config = tmp_path / "job.toml"
    config.write_text(f"model = '{model}'\nscheme = ['sft']\nrounds = 9\ndevice_cuts = [2, 3]\n")
    flags: list[str | Path] = [
        "--devices",
        "2",
        "--rounds",
        "2",
        "--data",
        data,
        "--certs",
        made,
        "--out",
        tmp_path / "out",
    ]
    server = subprocess.Popen(
        [*command, "server", "--config", config, "--listen", "localhost:0", *flags],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    address = server.stderr.readline().split()[-1]
    devices = [
        subprocess.Popen(
            [
                *command,
                "device",
                "--server",
                address,
                "--data",
                data,
                "--certs",
                certs,
                "--cache",
                cache,
            ]
        )
        for certs, cache in ((made / f"device-{n}", tmp_path / f"cache-{n}") for n in range(2))
    ]
    told = server.communicate(timeout=120)[1]
    assert [one.wait(timeout=60) for one in devices] == [0, 0]
    assert server.wait(timeout=60) == 0
    assert told.count("accuracy") == 2
    (run,) = sft.Run.load(tmp_path / "out" / "run.json")
    assert comparable(run) == comparable(expected)


def test_the_commands_name_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> str:
        assert main([*arguments]) == 1
        return capsys.readouterr().err

    assert "error: devices must be" in said("certs", "--out", str(tmp_path), "--devices", "0")
    assert "--model must be given" in said("server")
    config = tmp_path / "job.toml"
    for text, reason in (
        ("rounds = ", "job.toml: "),
        ("scheme = ['sft', 'sl']", "scheme must be one"),
        ("model = 'm'\ndata = 'folder:d'\nround = 1", "unexpected keyword argument 'round'"),
    ):
        config.write_text(text)
        assert reason in said("server", "--config", str(config), "--listen", "localhost:0")
    assert "host:port" in said("device", "--server", "edge", "--data", "folder:images")
    with pytest.raises(SystemExit):
        main(["server", "--scheme", "no"])
    assert "invalid choice" in capsys.readouterr().err
