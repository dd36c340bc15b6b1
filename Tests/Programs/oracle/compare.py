#!/usr/bin/env python3
"""The same seeded stream of file system calls on two file systems, compared line by line.

    compare.py --oracle BINARY --left KIND:DIR --right KIND:DIR [--seed N] [--count N] [--mixed | --as-user UID] [--processes]

KIND names what `differences` lists for that file system; together that is all in which the two may differ. A side may run under a
command (--right-prefix 'dashfs run --image X --') and be made ready by one (--right-setup 'dashfs format --force X').
The count is cut into streams of --per-seed operations with seeds N, N+1, …, each in a fresh directory. On a difference: the seed, the
operation, both lines, a command that repeats it, and the fewest operations found that still show it. Exit 0 same, 1 different, 2 could not run.
"""
import argparse, os, re, shlex, signal, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def allowed(kinds):
    without, patterns = [], []
    with open(os.path.join(HERE, "differences"), encoding="utf-8") as table:
        for row in table:
            if row.strip() and not row.startswith("#"):
                kind, what, reason = (cell.strip() for cell in re.fullmatch(r"(.*?)\|(.*)\|([^|]*)", row.strip()).groups())
                if not reason:
                    sys.exit(f"differences: '{row.strip()}' has no reason")
                if kind in kinds:
                    (patterns if what.startswith("/") else without).append(what[1:-1] if what.startswith("/") else what)
    return without, [re.compile(p) for p in patterns]


class Side:
    def __init__(self, place, prefix, setup):
        self.kind, _, self.directory = place.partition(":")
        self.prefix, self.setup = shlex.split(prefix), setup

    def command(self, oracle, seed, count, extra):
        return self.prefix + [oracle, self.directory, str(seed), str(count)] + extra

    def start(self, oracle, seed, count, extra):
        if self.setup:
            subprocess.run(self.setup, shell=True, check=True, stdout=subprocess.DEVNULL)
        else:
            subprocess.run(["rm", "-rf", os.path.join(self.directory, "oracle")], check=True)
        out = tempfile.TemporaryFile()
        return subprocess.Popen(self.command(oracle, seed, count, extra), stdout=out, stderr=subprocess.STDOUT, start_new_session=True), out


def finish(process, out, limit):
    note = ""
    try:
        code = process.wait(timeout=limit)
        if code:
            note = f"ended with code {code}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        note = f"did not end within {limit} s"
    out.seek(0)
    lines = out.read().decode("utf-8", "replace").splitlines()
    return lines + ([note] if note else [])


