#!/usr/bin/env python3
"""Cuts the power at random points of a log of a disk, and checks what recovery makes of each.

    power_cut.py LOG --write-cache on|off --program POWER_CUT     a log of power_cut.sh (scripts/nvme-guest --log), the compiled power_cut.c
    power_cut.py … --cuts N --seed S                              that many cuts (100), chosen by that seed (1)
    power_cut.py … --cut C --keep FILE                            only cut C of that seed, and its image is left in FILE before recovery touches it

DASHFS=path of the dashfs program. Exit 0 where each image is checked clean before and after recovery and holds every step that was durable, and
where broken disks are found: one that loses a journal record which had completed, one that forgets its last flushes (or completed writes).

What a cut leaves. Cut C is the moment before entry C of the log completes. Certain is each write that completed before a flush that completed before
the cut; of the later ones, and of the one that is just completing, any subset is there, applied in the log's order, each whole or torn between
logical blocks (QEMU reports an atomic unit of one). Writes with FUA are certain, and so are all completed ones where there is no volatile cache.

What the log cannot tell. QEMU logs a request when it completes and not when it was submitted. So a write that was under way together with a flush
and completed first counts as covered, though the disk had not promised it; and of several writes under way at the cut only the next to complete is
a candidate. Both leave out states that a disk might be in, and never make one that it could not be in: what fails here is a loss.
"""
import argparse, bisect, collections, mmap, multiprocessing, os, random, re, shutil, struct, subprocess, sys, tempfile, time

FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8  # dm-log-writes: linux/Documentation/admin-guide/device-mapper/log-writes.rst
MAGIC, VERSION = 0x6A736677736872, 1
RECORD = b"DSHJREC1"  # a journal record: docs/FORMAT.md
NAME = re.compile(rb"<([0-9a-f]{6}):[0-9a-f]{7}>")  # a step in its bytes: power_cut.c
STEPS = 1 << 12  # more than there are
ZEROS = bytes(1 << 16)
BROKEN, FORGOTTEN = 6, 32  # images of each broken disk, and how much one forgets

Entry = collections.namedtuple("Entry", "offset length flags at")  # bytes on the disk, and where in the log they are


class Log:
    """The entries of a log and, for each cut, how much is certain. All offsets are in bytes."""

    def __init__(self, path, cached, forgotten=0):
        with open(path, "rb") as file:
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        magic, version, count, self.block = struct.unpack_from("<QQQI", self.bytes)
        if (magic, version) != (MAGIC, VERSION):
            sys.exit(f"{path} is no log of writes")
        self.entries, at = [], self.block
        for _ in range(count):
            sector, sectors, flags, _ = struct.unpack_from("<QQQQ", self.bytes, at)
            self.entries.append(Entry(sector * self.block, sectors * self.block, flags, at + self.block))
            at += self.block + (0 if flags & DISCARD else sectors * self.block)
            if flags & ~(FLUSH | FUA | DISCARD | MARK) or at > len(self.bytes):
                sys.exit(f"{path} is damaged at entry {len(self.entries) - 1}")
        self.size = max(e.offset + e.length for e in self.entries)
        self.cached, self.forgotten = cached, forgotten
        self.flushes = [i for i, e in enumerate(self.entries) if e.flags & FLUSH]

    def data(self, entry):
        return bytes(entry.length) if entry.flags & DISCARD else self.bytes[entry.at:entry.at + entry.length]

    def certain(self, cut):
        """The entries below the one returned are certain at the cut."""
        if not self.cached:
            return max(0, cut - self.forgotten)
        flush = bisect.bisect_left(self.flushes, cut) - 1 - self.forgotten
        return self.flushes[flush] if flush >= 0 else 0

    def is_record(self, entry):
        return entry.length and not entry.flags & DISCARD and self.bytes[entry.at:entry.at + 8] == RECORD

    def steps(self):
        """For each cut the highest step that has left its name on the disk: all before it have been acknowledged."""
        numbers = {i * 0x9E3779 & 0xFFFFFF: i for i in range(STEPS)}
        highest, seen = 0, []
        for entry in self.entries:
            highest = max([highest] + [numbers.get(int(name, 16), 0) for name in set(NAME.findall(self.data(entry)))])
            seen.append(highest)
        return seen + [highest]


