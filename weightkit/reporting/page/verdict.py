"""The conversion in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from weightkit.core.text import printable
from weightkit.reporting.page.account import Account

_MOST_GROUPS = 6
_ACTIONS = {
    "equal": "Every action that was compared is equal.",
    "different": "The outputs differ.",
    "blind": "The comparison of outputs could not have noticed a lost tensor.",
    "not checked": "Outputs were not compared.",
}


def verdict(account: Account) -> str:
    """What became of the tensors, never as one total where a group lost something, and whether the outputs agree."""
    facts: Any = account.report.facts
    if not account.report.ok:
        return _refused(account)
    layout = facts["target_layout"]
    of = "the source" if layout == "as it is" else layout.removeprefix("that of ")
    whole, left = facts["target_tensors"], len(facts["left_out"])
    if left:
        groups = [f"{card.left_out} of {card.name}" for card in account.cards if card.left_out]
        text = f"Incomplete, as asked: {tensors(left)} of {of} {'is' if left == 1 else 'are'} left out "
        text += f"({listed(groups)}); the other {whole - left:,} are accounted for."
    else:
        text = f"All {tensors(whole)} of {of} are accounted for"
        changed = {word: account.count(word) for word in ("rearranged", "adapted", "lossy", "initialised")}
        parts = [f"{count:,} {word}" for word, count in changed.items() if count]
        equal = whole - sum(changed.values())
        text += ": " + listed([f"{equal:,} bit for bit", *parts]) + "." if parts else ", bit for bit."
    if facts["out"] is None:
        text += " This is a plan: nothing was written."
    else:
        text += f" {whole - left:,} written."
    counted = [entry.histogram for entry in account.entries if entry.histogram is not None]
    odd = sum(found.nan + found.inf > 0 for found in counted)
    if odd:
        text += f" {odd:,} {'holds' if odd == 1 else 'hold'} NaN or infinite values."
    check = (facts.get("function_check") or {}).get("verdict")
    return f"{text} {_ACTIONS[check]}" if check in _ACTIONS else text


def tensors(count: int) -> str:
    """``1 tensor``, ``78 tensors``."""
    return f"{count:,} tensor{'' if count == 1 else 's'}"


def listed(words: Sequence[str]) -> str:
    """``a, b and c``; of many the first, and how many more."""
    if len(words) > _MOST_GROUPS:
        words = [*words[: _MOST_GROUPS - 1], f"{len(words) - _MOST_GROUPS + 1:,} more"]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _refused(account: Account) -> str:
    refused = [entry for entry in account.entries if entry.state.key == "refused"]
    if not refused:
        message = printable(str(account.report.facts.get("message", "")))
        return f"Refused: {message.rstrip('.')}. Nothing was written."
    groups = list(dict.fromkeys(entry.group for entry in refused))
    belong = "is not accounted for" if len(refused) == 1 else "are not accounted for"
    return f"Refused: {tensors(len(refused))} of {listed(groups)} {belong}. Nothing was written."
