"""`python -m redy.certify ORIGINAL [REDUCED] CERT`.

Exit code 0: accepted; 1: rejected; 2: bad input; 70: a fault of the checker.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .encoding import Header
from .errors import Rejected, Unusable
from .proof import TRUSTED, check

ACCEPTED, REJECTED, BAD, FAULT = 0, 1, 2, 70


def report(header: Header) -> list[str]:
    """The lines printed for an accepted certificate."""
    lines = ["accepted"]
    for part in header.parts[:10]:
        sides = ", ".join(f"[{low:.9g}, {high:.9g}]" for low, high in list(zip(part.low, part.high, strict=True))[:16])
        lines += [f"  for every input of {sides}{', ...' if len(part.low) > 16 else ''}", f"    {part.claim}"]
    lines += ["  ..."] if len(header.parts) > 10 else []
    lines += [f"  SHA-256 of ORIGINAL {header.original}"] + [f"  SHA-256 of REDUCED  {header.reduced}"] * bool(
        header.reduced
    )
    return [*lines, "  in real arithmetic on the numbers in the files", f"  trusted: {', '.join(TRUSTED)}"]


def run(original: Path, reduced: Path | None, certificate: Path) -> tuple[int, list[str]]:
    """Exit code and lines to print."""
    try:
        return ACCEPTED, report(check(original, reduced, certificate.read_bytes()))
    except Rejected as reason:
        return REJECTED, [f"rejected: {reason}"]
    except (Unusable, OSError) as reason:
        return BAD, [f"{certificate}: {reason}" if isinstance(reason, Unusable) else str(reason)]


def main() -> int:
    """Check what the command line names."""
    paths = [Path(argument) for argument in sys.argv[1:]]
    if len(paths) not in {2, 3}:
        print("usage: python -m redy.certify ORIGINAL [REDUCED] CERT", file=sys.stderr)  # noqa: T201
        return BAD
    try:
        code, lines = run(paths[0], paths[1] if len(paths) == 3 else None, paths[-1])
    except Exception as error:  # noqa: BLE001 - a fault must never look like an answer
        code, lines = FAULT, [f"a fault of the checker: {type(error).__name__}: {error}"]
    print("\n".join(lines), file=sys.stdout if code == ACCEPTED else sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
