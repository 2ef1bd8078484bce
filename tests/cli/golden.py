"""Golden files: what a command wrote once, it writes again, key by key.

    matches("pde", result)      words, verdicts and keys equal, in order; numbers to 1e-9

Times, versions, paths and places in other people's files are masked. `HJCONTROL_GOLDEN=write` on the
test run writes the files anew: look at their difference before it is committed.
"""

import json
import math
import os
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"
MASKED = ("file", "found", "line", "worst", "rule", "scope", "picture", "num_steps", "error")
TOLERANCE = 1e-9


def masked(value, key=""):
    """The same without what another machine or another day changes."""
    if key.endswith("seconds") or (key in MASKED and value is not None):
        return f"<{key}>"
    if isinstance(value, dict):
        return {k: masked(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [masked(v) for v in value]
    return value


def differences(old, new, place=""):
    """Places at which two contents differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        if list(old) != list(new):
            return [f"{place or 'top'}: keys {list(old)} became {list(new)}"]
        return [d for k in old for d in differences(old[k], new[k], f"{place}.{k}")]
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return [f"{place}: {len(old)} entries became {len(new)}"]
        pairs = zip(old, new, strict=True)
        return [d for i, (a, b) in enumerate(pairs) for d in differences(a, b, f"{place}[{i}]")]
    if isinstance(old, float) and isinstance(new, float):
        same = math.isclose(old, new, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    else:
        same = type(old) is type(new) and old == new
    return [] if same else [f"{place}: {old!r} became {new!r}"]


def matches(name, content):
    """Assert that `content` is what the golden file `name` holds."""
    path = FOLDER / f"{name}.json"
    content = masked(json.loads(json.dumps(content)))
    if os.environ.get("HJCONTROL_GOLDEN") == "write":
        text = json.dumps(content, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
    found = differences(json.loads(path.read_text(encoding="utf-8")), content)
    assert not found, "\n".join([f"{path.name} differs:", *found])
