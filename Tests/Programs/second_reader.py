#!/usr/bin/env python3
"""A second reader of DashFS volumes, written from docs/FORMAT.md alone.

    second_reader.py IMAGE          every file of the image: path, what it is, the checksum of its bytes; and all that is wrong with it
    second_reader.py --all IMAGE...     the same for each of them, one after the other
    second_reader.py --extract IMAGE DIR   also writes its directories, files and symlinks below DIR, which must not be there
    second_reader.py --walk DIR     the same listing of a directory, made by system calls (for comparing: `dashfs run -- … --walk /dash`)
    second_reader.py --self-test    the checksum and hash functions against published values

Nothing is written. An image that was not shut down in order is replayed in memory first. Exit 0 sound, 1 something is wrong (each thing in a line that begins
with "WRONG:"), 2 not readable as a volume at all.

A file's bytes are summed over its blocks of 4,096 bytes that are not all zero, each with its number, so that a hole of eight terabytes costs nothing
and a hole is the same as zeros.
"""
import hashlib, os, stat, struct, sys

BLOCK = 4096
SUPERBLOCK, GROUP, BITMAP, INODES, DIRECTORY, EXTENTS, ATTRIBUTES, ORPHANS = range(1, 9)
KIND_NAMES = ["", "superblock", "group block", "block bitmap", "inode table", "directory node", "extent node", "attributes", "orphan node"]


def crc_tables():
    """Two tables that advance a CRC-32C over four bytes at once: for the low and the high half of (crc xor word)."""
    def advance(value, bits):
        for _ in range(bits):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        return value
    low_bits = [advance(1 << i, 32) for i in range(16)]
    high_bits = [advance(1 << i, 16) for i in range(16)]
    low, high = [0] * 65536, [0] * 65536
    for v in range(1, 65536):
        lowest = v & -v
        low[v] = low[v ^ lowest] ^ low_bits[lowest.bit_length() - 1]
        high[v] = high[v ^ lowest] ^ high_bits[lowest.bit_length() - 1]
    return low, high


LOW, HIGH = crc_tables()


def crc32c(data):
    crc = 0xFFFFFFFF
    whole = len(data) // 4 * 4
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        x = crc ^ word
        crc = LOW[x & 0xFFFF] ^ HIGH[x >> 16]
    for byte in data[whole:]:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def siphash13(k0, k1, data):
    mask = (1 << 64) - 1
    v0, v1, v2, v3 = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573

    def rounds(v0, v1, v2, v3, n):
        for _ in range(n):
            v0 = v0 + v1 & mask
            v1 = (v1 << 13 | v1 >> 51) & mask ^ v0
            v0 = (v0 << 32 | v0 >> 32) & mask
            v2 = v2 + v3 & mask
            v3 = (v3 << 16 | v3 >> 48) & mask ^ v2
            v0 = v0 + v3 & mask
            v3 = (v3 << 21 | v3 >> 43) & mask ^ v0
            v2 = v2 + v1 & mask
            v1 = (v1 << 17 | v1 >> 47) & mask ^ v2
            v2 = (v2 << 32 | v2 >> 32) & mask
        return v0, v1, v2, v3

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for (word,) in struct.iter_unpack("<Q", padded):
        v0, v1, v2, v3 = rounds(v0, v1, v2, v3 ^ word, 1)
        v0 ^= word
    v0, v1, v2, v3 = rounds(v0, v1, v2 ^ 0xFF, v3, 3)
    return v0 ^ v1 ^ v2 ^ v3


class Unreadable(Exception):
    pass


