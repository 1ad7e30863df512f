"""`python -m fuzzing`: go through damaged files until the time is over; exit code 1 if any did harm."""

from __future__ import annotations

import argparse
import sys

from fuzzing.corpora import CORPORA
from fuzzing.run import good_files, run, run_case


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--kind", action="append", choices=list(CORPORA), help="these kinds alone")
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each kind")
    parser.add_argument("--case", type=int, help="this case alone")
    given = parser.parse_args()
    kinds = given.kind or list(CORPORA)
    if given.case is not None:
        with good_files(kinds) as places:
            for kind in kinds:
                outcome = run_case(kind, given.case, places[kind])
                print(f"{kind}, case {given.case}: {outcome.kind}: {outcome.said}\n{outcome.where}")
        return 0
    found = run(kinds, minutes=given.minutes, first=given.first)
    bad = {name: n for name, n in found.items() if not name.endswith((": taken", ": refused"))}
    for name, n in sorted(found.items()):
        print(f"{n:8,}  {name}")
    print(f"{found.total():,} damaged files; {sum(bad.values()):,} of them did harm")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
