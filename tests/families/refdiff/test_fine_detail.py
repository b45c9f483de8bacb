"""Detail of Ref-Diff that the reference does not explain."""

from __future__ import annotations

import torch

from rsupres.families.refdiff.config import MINI
from rsupres.families.refdiff.fine_detail import (
    Allowance,
    find_allowance,
    keep_explained,
)
from rsupres.families.refdiff.images import make_frame
from tests.tiny_refdiff import SCALE, images

NOTHING = Allowance(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
DOT = (slice(None), slice(None), 40, 40)


def dotted() -> torch.Tensor:
    """Smooth ground with one dark dot."""
    ramp = torch.linspace(0, 1, 96).expand(1, 3, 96, 96).clone()
    ramp[DOT] -= 0.5
    return ramp


def test_a_dot_without_a_reference_is_smoothed_away() -> None:
    made = dotted()
    kept = keep_explained(made, torch.zeros_like(made), NOTHING, 1.0)
    clean = torch.linspace(0, 1, 96).expand(1, 3, 96, 96)
    inner = (slice(None), slice(None), slice(20, 76), slice(20, 76))
    assert (kept - clean)[DOT].abs().max() < 0.09
    assert torch.allclose(kept[inner], clean[inner], atol=0.09)


def test_detail_that_follows_the_reference_stays() -> None:
    _, reference = images()
    shown = reference - reference.mean()
    kept = keep_explained(0.4 * shown, shown, NOTHING, 1.0)
    assert torch.allclose(kept, 0.4 * shown, atol=2e-3)


def test_a_dot_among_detail_that_is_explained_goes_and_the_detail_stays() -> None:
    _, reference = images()
    shown = reference - reference.mean()
    made = 0.4 * shown
    made[DOT] -= 0.5
    kept = keep_explained(made, shown, NOTHING, 1.0)
    assert (kept - 0.4 * shown)[DOT].abs().max() < 0.1
    far = (..., slice(70, None), slice(70, None))
    assert torch.allclose(kept[far], 0.4 * shown[far], atol=2e-3)


def test_a_dot_keeps_the_size_that_the_scene_allows() -> None:
    made, none = dotted(), torch.zeros(1, 1, 1, 1)
    shown = torch.zeros_like(made)
    nothing = keep_explained(made, shown, NOTHING, 1.0)
    little = keep_explained(made, shown, Allowance(none + 0.02, none), 1.0)
    half = keep_explained(made, shown, Allowance(none, none + 0.5), 1.0)
    assert torch.allclose((nothing - little)[DOT], torch.tensor(0.02), atol=1e-6)
    assert torch.allclose((nothing - half)[DOT], (half - made)[DOT], atol=1e-6)


def test_flat_scenes_allow_less_and_confirmed_references_more() -> None:
    lr, _ = images()
    share = torch.zeros(1, 1, 128, 128)
    share[..., 64:] = 1.0
    allowed = find_allowance(lr, share, SCALE, 0.1)
    darker = find_allowance(0.1 * lr, share, SCALE, 0.1)
    assert torch.allclose(darker.small, 0.1 * allowed.small, atol=1e-6)
    assert float(allowed.part[..., :64].max()) == 0.0  # without a reference
    assert float(allowed.part[..., 64:].max()) <= 1.0
    assert bool((darker.part[..., 64:] < 0.5 * allowed.part[..., 64:]).all())
    flat = find_allowance(torch.ones(1, 3, 16, 16), share, SCALE, 0.1)
    assert float(flat.small.max()) < 1e-6


def test_where_a_change_is_told_the_reference_explains_nothing() -> None:
    lr, reference = images()
    mask = torch.zeros(1, 1, 128, 128, dtype=torch.uint8)
    mask[..., 20:100, 20:100] = 3
    frame = make_frame(lr, reference, None, mask, SCALE, MINI)
    assert frame.base is not None
    made = torch.zeros(1, 3, 128, 128)
    made[..., 60, 60] = 6.0
    added = frame.picture(made) - frame.base
    assert float(added[0, 0, 60, 60]) < 0.3  # of 1.0
