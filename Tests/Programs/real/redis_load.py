# redis_load.py write SOCKET LOG ROUND     four connections that set keys; each acknowledged one becomes a line of LOG; ends when the server does
# redis_load.py verify SOCKET LOG          the server has each key of LOG with its value, and of the others at most those that were on their way
import socket, sys, threading

CONNECTIONS = 4


def value(key):
    return (key * (1 + sum(key.encode()) % 40)).encode()


class Connection:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def send(self, *words):
        words = [w if isinstance(w, bytes) else w.encode() for w in words]
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))

    def answer(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError
        if line[:1] == b"$":
            size = int(line[1:])
            return None if size < 0 else self.file.read(size + 2)[:-2]
        if line[:1] == b"-":
            raise SystemExit(f"Redis says {line!r}")
        return line[1:-2]

    def ask(self, *words):
        self.send(*words)
        return self.answer()


def write(path, log, round):
    connections = [Connection(path) for _ in range(CONNECTIONS)]  # before the first write, so that none comes too late
    def one(n):
        i = 0
        try:
            while True:
                key = f"key-{round}-{n}-{i}"
                if connections[n].ask("SET", key, value(key)) != b"OK":
                    raise SystemExit("SET was not acknowledged")
                log.write(key + "\n")
                i += 1
        except OSError:  # the server was killed
            pass
    threads = [threading.Thread(target=one, args=(n,)) for n in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def verify(path, keys):
    connection = Connection(path)
    for key in keys:
        seen = connection.ask("GET", key)
        if seen != value(key):
            raise SystemExit(f"{key} was acknowledged and is {seen!r}")
    rounds = {key.split("-")[1] for key in keys}
    size = int(connection.ask("DBSIZE"))
    if not len(keys) <= size <= len(keys) + CONNECTIONS * len(rounds):
        raise SystemExit(f"there are {size} keys; {len(keys)} were acknowledged")


if sys.argv[1] == "write":
    with open(sys.argv[3], "a", buffering=1) as log:
        write(sys.argv[2], log, sys.argv[4])
else:
    with open(sys.argv[3]) as log:
        verify(sys.argv[2], log.read().split())
