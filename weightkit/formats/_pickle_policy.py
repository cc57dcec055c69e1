"""What counts as data in a pickle. Structural: everything that is not listed is at least ``opaque``.

``opaque``: a class that is unknown here, built without arguments and given its state: an ordinary object.
``unsafe``: another loader would call something that is not listed, or something whose name is computed; or the file
names something of Python itself, of torch or of numpy that no honest state is made of. Those are installed wherever a
checkpoint is loaded, so their classes are what an attacker builds from: there is one whose ``__setstate__`` unpickles
again, and one that calls an attribute when it is deleted.
"""

from __future__ import annotations

from weightkit.formats import _pickle_tables as tables
from weightkit.formats._pickle_records import Call, Dict, Persistent, Ref
from weightkit.formats._pickle_tables import FROM_TYPE, REBUILDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Level = Literal["opaque", "unsafe"]

_AN_OBJECT = "an object"
# Where a pickler finds torch's singletons when it looks for the module that holds them.
_FOUND_IN_UTILS = "torch._utils.torch."
_LISTED = tables.CALLABLE | tables.ARGUMENT_CHECKED


class Remark:
    """Something that is not plain data: how much it weighs, at which byte, and what it is.

    ``named``: it is only named there, not called.
    """

    __slots__ = ("level", "message", "named", "offset", "subject")

    def __init__(self, level: Level, offset: int, subject: str, message: str, named: bool = False) -> None:
        self.level = level
        self.offset = offset
        self.subject = subject
        self.message = message
        self.named = named

    def moved(self, offset: int) -> Remark:
        """The same, ``offset`` bytes further on."""
        return Remark(self.level, self.offset + offset, self.subject, self.message, self.named)


def is_data_ref(path: str) -> bool:
    """Whether naming ``path`` can only mean data."""
    if path in _LISTED or path in tables.PLAIN_TYPES or path in tables.TENSOR_TYPES:
        return True
    module, _, name = path.rpartition(".")
    if module in tables.STORAGE_MODULES and name.endswith("Storage"):
        return True
    return module == "torch" and name in tables.TORCH_CONSTANTS


def judge_ref(ref: Ref) -> Remark | None:
    """What naming ``ref`` amounts to.

    A name of Python 2 that Python 3 has too, for something else, means the one or the other by the pickle's protocol.
    """
    found = _judge_path(ref, ref.path)
    spelled = f"{ref.module}.{ref.name}"
    if spelled != ref.path and ref.module.partition(".")[0] in tables.STDLIB:
        other = _judge_path(ref, spelled)
        return other if other is not None and (found is None or other.level == "unsafe") else found
    return found


def _judge_path(ref: Ref, path: str) -> Remark | None:
    if path.startswith(_FOUND_IN_UTILS) and path.removeprefix(_FOUND_IN_UTILS) in tables.TORCH_CONSTANTS:
        return None
    if not ref.module or not ref.name or not ref.name.isidentifier():
        return Remark("unsafe", ref.offset, path, f"{path!r} names something inside something else")
    if is_data_ref(path):
        return None
    if path.partition(".")[0] in tables.EVERYWHERE and not _is_ordinary(path):
        return Remark("unsafe", ref.offset, path, f"{path} is named, which no honest state is made of", named=True)
    return Remark("opaque", ref.offset, path, f"{path} is unknown here", named=True)


def _is_ordinary(path: str) -> bool:
    """Whether an honest object may be made of it, though it is not data."""
    if path in tables.ORDINARY or path in tables.SINGLETONS:
        return True
    name = path.rpartition(".")[2]
    if path.startswith(tables.ORDINARY_MODULES) or path in (f"torch.nn.{name}", f"typing.{name}"):
        return _looks_like_a_class(name)
    return path == f"builtins.{name}" and name.endswith(tables.ORDINARY_BUILTINS)


def _looks_like_a_class(name: str) -> bool:
    """Whether a name is spelled as classes are; what is spelled so and is none stands in a list."""
    bare = name.removeprefix("_")
    if name in tables.NO_CLASSES or "_" in bare or not bare[:1].isupper():
        return False
    return not bare.isupper() or name in tables.CLASSES_IN_CAPITALS


def may_be_called(ref: Ref) -> int:
    """2 where calling ``ref`` is data whatever the arguments are, which the decoder of tensors looks at; 1 where it is
    data without any; else 0, to be judged call by call. For the two calls that there are most of."""
    return {"torch._utils._rebuild_tensor_v2": 2, "collections.OrderedDict": 1}.get(ref.path, 0)


def judge_call(call: Call) -> Remark | None:
    """What making ``call`` amounts to."""
    if not isinstance(call.target, Ref):
        return Remark("unsafe", call.offset, "a computed callable", "a computed callable would be called")
    path = call.path
    unsafe = Remark("unsafe", call.offset, path, f"{path} would be called ({call.how})")
    if path in _LISTED:
        arguments = call.arguments
        if not isinstance(arguments, tuple):  # computed: nothing can be said about them
            return unsafe
        if (call.keywords is not None and not _empty(call.keywords)) or any(map(_is_unlisted_call, arguments)):
            return unsafe
        if path in tables.OF_A_TENSOR:
            first = arguments[0] if arguments else None
            if isinstance(first, Call) and (first.path in REBUILDS or first.path == FROM_TYPE):
                return None
            return unsafe if isinstance(first, (Call, Ref, Persistent)) else None
        return None if path in tables.CALLABLE or _harmless(path, arguments) else unsafe
    if path == "types.SimpleNamespace" and _empty(call.arguments) and _empty(call.keywords):
        return None  # an object like any other; Python makes this one by a call
    if path.startswith("builtins.") and path.endswith(tables.ORDINARY_BUILTINS) and _are_plain(call.arguments):
        return None  # an exception that was kept
    if call.how in ("NEWOBJ", "NEWOBJ_EX") and call.target.name.isidentifier():
        return None if _empty(call.arguments) and _empty(call.keywords) else unsafe
    return unsafe