class Comparison:
    def __init__(self, options):
        self.o = options
        self.left = Side(options.left, options.left_prefix, options.left_setup)
        self.right = Side(options.right, options.right_prefix, options.right_setup)
        without, self.patterns = allowed({self.left.kind, self.right.kind})
        without += [w for w in options.without.split(",") if w]
        if options.also_allow:
            self.patterns.append(re.compile(options.also_allow))
        self.extra = (["--mixed"] if options.mixed else []) + (["--as-user", options.as_user] if options.as_user else [])
        self.extra += ["--processes"] if options.processes else []
        self.extra += ["--without", ",".join(sorted(set(without)))] if without else []

    def run(self, seed, count, only=None):
        """The first difference as (position, left line, right line), or None; and how many lines there were."""
        with tempfile.NamedTemporaryFile("w", suffix=".operations") as listed:
            extra = list(self.extra)
            if only is not None:
                listed.write("\n".join(map(str, only)) + "\n")
                listed.flush()
                os.chmod(listed.name, 0o644)
                extra += ["--only", listed.name]
            limit = 60 + count // 200
            running = [side.start(self.o.oracle, seed, count, extra) for side in (self.left, self.right)]
            a, b = (finish(process, out, limit) for process, out in running)
        self.allowed_here = 0
        for i in range(max(len(a), len(b))):
            x = a[i] if i < len(a) else "(nothing)"
            y = b[i] if i < len(b) else "(nothing)"
            if x != y:
                if any(p.search(x) and p.search(y) for p in self.patterns):
                    self.allowed_here += 1
                    continue
                return (i, x, y), len(a)
        return None, len(a)

    def fewest(self, seed, count, operations):
        """Delta debugging: drops runs of operations for as long as a difference remains."""
        size, tries = max(1, len(operations) // 2), 0
        while tries < self.o.tries:
            shorter, at = False, 0
            while at < len(operations) - 1 and tries < self.o.tries:
                attempt = operations[:at] + operations[at + size:]
                tries += 1
                found, _ = self.run(seed, count, attempt) if attempt else (None, 0)
                if found:
                    operations, shorter = attempt, True
                    if found[0] + 1 < len(operations):
                        operations = operations[:found[0] + 1]
                else:
                    at += size
            if size == 1 and not shorter:
                break
            size = max(1, size // 2)
        return operations

    def show(self, seed, count, found):
        position, x, y = found
        print(f"DIFFERENT: seed {seed}, operation {x.split()[0] if x[:1].isdigit() else position}")
        print(f"  {self.left.kind:7} {x}\n  {self.right.kind:7} {y}")
        repeat = [a for a in sys.argv if a != "--no-minimise"]
        print(f"  again: {shlex.join(repeat)} --seed {seed} --count {count} --per-seed {count}", flush=True)
        if self.o.minimise:
            kept = self.fewest(seed, count, list(range(min(position + 1, count))))
            with tempfile.NamedTemporaryFile("w", suffix=".operations", delete=False) as listed:
                listed.write("\n".join(map(str, kept)) + "\n")
            os.chmod(listed.name, 0o644)
            running = [side.start(self.o.oracle, seed, count, self.extra + ["--only", listed.name]) for side in (self.left, self.right)]
            a, b = (finish(process, out, 60) for process, out in running)
            print(f"  as few as {len(kept)} operations show it (numbers in {listed.name}):")
            for i in range(max(len(a), len(b))):
                x, y = (lines[i] if i < len(lines) else "(nothing)" for lines in (a, b))
                print(f"    {x}" if x == y else f"    {self.left.kind}: {x}\n    {self.right.kind}: {y}")
            print(f"  one side alone: {shlex.join(self.right.command(self.o.oracle, seed, count, self.extra + ['--only', listed.name]))}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--oracle", required=True)
    for side in ("left", "right"):
        p.add_argument(f"--{side}", required=True, metavar="KIND:DIR")
        p.add_argument(f"--{side}-prefix", default="", metavar="COMMAND")
        p.add_argument(f"--{side}-setup", default="", metavar="COMMAND")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--count", type=int, default=20000)
    p.add_argument("--per-seed", type=int, default=5000)
    p.add_argument("--mixed", action="store_true")
    p.add_argument("--as-user", default="")
    p.add_argument("--processes", action="store_true", help="several processes, which come and go, become other programs, and map files")
    p.add_argument("--without", default="", metavar="NAME,...")
    p.add_argument("--also-allow", default="", metavar="REGEX", help="for looking past a known difference: lines that both match it")
    p.add_argument("--keep-going", action="store_true", help="all seeds, even after a difference")
    p.add_argument("--no-minimise", dest="minimise", action="store_false")
    p.add_argument("--tries", type=int, default=150, help="runs that minimising may take")
    o = p.parse_args()
    # Programs and server call each other in turn: beside others who compute, each step would wait for the processor, and a run take twenty times as long.
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        pass
    comparison, done, seed, different, permitted = Comparison(o), 0, o.seed, 0, 0
    who = "root, 1000 and 2000 in turn" if o.mixed else f"user {o.as_user}" if o.as_user else "one process"
    who += ", four processes that come and go" if o.processes else ""
    while done < o.count:
        count = min(o.per_seed, o.count - done)
        found, lines = comparison.run(seed, count)
        permitted += comparison.allowed_here
        if lines < count and not found:
            print(f"seed {seed}: only {lines} lines for {count} operations, on both sides")
            return 2
        if found:
            different += 1
            comparison.show(seed, count, found)
            if not o.keep_going:
                return 1
        done += count
        seed += 1
    verdict = "DIFFERENT" if different else "same"
    print(f"{verdict}: {done} operations ({who}) on {comparison.left.kind} and {comparison.right.kind}, seeds {o.seed}-{seed - 1}, "
          f"{permitted} listed differences")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
