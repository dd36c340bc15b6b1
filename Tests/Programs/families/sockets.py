# UNIX sockets by path and named pipes, as Linux has them; prints what it sees. Called with a directory.
import asyncio, errno, os, select, socket, stat, subprocess, sys, threading

os.chdir(sys.argv[1])
here = os.getcwd()
AF, STREAM, DGRAM, SEQ = socket.AF_UNIX, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET


def say(what, *values):
    print(what + ":", *[value.replace(here, "@") if isinstance(value, str) else value for value in values], flush=True)


def failure(what, call, *arguments):
    try:
        say(what, "no error:", call(*arguments))
    except OSError as error:
        say(what, errno.errorcode[error.errno])


def listening(path, kind=STREAM):
    made = socket.socket(AF, kind)
    made.bind(path)
    made.listen(8)
    return made


def connected(path, kind=STREAM):
    made = socket.socket(AF, kind)
    made.connect(path)
    return made


# Names.
os.umask(0o027)
server = listening(here + "/server")
status = os.stat("server")
say("node", oct(status.st_mode), stat.S_ISSOCK(status.st_mode), status.st_size)
say("getsockname", server.getsockname())
failure("bind of a name that is there", socket.socket(AF).bind, "server")
failure("bind a second time", server.bind, "another")
say("which made no node", os.path.exists("another"))
failure("bind where there is no directory", socket.socket(AF).bind, "nothing/server")
failure("connect to nothing", connected, "nothing")
open("file", "w").close()
failure("connect to a file", connected, "file")
failure("connect to a directory", connected, ".")
failure("open", os.open, "server", os.O_RDWR)
failure("a datagram socket to a stream", connected, "server", DGRAM)
os.umask(0o022)

# A conversation, and who the peer is.
client = socket.socket(AF)
client.bind("client")
client.connect("server")
peer, name = server.accept()
say("accept", name)
say("names", peer.getsockname(), peer.getpeername(), client.getsockname(), client.getpeername())
client.sendall(b"question")
say("received", peer.recv(100))
peer.sendall(b"answer")
say("received", client.recv(100))
say("recvmsg of a stream", (peer.send(b"x"), client.recvmsg(10)[0]))
say("credentials", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4) == os.getpid().to_bytes(4, "little"))
client.close()
say("end", peer.recv(100))

# By other names of the same node, and of none.
os.rename("server", "renamed")
connected("renamed").close()
server.accept()[0].close()
os.link("renamed", "linked")
os.symlink("linked", "symbolic")
connected("symbolic").close()
server.accept()[0].close()
os.mkdir("below")
os.chdir("below")
connected("../linked").close()
server.accept()[0].close()
relative = listening("relative")
say("a relative name", relative.getsockname())
connected(here + "/below/relative").close()
os.chdir("..")
os.unlink("linked")
os.unlink("renamed")
failure("an unlinked name", connected, "symbolic")
server.close()
second = listening("server")
connected("server").close()
say("a new socket of an old name", second.accept()[0].recv(10))
second.close()
failure("nobody listens any more", connected, "server")
os.unlink("server")

# Datagrams: the sender's name is one that can be answered to.
one, two = socket.socket(AF, DGRAM), socket.socket(AF, DGRAM)
one.bind("one")
two.bind("two")
one.sendto(b"datagram", "two")
data, name = two.recvfrom(100)
say("datagram", data, name)
two.sendto(b"back", name)
say("back", one.recvfrom(100))
two.sendmsg([b"by ", b"sendmsg"], [], 0, "one")
say("sendmsg", one.recvmsg(100)[0::3])
failure("sendto nobody", one.sendto, b"x", "three")
one.connect("two")
one.send(b"connected")
say("connected", two.recv(100))
packets = listening("packets", SEQ)
packet = connected("packets", SEQ)
packet.send(b"a")
packet.send(b"b")
other = packets.accept()[0]
say("packets", other.recv(10), other.recv(10))

# Other processes, which are not this one's children by fork alone.
server = listening("processes")
child = subprocess.Popen([sys.executable, "-c", "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('processes')\ns.sendall(b'from another program')"])
say("another program", server.accept()[0].recv(100))
child.wait()
if os.fork() == 0:
    connected("processes").sendall(b"from a child")
    os._exit(0)
say("a child", server.accept()[0].recv(100))
os.wait()
if os.fork() == 0:
    made = listening("inherited")
    os.set_inheritable(made.fileno(), True)
    os.execv(sys.executable, [sys.executable, "-c", f"import socket\ns = socket.socket(fileno={made.fileno()})\nc, a = s.accept()\nc.sendall(repr(s.getsockname()).encode())"])
while True:
    try:
        say("a socket that exec has handed on", connected("inherited").recv(100).decode())
        break
    except OSError:
        select.select([], [], [], 0.01)
os.wait()

async def conversation():
    async def answer(reader, writer):
        writer.write(b"asyncio: " + await reader.readline())
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(answer, "asyncio"):
        for number in range(20):
            reader, writer = await asyncio.open_unix_connection("asyncio")
            writer.write(b"%d\n" % number)
            line = await reader.readline()
            writer.close()
    say("the last of twenty", line)


asyncio.run(conversation())

# More than the server keeps for a user at a time, one after the other.
for number in range(400):
    made = listening("many")
    connected("many").close()
    made.close()
    os.unlink("many")
say("four hundred sockets", True)

# Pipes.
os.mkfifo("pipe", 0o640)
say("pipe", oct(os.stat("pipe").st_mode))
failure("written without readers, not waiting", os.open, "pipe", os.O_WRONLY | os.O_NONBLOCK)
reading = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
say("no writer", os.read(reading, 10))
writing = os.open("pipe", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
say("not inheritable", os.get_inheritable(writing))
failure("nothing yet", os.read, reading, 10)
os.write(writing, b"through the pipe")
say("poll", select.select([reading], [], [], 0)[0] == [reading])
say("read", os.read(reading, 100))
say("a pipe", stat.S_ISFIFO(os.fstat(reading).st_mode))
failure("seek", os.lseek, reading, 0, 0)
os.close(writing)
say("end", os.read(reading, 100))
os.close(reading)
failure("exclusively", os.open, "pipe", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
failure("as a directory", os.open, "pipe", os.O_RDONLY | os.O_DIRECTORY)
lines = []
thread = threading.Thread(target=lambda: lines.extend(open("pipe").readlines()))
thread.start()
with open("pipe", "w") as file:  # waits for the thread
    file.write("one\ntwo\n")
thread.join()
say("lines", lines)
os.symlink("pipe", "way")
child = subprocess.Popen(["cat", "way"], stdout=subprocess.PIPE)
with open("pipe", "wb") as file:
    file.write(b"to a program")
say("by a link", child.communicate()[0])
path = os.open("pipe", os.O_PATH)
say("O_PATH", stat.S_ISFIFO(os.fstat(path).st_mode))
again = os.open(f"/proc/self/fd/{path}", os.O_RDWR)
os.write(again, b"again")
say("opened anew", os.read(again, 10))
