"""The reference trainer: split fine-tuning of a transformer on simulated devices."""

import functools
import importlib
import importlib.util
import json
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sft import _sft
from sft._predict import Scheme
from sft._run import Generated, Interrupted, Round, Run, round_of, shown

Arrays = tuple[npt.NDArray[Any], npt.ArrayLike]

_TRANSFORM = "transform"
_ADAPTER = _sft.Codec.default_adapter()
_FEATURES = _sft.Codec.default_features()


def finetune(
    *,
    model: str | os.PathLike[str],
    data: str | Arrays,
    test: Arrays | str | None = None,
    prompt: str | None = None,
    max_tokens: int | None = None,
    pack: bool = False,
    generate: int = 0,
    max_new_tokens: int = 64,
    pooling: Literal["first", "last", "mean"] | None = None,
    class_words: Sequence[str] | None = None,
    devices: int = 8,
    scheme: Scheme = "sft",
    cut: int = 2,
    device_cuts: Sequence[int] | None = None,
    activation: _sft.Codec | str | None = _TRANSFORM,
    gradient: _sft.Codec | str | None = _TRANSFORM,
    labels: Literal["server", "device"] = "server",
    features: _sft.Codec | str | None = _FEATURES,
    sample_memory_mb: int = 64,
    error_feedback: bool = False,
    adapter_codec: _sft.Codec | str | None = _ADAPTER,
    rounds: int = 8,
    local_epochs: int = 1,
    batch: int = 16,
    rank: int = 8,
    device_ranks: Sequence[int] | None = None,
    aggregation: Literal["average", "product"] = "average",
    alpha: float | None = None,
    targets: str | Sequence[str] = "all-linear",
    lora_dropout: float = 0.0,
    device_adapters: Literal["lora", "none"] = "lora",
    optimizer: Literal["adamw", "sgd"] = "adamw",
    momentum: float = 0.9,
    weight_decay: float | None = None,
    clip_norm: float | None = None,
    lr: float = 3e-3,
    lr_server: float | None = None,
    schedule: Literal["exponential", "constant", "cosine"] = "exponential",
    lr_decay: float = 0.998,
    warmup_rounds: float = 0.0,
    participation: float = 1.0,
    deadline_s: float | None = None,
    target_accuracy: float | None = None,
    evaluate_through_cut: bool = False,
    partition: str = "iid",
    bandwidth_hz: float = 30e6,
    snr_db: float = 17.0,
    fading: Literal["rayleigh", "none"] = "rayleigh",
    heads: int | None = None,
    full: int = 255,
    augment: bool = False,
    adapters: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    merged: bool = False,
    peft_names: Literal["transformers5", "transformers4"] = "transformers5",
    seed: int = 1,
    threads: int | None = None,
    backend: Literal["cpu", "cuda", "metal"] = "cpu",
    gradient_checkpointing: bool = False,
    progress: bool | Callable[[Round], object] | None = None,
) -> Run:
    """Fine-tune a vision transformer or a language model by the Rust trainer, on simulated devices.

    Ctrl-C ends training within a mini-batch and raises `Interrupted`, a
    KeyboardInterrupt whose `run` holds the finished rounds; `out` is written then too,
    with a checkpoint to go on from. The same arguments give the same rounds on any number
    of threads, also if the run stopped in between.

    Parameters
    ----------
    model : path
        A ViT as safetensors, with Hugging Face's or timm's names; ``config.json`` and
        ``preprocessor_config.json`` beside it are read: uint8 images and files are resized, cut
        and normalised as they say. Or a text model: a GGUF file, or a Hugging Face folder with
        its tokenizer.
    data : (images, labels) or str
        Training images, uint8 [n, h, h, c] (or [n, h, h] of one channel), resized and
        normalised for the model, or float32 [n, side, side, c] exactly as the model takes
        them; labels are integers [n] from 0. Or ``'cifar100:DIR'``,
        ``'tiny-imagenet:DIR'`` or ``'folder:DIR'`` (``train/CLASS/*`` and
        ``test/CLASS/*``). Of texts ``'classify:FILE'``: ``.tsv`` with lines of a label, a tab and
        the text, or ``.csv`` or ``.jsonl`` with ``label`` and ``text``. To tell the next tokens by a
        language model ``'text:PATH'``, a file or a folder of ``.txt``: each line is a sample, ended by
        the end of a text; or ``'chat:FILE'``, ``.jsonl`` with ``messages`` (of ``role`` and
        ``content``) or with ``prompt`` and ``completion``: what the assistant says counts, by the
        tokenizer's chat template, without one the completion behind the prompt as it is.
    test : (images, labels) or str, optional
        Test images, as and where `data` gives arrays; or texts of the same kind beside training
        texts, such as ``'classify:FILE'``.
    prompt : str, optional
        What every text is put into, in place of ``{text}``. Only with ``'classify:FILE'``.
    max_tokens : int, optional
        The most tokens of a text, those that the model has at its ends among them: of a longer one
        the end is kept where the head reads the last token, else the start. By default 512, or what
        the model takes.
    pack : bool, default False
        Whether each file of ``'text:PATH'`` is one text, line breaks and all, that is cut into samples
        of `max_tokens`.
    generate : int, default 0
        So many test samples from whose beginning the tuned model goes on, a line of text from its
        first half: `Run.generated`. Only where next tokens are told.
    max_new_tokens : int, default 64
        The most tokens that it adds to each.
    pooling : {'first', 'last', 'mean'}, optional
        Which tokens the head of a text model reads: by default the last of a decoder, else the
        first, behind the pooler of the family's classifiers. Only what is read by default has a
        class in transformers, and the same logits there. Only with ``'classify:FILE'``.
    class_words : sequence of str, optional
        Words, one for each class in order, whose rows in the language model's head the new head
        starts from. Only with ``'classify:FILE'``.
    devices : int, default 8
        Number of devices.
    scheme : {'sft', 'sft-raw', 'sl', 'fl-lora', 'fl-full'}, default 'sft'
        Who does what, see `predict`.
    cut : int, default 2
        Cut layer: blocks on the device.
    device_cuts : sequence of int, [devices], optional
        A cut layer for each device in place of `cut`.
    activation, gradient : Codec, str or None
        What crosses the cut with 'sft', as a codec or as text such as 'dead-zone:1.25' or
        'transform:0.3': by a basis that the server learns from 16 samples and gives to the devices,
        with a step relative to the root mean square (of the activations that it was learnt from, or
        of each gradient) times the root of the image's tokens. By default 'transform' with the
        steps of the kind of model: 0.3 and 1.5 for images, 0.3 and 2 for encoders of texts, 0.6
        and 2 for decoders. None sends it uncompressed.
    labels : {'server', 'device'}, default 'server'
        Where the labels are in schemes that split the model. With 'device', the U-shape, no label
        leaves a device: head and loss are there, the features that the head reads come down and
        their gradient goes up. The server, which averages the heads, could still work labels out.
        Not for 'fl-lora' and 'fl-full'.
    features : Codec, str or None
        How features and their gradients cross with ``labels='device'`` and 'sft', by any codec but
        'transform:STEP': by default `Codec.default_features`; None sends them uncompressed.
    sample_memory_mb : int, default 64
        Megabytes in which a device, and the server for it, remember what samples were when they
        last crossed by 'transform:STEP'; 0 for none. Of images changed by
        ``augment`` each view is remembered by itself, which pays only where views are few, as of
        small images.
    rounds, local_epochs, batch : int, default 8, 1 and 16
        Rounds, passes over the local data in each, samples of a mini-batch.
    error_feedback : bool, default False
        Whether to add to every tensor of the cut what was dropped of the one before.
    adapter_codec : Codec, str or None
        How adapters cross with 'sft', both ways, as differences to what the device holds: by
        default `Codec.default_adapter`. What a codec drops of an update comes with the next one;
        the first time all are sent, to within 0.3 % of their size. None sends adapters whole and
        bit for bit.
    device_ranks : sequence of int, [devices], optional
        A rank for the adapters of each device in place of `rank`, all with the scale ``alpha / rank``
        of the largest, which is that of the result. Each device starts a round from what is nearest
        to that at its own rank. Needs ``aggregation="product"``.
    aggregation : {'average', 'product'}, default 'average'
        What the server makes of the devices' adapters: the averages of ``A`` and of ``B``, as the
        paper, or the average of the products ``B @ A``, the nearest of the largest rank.
    rank, alpha, targets, lora_dropout
        Of the adapters: by default rank 8, alpha equal to the rank, every linear layer of the
        blocks ('all-linear'), no dropout. Targets are PEFT's names of target modules, of a ViT
        some of 'q_proj', 'k_proj', 'v_proj', 'o_proj', 'fc1', 'fc2', 'projection' (the patch
        embedding) and 'classifier': with it the head is frozen under an adapter, else trained
        in full.
    device_adapters : {'lora', 'none'}, default 'lora'
        What devices train where the model is split. With 'none' a device runs its half forward
        alone: nothing comes down but the basis of activations, no adapters cross, and adapters
        are on the blocks behind the deepest cut; `gradient`, `adapter_codec` and `lr` (but as
        the default of `lr_server`) then have no effect. With ``labels='device'`` the head still
        is trained there, and it and its features cross. Not for 'fl-lora' and 'fl-full'.
    optimizer : {'adamw', 'sgd'}, default 'adamw'
        With `momentum` for 'sgd', `weight_decay` (0.01 and 0 by default), and gradients
        clipped to `clip_norm`.
    lr, lr_server : float, default 3e-3
        Peak rates of devices and server.
    schedule : {'exponential', 'constant', 'cosine'}, default 'exponential'
        How rates fall, by `lr_decay` a round or along a cosine, after `warmup_rounds`.
    participation : float, default 1
        Fraction of the devices in a round.
    deadline_s : float, optional
        Seconds by the clock that a device has for its round; who is late is left out of the
        round. What comes of a run then depends on the machine. By default the server waits.
    target_accuracy : float, optional
        Stop after the first round that reaches it; not where next tokens are told.
    evaluate_through_cut : bool, default False
        Whether to measure accuracy, of language models perplexity too, also of the model as it is
        split, with what crosses the cut compressed as in training. Not for 'fl-lora' and 'fl-full'.
    partition : str, default 'iid'
        'iid', 'dirichlet:CONCENTRATION' or 'shards:NUMBER': by class, of plain text by file.
    bandwidth_hz, snr_db, fading
        The modelled channel: 30 MHz at 17 dB with 'rayleigh' fading, or 'none'.
    heads : int, optional
        Attention heads, where no configuration tells them.
    full : int, default 255
        The value of a uint8 pixel at full intensity.
    augment : bool, default False
        Whether training images are cropped and flipped at random.
    adapters : path, optional
        A PEFT folder to start from.
    out : path, optional
        A folder for ``run.json`` and, in ``adapters``, what PEFT's ``from_pretrained``
        reads (in ``merged`` the whole model with 'fl-full'); that of `resume` without it. A
        folder that holds a run of other arguments, of other data or of another model is refused;
        where these lie does not matter.
    checkpoint_every : int, optional
        Keep a checkpoint in `out` after every so many rounds, and after the last.
    resume : path, optional
        Go on from the checkpoint in this folder, with the arguments it was made with; more
        `rounds` are welcome unless the schedule is 'cosine'.
    merged : bool, default False
        Whether the whole tuned model, adapters merged, goes to ``merged`` as well, as
        transformers reads it; refused for a text model with another than the default `pooling`.
    peft_names : {'transformers5', 'transformers4'}, default 'transformers5'
        The version of transformers whose names of modules ``adapters`` has.
    seed : int, default 1
        Of everything random.
    threads : int, optional
        Threads; without it as many as this process may use cores.
    backend : {'cpu', 'cuda', 'metal'}, default 'cpu'
        Where the model runs; other than 'cpu' needs a build with the feature of that name.
    gradient_checkpointing : bool, default False
        Whether blocks keep only their input for the backward pass and compute the rest
        again there: less memory for more time, the same results.
    progress : bool or callable, optional
        A bar by tqdm (``pip install sft[progress]``): where that is installed (None), or
        always (True); nothing (False); or what is called with every finished `Round`.

    Returns
    -------
    Run

    Raises
    ------
    Interrupted
        On Ctrl-C.
    ValueError, TypeError
        If an argument is out of its range or of another type.
    OSError
        If a file cannot be read or written, or is not what it should be; FileNotFoundError
        if there is none.
    RuntimeError
        If training diverges.

    Examples
    --------
    >>> import sft
    >>> sft.finetune(model="no.safetensors", data="folder:images")
    Traceback (most recent call last):
        ...
    FileNotFoundError: [Errno 2] model: No such file or directory: 'no.safetensors'

    """
    return carry_out(dict(locals()), _sft._finetune)


