"""DBOS: a workflow of four steps that do nothing, called directly, by as many threads as are to be in flight.

Runs in the peers' environment. Arguments: rows `<in flight>:<count>`; the system database is DBOS_SYSTEM_DATABASE_URL,
everything else DBOS's own default. Prints one JSON line a row.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from dbos import DBOS

WARM_UP = 5


@DBOS.step()
def step(number: int) -> int:
    return number


@DBOS.workflow()
def workflow() -> int:
    return sum(step(number) for number in range(1, 5))


def one(_: int) -> float:
    began = time.perf_counter()
    workflow()
    return (time.perf_counter() - began) * 1000


def main(rows: list[str]) -> None:
    DBOS(
        config={
            "name": "bench",
            "system_database_url": os.environ["DBOS_SYSTEM_DATABASE_URL"],
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    for _ in range(WARM_UP):
        workflow()
    for row in rows:
        in_flight, count = map(int, row.split(":"))
        with ThreadPoolExecutor(in_flight) as threads:
            began = time.perf_counter()
            latencies = list(threads.map(one, range(count)))
            per_second = count / (time.perf_counter() - began)
        print(json.dumps({"in_flight": in_flight, "latencies_ms": latencies, "per_second": per_second}), flush=True)
    DBOS.destroy()


if __name__ == "__main__":
    main(sys.argv[1:])
