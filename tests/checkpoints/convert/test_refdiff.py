"""Ref-Diff's released pickles: tensors come out, and nothing in them is ever run."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from rsupres.checkpoints.convert import import_checkpoint
from rsupres.checkpoints.convert.modules import read_module_tensors
from rsupres.checkpoints.file import read_checkpoint
from rsupres.cli import main
from rsupres.errors import CheckpointError, InputError
from tests.parity.golden import Cases, name_seeded_tensor

RELEASED = Cases("refdiff")
FORMAT = RELEASED.folder / "checkpoint_format.pt"
CLASSES = frozenset({"UNetBlock_Ref", "SFTLayer"})


class Persistent:
    """Pickles as `torch_utils.persistence` does: a call with one dict."""

    def __init__(self, state: dict[str, object], source: str) -> None:
        self.state, self.source = state, source


class Call:
    """Pickles as a call of any name with arguments."""

    def __init__(self, module: str, name: str, *arguments: object) -> None:
        self.called, self.arguments = f"{module}\n{name}\n", arguments


class _Writer(pickle._Pickler):  # type: ignore[name-defined]  # pure Python: may be bent
    """Writes names that do not exist, in protocol 2."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=2)

    def save(self, value: object, save_persistent_id: bool = True) -> None:
        if isinstance(value, Call):
            self.write(b"c" + value.called.encode())
            super().save(value.arguments)
            self.write(b"R")
        elif isinstance(value, Persistent) and id(value) in self.memo:
            self.write(self.get(self.memo[id(value)][0]))
        elif isinstance(value, Persistent):
            meta = {
                "type": "class",
                "version": 6,
                "module_src": value.source,
                "class_name": "EDMPrecond",
                "state": value.state,
            }
            name = "_reconstruct_persistent_obj"
            self.save(Call("torch_utils.persistence", name, meta))
            self.memoize(value)
        else:
            super().save(value, save_persistent_id)


def dumped(value: object) -> bytes:
    file = io.BytesIO()
    _Writer(file).dump(value)
    return file.getvalue()


