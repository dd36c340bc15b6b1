# editors.py DIRECTORY KERNEL    drives vim and nano through a pseudo-terminal: each key goes out when what has to come before it is seen.
import os, pty, re, select, signal, sys

directory, kernel = sys.argv[1:]
os.chdir(directory)
ENVIRONMENT = {**os.environ, "TERM": "xterm", "HOME": kernel, "LINES": "24", "COLUMNS": "80"}


class Session:
    def __init__(self, *command):
        self.name, self.seen = command[0], b""
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            os.execvpe(command[0], command, ENVIRONMENT)

    def more(self):
        if not select.select([self.terminal], [], [], 100)[0]:
            raise SystemExit(f"{self.name} says nothing for 100 s; last: {self.seen[-400:]!r}")
        try:
            text = os.read(self.terminal, 65536)
        except OSError:
            text = b""
        if not text:
            raise EOFError
        self.seen += text

    def expect(self, pattern):
        try:
            while not (found := re.search(pattern, self.seen)):
                self.more()
        except EOFError:
            raise SystemExit(f"{self.name} ended before {pattern!r}; last: {self.seen[-400:]!r}")
        self.seen = self.seen[found.end():]

    def send(self, keys):
        os.write(self.terminal, keys)

    def end(self, expected=0):
        try:
            while True:
                self.more()
        except EOFError:
            pass
        status = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        os.close(self.terminal)
        if status != expected:
            raise SystemExit(f"{self.name} ended with {status}; last: {self.seen[-400:]!r}")

    def kill(self):
        os.kill(self.process, signal.SIGKILL)
        self.end(-signal.SIGKILL)


def content(name, expected):
    with open(name, "rb") as file:
        seen = file.read()
    if seen != expected:
        raise SystemExit(f"{name} is {seen[:300]!r}, not {expected[:300]!r}")


def names(*expected):
    seen = sorted(os.listdir("."))
    if seen != sorted(expected):
        raise SystemExit(f"there are {seen}, not {sorted(expected)}")


def vim(*arguments):
    session = Session("vim", "-u", "NONE", "-N", "-i", "NONE", "--cmd", "set ruler shortmess=I", *arguments)
    session.expect(rb"0,0-1|1,1|All|Top|ATTENTION")
    return session


def use_vim():
    session = vim("new.txt")
    session.send(b"ifirst line\rsecond line\x1b:w\r")
    session.expect(rb"\[New.*written")
    names("new.txt", ".new.txt.swp")
    content("new.txt", b"first line\nsecond line\n")
    session.send(b"Gothird\x1b:%s/line/row/g\r:wq\r")
    session.end()
    content("new.txt", b"first row\nsecond row\nthird\n")
    names("new.txt")

    os.chmod("new.txt", 0o640)
    os.link("new.txt", "linked.txt")
    session = vim("-c", "set backup backupskip= backupcopy=yes fsync", "new.txt")
    session.send(b":1,2join\r:wq\r")
    session.end()
    content("new.txt", b"first row second row\nthird\n")
    content("linked.txt", b"first row second row\nthird\n")
    content("new.txt~", b"first row\nsecond row\nthird\n")
    if os.stat("new.txt").st_mode & 0o777 != 0o640:
        raise SystemExit("vim has changed the mode")
    session = vim("-c", "set backupskip= backupcopy=no", "new.txt")
    session.send(b":$d\r:x\r")
    session.end()
    content("new.txt", b"first row second row\n")
    content("linked.txt", b"first row second row\nthird\n")

    session = vim("big.txt")
    session.send(b":call setline(1, map(range(20000), '\"line \" . v:val'))\r:w\r")
    session.expect(rb"20000(?:L| lines).*written")
    session.send(b":g/7$/d\r:1,10w part.txt\r:r !wc -l <part.txt\r:w\r")
    session.expect(rb"\"big.txt\".*18001(?:L| lines)")
    session.send(b":set undofile undodir=. | normal oundone\r:preserve\r")
    session.expect(rb"[Pp]reserved")
    session.kill()
    if not os.path.exists(".big.txt.swp"):
        raise SystemExit("a killed vim left no swap file")
    session = Session("vim", "-u", "NONE", "-N", "-i", "NONE", "-r", "big.txt")
    session.expect(rb"Press ENTER|recover", )
    session.send(b"\r:wq\r")
    session.end()
    with open("big.txt", "rb") as file:
        if b"\nundone\n" not in file.read():
            raise SystemExit("vim has not recovered the line from its swap file")
    for name in (".big.txt.swp", "big.txt", "part.txt", "new.txt~", "linked.txt", "new.txt"):
        os.unlink(name)
    names()


def use_nano():
    session = Session("nano", "--ignorercfiles", "note.txt")
    session.expect(rb"New File")
    session.send(b"written by nano\rtwo\x13")
    session.expect(rb"Wrote 2 lines")
    content("note.txt", b"written by nano\ntwo\n")
    session.send(b"\rthree\x18")
    session.expect(rb"Save modified buffer")
    session.send(b"y")
    session.expect(rb"Write")
    session.send(b"\r")
    session.end()
    content("note.txt", b"written by nano\ntwo\nthree\n")
    session = Session("nano", "--ignorercfiles", "--backup", "--locking", "note.txt")
    session.expect(rb"Read 3 lines")
    if ".note.txt.swp" not in os.listdir("."):
        raise SystemExit("nano has made no lock file")
    session.send(b"\x0b\x13")
    session.expect(rb"Wrote 2 lines")
    session.send(b"\x18")
    session.end()
    content("note.txt", b"two\nthree\n")
    content("note.txt~", b"written by nano\ntwo\nthree\n")
    names("note.txt", "note.txt~")


use_vim()
use_nano()