class Disk:
    """What a disk holds, forward through a log."""

    def __init__(self, log):
        self.log, self.bytes, self.done = log, bytearray(log.size), 0

    def apply(self, entry):
        self.bytes[entry.offset:entry.offset + entry.length] = self.log.data(entry)

    def cut(self, cut, chance, path, dropped=None):
        """An image of what the cut may leave. Cuts come in ascending order."""
        log = self.log
        while self.done < log.certain(cut):
            if self.done != dropped:
                self.apply(log.entries[self.done])
            self.done += 1
        with open(path, "wb") as image:
            image.truncate(log.size)
            for at in range(0, log.size, len(ZEROS)):
                if self.bytes[at:at + len(ZEROS)] != ZEROS:
                    image.seek(at)
                    image.write(self.bytes[at:at + len(ZEROS)])
            kept = chance.choice((0, 0.1, 0.5, 0.9, 1))
            for number in range(self.done, min(cut + 1, len(log.entries))):
                entry = log.entries[number]
                sure = entry.flags & FUA and number < cut
                if number == dropped or not sure and chance.random() >= kept:
                    continue
                data, torn = log.data(entry), not sure and chance.random() < 0.3
                for at in range(0, len(data), log.block):
                    if not torn or chance.random() < 0.5:
                        image.seek(entry.offset + at)
                        image.write(data[at:at + log.block])


def recover(image, step, program):
    """Checks an image, recovers it, has its files compared, checks again. What is wrong, or None; and what step it is at."""
    dashfs, told = os.environ["DASHFS"], ""
    for command in ([dashfs, "check", image], [dashfs, "run", "--image", image, "--", program, "verify", "/dash", str(step)], [dashfs, "check", image]):
        try:
            run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)
        except subprocess.TimeoutExpired:
            return f"no end of {' '.join(command)}", None
        if run.returncode != 0:
            return f"{' '.join(command)}: status {run.returncode}\n{run.stdout}{run.stderr}", None
        told += run.stdout
    found = re.search(r"^step (\d+)$", told, re.M)
    return None, int(found.group(1)) if found else 0


def check(options, forgotten, plans):
    """Makes and checks the cuts of these plans, (cut, step, dropped entry), in ascending order: a list of (cut, what is wrong, step)."""
    log, results = Log(options.log, options.write_cache == "on", forgotten), []
    disk = Disk(log)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:  # where a flush costs nothing
        image = os.path.join(folder, "image")
        for cut, step, dropped in plans:
            if dropped is not None:
                disk = Disk(log)
            disk.cut(cut, random.Random(f"{options.seed} {cut}"), image, dropped)
            if options.keep:
                shutil.copy(image, options.keep)
            results.append((cut, *recover(image, step, options.program)))
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("log")
    parser.add_argument("--write-cache", choices=("on", "off"), required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cut", type=int)
    parser.add_argument("--keep")
    options = parser.parse_args()
    began, chance = time.monotonic(), random.Random(options.seed)
    log = Log(options.log, options.write_cache == "on")
    steps = log.steps()
    # A format is over when the first superblock is there for certain. The last cut is the end of the log.
    formatted = next(i for i, e in enumerate(log.entries) if e.offset == 0 and e.length and any(log.data(e)))
    first = next(cut for cut in range(len(log.entries) + 1) if log.certain(cut) > formatted)

    def record(cut):
        """The last journal record that had completed when the step at the cut left its name."""
        return max(i for i in range(log.certain(bisect.bisect_left(steps, steps[cut]))) if log.is_record(log.entries[i]))

    with multiprocessing.Pool() as pool:
        def checked(cuts, forgotten=0, drop=False):
            plans = [(cut, steps[cut], record(cut) if drop else None) for cut in sorted(cuts)]
            parts = os.cpu_count()
            return sorted(sum(pool.starmap(check, [(options, forgotten, plans[i::parts]) for i in range(parts)]), []))

        if options.cut is not None:
            results = checked([options.cut])
        else:
            results = checked(chance.sample(range(first, len(log.entries)), options.cuts - 1) + [len(log.entries)])
            late = chance.sample(range(bisect.bisect_left(steps, 10), len(log.entries)), BROKEN)
            dropped = sum(1 for _, what, _ in checked(late, drop=True) if what)
            forgotten = sum(1 for _, what, _ in checked(late, forgotten=FORGOTTEN) if what)
    wrong = [(cut, what) for cut, what, _ in results if what]
    for cut, what in wrong[:5]:
        print(f"FAILED at cut {cut} of seed {options.seed} (step {steps[cut]}): {what}")
    reached = [step for _, what, step in results if not what]
    print(f"blocks of {log.block}, write cache {options.write_cache}: {len(log.entries)} entries, {len(log.flushes)} flushes, {len(results)} cuts, "
          f"{len(wrong)} wrong, recovered at steps {min(reached, default='-')} to {max(reached, default='-')}, {time.monotonic() - began:.0f} s")
    if options.cut is None:
        print(f"of {BROKEN} images each: {dropped} found that lack a journal record, {forgotten} that lack what {FORGOTTEN} flushes or writes made durable")
        if not (dropped and forgotten):
            sys.exit("FAILED: a broken disk is not found")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
