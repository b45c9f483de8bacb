"""Checkpoints and cards: round trips, and everything that must be refused."""

from __future__ import annotations

import pickle
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from rsupres.checkpoints.catalogue import (
    Card,
    card_text,
    default_model,
    list_cards,
    load_model,
    read_card,
    user_models,
)
from rsupres.checkpoints.file import (
    read_checkpoint,
    spec_from_json,
    spec_to_json,
    write_checkpoint,
)
from rsupres.errors import CheckpointError
from rsupres.families.base import FixedScales, ModelSpec, SamplerOptions, ScaleRange
from rsupres.families.storage import fit_tensors
from rsupres.raster.files import file_sha256
from tests.strategies import LETTERS

CPU = torch.device("cpu")
SPEC = ModelSpec("e2diffsr", ScaleRange(Fraction(1), Fraction(8), Fraction(4)))

words = st.text(LETTERS, max_size=5)
fractions = st.fractions(Fraction(1), Fraction(16), max_denominator=12)
specs = st.builds(
    ModelSpec,
    family=st.sampled_from(["e2diffsr", "bicubic"]),
    scales=st.one_of(
        st.frozensets(fractions, min_size=1).map(FixedScales),
        st.builds(ScaleRange, fractions, fractions, fractions),
    ),
    bands=st.lists(words).map(tuple),
    needs=st.frozensets(words),
    accepts=st.frozensets(words),
    tile_size=st.integers(1, 4096),
    multiple=st.integers(1, 64),
    halo=st.integers(0, 64),
    gsd=st.none() | st.tuples(st.floats(0.1, 1), st.floats(1, 100)),
    detail=st.booleans(),
    stochastic=st.booleans(),
    steps=st.none() | st.integers(1, 1000),
)


@given(specs)
def test_specs_survive_json(spec: ModelSpec) -> None:
    assert spec_from_json(spec_to_json(spec)) == spec


def _write(path: Path, value: float = 1.0) -> str:
    return write_checkpoint(
        path, {"w": torch.full((2, 3), value)}, SPEC, {"width": 3}, "a test"
    )


def _card(folder: Path, name: str, sha256: str, extra: str = "") -> None:
    (folder / f"{name}.toml").write_text(
        f'name = "{name}"\nfile = "{name}.safetensors"\nsha256 = "{sha256}"\n'
        f'licence = "Apache-2.0"\n{extra}\n[spec]\nfamily = "e2diffsr"\n'
        'bands = ["red", "green", "blue"]\nneeds = []\naccepts = []\ntile_size = 64\n'
        "multiple = 1\nhalo = 8\ngsd = [8.0, 20.0]\ndetail = false\nstochastic = true\n"
        'steps = 4\n[spec.scales]\nlow = "1"\nhigh = "8"\ntrained = "4"\n'
    )


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(
        "rsupres.checkpoints.catalogue.catalogue_folders", lambda: [tmp_path]
    )
    return tmp_path


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, gsd=(0.5, 2.0), steps=4)])
def test_a_card_made_from_a_checkpoint_is_read_back(
    catalogue: Path, spec: ModelSpec
) -> None:
    (catalogue / "m.toml").write_text(card_text("m", "m.safetensors", "ab", spec))
    card = list_cards()[1]
    assert card.spec == spec
    assert (card.name, card.sha256) == ("m", "ab")
    assert card.file == catalogue / "m.safetensors"


