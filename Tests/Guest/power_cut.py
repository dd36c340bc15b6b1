#!/usr/bin/env python3
"""Cuts the power at random points of a log of a disk, and checks what recovery makes of each.

    power_cut.py LOG --write-cache on|off --program POWER_CUT     a log of power_cut.sh (scripts/nvme-guest --log), the compiled power_cut.c
    power_cut.py … --cuts N --seed S                              that many cuts (100), chosen by that seed (1)
    power_cut.py … --cut C --keep FILE                            only cut C of that seed, and its image is left in FILE before recovery touches it

DASHFS=path of the dashfs program. Exit 0 where each image is checked clean before and after recovery and holds every step that was durable, and
where broken disks are found: one that loses a journal record which had completed, one that forgets its last flushes (or completed writes).

What a cut leaves. LOG has the bytes of each write, LOG.commands when each command came to the controller and when it was answered; cut C is before
line C of that. With a volatile write cache those writes are certain that were answered before a flush came which was answered before the cut.
Of the others that had come, answered or not, any subset is there, in the order of the answers, each whole or torn between logical blocks (QEMU
reports an atomic unit of one). Without a cache each write that was answered is certain. So are those with FUA.

What is not exact. Those moments are the controller's: a flush that the driver sent before it had seen the answer to a write may come after that
answer and then covers the write here, which a disk need not do. That leaves out states that a disk might be in and makes none that it could not
be in: what fails here is a loss.
"""
import argparse, bisect, collections, itertools, mmap, multiprocessing, os, random, re, shutil, struct, subprocess, sys, tempfile, time

FLUSH, FUA, DISCARD = 1, 2, 4  # dm-log-writes: linux/Documentation/admin-guide/device-mapper/log-writes.rst
DEALLOCATE = 9  # NVM command set specification
MAGIC, VERSION = 0x6A736677736872, 1
RECORD = b"DSHJREC1"  # a journal record: docs/FORMAT.md
NAME = re.compile(rb"<([0-9a-f]{6}):")  # a step in its bytes: power_cut.c
STEPS = 1 << 12  # more than there are
ZEROS = bytes(1 << 16)
BROKEN, FORGOTTEN = 6, 32  # images of each broken disk, and how much one forgets

COMMAND = re.compile(r"pci_nvme_(?:io_cmd cid (?P<came>\d+) nsid \w+ sqid (?P<sqid>\d+) opc (?P<opcode>\w+)|"
                     r"write cid \d+ .* count (?P<length>\d+) lba (?P<lba>\w+)|"
                     r"dsm_deallocate slba (?P<discarded>\d+) nlb (?P<blocks>\d+)|"
                     r"enqueue_req_completion cid (?P<answered>\d+) cqid (?P<cqid>\d+) .*status (?P<status>\w+))")


class Command:
    """A write, discard or flush: where on the disk and in the log, in bytes; when it came, when it was answered, and since when it is certain (`sure`: by
    itself, with FUA), in lines."""

    def __init__(self, came, opcode):
        self.came, self.opcode, self.offset, self.length, self.at = came, opcode, 0, 0, None
        self.answered = self.certain = self.sure = float("inf")


class Log:
    """The writes of a log in the order in which they were answered, which is also the order in which they became certain."""

    def __init__(self, path, cached, forgotten=0):
        with open(path, "rb") as file:
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        magic, version, count, self.block = struct.unpack_from("<QQQI", self.bytes)
        if (magic, version) != (MAGIC, VERSION):
            sys.exit(f"{path} is no log of writes")
        entries, at = collections.defaultdict(collections.deque), self.block  # of each place, in their order
        for number in range(count):
            sector, sectors, flags, _ = struct.unpack_from("<QQQQ", self.bytes, at)
            at += self.block
            if flags & DISCARD:
                continue
            if flags & ~(FLUSH | FUA) or at + sectors * self.block > len(self.bytes):
                sys.exit(f"{path}: entry {number} is damaged")
            if sectors:
                entries[sector * self.block, sectors * self.block].append((at, flags))
            at += sectors * self.block
        commands = self.commands(path + ".commands")
        flushes = sorted((c for c in commands if c.opcode == 0), key=lambda c: c.came)
        self.writes = sorted((c for c in commands if c.length), key=lambda c: c.answered)
        for write in self.writes:
            if write.opcode == DEALLOCATE:
                continue
            write.at, flags = entries[write.offset, write.length].popleft()
            write.sure = write.answered if flags & FUA else float("inf")
        if any(entries.values()):
            sys.exit(f"{path}.commands lacks a write")
        soonest, waiting = float("inf"), list(flushes)  # from the last to the first: the flushes that come after a write
        for write in reversed(self.writes):
            while waiting and waiting[-1].came > write.answered:
                soonest = min(soonest, waiting.pop().answered)
            write.certain = soonest if cached else write.answered
        self.certainties = [w.certain for w in self.writes]
        self.promises = sorted(f.answered for f in flushes) if cached else self.certainties
        self.size, self.flushes, self.forgotten = max(w.offset + w.length for w in self.writes), len(flushes), forgotten

    def commands(self, path):
        under_way, answered, last = {}, [], None
        with open(path) as file:
            for self.end, line in enumerate(file, 1):
                match = COMMAND.match(line)
                if match and match["came"]:
                    last = under_way[match["sqid"], match["came"]] = Command(self.end - 1, int(match["opcode"], 16))
                elif match and match["discarded"]:
                    last.offset, last.length = int(match["discarded"]) * self.block, int(match["blocks"]) * self.block
                elif match and match["lba"]:
                    last.offset, last.length = int(match["lba"], 16) * self.block, int(match["length"])
                elif match and (command := under_way.pop((match["cqid"], match["answered"]), None)) and int(match["status"], 16) == 0:
                    command.answered = self.end - 1
                    answered.append(command)
        return answered

    def data(self, write):
        """What a discard leaves is nobody's business: something that nobody may rely on."""
        if write.opcode == DEALLOCATE:
            return b"\xd1" * write.length
        return self.bytes[write.at:write.at + write.length]

    def certain(self, cut):
        """The writes below the one returned are certain at the cut."""
        promise = bisect.bisect_left(self.promises, cut) - 1 - self.forgotten
        return bisect.bisect_right(self.certainties, self.promises[promise]) if promise >= 0 else 0

    def steps(self):
        """For each cut the highest step that has named itself: all before it have been acknowledged."""
        numbers, steps = {i * 0x9E3779 & 0xFFFFFF: i for i in range(STEPS)}, [0] * (self.end + 1)
        for write in self.writes:
            steps[write.came + 1] = max([numbers.get(int(name, 16), 0) for name in set(NAME.findall(self.data(write)))], default=0)
        return list(itertools.accumulate(steps, max))


