"""Time things side by side, and read the memory of a process of their own."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable


def side_by_side(functions: dict[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """Median seconds of each function, all of them called in turn, round after round, after one call not counted."""
    for function in functions.values():
        function()
    seconds = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def in_own_process(code: str, **values: object) -> dict[str, float]:
    """Run code in a fresh Python; returns what it puts into ``result``, its seconds, and its peak memory in MB."""
    program = (
        "import json, time\n"
        f"values = json.loads({json.dumps(values)!r})\n"
        "result = {}\n"
        "started = time.perf_counter()\n"
        f"{code}\n"
        "result['seconds'] = time.perf_counter() - started\n"
        # not ru_maxrss, which begins at the memory of the process that started this one
        "status = dict(line.split(':', 1) for line in open('/proc/self/status') if ':' in line)\n"
        "result['peak_mb'] = int(status['VmHWM'].split()[0]) * 1024 / 1e6\n"
        "print(json.dumps(result))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> str:
    """What was measured on."""
    try:
        with open("/proc/cpuinfo") as file:
            model = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor()
    return f"{model}, {len(os.sched_getaffinity(0))} processors, Python {platform.python_version()}"


def print_table(title: str, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """Print a table in Markdown."""
    print(f"\n### {title}\n")
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |")
    sys.stdout.flush()
