"""One verdict and one exit code for all certificates of a command.

0  all was shown     1  something is refuted     3  nothing is refuted, and not all was shown
"""

from collections.abc import Mapping
from typing import Any

SHOWN, REFUTED, OPEN = 0, 1, 3


def verdict(certificates: Mapping[str, Any]) -> str | None:
    """The worst verdict of any certificate; `None` without one."""
    from hjcontrol.verification.verdicts import worst_of

    return worst_of(c.verdict for c in certificates.values()) if certificates else None


def exit_code(certificates: Mapping[str, Any]) -> int:
    """What the shell is told. Without a certificate nothing was shown."""
    if verdict(certificates) == "refuted":
        return REFUTED
    return SHOWN if certificates and all(map(bool, certificates.values())) else OPEN


def told(certificates: Mapping[str, Any]) -> list[str]:
    """The verdict in a line, and a line for each certificate that is neither shown nor refuted."""
    from hjcontrol.verification.verdicts import ORDER

    lines = [f"verdict: {verdict(certificates) or 'none, nothing was verified'}"]
    for name, certificate in certificates.items():
        left = [] if certificate.verdict == "refuted" else certificate.failing(())
        if left:
            left.sort(key=lambda item: ORDER.index(getattr(item, "verdict", item)))
            more = f", and {len(left) - 1} more" if len(left) > 1 else ""
            lines.append(f"not shown, {name}: {_words(left[0])}{more}")
    return lines


def _words(item: Any) -> str:
    """A row, a pair of routes, or the verdict of the whole program."""
    if isinstance(item, str):
        return item
    place = hasattr(item, "rule")
    gap, where = (item.gap, item) if place else (item.disagreement, item.name.replace("|", " | "))
    far = f", gap {gap:.1e}" if item.verdict == "consistent" else ""
    return f"{item.verdict}, {where}{far}"