def carry_out(settings: dict[str, Any], train: Callable[..., Any]) -> Run:
    """Check the arguments of `finetune`, train by what they are given to, and keep the run."""
    config = dict(settings)
    watch, full = _Watch(config.pop("progress")), config.pop("full")
    data, test, targets, scheme = (config[name] for name in ("data", "test", "targets", "scheme"))
    config["targets"] = targets if isinstance(targets, str) else ",".join(targets)
    for name in ("activation", "gradient", "features", "adapter_codec"):
        config[name] = "raw" if config[name] is None else config[name]
    config["data"], arrays = _data(data, test, full)
    config["test"] = test if isinstance(test, str) else None
    _check_files(config["model"], data, test, scheme, config["adapters"], config["resume"])
    without_spinning()
    try:
        answer = train(config, arrays, full, watch)
    finally:
        watch.close()
    decided, contents, records, memory, generated, failure = answer
    run = Run(
        scheme=scheme,
        rounds=tuple(round_of(json.loads(record)) for record in records),
        device_memory_bytes=memory,
        settings=json.loads(decided),
        contents=json.loads(contents),
        generated=tuple(Generated(**each) for each in json.loads(generated)),
    )
    folder = config["resume"] if config["out"] is None else config["out"]
    if folder is not None and run.rounds:
        run.save(Path(folder, "run.json"))
    if isinstance(failure, KeyboardInterrupt):
        raise Interrupted(run) from failure
    if failure is not None:
        raise failure
    return run


