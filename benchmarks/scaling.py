"""What a network costs, by number of networks, devices and processes.

    python benchmarks/scaling.py

The engine on the workload of ``ensemble.py`` (dense masks, a fixed number of steps), on
one device, on all of them in one process, and with a process of one device on each
core. Seconds a network should not depend on their number: ``against the most`` is the
ratio to the cost at the largest number, within 10 % where scaling is linear.
``overhead`` is what is not training: ``wall · devices / train seconds - 1``; it holds
the queue, copies and devices that wait at the end. Compiling is apart.
"""

import sys
from typing import Any

import contest
import ensemble as ensemble_benchmark
from contest import Contender, Machine

LINEAR = 0.1
WORKERS = {"ours": ensemble_benchmark.ours}


def contenders(machine: Machine) -> list[Contender]:
    """Returns the ways to share out the work; the first is the baseline."""
    count = machine.cores if machine.platform == "cpu" else machine.devices
    one = {"devices": 1}
    rows = [Contender("one", "1 device", "ours", threads=1, options=one)]
    if count > 1:
        rows.append(
            Contender(
                "devices",
                f"{count} devices",
                "ours",
                threads=1,
                options={"devices": count},
            )
        )
    if count > 1 and machine.platform == "cpu":
        label = f"{count} processes of 1 device"
        rows.append(Contender("processes", label, "ours", count, 1, options=one))
    return rows


def overhead(seconds: float, devices: int, train_seconds: float) -> float:
    """Returns the share that devices spent otherwise, per second of training.

    >>> overhead(1.1, 2, 2.0)
    0.10000000000000009
    """
    return seconds * devices / train_seconds - 1


def main() -> int:
    """Measures, prints and writes; returns the exit code."""
    options = contest.parser(__doc__)
    options.add_argument("--networks", type=contest.numbers(int))
    options.add_argument("--dim", type=int, default=50)
    options.add_argument("--steps", type=int, help="of each network")
    arguments = options.parse_args()
    if arguments.worker:
        return contest.serve(WORKERS, arguments.worker)
    quick = arguments.quick
    machine = contest.find_machine(arguments)
    counts = sorted(arguments.networks or ([4] if quick else [8, 32, 128, 512]))
    steps = arguments.steps or (8 if quick else 160)
    rounds = arguments.rounds or (1 if quick else 3)
    rows = contenders(machine)
    entries: list[dict[str, Any]] = []
    with contest.start(__file__, arguments) as duel:
        for count in counts:
            setting = ensemble_benchmark.setting_of(count, arguments.dim, 0.0, steps)
            duel.log(f"{setting}")
            records = duel.run(setting, rows, rounds)
            found = contest.entry(setting, records, rows[0].name)
            for row in found["contenders"].values():
                if not row["error"]:
                    row["overhead"] = contest.summary(
                        list(map(_overhead, row["answers"]))
                    )
                    row["seconds_a_network"] = row["median_seconds"] / count
            entries.append(found)
    table = [["", "networks", "ms a network", "against the most", "ratio", "overhead"]]
    table[0].append("compiling")
    for contender in rows:
        mine = [found["contenders"][contender.name] for found in entries]
        most = mine[-1].get("seconds_a_network")
        for count, row in zip(counts, mine, strict=True):
            if row["error"] or not most:
                table.append([contender.label, row["error"] or "-"])
                continue
            row["against_the_most"] = row["seconds_a_network"] / most
            compiling = sum(part["compile_seconds"] for part in row["answers"][0])
            ratio = row.get("ratio")
            table.append(
                [
                    contender.label,
                    str(count),
                    f"{1e3 * row['seconds_a_network']:.2f}",
                    f"{row['against_the_most']:.2f}",
                    f"{ratio['median']:.2f}" if ratio else "-",
                    f"{row['overhead']['median']:.1%}",
                    f"{compiling:.1f} s",
                ]
            )
    ratios = [
        row["against_the_most"]
        for found in entries
        for row in found["contenders"].values()
        if "against_the_most" in row
    ]
    linear = bool(ratios) and all(abs(ratio - 1) <= LINEAR for ratio in ratios)
    verdict = "is" if linear else "is not"
    title = f"d = {arguments.dim}, {steps} steps a network"
    contest.show(title, table, f"The cost {verdict} linear to within {LINEAR:.0%}.")
    path = contest.write(
        "scaling", arguments, machine, {"settings": entries, "linear": linear}
    )
    print(f"\n{path}")
    return 0


def _overhead(answers: list[dict[str, Any]]) -> float:
    """That of one round, over all of its processes."""
    seconds = max(answer["seconds"] for answer in answers)
    devices = sum(answer["devices"] for answer in answers)
    return overhead(seconds, devices, sum(a["train_seconds"] for a in answers))


if __name__ == "__main__":
    sys.exit(main())