def zipped(path: Path, content: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/data/0", b"\0" * 16)
        archive.writestr("archive/version", b"3\n")
    return path


def legacy_tensor(values: torch.Tensor) -> Call:
    """A tensor as a plain pickle holds it: torch's legacy format within bytes."""
    file = io.BytesIO()
    storage = torch.storage.TypedStorage(
        wrap_storage=values.untyped_storage(), dtype=values.dtype, _internal=True
    )
    torch.save(storage, file, _use_new_zipfile_serialization=False)
    text = file.getvalue().decode("latin1")
    encoded = Call("_codecs", "encode", text, "latin1")
    loaded = Call("torch.storage", "_load_from_bytes", encoded)
    shape, stride = tuple(values.shape), values.stride()
    return Call("torch._utils", "_rebuild_tensor_v2", loaded, 0, shape, stride, False)


def module(**parts: object) -> dict[str, object]:
    parameters = {k: v for k, v in parts.items() if isinstance(v, Call)}
    modules = {k: v for k, v in parts.items() if not isinstance(v, Call)}
    return {"_parameters": parameters, "_buffers": {}, "_modules": modules}


def read(path: Path) -> dict[str, torch.Tensor]:
    return read_module_tensors(path, "ema", CLASSES)


needs_format = pytest.mark.skipif(
    not FORMAT.is_file(), reason=f"{FORMAT} is not here: no released format to read"
)


@needs_format
def test_released_format_gives_its_244_entries_bit_by_bit() -> None:
    stated = RELEASED.description["checkpoint_format"]
    found = read(FORMAT)
    assert found.keys() == {*stated["shapes"], *stated["buffers"]}
    for name, shape in stated["shapes"].items():
        wanted = torch.from_numpy(name_seeded_tensor(name, shape))
        assert torch.equal(found[name], wanted), name
    assert all(bool((found[name] == 0.25).all()) for name in stated["buffers"])


@needs_format
def test_command_imports_it_and_the_card_guesses_no_class_table(tmp_path: Path) -> None:
    out = tmp_path / "tiny.safetensors"
    arguments = ["models", "import", str(FORMAT), "--family", "refdiff"]
    result = CliRunner().invoke(main, [*arguments, "--out", str(out)])
    assert result.exit_code == 0, result.output
    checkpoint = read_checkpoint(out)
    stated = RELEASED.description["checkpoint_format"]["config"]
    assert checkpoint.architecture["channels"] == stated["model_channels"]
    assert checkpoint.architecture["mult"] == stated["channel_mult"]
    assert len(checkpoint.tensors) == 240
    assert checkpoint.spec.accepts == {"reference"}
    card = import_checkpoint(
        "refdiff", [FORMAT], tmp_path / "b.safetensors", None, {"classes": "second"}
    )
    assert card.spec.accepts == {"reference", "change_mask"}
    assert card.spec.classes == "second"


@needs_format
def test_a_view_of_one_number_is_refused_not_expanded() -> None:
    """`net` of that file shows 7.0 everywhere through steps of 0."""
    with pytest.raises(CheckpointError, match="numbers out of"):
        read_module_tensors(FORMAT, "net", CLASSES)


@needs_format
def test_cut_files_are_called_damaged(tmp_path: Path) -> None:
    whole = FORMAT.read_bytes()
    for size in (0, 3, 100, len(whole) // 2, len(whole) - 30):
        path = tmp_path / f"cut{size}.pt"
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=f"cut{size}.pt"):
            read(path)


def test_plain_pickles_of_modules_are_read_too(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    inner = Persistent(module(weight=legacy_tensor(weight)), "raise SystemExit")
    state = module(model=inner)
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(dumped({"ema": Persistent(state, "raise SystemExit")}))
    assert torch.equal(read(path)["model.weight"], weight)


def nested(path: Path) -> str:
    return dumped(Call("os", "mkdir", str(path))).decode("latin1")


HOSTILE: dict[str, Callable[[Path], str]] = {
    "os.mkdir": str,
    "posix.mkdir": str,
    "builtins.eval": lambda path: f"__import__('os').mkdir({str(path)!r})",
    "builtins.exec": lambda path: f"open({str(path)!r}, 'w')",
    "builtins.open": str,
    "builtins.getattr": str,
    "torch.load": str,
    "torch.serialization.load": str,
    "torch.hub.load": str,
    "torch.jit._script.unpackage_script_module": str,
    "pickle.loads": nested,
    "numpy.load": str,
    "functools.partial": str,
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
@pytest.mark.parametrize("place", ["root", "state", "storage"])
def test_hostile_names_are_refused_by_name_and_not_run(
    tmp_path: Path, name: str, place: str
) -> None:
    ran = tmp_path / "ran"
    bad = Call(*name.rsplit(".", 1), HOSTILE[name](ran))
    inner = Call("_codecs", "encode", dumped(bad).decode("latin1"), "latin1")
    values: dict[str, object] = {
        "root": bad,
        "state": Persistent({"_modules": {"a": bad}}, ""),
        "storage": Call("torch.storage", "_load_from_bytes", inner),
    }
    content = dumped({"ema": values[place]})
    (tmp_path / "bad.pkl").write_bytes(content)
    for path in (zipped(tmp_path / "bad.pt", content), tmp_path / "bad.pkl"):
        with pytest.raises(CheckpointError, match="refused") as caught:
            read(path)
        assert name in str(caught.value)
    assert not ran.exists()


def test_source_text_of_a_module_is_never_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    source = f"import os; os.mkdir({str(ran)!r})"
    weight = legacy_tensor(torch.ones(2))
    value = {"ema": Persistent(module(weight=weight), source)}
    (tmp_path / "a.pkl").write_bytes(dumped(value))
    assert read(tmp_path / "a.pkl").keys() == {"weight"}
    assert not ran.exists()


INSTRUCTIONS = {
    "INST": b"(S'/tmp'\nios\nmkdir\n.",
    "OBJ": b"(c__builtin__\nset\no.",
    "NEWOBJ_EX": b"\x80\x04c__builtin__\nset\n)}\x92.",
    "EXT1": b"\x80\x02\x82\x01.",
    "PERSID": b"P0\n.",
    "BYTEARRAY8": b"\x80\x05\x96" + (1).to_bytes(8, "little") + b"a.",
    "'str' object is not callable": b"\x80\x02U\x01a)R.",
    "'Record' object is not callable": b"\x80\x02cnumpy\ndtype\n)R)R.",
    "Record.__setstate__()": b"\x80\x02cnumpy\ndtype\n}b.",
    "does not support item assignment": b"\x80\x02cnumpy\ndtype\nU\x01aU\x01bs.",
    "a state for a function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.",
    "memo number": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "os.system": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "STACK_GLOBAL requires str": b"\x80\x04K\x01K\x02\x93.",
}


@pytest.mark.parametrize("what", sorted(INSTRUCTIONS))
def test_instructions_that_data_do_not_need_are_refused(
    tmp_path: Path, what: str
) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(INSTRUCTIONS[what])
    with pytest.raises(CheckpointError, match="refused") as caught:
        read(path)
    assert what in str(caught.value)


def test_modules_that_hold_each_other_many_times_end_early(tmp_path: Path) -> None:
    """Tripling 20 times would be 3 billion modules out of a small file."""
    inner = Persistent(module(), "")
    for _ in range(20):
        inner = Persistent(module(a=inner, b=inner, c=inner), "")
    path = tmp_path / "bomb.pkl"
    path.write_bytes(dumped({"ema": inner}))
    with pytest.raises(CheckpointError, match="more than 100000"):
        read(path)


@pytest.mark.parametrize(
    ("shape", "stride", "reason"),
    [
        ((5,), (1,), "leaves its storage"),
        ((2, 2), (1, 4), "leaves its storage"),
        ((1 << 40,), (0,), "numbers out of"),
        ((-1,), (1,), "tensor of shape"),
        ((2.0,), (1,), "tensor of shape"),
    ],
)
def test_tensors_cannot_show_what_is_not_in_the_file(
    tmp_path: Path, shape: tuple[int, ...], stride: tuple[int, ...], reason: str
) -> None:
    tensor = legacy_tensor(torch.ones(4))
    tensor.arguments = (tensor.arguments[0], 0, shape, stride, False)
    path = tmp_path / "bad.pkl"
    path.write_bytes(dumped({"ema": Persistent(module(weight=tensor), "")}))
    with pytest.raises(CheckpointError, match=reason):
        read(path)


def test_compressed_entries_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "bomb.pt", dumped({}), zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed"):
        read(path)


def test_other_networks_and_wrong_options_are_named(tmp_path: Path) -> None:
    weight = legacy_tensor(torch.ones(2))
    path = tmp_path / "other.pkl"
    path.write_bytes(dumped({"ema": Persistent(module(weight=weight), "")}))
    with pytest.raises(CheckpointError, match="not the tensors of Ref-Diff"):
        import_checkpoint("refdiff", [path], tmp_path / "o.safetensors", None, {})
    with pytest.raises(InputError, match="scale=5"):
        import_checkpoint(
            "refdiff", [path], tmp_path / "o.safetensors", None, {"scale": "5"}
        )
