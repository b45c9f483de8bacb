"""Figures that the papers of the families report, to stand beside ours.

Xu et al., E2DiffSR, tables I and II; Dong et al., SGDM, table of the synthetic test;
Dong et al., Ref-Diff, tables of SECOND and CNAM-CD; SlimDiffSR, the ablation of its
teachers, and the student's LPIPS read from the chart of speed, both on DIOR. Its other
charts hold no numbers. Names of figures are those of
`rsupres.evaluation.report.COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Mapping

Published = Mapping[str, Mapping[str, float]]  # method -> figure -> value

_E2DIFFSR_METHODS = ("bicubic", "SADN", "SPSR", "E2DiffSR")
# data set -> scale -> (PSNR, LPIPS, FID) of the methods above, None = not reported
_E2DIFFSR: Mapping[str, Mapping[str, tuple[tuple[float, ...] | None, ...]]] = {
    "AID": {
        "2": (
            (32.498, 0.199, 15.73),
            (35.585, 0.115, 4.35),
            (32.602, 0.044, 5.04),
            (32.912, 0.053, 5.74),
        ),
        "4": (
            (27.430, 0.494, 59.63),
            (29.583, 0.319, 39.84),
            (25.948, 0.185, 20.94),
            (27.186, 0.174, 18.37),
        ),
        "8": (
            (24.502, 0.704, 115.67),
            (25.892, 0.513, 109.02),
            (21.002, 0.371, 52.62),
            (23.744, 0.353, 57.17),
        ),
    },
    "DOTA": {
        "2": ((35.983, 0.139, 23.18), None, None, (37.239, 0.039, 6.14)),
        "4": ((30.247, 0.399, 82.63), None, None, (30.717, 0.151, 33.75)),
        "8": ((26.783, 0.612, 147.56), None, None, (26.230, 0.355, 104.55)),
    },
    "DIOR": {
        "2": ((32.484, 0.192, 18.71), None, None, (32.768, 0.055, 10.02)),
        "4": ((26.948, 0.499, 65.41), None, None, (26.509, 0.212, 23.03)),
        "8": ((23.982, 0.720, 131.50), None, None, (23.039, 0.387, 67.31)),
    },
}
# scale -> (FID, LPIPS) of bicubic and E2DiffSR, of the fractional scales
_E2DIFFSR_FRACTIONAL: Mapping[str, Mapping[str, tuple[float, float, float, float]]] = {
    "AID": {
        "13/5": (28.68, 0.320, 6.92, 0.087),
        "3": (37.40, 0.378, 9.62, 0.113),
        "17/5": (46.23, 0.426, 13.57, 0.137),
        "6": (87.14, 0.634, 33.86, 0.257),
        "10": (138.99, 0.767, 82.31, 0.465),
    },
    "DOTA": {
        "13/5": (43.10, 0.238, 11.55, 0.069),
        "3": (56.37, 0.289, 18.73, 0.091),
        "17/5": (69.47, 0.335, 25.68, 0.114),
        "6": (114.33, 0.538, 61.93, 0.249),
        "10": (170.82, 0.672, 129.71, 0.460),
    },
    "DIOR": {
        "13/5": (29.71, 0.315, 13.81, 0.097),
        "3": (38.97, 0.375, 15.53, 0.131),
        "17/5": (49.75, 0.426, 17.67, 0.161),
        "6": (109.10, 0.650, 46.77, 0.300),
        "10": (150.50, 0.786, 94.75, 0.477),
    },
}
_REFDIFF: Mapping[tuple[str, str], Published] = {
    ("SECOND", "8"): {
        "Ref-Diff": {"lpips_alex": 0.2642, "fid": 32.60},
        "Ref-Diff, masks predicted": {"lpips_alex": 0.2657, "fid": 33.15},
        "LR alone": {"lpips_alex": 0.3115, "fid": 41.83},
    },
    ("SECOND", "16"): {
        "Ref-Diff": {"lpips_alex": 0.3433, "fid": 33.97},
        "Ref-Diff, masks predicted": {"lpips_alex": 0.3404, "fid": 35.05},
    },
    ("CNAM-CD", "8"): {
        "Ref-Diff": {"lpips_alex": 0.2791, "fid": 43.02},
        "Ref-Diff, masks predicted": {"lpips_alex": 0.3159, "fid": 48.33},
    },
    ("CNAM-CD", "16"): {
        "Ref-Diff": {"lpips_alex": 0.3519, "fid": 45.65},
        "Ref-Diff, masks predicted": {"lpips_alex": 0.3889, "fid": 56.79},
    },
}
_SGDM: Published = {
    "SGDM": {
        "psnr_y": 20.65,
        "ssim_y": 0.3338,
        "lpips_alex": 0.4344,
        "dists": 0.2356,
        "fid": 36.62,
    }
}
# On DIOR; the paper names no scale for these rows, and its first results are of x4.
_SLIMDIFFSR: Published = {
    "teacher, uncertainty": {"psnr_y": 23.70, "lpips_alex": 0.355},
    "teacher, plain": {"psnr_y": 23.64, "lpips_alex": 0.365},
    "student, from a chart": {"lpips_alex": 0.345},
}


def published(protocol: str, dataset: str, scale: str) -> Published:
    """Return the rows of a paper's table; empty where it has none.

    Args:
        protocol: name.
        dataset: such as "AID".
        scale: as text, such as "4" or "13/5".
    """
    if protocol == "refdiff":
        return _REFDIFF.get((dataset, scale), {})
    if protocol == "sgdm":
        return _SGDM if scale == "32" else {}
    if protocol == "slimdiffsr":
        return _SLIMDIFFSR if (dataset, scale) == ("DIOR", "4") else {}
    if protocol != "e2diffsr":
        return {}
    if whole := _E2DIFFSR.get(dataset, {}).get(scale):
        names = ("psnr", "lpips_alex", "fid")
        return {
            method: dict(zip(names, row, strict=True))
            for method, row in zip(_E2DIFFSR_METHODS, whole, strict=True)
            if row is not None
        }
    row = _E2DIFFSR_FRACTIONAL.get(dataset, {}).get(scale)
    if row is None:
        return {}
    return {
        "bicubic": {"fid": row[0], "lpips_alex": row[1]},
        "E2DiffSR": {"fid": row[2], "lpips_alex": row[3]},
    }
