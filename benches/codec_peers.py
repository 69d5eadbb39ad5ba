"""Top-K and quantization in NumPy and PyTorch on one file; called by codec_peers.rs.

Arguments: FILE.npy keep levels. Prints rows `name, bytes, relative MSE, encode s, decode s`
separated by tabs. Needs numpy and torch.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import sys
import time

import numpy as np
import torch

torch.set_num_threads(1)
file, keep, levels = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
x = np.load(file).astype(np.float32)
kept = max(1, round(keep * x.size))
rng = np.random.default_rng(1)


def top_k_numpy(flat):
    """Positions of the largest magnitudes, ascending."""
    return np.sort(np.argpartition(np.abs(flat), flat.size - kept)[flat.size - kept :])


def encode_mask():
    """Bit mask, and sign and level of each kept element in four bits: the paper's symbols."""
    flat = x.reshape(-1)
    positions = top_k_numpy(flat)
    mask = np.zeros(flat.size, dtype=bool)
    mask[positions] = True
    values = flat[positions]
    magnitudes = np.abs(values)
    low, high = magnitudes.min(), magnitudes.max()
    scaled = (magnitudes - low) * ((levels - 1) / max(high - low, 1e-30))
    level = np.minimum(scaled + rng.random(kept, dtype=np.float32), levels - 1).astype(np.uint8)
    nibbles = level | (values < 0).astype(np.uint8) << 3
    nibbles = np.append(nibbles, np.zeros(kept % 2, dtype=np.uint8))
    return np.packbits(mask), nibbles[::2] | nibbles[1::2] << 4, np.array([low, high])


def decode_mask(coded):
    """Inverse of encode_mask."""
    mask, pairs, (low, high) = coded
    nibbles = np.stack([pairs & 15, pairs >> 4], axis=1).reshape(-1)[:kept]
    values = low + (nibbles & 7) * np.float32((high - low) / (levels - 1))
    out = np.zeros(x.size, dtype=np.float32)
    out[np.unpackbits(mask, count=x.size).view(bool)] = np.where(nibbles & 8, -values, values)
    return out


def encode_int8_numpy():
    """Index of 32 bits and eight bits of value for each kept element."""
    flat = x.reshape(-1)
    positions = top_k_numpy(flat)
    values = flat[positions]
    scale = np.abs(values).max() / 127
    return positions.astype(np.int32), np.round(values / scale).astype(np.int8), np.array([scale])


def decode_int8_numpy(coded):
    """Inverse of encode_int8_numpy."""
    positions, values, scale = coded
    out = np.zeros(x.size, dtype=np.float32)
    out[positions] = values * np.float32(scale[0])
    return out


tensor = torch.from_numpy(x).reshape(-1)


def encode_int8_torch():
    """As encode_int8_numpy, selected by torch.topk."""
    positions = torch.topk(tensor.abs(), kept, sorted=False).indices
    values = tensor[positions]
    scale = values.abs().max() / 127
    return positions.to(torch.int32), torch.round(values / scale).to(torch.int8), scale.reshape(1)


def decode_int8_torch(coded):
    """Inverse of encode_int8_torch."""
    positions, values, scale = coded
    out = torch.zeros(tensor.numel())
    out[positions.long()] = values * scale
    return out.numpy()


def median(run):
    """Result and median time of five runs after one to warm up."""
    times = []
    for _ in range(6):
        start = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - start)
    return result, sorted(times[1:])[2]


def row(name, encode, decode):
    """Print one row."""
    coded, encode_s = median(encode)
    out, decode_s = median(lambda: decode(coded))
    size = sum(part.nbytes for part in coded)
    flat = x.reshape(-1).astype(np.float64)
    error = ((flat - out) ** 2).sum() / (flat**2).sum()
    print(name, size, error, encode_s, decode_s, sep="\t", flush=True)


numpy, pytorch = f"numpy {np.__version__}", f"torch {torch.__version__.split('+')[0]}"
if levels <= 8:
    row(f"{numpy} argpartition, mask + 4 bits", encode_mask, decode_mask)
row(f"{numpy} argpartition, int8 + index", encode_int8_numpy, decode_int8_numpy)
row(f"{pytorch} topk, int8 + index", encode_int8_torch, decode_int8_torch)
