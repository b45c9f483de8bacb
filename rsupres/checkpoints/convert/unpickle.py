"""Read the data of a pickle without running anything that it names.

`pickle.Unpickler` runs the instructions, but every name in the file is looked up in a
closed list here and never imported. A listed name stands for a `Record` of arguments
and state, or for a small function of this module that makes a tensor view, a dict or
bytes. Any other name is refused. Before that, all instructions are scanned: those that
plain data do not need are refused, and so are lengths beyond the end of the file.
`rsupres.checkpoints.convert.modules` opens the files.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Collection
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self

import torch

from rsupres.errors import CheckpointError

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# Names that become records; "_codecs encode" and the like are functions, see below.
_RECORDS = frozenset(
    {
        "__builtin__ set",
        "builtins set",
        "numpy dtype",
        "numpy.core.multiarray scalar",
        "numpy._core.multiarray scalar",
        "dnnlib.util EasyDict",
        "torch.nn.modules.container ModuleDict",
        "torch.nn.modules.container ModuleList",
        "torch.nn.modules.container Sequential",
        "torch.nn.modules.conv Conv2d",
        "torch.nn.modules.linear Linear",
        "torch.nn.modules.normalization GroupNorm",
        "torch.nn.modules.activation LeakyReLU",
        "torch.nn.modules.activation SiLU",
        "torch.nn.modules.dropout Dropout",
        *(f"torch {name}" for name in _DTYPES),
    }
)
_INSTRUCTIONS = frozenset(
    {
        *("PROTO", "FRAME", "STOP", "MARK", "POP", "NONE", "NEWTRUE", "NEWFALSE"),
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
        *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
        *("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"),
        *("GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID"),
    }
)
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class Record:
    """An object of a pickle, as data: its arguments and its state.

    Each name of a file gets a subclass of its own, with the name as `name`.
    """

    name = ""
    arguments: tuple[object, ...]
    state: object

    def __new__(cls, *arguments: object) -> Self:
        """Make the object, from any arguments."""
        made = super().__new__(cls)
        made.arguments, made.state = arguments, None
        return made

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        """Keep an item; EDM's EasyDict is a dict with attributes."""
        if self.state is None:
            self.state = {}
        if not isinstance(self.state, dict):
            raise TypeError(f"items for a {self.name}")
        self.state[key] = value


class Storage(NamedTuple):
    """Numbers in a file, not read yet."""

    read: Callable[[], bytes]
    dtype: torch.dtype


