"""The console script. ``weightkit inspect PATH`` as it is typed most is answered without click, whose import would add
a third to what it takes; click gets every other line, and judges what is unusual.
"""

from __future__ import annotations

import gc
import sys

from weightkit.cli.output import emit, guarded, leave


def main() -> None:
    """Run the command line and exit."""
    words = sys.argv[1:]
    gc.disable()  # until it is known that this is going to take long
    plain = words[:1] == ["inspect"] and len(words) in (2, 3) and not words[1].startswith("-")
    if plain and words[2:] in ([], ["--json"]):
        guarded(lambda: plain_inspect(words[1], as_json=len(words) == 3))
        leave()
    gc.enable()
    from weightkit.cli.main import main as with_click

    with_click()


def plain_inspect(path: str, *, as_json: bool) -> None:
    """``weightkit inspect`` without options that need more than this."""
    from weightkit.cli.inspect_text import shown
    from weightkit.verbs.inspect import inspect

    emit("inspect", as_json, lambda: inspect(path), shown)
