"""Split fine-tuning over a network: ``python -m sft certs``, ``server`` and ``device``."""

import argparse
import inspect
import json
import sys
import tomllib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sft

_ABOUT = "Split fine-tuning of transformers between many devices and one server."
_INTERRUPTED = 130
_OF_NO_FLAG = ("progress", "full")
"""Arguments of `finetune` that are for Python alone."""


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sft", description=_ABOUT, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="command")
    for add in (_add_certs, _add_server, _add_device):
        add(commands)
    flags = vars(parser.parse_args(arguments))
    run = flags.pop("run")
    try:
        run(flags)
    except KeyboardInterrupt as error:
        _tell(str(error) or "interrupted")
        return _INTERRUPTED
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        _tell(f"error: {error}")
        return 1
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _command(commands: Any, name: str, about: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about, allow_abbrev=False
    )
    parser.set_defaults(run=run)
    return parser


def _add_certs(commands: Any) -> None:
    about = "make an authority, a certificate for the server and one for each device, for trying"
    parser = _command(commands, "certs", about, _certs)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for them")
    parser.add_argument("--devices", required=True, type=int, metavar="N", help="devices")
    hosts = "names and addresses of the server, comma-separated, beside those of this machine"
    parser.add_argument("--host", type=_texts, default=(), metavar="HOSTS", help=hosts)
    parser.add_argument("--days", type=int, default=90, help="days that they hold (%(default)s)")


def _certs(flags: dict[str, Any]) -> None:
    out, devices = flags["out"], flags["devices"]
    sft.make_certificates(out, devices, flags["host"], flags["days"])
    print(f"{out}/server is for the server, {out}/device-0 to {out}/device-{devices - 1} are for")
    print(f"the devices; {out}/ca-key.pem makes more of them: keep it where neither needs it")


def _add_server(commands: Any) -> None:
    about = "serve a run to devices that are other processes, as sft.serve does"
    parser = _command(commands, "server", about, _server)
    parser.add_argument(
        "--config", metavar="FILE", help="settings, .toml or .json, below the flags"
    )
    own = {
        name: p
        for name, p in inspect.signature(sft.serve).parameters.items()
        if p.kind != p.VAR_KEYWORD
    }
    of_run = inspect.signature(sft.finetune).parameters
    hints = typing.get_type_hints(sft.finetune) | typing.get_type_hints(sft.serve)
    for name, parameter in (own | dict(of_run)).items():
        if name not in _OF_NO_FLAG:
            _add_flag(parser, name, hints[name], parameter.default)


def _add_flag(parser: argparse.ArgumentParser, name: str, hint: Any, default: Any) -> None:
    """Add a flag for an argument; what is not given is left out."""
    kinds = typing.get_args(hint) if _is_union(hint) else (hint,)
    kind = next((kind for kind in kinds if typing.get_origin(kind) is not tuple), str)
    said = "" if default in (None, inspect.Parameter.empty, False) else f" ({default})"
    settings: dict[str, Any] = {"default": argparse.SUPPRESS, "help": f"as in Python{said}"}
    if kind is bool:
        settings |= {"action": "store_const", "const": True}
    elif typing.get_origin(kind) is typing.Literal:
        settings["choices"] = typing.get_args(kind)
    elif Sequence[int] in kinds:
        settings["type"] = _numbers
    elif Sequence[str] in kinds:
        settings["type"] = _texts
    elif kind in (int, float):
        settings["type"] = kind
    parser.add_argument("--" + name.replace("_", "-"), **settings)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _texts(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _server(flags: dict[str, Any]) -> None:
    config = flags.pop("config")
    settings = ({} if config is None else _read(Path(config))) | flags
    for name in ("model", "data"):
        if name not in settings:
            raise ValueError(f"--{name} must be given, or {name} in --config FILE")
    settings.setdefault("out", settings.get("resume", "runs/edge"))
    address = settings.pop("listen", "127.0.0.1:7443")
    with sft.listen(address, settings.pop("certs", None)) as listener:
        _tell(f"listening on {listener.address}")
        if "status" in settings:
            _tell(f"status at http://{settings['status']}")
        run = sft.serve(listen=listener, progress=_tell_round, **settings)
    print(run.summary())


def _tell_round(one: sft.Round) -> None:
    _tell(
        f"round {one.round}: accuracy {one.accuracy:.4f}, loss {one.loss:.4f}, {one.wall_s:.1f} s"
    )


def _read(path: Path) -> dict[str, Any]:
    """Return the settings of a file: those of a run of one scheme, by their names in Python."""
    text = path.read_text(encoding="utf-8")
    try:
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: must hold settings by name")
    if isinstance(scheme := found.get("scheme"), list):
        if len(scheme) != 1:
            raise ValueError(f"{path}: scheme must be one, got {scheme}")
        found["scheme"] = scheme[0]
    return found


def _add_device(commands: Any) -> None:
    about = "take part in a run as one of its devices; the server tells everything else"
    parser = _command(commands, "device", about, _device)
    parser.add_argument(
        "--server", default="127.0.0.1:7443", metavar="HOST:PORT", help="(%(default)s)"
    )
    parser.add_argument("--data", required=True, help="data set that the share is taken from")
    parser.add_argument("--certs", metavar="DIR", help="folder with this device's certificate")
    parser.add_argument("--model", metavar="PATH", help="the whole model, where it is here")
    cache = "folder that keeps what was sent of models (%(default)s)"
    parser.add_argument("--cache", default="runs/device", metavar="DIR", help=cache)
    parser.add_argument("--threads", type=int, default=1, help="threads (%(default)s)")
    patience = "seconds that a server is looked for (%(default)s)"
    parser.add_argument("--patience-s", type=float, default=600.0, help=patience)


def _device(flags: dict[str, Any]) -> None:
    sft.join(flags.pop("server"), progress=_tell, **flags)


if __name__ == "__main__":
    sys.exit(main())
