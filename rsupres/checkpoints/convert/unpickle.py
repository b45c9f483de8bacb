"""A restricted unpickler: data come out of a pickle, and nothing in it is ever run.

A pickle is a list of instructions. Here they are for a small machine of our own that
knows only numbers, text, containers, tensors, and records of what an object was. There
is no `pickle.Unpickler`, no attribute is set or looked up, and no callable of Python is
ever on the stack. A name that is not on the list below, or an instruction that data do
not need, is refused by its name. Files are the business of
`rsupres.checkpoints.convert.modules`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, NoReturn

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
_REBUILD_TENSOR = "torch._utils _rebuild_tensor_v2"
_REBUILD_PARAMETER = "torch._utils _rebuild_parameter"
_PERSISTENT = "torch_utils.persistence _reconstruct_persistent_obj"
_LEGACY_STORAGE = "torch.storage _load_from_bytes"
_ORDERED = "collections OrderedDict"
_SETS = ("__builtin__ set", "builtins set")
# Objects that are kept as records of their arguments and state, whatever they were.
_INERT = (
    "numpy dtype",
    "numpy.core.multiarray scalar",
    "numpy._core.multiarray scalar",
    "_codecs encode",
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
)
_KNOWN = frozenset(
    {
        *(_REBUILD_TENSOR, _REBUILD_PARAMETER, _PERSISTENT, _LEGACY_STORAGE, _ORDERED),
        *_SETS,
        *_INERT,
        *(f"torch {name}" for name in _DTYPES),
    }
)
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class Name(NamedTuple):
    """A name that a pickle mentions; never resolved."""

    text: str


@dataclass
class Record:
    """An object of a pickle: what it was, from what it was made, its state."""

    name: str
    arguments: tuple[object, ...] = ()
    state: object = None


class Storage(NamedTuple):
    """Numbers in a file, not read yet."""

    read: Callable[[], bytes]
    dtype: torch.dtype


@dataclass(frozen=True)
class TensorRecord:
    """A view of a storage, not read yet: lengths and steps in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass
class Machine:
    """Runs one pickle on data alone.

    Attributes:
        path: for messages.
        classes: names of the family's own classes.
        storage: what a persistent reference means.
        stack: values; a mark is `_MARK`.
        memo: values by number.
    """

    path: Path
    classes: Collection[str]
    storage: Callable[[object], Storage]
    stack: list[object] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)

    def run(self, file: BytesIO) -> object:
        """Run until STOP; the file stands behind it."""
        for opcode, argument, _ in pickletools.genops(file):
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _LITERALS:
                self.stack.append(argument)
            elif name in _STEPS:
                _STEPS[name](self, argument)
            elif name not in _NOTHING:
                refuse(self.path, f"pickle instruction {name}, which no data need")
        raise EOFError("the pickle has no end")

    def marked(self) -> list[object]:
        """Take everything above the last mark, and the mark."""
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("a mark is missing")
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def mention(self, module: str, name: str) -> None:
        """Put a name on the stack, if it is on the list."""
        text = f"{module} {name}"
        if text not in _KNOWN and name not in self.classes:
            refuse(self.path, f"'{module}.{name}'")
        self.stack.append(Name(text))

    def make(self, made: object, arguments: object) -> object:
        """Return what a name and its arguments stand for."""
        if not isinstance(made, Name) or not isinstance(arguments, tuple):
            refuse(self.path, f"a call of a {type(made).__name__}")
        if made.text == _REBUILD_TENSOR:
            return _tensor_record(arguments, self.path)
        if made.text == _REBUILD_PARAMETER:
            return arguments[0]
        if made.text == _ORDERED:
            return _pairs(arguments, self.path)
        if made.text in _SETS:
            return Record(made.text, arguments)
        if made.text == _LEGACY_STORAGE:
            return _legacy_storage(_bytes_of(arguments, self.path), self.path)
        if made.text == _PERSISTENT:
            meta = arguments[0] if arguments else None
            if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
                refuse(self.path, "a persistent object without a state")
            # Its source text, meta["module_src"], is never looked at.
            return Record(str(meta.get("class_name")), (), meta["state"])
        return Record(made.text, arguments)

    def build(self, state: object) -> None:
        """Give the object on top of the stack its state."""
        target = self.stack[-1]
        if isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict):
            # An OrderedDict may bring attributes (torch's `_metadata`): not needed.
            refuse(self.path, f"a state for a {type(target).__name__}")


_MARK = object()
_CONSTANTS: Mapping[str, object] = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
    "MARK": _MARK,
}
_LITERALS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
        *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    }
)
_NOTHING = frozenset({"PROTO", "FRAME"})


def _put(m: Machine, number: object) -> None:
    m.memo[int(str(number))] = m.stack[-1]


def _get(m: Machine, number: object) -> None:
    m.stack.append(m.memo[int(str(number))])


def _global(m: Machine, text: object) -> None:
    module, _, name = str(text).partition(" ")
    m.mention(module, name)


def _stack_global(m: Machine, _: object) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        refuse(m.path, "a name that is no text")
    m.mention(module, name)


def _tuple(m: Machine, _: object) -> None:
    m.stack.append(tuple(m.marked()))


def _tuple_of(n: int) -> Callable[[Machine, object], None]:
    def step(m: Machine, _: object) -> None:
        values = tuple(m.stack[-n:])
        if len(values) != n or _MARK in values:
            raise IndexError("the stack is too short")
        m.stack[-n:] = [values]

    return step