@functools.cache
def without_spinning() -> None:
    """Have candle start no threads of its own, which would wait by spinning.

    It reads the variable once, when its pool is made, and nothing else in the process shares that
    pool: the variable is there no longer than that.
    """
    name = "CANDLE_NUM_THREADS"
    if name in os.environ:
        return
    os.environ[name] = "1"
    try:
        _sft._start_candle()
    finally:
        del os.environ[name]


def _check_files(
    model: str | os.PathLike[str],
    data: str | Arrays,
    test: str | Arrays | None,
    scheme: Scheme,
    adapters: str | os.PathLike[str] | None,
    resume: str | os.PathLike[str] | None,
) -> None:
    """See that all that is to be read is there."""
    files: dict[str, str | os.PathLike[str]] = {"model": model}
    if adapters is not None:
        files["adapters"] = adapters
    for name, named in (("data", data), ("test", test)):
        kind, _, path = named.partition(":") if isinstance(named, str) else ("arrays", "", "")
        if kind in ("cifar100", "tiny-imagenet", "folder", "classify", "text", "chat"):
            files[name] = path
    if resume is not None:
        files["resume"] = Path(resume, f"checkpoint-{scheme}.safetensors")
    for name, file in files.items():
        try:
            os.stat(file)
        except OSError as error:
            raise type(error)(error.errno, f"{name}: {error.strerror}", os.fspath(file)) from None


