"""Upscale a georeferenced scene and measure it against the truth.

Usage: python examples/scene.py SCENE OUT.tif [TRUTH]

Says first what the run would cost. A second call continues what was interrupted.
"""

from __future__ import annotations

import sys

import rsupres


def main(scene: str, out: str, truth: str | None = None) -> None:
    """Upscale `scene` into `out`; print the figures against `truth`."""
    plan = rsupres.plan(scene, out, scale=4)
    if plan.refusals:
        sys.exit("\n".join(map(str, plan.refusals)))
    print(f"{plan.model}: {plan.scene_size} pixels would become {plan.output_size}")

    summary = rsupres.upscale(
        scene, out, scale=4, seed=1, co={"COMPRESS": "DEFLATE"}, progress=True
    )
    print(f"consistency with the input: {summary.figures['consistency']:.4f}")

    if truth is not None:
        figures = rsupres.evaluate(out, truth, lr=scene).row.figures
        print(f"PSNR {figures['psnr']:.2f} dB, SSIM {figures['ssim']:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