class TensorRecord(NamedTuple):
    """A view of a storage, not read yet: lengths and steps in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def load_data(
    file: BytesIO,
    path: Path,
    classes: Collection[str],
    storage: Callable[[object], Storage],
) -> Any:
    """Return the data of the pickle at the position of `file`; leave it behind its end.

    Args:
        file: content in memory.
        path: for messages.
        classes: names of classes, of any module, that become records, too.
        storage: returns the storage of a persistent reference.

    Raises:
        CheckpointError: the pickle names or does what data do not need.
        ValueError: it is cut short or no pickle; other exceptions of damaged data may
            pass, too: `OverflowError`, `LookupError`, `EOFError`.
    """
    start = file.tell()
    _scan(file, path)
    file.seek(start)
    try:
        return _DataUnpickler(file, path, classes, storage).load()
    except (pickle.UnpicklingError, TypeError, AttributeError) as error:
        refuse(path, f"an operation that data do not need ({error})", error)


def _scan(file: BytesIO, path: Path) -> None:
    """Check instructions up to STOP, and that their arguments lie in the file."""
    size = len(file.getbuffer())
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name not in _INSTRUCTIONS:
            refuse(path, f"pickle instruction {opcode.name}, which no data need")
        if opcode.name in ("PUT", "LONG_BINPUT") and int(str(argument)) > size:
            refuse(path, f"memo number {argument}")  # memory for all below is taken


class _Dict(dict[object, object]):
    """Stands for an OrderedDict; attributes (torch's `_metadata`) are left out."""

    def __setstate__(self, state: object) -> None:
        pass


class _Function:
    """A function of this module that a pickle may call, and do nothing else with."""

    def __init__(self, run: Callable[..., object]) -> None:
        self._run = run

    def __call__(self, *arguments: object) -> object:
        return self._run(*arguments)

    def __setstate__(self, state: object) -> None:
        raise TypeError("a state for a function")


class _DataUnpickler(pickle.Unpickler):
    """An unpickler that makes records and tensor views only."""

    def __init__(
        self,
        file: BytesIO,
        path: Path,
        classes: Collection[str],
        storage: Callable[[object], Storage],
    ) -> None:
        super().__init__(file, fix_imports=False, encoding="latin1")
        self._path, self._classes, self._storage = path, classes, storage
        self._functions: dict[str, Callable[..., object]] = {
            "collections OrderedDict": _Dict,
            "_codecs encode": _encode,
            "torch._utils _rebuild_tensor_v2": self._tensor,
            "torch._utils _rebuild_parameter": lambda data, *_: data,
            "torch.storage _load_from_bytes": self._legacy_storage,
            "torch_utils.persistence _reconstruct_persistent_obj": self._persistent,
        }

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for a name; the name itself is never imported."""
        text = f"{module} {name}"
        if text in self._functions:
            return _Function(self._functions[text])
        if text in _RECORDS or name in self._classes:
            return type("Record", (Record,), {"name": text})
        refuse(self._path, f"'{module}.{name}'")

    def persistent_load(self, pid: object) -> Storage:
        """Return the storage that a reference means."""
        return self._storage(pid)

    def _tensor(
        self, storage: object, offset: object, shape: object, stride: object, *_: object
    ) -> TensorRecord:
        if not isinstance(storage, Storage):
            refuse(self._path, "a tensor that is no view of a storage")
        numbers = [offset]
        for part in (shape, stride):
            numbers += part if isinstance(part, tuple) else [None]
        whole = all(type(n) is int and 0 <= n < 1 << 48 for n in numbers)
        made = TensorRecord(storage, offset, shape, stride)  # type: ignore[arg-type]  # checked
        if not whole or len(made.shape) != len(made.stride):
            refuse(self._path, f"a tensor of shape {shape!r:.80}")
        return made

    def _persistent(self, meta: object) -> Record:
        """Return an object of EDM's persistence; its source text is ignored."""
        if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
            refuse(self._path, "a persistent object without a state")
        made = Record()
        made.state = meta["state"]
        return made

    def _legacy_storage(self, content: object) -> Storage:
        """Read one storage in torch's legacy format.

        Five pickles (magic, protocol, system, the storage's reference, keys), then its
        length in elements as int64 and its numbers.
        """
        if not isinstance(content, bytes):
            refuse(self._path, "a storage that is not made of bytes")
        file = BytesIO(content)
        found: list[torch.dtype] = []

        def storage(pid: object) -> Storage:
            found.append(storage_dtype(pid, self._path))
            return Storage(lambda: b"", found[-1])

        magic, *_ = [load_data(file, self._path, (), storage) for _ in range(5)]
        if magic != _LEGACY_MAGIC or len(found) != 1:
            refuse(self._path, "a storage that is not in torch's legacy format")
        length = int.from_bytes(file.read(8), "little")
        numbers = content[file.tell() :]
        if len(numbers) != length * found[0].itemsize:
            raise ValueError(f"a storage of {length} numbers has {len(numbers)} bytes")
        return Storage(lambda: numbers, found[0])


def _encode(text: object, encoding: object) -> bytes:
    """Return bytes, which Python 3 writes so in protocol 2: as text in latin1."""
    if not isinstance(text, str) or encoding != "latin1":
        raise TypeError(f"text encoded as {encoding!r:.80}")
    return text.encode("latin1")


def storage_dtype(pid: object, path: Path) -> torch.dtype:
    """Return the type of a storage, of torch's reference ("storage", class, ...).

    Args:
        pid: persistent id of a storage, as the pickle holds it.
        path: of the file, for messages.
    """
    if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
        refuse(path, f"reference {pid!r:.80} to something that is no storage")
    kind = pid[1]
    name = kind.name if isinstance(kind, type) and issubclass(kind, Record) else ""
    dtype = _DTYPES.get(name.removeprefix("torch "))
    if dtype is None:
        refuse(path, f"a storage of type {name or kind!r:.80}")
    return dtype


def refuse(path: Path, what: str, cause: BaseException | None = None) -> NoReturn:
    """Raise `CheckpointError`: the file holds something that is not read.

    Args:
        path: of the file.
        what: names the thing that is not read.
        cause: the error that it led to, if any.
    """
    raise CheckpointError(
        f"{path}: refused, because it holds {what}; only tensors, plain containers and"
        " the parts of the released networks are read, nothing is run."
    ) from cause