class Volume:
    def __init__(self, path, keep=False):
        self.keep = keep  # the bytes of files, for extracting them
        self.fd = os.open(path, os.O_RDONLY)
        self.device_blocks = os.lseek(self.fd, 0, os.SEEK_END) // BLOCK
        self.overlay, self.cache, self.findings, self.owner_of = {}, {}, [], {}
        self.choose_superblock()
        if not self.clean:
            self.replay()

    def wrong(self, text):
        if len(self.findings) < 1000:
            self.findings.append(text)

    def raw(self, address, count=1):
        data = os.pread(self.fd, count * BLOCK, address * BLOCK)
        if len(data) != count * BLOCK:
            raise Unreadable(f"block {address} lies past the end of the device")
        return data

    def block(self, address):
        return self.overlay.get(address) or self.raw(address)

    def claim(self, address, who):
        """Each block has one owner."""
        if address in self.owner_of:
            self.wrong(f"block {address} belongs to {self.owner_of[address]} and to {who}")
        else:
            self.owner_of[address] = who

    @staticmethod
    def sum_is_right(data):
        return struct.unpack_from("<I", data, 4)[0] == crc32c(data[:4] + bytes(4) + data[8:])

    def metadata(self, address, kind, owner=0):
        """A metadata block with its header checked; None if it cannot be used."""
        if address in self.cache:
            return self.cache[address]
        name = KIND_NAMES[kind]
        if not 0 <= address < self.block_count:
            self.wrong(f"{name} at block {address}: outside the volume")
            return None
        data = self.block(address)
        magic, _, own, is_kind = struct.unpack_from("<IIQB", data, 0)
        is_owner, uuid = struct.unpack_from("<QQ", data, 24)
        if magic != 0x46485344:
            self.wrong(f"{name} at block {address}: magic is {magic:#x}")
        elif not self.sum_is_right(data):
            self.wrong(f"{name} at block {address}: the checksum is wrong")
        elif own != address:
            self.wrong(f"{name} at block {address}: says that it is block {own}")
        elif is_kind != kind:
            self.wrong(f"{name} at block {address}: is of kind {is_kind}")
        elif uuid != self.uuid_half:
            self.wrong(f"{name} at block {address}: of another volume")
        elif is_owner != owner:
            self.wrong(f"{name} at block {address}: owner is {is_owner}, not {owner}")
        else:
            self.cache[address] = data
            return data
        return None

    # Superblocks

    def choose_superblock(self):
        found, seen = [], set()
        for address in self.superblock_places():
            if address in seen:
                continue
            seen.add(address)
            try:
                data = self.raw(address)
            except Unreadable:
                continue
            magic, _, own, kind = struct.unpack_from("<IIQB", data, 0)
            if magic == 0x46485344 and kind == SUPERBLOCK and own == address and self.sum_is_right(data):
                found.append((struct.unpack_from("<Q", data, 72)[0], data))
        if not found:
            raise Unreadable("no valid superblock")
        generation, s = max(found, key=lambda f: f[0])
        (version, self.clean, _, self.uuid, self.compatible, self.ro_compatible, self.incompatible, self.block_count, self.journal_start, self.journal_blocks,
         self.group_start, self.groups, self.group_blocks, self.group_inodes, self.epoch, self.nonce, self.first_sequence, self.k0, self.k1,
         self.formatted) = struct.unpack_from("<IIQ16sQQQQQQQQIIQQQQQq", s, 64)
        self.uuid_half = struct.unpack("<Q", self.uuid[:8])[0]
        self.generation, self.version = generation, version
        if version != 1:
            raise Unreadable(f"version {version}")
        if self.incompatible:
            raise Unreadable(f"incompatible features {self.incompatible:#x}")
        if self.block_count > self.device_blocks:
            raise Unreadable(f"the volume has {self.block_count} blocks, the device {self.device_blocks}")
        if len(found) < 2:
            self.wrong("only one of the two superblocks is valid")
        data_blocks = self.block_count - 1 - self.group_start
        for what, holds in [
                ("journal start", self.journal_start == 1), ("journal blocks", self.journal_blocks >= 256),
                ("group start", self.group_start == self.journal_start + self.journal_blocks),
                ("blocks per group", 64 <= self.group_blocks <= 32256),
                ("inodes per group", self.group_inodes % 8 == 0 and 8 <= self.group_inodes <= 31744),
                ("number of groups", self.groups >= 1 and (self.groups - 1) * self.group_blocks < data_blocks)]:
            if not holds:
                raise Unreadable(f"superblock: {what} is out of range")

    def superblock_places(self):
        yield 0
        # The second lies at block count - 1, which only a superblock tells: the first one, or else the device's end.
        try:
            yield struct.unpack_from("<Q", self.raw(0), 120)[0] - 1
        except (Unreadable, OverflowError, OSError):
            pass
        yield self.device_blocks - 1

    # Journal

    def records(self):
        """All records of this mount that count, by sequence."""
        found, ring = {}, self.raw(self.journal_start, self.journal_blocks)
        for i in range(self.journal_blocks):
            at = i * BLOCK
            magic, uuid, epoch, nonce, sequence, position, payload, blocks, before, crc, durable, tail, tail_position, entries = struct.unpack_from(
                "<QQQQQQIIIIQQQI", ring, at)
            if (magic, uuid, epoch, nonce) != (0x314345524A485344, self.uuid_half, self.epoch, self.nonce):
                continue
            if position % self.journal_blocks != i or not 1 <= blocks <= self.journal_blocks - i or 128 + payload > blocks * BLOCK:
                continue
            whole = ring[at:at + blocks * BLOCK]
            if crc32c(whole[:60] + bytes(4) + whole[64:]) == crc:
                found[sequence] = (before, crc, durable, tail, entries, whole[128:128 + payload])
        return found

    def replay(self):
        found = self.records()
        if not found:
            return
        last = max(found)
        sequence, before, chain = found[last][3], None, []
        while sequence in found and (before is None or found[sequence][0] == before):
            chain.append(sequence)
            before = found[sequence][1]
            sequence += 1
        if sequence <= max(r[2] for r in found.values()):
            self.wrong(f"journal: record {sequence} was durable and is missing or damaged")
        steps, freed = [], {}
        for number in chain:
            _, _, _, _, entries, payload = found[number]
            at = 0
            for _ in range(entries):
                kind, flags, _, length, address = struct.unpack_from("<BBHIQ", payload, at)
                at += 16
                size = {1: BLOCK, 2: length, 3: 0, 4: BLOCK}.get(kind)
                if size is None or at + size > len(payload):
                    self.wrong(f"journal: record {number} has an entry of kind {kind} that does not fit")
                    break
                if kind == 3:
                    for freed_block in range(address, address + length):
                        freed[freed_block] = number
                else:
                    steps.append((number, kind, address, payload[at:at + size]))
                at += (size + 7) // 8 * 8
        touched = set()
        for number, kind, address, content in steps:
            target = address // BLOCK if kind == 2 else address
            if freed.get(target, -1) >= number:
                continue
            if kind in (1, 4):
                self.overlay[target] = content
                (touched.add if kind == 1 else touched.discard)(target)
            else:
                offset = address % BLOCK
                old = self.block(target)
                self.overlay[target] = old[:offset] + content + old[offset + len(content):]
                touched.add(target)
        for target in touched:
            data = self.overlay[target]
            self.overlay[target] = data[:4] + struct.pack("<I", crc32c(data[:4] + bytes(4) + data[8:])) + data[8:]
        self.replayed = len(chain)

    # Groups

    def group_at(self, g):
        start = self.group_start + g * self.group_blocks
        return start, min(self.group_blocks, self.block_count - 1 - start)

    def data_range(self, address):
        """The end of the data area of the group that the block lies in, or None when it lies in none."""
        g = (address - self.group_start) // self.group_blocks
        if address < self.group_start or g >= self.groups:
            return None
        start, length = self.group_at(g)
        return start + length if start + 2 + self.group_inodes // 8 <= address < start + length else None

    def inode(self, number):
        if not 1 <= number <= self.groups * self.group_inodes:
            return None
        g, i = divmod(number - 1, self.group_inodes)
        table = self.metadata(self.group_at(g)[0] + 2 + i // 8, INODES)
        return Inode(number, table[64 + 504 * (i % 8):64 + 504 * (i % 8 + 1)]) if table else None

    def read_groups(self):
        self.inodes = {}
        for g in range(self.groups):
            start, length = self.group_at(g)
            head, bitmap = self.metadata(start, GROUP), self.metadata(start + 1, BITMAP)
            for block in range(start, start + 2 + self.group_inodes // 8):
                self.claim(block, f"group {g} itself")
            if head is None or bitmap is None:
                continue
            tables_used = struct.unpack_from("<I", head, 72)[0]
            for i in range(self.group_inodes):
                if head[128 + i // 8] >> i % 8 & 1:
                    if i // 8 >= tables_used:
                        self.wrong(f"group {g}: inode {g * self.group_inodes + i + 1} is in use in a table block that is not")
                        continue
                    inode = self.inode(g * self.group_inodes + i + 1)
                    if inode:
                        self.inodes[inode.number] = inode
                        if inode.mode == 0:
                            self.wrong(f"inode {inode.number}: its bit is set, its mode is 0")
                elif i // 8 < tables_used:
                    inode = self.inode(g * self.group_inodes + i + 1)
                    if inode and inode.mode != 0:
                        self.wrong(f"inode {inode.number}: its bit is not set, its mode is {inode.mode:o}")

    def check_groups(self):
        """After everything has been claimed: the bitmaps and counters must say the same."""
        for g in range(self.groups):
            start, length = self.group_at(g)
            head, bitmap = self.metadata(start, GROUP), self.metadata(start + 1, BITMAP)
            if head is None or bitmap is None:
                continue
            free = 0
            for i in range(4032 * 8):
                is_set = bitmap[64 + i // 8] >> i % 8 & 1
                if i >= length:
                    if not is_set:
                        self.wrong(f"group {g}: bit {i} past its end is not set")
                        break
                    continue
                free += not is_set
                owner = self.owner_of.get(start + i)
                if owner and not is_set:
                    self.wrong(f"block {start + i} belongs to {owner} and is marked free")
                elif is_set and not owner:
                    self.wrong(f"block {start + i} is marked in use and belongs to nothing")
            free_inodes = sum(not head[128 + i // 8] >> i % 8 & 1 for i in range(self.group_inodes))
            said_blocks, said_inodes = struct.unpack_from("<II", head, 64)
            if said_blocks != free:
                self.wrong(f"group {g}: {said_blocks} free blocks by its counter, {free} by its bitmap")
            if said_inodes != free_inodes:
                self.wrong(f"group {g}: {said_inodes} free inodes by its counter, {free_inodes} by its bitmap")

    # Trees

    def leaves(self, address, kind, owner, level=None, low=None, high=None):
        """The slots of a tree's leaves in order, as (key, value, auxiliary, the leaf's bytes)."""
        data = self.metadata(address, kind, owner)
        self.claim(address, f"the tree of inode {owner}")
        if owner in self.inodes:
            self.inodes[owner].used += 1
        if data is None:
            return
        is_level, count = data[17], struct.unpack_from("<H", data, 18)[0]
        if level is not None and is_level != level or is_level > 7:
            self.wrong(f"{KIND_NAMES[kind]} at block {address}: level is {is_level}")
            return
        if not 1 <= count <= (BLOCK - 64) // 24:
            self.wrong(f"{KIND_NAMES[kind]} at block {address}: {count} slots")
            return
        slots = [struct.unpack_from("<QQQ", data, 64 + 24 * i) for i in range(count)]
        for i, (key, value, auxiliary) in enumerate(slots):
            counted = None if i == 0 and is_level > 0 else key  # an interior node's first key counts as minus infinity
            if i > 0 and key <= slots[i - 1][0] or counted is not None and (low is not None and key < low or high is not None and key >= high):
                self.wrong(f"{KIND_NAMES[kind]} at block {address}: key {key:#x} out of order")
            if is_level == 0:
                yield key, value, auxiliary, data
            else:
                yield from self.leaves(value, kind, owner, is_level - 1, low if i == 0 else key, slots[i + 1][0] if i + 1 < count else high)

    # Files

    def extents(self, inode):
        if inode.mapping == 1:
            if inode.count > 15:
                self.wrong(f"inode {inode.number}: {inode.count} extents in the inode")
                return
            source = [struct.unpack_from("<QQQ", inode.bytes, 144 + 24 * i) for i in range(inode.count)]
        elif inode.mapping == 2 and inode.root:
            source = (slot[:3] for slot in self.leaves(inode.root, EXTENTS, inode.number))
        else:
            return
        end = 0
        for index, address, tail in source:
            length, unwritten = tail & 0xFFFFFFFF, tail >> 32 & 1
            group_end = self.data_range(address)
            if index < end or length == 0:
                self.wrong(f"inode {inode.number}: the extent at {index} overlaps the one before, or is empty")
            if group_end is None or address + length > group_end:
                self.wrong(f"inode {inode.number}: the extent at {index} does not lie in a group's data")
                continue
            for block in range(address, address + length):
                self.claim(block, f"inode {inode.number}")
            inode.used += length
            end = index + length
            yield index, address, length, unwritten

    def content_blocks(self, inode):
        """(index, bytes) of each block that may hold something, cut at the file's size."""
        if inode.mapping == 0:
            if inode.count > 360:
                self.wrong(f"inode {inode.number}: {inode.count} inline bytes")
                return
            data = inode.bytes[144:144 + min(inode.count, inode.size)]
            if data:
                yield 0, data
            return
        for index, address, length, unwritten in list(self.extents(inode)):
            if unwritten:
                continue
            for i in range(length):
                if (index + i) * BLOCK < inode.size:
                    yield index + i, self.block(address + i)[:inode.size - (index + i) * BLOCK]

    def attributes(self, inode):
        stream, address, seen = b"", inode.attributes, set()
        while address:
            if address in seen:
                self.wrong(f"inode {inode.number}: its attributes go in a circle")
                return []
            seen.add(address)
            data = self.metadata(address, ATTRIBUTES, inode.number)
            self.claim(address, f"attributes of inode {inode.number}")
            inode.used += 1
            if data is None:
                return []
            stream += data[72:]
            address = struct.unpack_from("<Q", data, 64)[0]
        if not stream:
            return []
        length, at, found = struct.unpack_from("<I", stream)[0], 4, []
        if not 4 <= length <= min(65540, len(stream)):
            self.wrong(f"inode {inode.number}: {length} bytes of attributes")
            return []
        while at < length:
            if at + 6 > length:
                self.wrong(f"inode {inode.number}: its attributes end in the middle")
                break
            name_length, value_length = struct.unpack_from("<HI", stream, at)
            name, value = stream[at + 6:at + 6 + name_length], stream[at + 6 + name_length:at + 6 + name_length + value_length]
            at += 6 + name_length + value_length
            if at > length:
                self.wrong(f"inode {inode.number}: its attributes end in the middle")
                break
            found.append((name, value))
        return found

    def entries(self, inode):
        found = {}
        if inode.root:
            for key, number, auxiliary, leaf in self.leaves(inode.root, DIRECTORY, inode.number):
                offset, length, kind = auxiliary & 0xFFFF, auxiliary >> 16 & 0xFFFF, auxiliary >> 32 & 0xFF
                name = leaf[offset:offset + length]
                heap = struct.unpack_from("<H", leaf, 20)[0]
                if not 1 <= length <= 255 or offset < heap or offset + length > BLOCK or b"/" in name or b"\0" in name or name in (b".", b".."):
                    self.wrong(f"directory {inode.number}: an entry that is not a name: {name!r}")
                    continue
                base = max(siphash13(self.k0, self.k1, name) >> 9, 1) << 8
                if key & ~0xFF != base & (1 << 64) - 1:
                    self.wrong(f"directory {inode.number}: {name!r} has key {key:#x}, its hash is {base:#x}")
                if name in found:
                    self.wrong(f"directory {inode.number}: {name!r} is there twice")
                found[name] = (number, kind)
        if len(found) != inode.entries:
            self.wrong(f"directory {inode.number}: {inode.entries} entries by its inode, {len(found)} in its tree")
        return found

    def read(self):
        """The whole volume: yields (path, inode, link text or None, sum of bytes or None, attributes) in the order of paths."""
        self.read_groups()
        orphans, names, listed, described = {}, {}, [], {}
        for number in sorted(self.inodes):
            inode = self.inodes[number]
            inode.xattrs = self.attributes(inode)
            if number == 1:
                for key, value, count, _ in self.leaves(inode.root, ORPHANS, 1) if inode.root else ():
                    orphans.setdefault(key, []).append(value >> 60)
                continue
            if stat.S_ISDIR(inode.mode):
                inode.listing = self.entries(inode)
            elif stat.S_ISLNK(inode.mode) or stat.S_ISREG(inode.mode):
                blocks, text = hashlib.sha256(), b""
                inode.written = []
                for index, data in self.content_blocks(inode):
                    if stat.S_ISLNK(inode.mode):
                        text += data
                    if data.strip(b"\0"):
                        add_block(blocks, index, data)
                    if self.keep:
                        inode.written.append((index, data))
                inode.text, inode.sum = text, blocks.hexdigest()[:32]

        def walk(directory, path):
            subdirectories = 0
            for name, (number, kind) in sorted(directory.listing.items()):
                inode = self.inodes.get(number)
                below = path + b"/" + name
                if inode is None or number == 1:
                    self.wrong(f"{shown(below)}: inode {number} is not in use")
                    continue
                if kind != inode.mode >> 12:
                    self.wrong(f"{shown(below)}: of type {kind} by its entry, {inode.mode >> 12} by its inode")
                names.setdefault(number, []).append(below)
                listed.append((below, inode))
                if stat.S_ISDIR(inode.mode):
                    subdirectories += 1
                    if inode.parent != directory.number:
                        self.wrong(f"{shown(below)}: its parent is said to be inode {inode.parent}, and is {directory.number}")
                    if len(names[number]) > 1:
                        self.wrong(f"{shown(below)}: a directory with two names")
                    else:
                        walk(inode, below)
            if directory.links != subdirectories + 2:
                self.wrong(f"directory {shown(path) or '/'}: {directory.links} links, {subdirectories} subdirectories")

        sys.setrecursionlimit(100000)
        top = self.inodes.get(2)
        if top is None or not stat.S_ISDIR(top.mode):
            self.wrong("there is no root directory")
        else:
            walk(top, b"")
        for number, inode in self.inodes.items():
            if number <= 2:
                continue
            found = names.get(number, [])
            if not found and 1 not in orphans.get(number, []):
                self.wrong(f"inode {number}: no name and no orphan")
            if inode.used != inode.blocks:
                self.wrong(f"inode {number}: {inode.blocks} blocks by its inode, {inode.used} found")
            if stat.S_ISDIR(inode.mode) and inode.size != BLOCK * inode.blocks:
                self.wrong(f"directory {number}: {inode.size} bytes for {inode.blocks} blocks")
            if found and not stat.S_ISDIR(inode.mode) and inode.links != len(found):
                self.wrong(f"inode {number}: {inode.links} links, {len(found)} names")
        self.orphans = orphans
        self.check_groups()
        self.names = names
        return listed


class Inode:
    def __init__(self, number, data):
        self.number, self.bytes, self.used = number, data, 0
        self.mode, self.mapping = struct.unpack_from("<HB", data, 0)
        self.links, self.uid, self.gid = struct.unpack_from("<III", data, 4)
        self.size, self.blocks = struct.unpack_from("<QQ", data, 16)
        self.mtime = struct.unpack_from("<q", data, 40)[0] * 10**9 + struct.unpack_from("<I", data, 68)[0]
        self.generation, = struct.unpack_from("<I", data, 80)
        self.device, self.parent, self.entries, self.root, self.attributes, self.count = struct.unpack_from("<QQQQQI", data, 88)
        self.text, self.sum, self.xattrs = b"", None, []


def add_block(h, index, data):
    h.update(struct.pack("<Q", index) + data.rstrip(b"\0") + b"|")


def shown(name):
    return name.decode("utf-8", "backslashreplace").replace("\n", "\\n")


def line(path, mode, links, uid, gid, size, mtime, text, total, device, xattrs, first):
    """One file, the same for both kinds of listing."""
    kind = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFIFO: "p", stat.S_IFSOCK: "s", stat.S_IFCHR: "c", stat.S_IFBLK: "b"}[stat.S_IFMT(mode)]
    parts = [kind, f"{mode & 0o7777:04o}", str(links), f"{uid}:{gid}", "-" if kind == "d" else str(size), f"{mtime // 10**9}.{mtime % 10**9:09d}"]
    parts.append({"f": total, "l": "-> " + shown(text)}.get(kind, f"{device:#x}" if kind in "cb" else "-"))
    parts += [shown(name) + "=" + hashlib.sha256(value).hexdigest()[:16] for name, value in sorted(xattrs)]
    if first is not None:
        parts.append("also " + shown(first))
    return shown(path) + "\t" + " ".join(parts)


def list_image(path, to=None):
    volume = Volume(path, keep=to is not None)
    listed = volume.read()
    if to is not None:
        extract(volume, listed, to)
    for name, inode in sorted(listed, key=lambda found: found[0]):
        first = volume.names[inode.number][0]
        yield line(name, inode.mode, inode.links, inode.uid, inode.gid, inode.size, inode.mtime, inode.text, inode.sum, inode.device, inode.xattrs,
                   first if first != name else None)
    files = len(volume.inodes) - 2
    state = "shut down in order" if volume.clean else f"replayed {getattr(volume, 'replayed', 0)} records of its journal"
    print(f"{files} inodes, {sum(len(n) for n in volume.names.values())} names, {len(volume.orphans)} orphans, {len(volume.owner_of)} blocks in use, "
          f"{len(volume.cache)} metadata blocks with right checksums; {state}", file=sys.stderr)
    for finding in volume.findings:
        print("WRONG:", finding)
    list_image.sound = not volume.findings


def extract(volume, listed, top):
    """Files as sparse files, symlinks as they are; owners, modes and other nodes are only listed."""
    os.mkdir(top)
    for name, inode in listed:
        target = os.fsencode(top) + name
        if stat.S_ISDIR(inode.mode):
            os.mkdir(target)
        elif stat.S_ISLNK(inode.mode):
            os.symlink(inode.text, target)
        elif stat.S_ISREG(inode.mode):
            with open(target, "wb") as f:
                for index, data in inode.written:
                    f.seek(index * BLOCK)
                    f.write(data)
                f.truncate(inode.size)


def sum_file(path, size):
    total, fd, at = hashlib.sha256(), os.open(path, os.O_RDONLY), 0
    try:
        while at < size:
            try:
                at = os.lseek(fd, at, os.SEEK_DATA) // BLOCK * BLOCK
            except OSError:  # nothing but a hole from here on
                break
            end = min(os.lseek(fd, at, os.SEEK_HOLE), size)
            if end <= at:
                end = min(at + BLOCK, size)
            while at < end:
                data = os.pread(fd, BLOCK, at)
                if not data:
                    return total.hexdigest()[:32]
                if data.strip(b"\0"):
                    add_block(total, at // BLOCK, data)
                at += BLOCK
    finally:
        os.close(fd)
    return total.hexdigest()[:32]


def list_directory(top):
    found = []

    def walk(directory, path):
        for name in os.listdir(directory):
            full, below = os.path.join(directory, name), path + b"/" + name
            st = os.lstat(full)
            found.append((below, full, st))
            if stat.S_ISDIR(st.st_mode):
                walk(full, below)

    walk(os.fsencode(top), b"")
    first = {}
    for below, full, st in found:
        first[st.st_ino] = min(below, first.get(st.st_ino, below), key=lambda p: p.split(b"/"))
    for below, full, st in sorted(found):
        text = os.readlink(full) if stat.S_ISLNK(st.st_mode) else b""
        total = sum_file(full, st.st_size) if stat.S_ISREG(st.st_mode) else None
        names = [os.fsencode(n) for n in os.listxattr(full, follow_symlinks=False)]
        xattrs = [(n, os.getxattr(full, n, follow_symlinks=False)) for n in names]
        yield line(below, st.st_mode, st.st_nlink, st.st_uid, st.st_gid, st.st_size, st.st_mtime_ns, text, total, st.st_rdev, xattrs,
                   first[st.st_ino] if first[st.st_ino] != below else None)
    list_directory.sound = True


def self_test():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA and crc32c(b"\xff" * 32) == 0x62A8AB43  # RFC 3720, B.4
    k = bytes(range(16))
    k0, k1 = struct.unpack("<QQ", k)
    assert siphash13(k0, k1, b"") == 0xABAC0158050FC4DC  # the vectors of SipHash-1-3 for the key 00 … 0f
    assert siphash13(k0, k1, bytes([0])) == 0xC9F49BF37D57CA93
    print("ok")


def main():
    arguments = sys.argv[1:]
    if arguments == ["--self-test"]:
        self_test()
        return 0
    if arguments[:1] == ["--all"]:
        return list_all(arguments[1:])
    if len(arguments) == 1 and not arguments[0].startswith("--"):
        listing = list_image
    elif len(arguments) == 2 and arguments[0] == "--walk":
        listing, arguments = list_directory, arguments[1:]
    elif len(arguments) == 3 and arguments[0] == "--extract":
        listing, arguments = list_image, arguments[1:]
    else:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        for text in listing(*arguments):
            print(text)
    except Unreadable as e:
        print(f"WRONG: {e}")
        return 2
    return 0 if listing.sound else 1


def list_all(images):
    worst = 0
    for image in images:
        print(f"image {image}")
        try:
            for text in list_image(image):
                print(text)
            worst = max(worst, 0 if list_image.sound else 1)
        except Unreadable as e:
            print(f"WRONG: {e}")
            worst = 2
    return worst


if __name__ == "__main__":
    sys.exit(main())