def test_a_checkpoint_comes_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    sha256 = _write(path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.spec == SPEC
    assert checkpoint.architecture == {"width": 3}
    torch.testing.assert_close(checkpoint.tensors["w"], torch.ones(2, 3))
    assert sha256 == file_sha256(path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_pickle_is_refused_without_being_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "boom",)  # type: ignore[return-value]

    path = tmp_path / "m.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="can run code"):
        load_model(str(path), CPU, SamplerOptions())
    torch.save({"w": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="models import"):
        load_model(str(path), CPU, SamplerOptions())
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("keep", [0, 4, 40, 300])
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "m.safetensors"
    _write(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"m\.safetensors"):
        load_model(str(path), CPU, SamplerOptions())


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"w": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="models import"):
        read_card(str(path))


def test_another_family_and_another_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    spec = ModelSpec("nosuchfamily", FixedScales(frozenset({Fraction(2)})))
    write_checkpoint(path, {"w": torch.ones(1)}, spec, {}, "a test")
    with pytest.raises(CheckpointError, match="nosuchfamily"):
        load_model(str(path), CPU, SamplerOptions())
    save_file({"w": torch.ones(1)}, path, {"rsupres": '{"format": 99}'})
    with pytest.raises(CheckpointError, match="format 99"):
        read_checkpoint(path)


def test_tensors_must_fit_by_name_and_shape() -> None:
    tensors = {"a": torch.ones(2), "b": torch.ones(3)}
    fit_tensors(tensors, {"a": (2,), "b": (3,)}, Path("x"))
    with pytest.raises(CheckpointError, match=r"1 tensors missing \(c\)"):
        fit_tensors(tensors, {"a": (2,), "b": (3,), "c": (1,)}, Path("x"))
    with pytest.raises(CheckpointError, match=r"1 surplus \(b\)"):
        fit_tensors(tensors, {"a": (2,)}, Path("x"))
    with pytest.raises(CheckpointError, match=r"'b' has shape \(3,\)"):
        fit_tensors(tensors, {"a": (2,), "b": (4,)}, Path("x"))


def test_a_changed_file_does_not_pass_for_the_carded_one(catalogue: Path) -> None:
    sha256 = _write(catalogue / "tiny.safetensors")
    _card(catalogue, "tiny", sha256)
    _write(catalogue / "tiny.safetensors", value=2.0)
    with pytest.raises(CheckpointError, match="sha256"):
        load_model("tiny", CPU, SamplerOptions())


def test_an_unknown_name_is_answered_with_near_ones(catalogue: Path) -> None:
    _card(catalogue, "e2diffsr-small", _write(catalogue / "e2diffsr-small.safetensors"))
    with pytest.raises(CheckpointError, match="did you mean e2diffsr-small"):
        read_card("e2difsr-smal")
    with pytest.raises(CheckpointError, match="bicubic"):
        read_card("bicubc")


def test_a_card_without_weights_says_so(catalogue: Path) -> None:
    _card(catalogue, "lost", "0" * 64)
    assert [c.name for c in list_cards()] == ["bicubic", "lost"]
    assert not list_cards()[1].is_present
    with pytest.raises(CheckpointError, match="are not there"):
        read_card("lost")


def test_a_misspelt_card_is_named(catalogue: Path) -> None:
    (catalogue / "bad.toml").write_text('name = "bad"\n')
    with pytest.raises(CheckpointError, match=r"bad\.toml"):
        list_cards()


def test_the_default_follows_bands_scale_and_pixel_size(catalogue: Path) -> None:
    for name, gsd in (("aerial", "0.6"), ("sentinel", "8.0")):
        sha256 = _write(catalogue / f"{name}.safetensors")
        _card(catalogue, name, sha256, "default = true")
        text = (catalogue / f"{name}.toml").read_text()
        low, high = (gsd, "5.0") if name == "aerial" else (gsd, "20.0")
        (catalogue / f"{name}.toml").write_text(
            text.replace("gsd = [8.0, 20.0]", f"gsd = [{low}, {high}]")
        )
    assert default_model(4, Fraction(4), 10.0) == "sentinel"
    assert default_model(3, Fraction(2), 0.6) == "aerial"
    assert default_model(3, Fraction(2), 30.0) == "sentinel"
    with pytest.raises(CheckpointError, match="No default model"):
        default_model(2, Fraction(4), 10.0)
    with pytest.raises(CheckpointError, match="No default model"):
        default_model(3, Fraction(9), 10.0)


def test_the_default_looks_at_what_is_given_and_needs_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def card(name: str, needs: str = "", accepts: str = "") -> Card:
        fields = {"needs": needs, "accepts": accepts}
        sets = {key: frozenset(text.split()) for key, text in fields.items()}
        scales = ScaleRange(Fraction(1), Fraction(8), Fraction(4))
        spec = ModelSpec("bicubic", scales, gsd=(8, 20), **sets)
        return Card(name, spec, text={"default": True})

    cards = [
        card("changes", needs="reference", accepts="change_mask"),
        card("maps", needs="vector_map", accepts="style"),
        card("plain"),
    ]
    monkeypatch.setattr("rsupres.checkpoints.catalogue.list_cards", lambda: cards)
    for conditions, name in (
        ((), "plain"),
        (("reference",), "changes"),
        (("reference", "change_mask"), "changes"),
        (("vector_map", "style"), "maps"),
        (("style",), "plain"),  # refused later, naming "maps"
        (("vector_map", "reference"), "plain"),
    ):
        assert default_model(3, Fraction(4), 10.0, conditions) == name


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_model(str(tmp_path / "none.safetensors"), CPU, SamplerOptions())


def test_bicubic_needs_no_file() -> None:
    model = load_model("bicubic", CPU, SamplerOptions())
    assert model.spec.family == "bicubic"


def test_a_user_without_a_home_folder_has_the_shipped_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert user_models() is None
    assert list_cards()