def _data(data: str | Arrays, test: str | Arrays | None, full: int) -> tuple[str, Any]:
    """Return what names the data, and the arrays of training and test where it is arrays."""
    if not 0 <= full <= 255:
        msg = f"full must be in 0..=255, got {full}"
        raise ValueError(msg)
    if isinstance(data, str):
        if not (test is None or isinstance(test, str)):
            raise ValueError("test must not be arrays where data names a folder or a file")
        return data, None
    if test is None or isinstance(test, str):
        msg = f"test must be arrays where data is, got {test}"
        raise ValueError(msg)
    arrays = labelled("data", data), labelled("test", test)
    parts = [part for images, labels in arrays for part in (images, np.asarray(labels))]
    sums = ", ".join(f"{zlib.crc32(part.data):08x}" for part in parts)
    return f"arrays up to {full} with the checksums {sums}", arrays


def labelled(name: str, data: Arrays) -> tuple[Any, Any]:
    """Return images [n, c, h, h] and labels."""
    try:
        images, labels = (np.asarray(part) for part in data)
    except (TypeError, ValueError):
        msg = f"{name} must be (images, labels) or a str, got {type(data).__name__}"
        raise TypeError(msg) from None
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[1] != images.shape[2]:
        msg = f"{name} must have images [n, h, h, c], got shape {list(images.shape)}"
        raise ValueError(msg)
    if 0 in images.shape:
        msg = f"{name} must have images [n, h, h, c] of no size 0, got shape {list(images.shape)}"
        raise ValueError(msg)
    if images.dtype not in (np.uint8, np.float32):
        msg = f"{name} must have images of uint8 or float32, got {images.dtype}"
        raise TypeError(msg)
    accepted = f"one label in 0..2**32 for each of {len(images)} images, as integers"
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        msg = f"{name} must have {accepted}, got {labels.dtype} of shape {list(labels.shape)}"
        raise ValueError(msg)
    outside = np.flatnonzero((labels < 0) | (labels >= 2**32))
    if len(outside):
        msg = f"{name} must have {accepted}, got {labels[outside[0]]} for image {outside[0]}"
        raise ValueError(msg)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels.tolist()


class _Watch:
    """Shows progress, if asked to."""

    def __init__(self, progress: bool | Callable[[Round], object] | None) -> None:
        self._told = progress if callable(progress) else None
        self._bar: Any = None
        found = importlib.util.find_spec("tqdm") is not None
        if progress is True and not found:
            message = "progress=True needs tqdm: pip install 'sft[progress]'"
            raise ModuleNotFoundError(message, name="tqdm")
        self._shown = found and (progress is None or progress is True)

    def __call__(self, done: int, total: int, records: Sequence[str]) -> None:
        rounds = [round_of(json.loads(record)) for record in records]
        if self._told is not None:
            for r in rounds:
                self._told(r)
        if not self._shown:
            return
        if self._bar is None:
            self._bar = importlib.import_module("tqdm.auto").tqdm(total=total, unit="batch")
        for r in rounds:
            self._bar.set_postfix_str(f"round {r.round}: {shown(r)}", refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
