"""What all of it costs, in one table: `make bench`.

    python -m bench.run [--only WORD,WORD] [--idle SECONDS]

Each row is beside its peer or yardstick in the same run, and beside its goal, which is meant for a
quiet machine: how busy this one was is said above and below the table.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from bench import rows_cli, rows_engine, rows_hook, rows_memory, rows_service
from bench.report import Maker, Row, head, machine, peers, shown


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default="", help="parts, by commas")
    parser.add_argument("--idle", type=float, default=rows_service.IDLE, help="seconds of idling")
    given = parser.parse_args(words)
    makers: dict[str, Maker] = {
        "answering": rows_service.answering,
        "hook": rows_hook.phases,
        "confining": rows_service.confining,
        "ps": rows_cli.lists,
        "help": rows_cli.helps,
        "decisions": rows_engine.decisions,
        "parts": rows_memory.parts,
        "memory": rows_memory.services,
        "idle": partial(rows_service.idle, given.idle),
    }
    wanted = given.only.split(",") if given.only else list(makers)
    if unknown := set(wanted) - makers.keys():
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(makers)}")
    print(f"{machine()}\n{peers()}\n\n{head()}", flush=True)
    rows: list[Row] = []
    for name in wanted:
        for row in makers[name]():
            rows.append(row)
            print(shown(row), flush=True)
    missed = [row.name for row in rows if row.met is False]
    print(f"\n{machine()}")
    print(f"{len(rows)} rows, goals missed: {', '.join(missed) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
