"""While a file is parsed, this thread may read files and nothing else: anything more is stopped as it happens.

An audit hook cannot be taken away again, so there is one for the process, and a set of the threads in which it is
armed; other threads pass it untouched. Source: PEP 578.
"""

from __future__ import annotations

import gc
import os
import sys
from _thread import allocate_lock, get_ident

# What reading and building inert records raises; every other event is none of a parser's business.
_ALLOWED = frozenset(("builtins.id", "os.listdir", "os.scandir", "object.__getattr__", "sys._getframe"))
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_armed: dict[int, list[str]] = {}
_hooked = False
_lock = allocate_lock()
_collects = False  # whether the garbage collector ran before the first thread was armed


class TripwireError(Exception):
    """Parsing a file did something that parsing never does: a fault of weightkit, stopped before it took effect."""


class armed:  # noqa: N801 - it is used as a function is
    """Within the block, this thread cannot import, execute, write, connect or start anything: TripwireError.

    An event whose error is swallowed somewhere is raised again at the end of the block. The cyclic garbage collector
    pauses, so that no finalizer of somebody else's runs here.
    """

    __slots__ = ("seen",)

    def __enter__(self) -> None:
        global _collects, _hooked
        if not _hooked:
            sys.addaudithook(_hook)
            _hooked = True
        me = get_ident()
        self.seen: list[str] | None = None
        if me in _armed:  # a format that opens its parts
            return
        seen: list[str] = []
        with _lock:
            if not _armed:
                _collects = gc.isenabled()
                gc.disable()
            _armed[me] = seen
        self.seen = seen

    def __exit__(self, *_: object) -> None:
        if self.seen is None:
            return
        with _lock:
            del _armed[get_ident()]
            if not _armed and _collects:
                gc.enable()
        if self.seen:
            raise _error(self.seen[0]) from None


def _hook(event: str, args: tuple[object, ...]) -> None:
    if not _armed:
        return
    seen = _armed.get(get_ident())
    if seen is None or event in _ALLOWED or (event == "open" and _only_reads(args)):
        return
    named = f"{event} {args[0]!r}" if args and isinstance(args[0], str) else event
    seen.append(named)
    raise _error(named)


def _error(named: str) -> TripwireError:
    return TripwireError(f"parsing tried to do this and was stopped: {named}")


def _only_reads(args: tuple[object, ...]) -> bool:
    mode, flags = args[1], args[2]
    if isinstance(mode, str) and set(mode) & set("wax+"):
        return False
    return isinstance(flags, int) and not flags & _WRITING