def _list(m: Machine, _: object) -> None:
    m.stack.append(m.marked())


def _append(m: Machine, _: object) -> None:
    value = m.stack.pop()
    _list_on_top(m).append(value)


def _appends(m: Machine, _: object) -> None:
    values = m.marked()
    _list_on_top(m).extend(values)


def _set_item(m: Machine, _: object) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _fill(m, [key, value])


def _set_items(m: Machine, _: object) -> None:
    _fill(m, m.marked())


def _dict(m: Machine, _: object) -> None:
    values = m.marked()
    m.stack.append({})
    _fill(m, values)


def _reduce(m: Machine, _: object) -> None:
    arguments, made = m.stack.pop(), m.stack.pop()
    m.stack.append(m.make(made, arguments))


def _build(m: Machine, _: object) -> None:
    m.build(m.stack.pop())


def _reference(m: Machine, _: object) -> None:
    m.stack.append(m.storage(m.stack.pop()))


def _pop(m: Machine, _: object) -> None:
    m.stack.pop()


def _memoize(m: Machine, _: object) -> None:
    m.memo[len(m.memo)] = m.stack[-1]


_STEPS: Mapping[str, Callable[[Machine, object], None]] = {
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    "MEMOIZE": _memoize,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "TUPLE": _tuple,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "LIST": _list,
    "DICT": _dict,
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "BUILD": _build,
    "BINPERSID": _reference,
    "POP": _pop,
}


def _list_on_top(m: Machine) -> list[object]:
    target = m.stack[-1]
    if not isinstance(target, list):
        refuse(m.path, f"items for a {type(target).__name__}")
    return target


def _fill(m: Machine, values: list[object]) -> None:
    target = m.stack[-1]
    if isinstance(target, Record):  # EDM's EasyDict is a dict with attributes
        if target.state is None:
            target.state = {}
        target = target.state
    if not isinstance(target, dict):
        refuse(m.path, f"items for a {type(target).__name__}")
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not isinstance(key, str | int | float | bool | tuple | None):
            refuse(m.path, f"a key that is a {type(key).__name__}")
        target[key] = value


def _pairs(arguments: tuple[object, ...], path: Path) -> dict[object, object]:
    if not arguments:
        return {}
    items = arguments[0]
    if not isinstance(items, list):
        refuse(path, "an ordered dict of no list")
    found: dict[object, object] = {}
    for pair in items:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            refuse(path, "an ordered dict of no pairs")
        found[pair[0]] = pair[1]
    return found


def dtype_of(name: object, path: Path) -> torch.dtype:
    """Return the type of a storage by its class's name."""
    if isinstance(name, Name):
        dtype = _DTYPES.get(name.text.removeprefix("torch "))
        if dtype is not None:
            return dtype
    refuse(path, f"a storage of type {name!r:.80}")


def _tensor_record(arguments: tuple[object, ...], path: Path) -> TensorRecord:
    storage, offset, shape, stride, *_ = arguments
    whole = isinstance(shape, tuple) and isinstance(stride, tuple)
    if not isinstance(storage, Storage) or not whole:
        refuse(path, "a tensor that is no view of a storage")
    assert isinstance(shape, tuple)
    assert isinstance(stride, tuple)
    numbers = (offset, *shape, *stride)
    if len(shape) != len(stride) or not all(
        type(n) is int and 0 <= n < 1 << 48 for n in numbers
    ):
        refuse(path, f"a tensor of shape {shape!r:.80}")
    assert isinstance(offset, int)
    return TensorRecord(storage, offset, shape, stride)


def _bytes_of(arguments: tuple[object, ...], path: Path) -> bytes:
    """Return the bytes that a legacy storage is made of.

    Protocol 2 has no bytes: Python 3 writes ``_codecs.encode(text, "latin1")``.
    """
    value = arguments[0] if arguments else None
    if isinstance(value, Record) and value.name == "_codecs encode":
        text = value.arguments[0]
        if isinstance(text, str) and value.arguments[1:] == ("latin1",):
            return text.encode("latin1")
    if isinstance(value, bytes):
        return value
    refuse(path, "a storage that is not made of bytes")


def _legacy_storage(content: bytes, path: Path) -> Storage:
    """Read what torch's legacy format holds of one storage.

    Five pickles (magic, protocol, system, the storage's reference, keys), then its
    length in elements as int64 and its numbers.
    """
    file = BytesIO(content)
    found: list[torch.dtype] = []

    def storage(pid: object) -> Storage:
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            refuse(path, f"reference {pid!r:.80} to something that is no storage")
        found.append(dtype_of(pid[1], path))
        return Storage(lambda: b"", found[-1])

    parts = [Machine(path, (), storage).run(file) for _ in range(5)]
    if parts[0] != _LEGACY_MAGIC or len(found) != 1:
        refuse(path, "a storage that is not in torch's legacy format")
    length = int.from_bytes(file.read(8), "little")
    numbers = content[file.tell() :]
    if len(numbers) != length * found[0].itemsize:
        raise ValueError(f"a storage of {length} numbers has {len(numbers)} bytes")
    return Storage(lambda: numbers, found[0])


def refuse(path: Path, what: str) -> NoReturn:
    """Raise `CheckpointError`: the file holds what is not read."""
    raise CheckpointError(
        f"{path}: refused, because it holds {what}; only tensors, plain containers and"
        " the parts of the released networks are read, nothing is run."
    )