def _are_plain(arguments: object) -> bool:
    if not isinstance(arguments, tuple):
        return False
    return all(argument is None or isinstance(argument, (str, bytes, int, float)) for argument in arguments)


def _is_unlisted_call(argument: object) -> bool:
    """Whether an argument is an object with attributes of its own: a listed function may call its methods."""
    if not isinstance(argument, Call):
        return False
    if argument.path in tables.CONTAINERS:
        return bool(argument.states)
    return argument.path not in _LISTED or argument.path == "copyreg._reconstructor"


def judge_build(target: object, state: object, offset: int) -> Remark | None:
    """What giving ``target`` a state amounts to."""
    if isinstance(target, Ref):
        return Remark("unsafe", offset, target.path, f"the attributes of {target.path} itself would be overwritten")
    if not isinstance(target, Call):
        return None
    if target.path == "copyreg._reconstructor" and isinstance(target.arguments, tuple):
        made = target.arguments[0] if target.arguments else None
        target = Call("NEWOBJ", made, (), None, target.offset)
    path = target.path or "a computed object"
    if target.path in _LISTED and target.path not in tables.WITH_STATE:
        return Remark("unsafe", offset, path, f"what {path} gives back would be given a state")
    parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    if target.path in tables.CONTAINERS and isinstance(state, tuple):
        return Remark("unsafe", offset, _AN_OBJECT, f"attributes of {path} itself would be replaced")
    if path.startswith("torch.") and target.path not in _LISTED:
        for part in parts:
            if not isinstance(part, Dict) and part is not None:
                return Remark("unsafe", offset, _AN_OBJECT, f"the state of {path} is no dict: its methods are called")
            for key, value in part.pairs if part is not None else ():
                if isinstance(key, str) and key in tables.CONTAINERS_OF_STATE and not _is_container(value):
                    message = f"{key!r} of {path} is no container: its methods are called"
                    return Remark("unsafe", offset, _AN_OBJECT, message)
    return judge_addition(target, offset)


def _is_container(value: object) -> bool:
    """Whether ``value`` is data or a listed container of anything but objects of unknown classes."""
    if isinstance(value, Call):
        return value.path in tables.CONTAINERS and not value.states
    if isinstance(value, (list, tuple)):
        return not any(isinstance(item, Call) and item.path not in _LISTED for item in value)
    return not isinstance(value, Ref)


def judge_addition(target: Call, offset: int) -> Remark | None:
    """What adding a state, items or pairs to ``target`` amounts to.

    A pickler writes an object's state last, once. Afterwards a loader would find the methods it calls on the object
    itself, where the state has put what the file says.
    """
    if not target.states:
        return None
    path = target.path or "a computed object"
    message = f"something is added to {path} after its state, which may replace what adds it"
    return Remark("unsafe", offset, _AN_OBJECT, message)


def _harmless(path: str, arguments: tuple[object, ...]) -> bool:
    """Whether a function that is data with certain arguments only has such arguments."""
    first = arguments[0] if arguments else None
    if path == "_codecs.encode":
        return len(arguments) == 2 and isinstance(first, str) and _is_one_of(arguments[1], tables.SAFE_CODECS)
    if path == "collections.defaultdict":
        plain = tables.CONTAINERS | tables.PLAIN_TYPES
        return first is None or (isinstance(first, Ref) and first.path in plain)
    if path == "numpy.core.multiarray._reconstruct":
        return isinstance(first, Ref) and first.path == "numpy.ndarray"
    if path == "copyreg._reconstructor":
        based = len(arguments) == 3 and isinstance(first, Ref) and isinstance(arguments[1], Ref)
        return based and getattr(arguments[1], "path", "") == "builtins.object" and arguments[2] is None
    if path == "builtins.type":  # how NoneType is written; with three arguments it would make a class
        return len(arguments) == 1 and (first is None or _is_singleton(first))
    if path in tables.IDENTITIES:  # they give back what they are given
        return 1 <= len(arguments) <= 2 and isinstance(first, (list, tuple, Dict, Call))
    if path == tables.SEED_SEQUENCE:
        named = isinstance(first, Ref) and first.path in tables.ORDINARY and first.name == "SeedSequence"
        return named and len(arguments) == 3 and not isinstance(arguments[2], (Ref, Call))
    if path in tables.GENERATORS:
        return all(map(_is_generator, arguments))
    return path == FROM_TYPE and isinstance(first, Ref) and first.path in REBUILDS


def _is_generator(value: object) -> bool:
    """A bit generator by its name, its class, the function that makes one or a call of it; the others are judged."""
    if isinstance(value, Ref):
        is_class = value.path in tables.ORDINARY and value.name in tables.BIT_GENERATORS
        return is_class or value.path == "numpy.random._pickle.__bit_generator_ctor"
    if isinstance(value, Call):
        return value.path in tables.GENERATORS
    return _is_one_of(value, tables.BIT_GENERATORS)


def _is_singleton(value: object) -> bool:
    return isinstance(value, Ref) and value.path in tables.SINGLETONS


def _is_one_of(value: object, words: tuple[str, ...]) -> bool:
    return isinstance(value, str) and value in words


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, tuple) and not value) or (isinstance(value, Dict) and not value.pairs)
