"""LPIPS (squeeze): against a second implementation in float64, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rsupres.errors import CheckpointError, InputError
from rsupres.evaluation.perceptual.lpips import (
    ENVIRONMENT,
    FEATURES_FILE,
    HEADS_FILE,
    MIN_SIDE,
    LpipsSqueeze,
    load_lpips,
)
from tests.helpers import shared_data
from tests.pictures import write_random_weights


@pytest.fixture(scope="module")
def lpips() -> LpipsSqueeze:
    return LpipsSqueeze.load(shared_data("metrics"))


def images(n: int, side: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, side // 4, side // 4, generator=generator)
    return F.interpolate(coarse, size=(side, side), mode="bilinear") * 2 - 1


def functional_lpips(image: Tensor, other: Tensor) -> Tensor:
    """The definition once more, functional and in float64, from the files."""
    from safetensors.torch import load_file

    features, heads_file = (
        shared_data("metrics", name) for name in (FEATURES_FILE, HEADS_FILE)
    )
    weights = {k: v.double() for k, v in load_file(features).items()}
    heads = torch.load(heads_file, map_location="cpu", weights_only=True)

    def conv(x: Tensor, name: str, **options: int) -> Tensor:
        name = f"features.{name}"
        return F.conv2d(
            x, weights[f"{name}.weight"], weights[f"{name}.bias"], **options
        )

    def taps(x: Tensor) -> list[Tensor]:
        mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(1, 3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(1, 3, 1, 1)
        x = F.relu(conv((x.double() / 2 + 0.5 - mean) / std, "0", stride=2))
        found = [x]
        for block in ((3, 4), (6, 7), (9, 10, 11, 12)):
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            for layer in block:
                x = F.relu(conv(x, f"{layer}.squeeze"))
                one = F.relu(conv(x, f"{layer}.expand1x1"))
                three = F.relu(conv(x, f"{layer}.expand3x3", padding=1))
                x = torch.cat([one, three], 1)
                if layer not in (3, 6):
                    found.append(x)
        return found

    total = torch.zeros(len(image), dtype=torch.float64)
    for i, (a, b) in enumerate(zip(taps(image), taps(other), strict=True)):
        a, b = F.normalize(a, eps=1e-10), F.normalize(b, eps=1e-10)
        head = heads[f"lin{i}.model.1.weight"].double()
        total += F.conv2d((a - b) ** 2, head).mean((1, 2, 3))
    return total


@pytest.mark.parametrize("side", [17, 64, 99])
def test_distance_equals_the_definition_in_float64(
    lpips: LpipsSqueeze, side: int
) -> None:
    a, b = images(2, side), images(2, side, seed=1)
    # float32 against float64
    torch.testing.assert_close(
        lpips(a, b).double(), functional_lpips(a, b), atol=1e-6, rtol=1e-5
    )


def test_distance_is_zero_for_equal_images_and_symmetric(lpips: LpipsSqueeze) -> None:
    a, b = images(2, 48), images(2, 48, seed=1)
    assert lpips(a, a).abs().max() == 0
    torch.testing.assert_close(lpips(a, b), lpips(b, a))
    assert lpips(a, b).min() > 0.05


def test_distance_grows_with_blur(lpips: LpipsSqueeze) -> None:
    a = images(1, 64)
    blurred = [F.avg_pool2d(a, k, 1, k // 2, count_include_pad=False) for k in (3, 7)]
    assert 0 < float(lpips(a, blurred[0])) < float(lpips(a, blurred[1]))


def test_distance_of_a_batch_is_that_of_its_images(lpips: LpipsSqueeze) -> None:
    a, b = images(3, 40), images(3, 40, seed=1)
    single = torch.cat([lpips(a[i : i + 1], b[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(lpips(a, b), single, atol=1e-6, rtol=1e-5)


def test_gradient_reaches_the_image_and_is_finite(lpips: LpipsSqueeze) -> None:
    a = images(1, 40)
    a[:, :, :20] = 0.0  # flat: some feature vectors are zero there
    a.requires_grad_()
    lpips(a, images(1, 40, seed=1)).sum().backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
    assert a.grad.abs().sum() > 0
    assert all(p.grad is None for p in lpips.parameters())


def test_gradient_agrees_with_finite_differences(lpips: LpipsSqueeze) -> None:
    a, b = images(1, 32), images(1, 32, seed=1)
    a.requires_grad_()
    lpips(a, b).sum().backward()
    assert a.grad is not None
    slope = float(a.grad.norm())
    step = 0.02 * a.grad / slope  # steepest: rounding is small beside it
    with torch.no_grad():
        rise = lpips(a + step, b) - lpips(a - step, b)
    assert float(rise) / 0.04 == pytest.approx(slope, rel=0.02)


def test_autocast_changes_the_distance_little(lpips: LpipsSqueeze) -> None:
    a, b = images(2, 64), images(2, 64, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = lpips(a, b)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, lpips(a, b), rtol=0.03, atol=0.0)


def test_constant_images_give_a_finite_gradient(tmp_path: Path) -> None:
    write_random_weights(tmp_path)
    lpips = LpipsSqueeze.load(tmp_path)
    for p in lpips.backbone.parameters():
        p.data.zero_()  # every feature vector is zero
    a = torch.zeros(1, 3, 32, 32, requires_grad=True)
    lpips(a, torch.ones(1, 3, 32, 32)).sum().backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((1, 3, 32, 32), (1, 3, 32, 31)),
        ((1, 1, 32, 32), (1, 1, 32, 32)),
        ((3, 32, 32), (3, 32, 32)),
        ((1, 3, MIN_SIDE - 1, 32), (1, 3, MIN_SIDE - 1, 32)),
    ],
)
def test_wrong_shapes_are_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(InputError):
        LpipsSqueeze()(torch.zeros(a), torch.zeros(b))


def test_smallest_side_works() -> None:
    side = torch.zeros(1, 3, MIN_SIDE, MIN_SIDE)
    assert LpipsSqueeze()(side, side).shape == (1,)


def test_missing_damaged_and_foreign_files_are_checkpoint_errors(
    tmp_path: Path,
) -> None:
    with pytest.raises(CheckpointError, match="missing"):
        LpipsSqueeze.load(tmp_path)
    write_random_weights(tmp_path)
    LpipsSqueeze.load(tmp_path)
    (tmp_path / HEADS_FILE).write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="weights-only"):
        LpipsSqueeze.load(tmp_path)
    torch.save({"lin0.model.1.weight": torch.zeros(1, 9, 1, 1)}, tmp_path / HEADS_FILE)
    with pytest.raises(CheckpointError, match="other layers"):
        LpipsSqueeze.load(tmp_path)
    (tmp_path / FEATURES_FILE).write_bytes(b"\x00" * 40)
    with pytest.raises(CheckpointError, match="safetensors"):
        LpipsSqueeze.load(tmp_path)


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    write_random_weights(tmp_path)
    torch.save({"0": Path("/")}, tmp_path / HEADS_FILE)
    with pytest.raises(CheckpointError, match="weights-only"):
        LpipsSqueeze.load(tmp_path)


def first_weights(module: LpipsSqueeze) -> Tensor:
    return next(module.backbone.parameters())


def test_weights_are_those_named_then_those_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "named", tmp_path / "other"]
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        folder.mkdir()
        write_random_weights(folder)
    named, other = (first_weights(LpipsSqueeze.load(folder)) for folder in folders)
    assert not torch.equal(named, other)
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert load_lpips(None, "cpu") is None
    monkeypatch.setenv(ENVIRONMENT, str(folders[1]))
    for folder, expected in ((folders[0], named), (None, other)):
        module = load_lpips(folder, "cpu")
        assert module is not None
        assert torch.equal(first_weights(module), expected)


def test_a_named_folder_without_weights_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "absent"))
    with pytest.raises(CheckpointError, match=ENVIRONMENT) as caught:
        load_lpips(None, "cpu")
    assert caught.value.remedies == ("lpips_weights",)