class Disk:
    """What a disk holds, forward through a log."""

    def __init__(self, log):
        self.log, self.bytes, self.done = log, bytearray(log.size), 0

    def cut(self, cut, chance, path, dropped=None):
        """An image of what the cut may leave. Cuts come in ascending order."""
        log, certain = self.log, self.log.certain(cut)
        for write in log.writes[self.done:certain]:
            if write is not dropped:
                self.bytes[write.offset:write.offset + write.length] = log.data(write)
        self.done = certain
        with open(path, "wb") as image:
            image.truncate(log.size)
            for at in range(0, log.size, len(ZEROS)):
                if self.bytes[at:at + len(ZEROS)] != ZEROS:
                    image.seek(at)
                    image.write(self.bytes[at:at + len(ZEROS)])
            kept = chance.choice((0, 0.1, 0.5, 0.9, 1))
            for write in log.writes[certain:]:
                sure = write.sure < cut
                if write.came >= cut or write is dropped or not sure and chance.random() >= kept:
                    continue
                data, torn = log.data(write), not sure and chance.random() < 0.3
                for at in range(0, len(data), log.block):
                    if not torn or chance.random() < 0.5:
                        image.seek(write.offset + at)
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
    """Makes and checks the cuts of these plans, (cut, step, number of a dropped write), in ascending order: a list of (cut, what is wrong, step)."""
    log, results = Log(options.log, options.write_cache == "on", forgotten), []
    disk = Disk(log)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:  # where a flush costs nothing
        image = os.path.join(folder, "image")
        for cut, step, dropped in plans:
            if dropped is not None:
                disk = Disk(log)
            disk.cut(cut, random.Random(f"{options.seed} {cut}"), image, None if dropped is None else log.writes[dropped])
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
    if steps[-1] < 100:
        sys.exit(f"FAILED: the log has no more than {steps[-1]} steps")
    # The format is over when the first superblock is there for certain. The last cut is the end.
    formatted = next(i for i, write in enumerate(log.writes) if write.offset == 0 and any(log.data(write)))
    first = next(cut for cut in range(log.end) if log.certain(cut) > formatted)

    def record(cut):
        """The last journal record that was certain when the step at the cut named itself."""
        return max(i for i in range(log.certain(bisect.bisect_left(steps, steps[cut]))) if log.data(log.writes[i]).startswith(RECORD))

    with multiprocessing.Pool() as pool:
        def checked(cuts, forgotten=0, drop=False):
            plans = [(cut, steps[cut], record(cut) if drop else None) for cut in sorted(cuts)]
            parts = os.cpu_count()
            return sorted(sum(pool.starmap(check, [(options, forgotten, plans[i::parts]) for i in range(parts)]), []))

        if options.cut is not None:
            results = checked([options.cut])
        else:
            results = checked(chance.sample(range(first, log.end), options.cuts - 1) + [log.end])
            late = chance.sample(range(bisect.bisect_left(steps, 10), log.end), BROKEN)
            dropped = sum(1 for _, what, _ in checked(late, drop=True) if what)
            forgotten = sum(1 for _, what, _ in checked(late, forgotten=FORGOTTEN) if what)
    wrong = [(cut, what) for cut, what, _ in results if what]
    for cut, what in wrong[:5]:
        print(f"FAILED at cut {cut} of seed {options.seed} (step {steps[cut]}): {what}")
    reached = [step for _, what, step in results if not what]
    print(f"blocks of {log.block}, write cache {options.write_cache}: {len(log.writes)} writes, {log.flushes} flushes, {len(results)} cuts, "
          f"{len(wrong)} wrong, recovered at steps {min(reached, default='-')} to {max(reached, default='-')}, {time.monotonic() - began:.0f} s")
    if options.cut is None:
        print(f"of {BROKEN} images each: {dropped} found that lack a journal record, {forgotten} that lack what {FORGOTTEN} flushes or writes made durable")
        if not (dropped and forgotten):
            sys.exit("FAILED: a broken disk is not found")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
