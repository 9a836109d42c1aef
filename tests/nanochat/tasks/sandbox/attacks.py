"""Programs that try to get out. Each ends normally only if it has got what it wanted.

`{folder}` holds the file `victim` of the user who runs the tests, and nothing called `target`; `{parent}` is the tests' process;
`{port}` is a TCP port of this machine on which somebody listens.
"""

from __future__ import annotations

import os
from pathlib import Path

RAW = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\ncall = libc.syscall\n"

NETWORK = {
    "connect": "import socket; socket.create_connection(('127.0.0.1', {port}), 1)",
    "raw socket class": "import _socket; _socket.socket()",
    "udp": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
    "listen": "import socket; socket.create_server(('127.0.0.1', 0))",
    "http": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}', timeout=1)",
    "name lookup": "import socket; assert socket.getaddrinfo('example.com', 80)",
    "unix socket": "import socket; socket.socket(socket.AF_UNIX).connect('/run/dbus/system_bus_socket')",
    "datagram on a pair": (
        "import socket; a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); a.sendto(b'x', '/dev/log')"
    ),
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "socket by number": RAW + "assert call(41 if os.uname().machine == 'x86_64' else 198, 2, 1, 0) >= 0",
    "io_uring": RAW + "assert call(425, 8, ctypes.create_string_buffer(120)) >= 0",
}

FILES = {
    "read a secret": "assert 'safe' in open('{folder}/victim').read()",
    "read passwords": "assert open('/etc/passwd').read()",
    "list the home": "import os; assert os.listdir(os.path.expanduser('~root'))",
    "list the root's neighbours": "import os; assert os.listdir('{folder}')",
    "write": "open('{folder}/target', 'w').write('x')",
    "overwrite": "open('{folder}/victim', 'w').write('x')",
    "write by descriptor": "import os; os.open('{folder}/target', os.O_CREAT | os.O_WRONLY)",
    "temporary file elsewhere": "import os; os.open('{folder}', os.O_TMPFILE | os.O_WRONLY)",
    "truncate": "import os; os.truncate('{folder}/victim', 0)",
    "truncate on reading": "import os; os.open('{folder}/victim', os.O_RDONLY | os.O_TRUNC)",
    "truncate the library": "import os; os.open(os.__file__, os.O_RDONLY | os.O_TRUNC)",
    "write into the library": "import os; open(os.path.dirname(os.__file__) + '/escaped.py', 'w')",
    "write upwards": "open('../escaped', 'w')",
    "symbolic link": "import os; os.symlink('{folder}/target', 'l'); open('l', 'w')",
    "symbolic link to a secret": "import os; os.symlink('{folder}/victim', 'l'); assert open('l').read()",
    "hard link": "import os; os.link('{folder}/victim', 'l')",
    "hard link outwards": "import os; open('x', 'w').close(); os.link('x', '{folder}/target')",
    "new folder": "import os; os.mkdir('{folder}/target')",
    "remove": "import os; os.remove('{folder}/victim')",
    "remove a tree": "import shutil; shutil.rmtree('{folder}')",
    "rename away": "import os; os.rename('{folder}/victim', 'mine')",
    "mode": "import os; os.chmod('{folder}/victim', 0)",
    "mode of the interpreter": "import os; os.chmod(os.__file__, 0o666)",
    "owner": "import os; os.chown('{folder}/victim', 1, 1)",
    "times": "import os; os.utime('{folder}/victim', (1, 1))",
    "times by number": RAW
    + "assert call(280 if os.uname().machine == 'x86_64' else 88, -100, b'{folder}/victim', None, 0) == 0",
    "attributes": "import os; os.setxattr('{folder}/victim', 'user.x', b'y')",
    "device": "import os, stat; os.mknod('disk', 0o600 | stat.S_IFBLK, os.makedev(254, 0)); open('disk', 'rb').read(1)",
    "handle": RAW + "assert call(304, -100, ctypes.create_string_buffer(64), 0) >= 0",
    "mount": RAW + "assert libc.mount(b'x', b'.', b'tmpfs', 0, None) == 0",
    "remount writable": RAW + "assert libc.mount(None, b'/', None, 0x20 | 0x1000, None) == 0",
    "another root": "import os; os.mkdir('r'); os.chroot('r')",
    "namespaces of its own": RAW + "assert libc.unshare(0x10000000) == 0",
    "shared memory by name": "from multiprocessing import shared_memory; shared_memory.SharedMemory('escaped', create=True, size=9)",
}

PROCESSES = {
    "fork": "import os; os.fork()",
    "fork bomb": "import os\nwhile True:\n  try: os.fork()\n  except OSError as e: raise SystemExit(repr(e))",
    "daemon": "import os\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    import time; time.sleep(30)",
    "new session": "import os; os.setsid()",
    "subprocess": "import subprocess; subprocess.run(['true'])",
    "system": "import os; assert os.system('true') == 0",
    "multiprocessing": "import multiprocessing as m\np = m.get_context('fork').Process(target=print)\np.start()",
    "spawn": "import os; os.posix_spawn('/bin/true', ['true'], {{}})",
    "exec": "import os; os.execv('/bin/true', ['true'])",
    "clone by number": RAW + "assert call(56 if os.uname().machine == 'x86_64' else 220, 17, 0, 0, 0, 0) >= 0",
    "clone3 by number": RAW + "assert call(435, ctypes.create_string_buffer(88), 88) >= 0",
    "libc's system": RAW + "assert libc.system(b'true') == 0",
    "kill the parent": "import os; os.kill({parent}, 9)",
    "kill whoever started it": "import os; assert os.getppid() > 1; os.kill(os.getppid(), 9)",
    "kill all": "import os; os.kill(-1, 9)",
    "kill the group": "import os; os.killpg(os.getpgid({parent}), 9)",
    "ask whether the parent lives": "import os; os.kill({parent}, 0)",
    "queued signal": RAW
    + "info = (ctypes.c_int * 32)(10, 0, -1)\n"
    + "assert call(129 if os.uname().machine == 'x86_64' else 138, {parent}, 10, info) == 0",
    "signal of a descriptor's owner": (
        "import fcntl, os, socket\na, b = socket.socketpair()\nfcntl.fcntl(a, fcntl.F_SETOWN, {parent})\n"
        "fcntl.fcntl(a, 10, 9)\nfcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC)\nb.send(b'x')"
    ),
    "owner by ioctl": "import fcntl, struct, socket\na, b = socket.socketpair()\nfcntl.ioctl(a, 0x8901, struct.pack('i', {parent}))",
    "signal by descriptor": "import os, signal; signal.pidfd_send_signal(os.pidfd_open({parent}), 10)",
    "thread's signal": RAW + "assert call(234 if os.uname().machine == 'x86_64' else 131, {parent}, {parent}, 10) == 0",
    "priority": "import os; os.setpriority(os.PRIO_PROCESS, {parent}, 19)",
    "its own priority": "import os; os.nice(1)",
    "processors": "import os; os.sched_setaffinity({parent}, {{0}})",
    "scheduler": "import os; os.sched_setscheduler({parent}, os.SCHED_IDLE, os.sched_param(0))",
    "limits of the parent": "import resource; resource.prlimit({parent}, resource.RLIMIT_NOFILE, (3, 3))",
    "a higher limit": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "trace": RAW + "assert libc.ptrace(16, {parent}, 0, 0) == 0",
    "be traced": RAW + "assert libc.ptrace(0, 0, 0, 0) == 0",
    "read memory": RAW + "assert call(310 if os.uname().machine == 'x86_64' else 270, {parent}, None, 0, None, 0, 0) >= 0",
    "memory as a file": "open('/proc/{parent}/mem', 'r+b')",
    "its own memory as a file": "open('/proc/self/mem', 'r+b')",
    "environment of the parent": "assert open('/proc/{parent}/environ', 'rb').read()",
    "files of the parent": "import os; assert os.listdir('/proc/{parent}/fd')",
    "any process": "import os; assert any(name.isdigit() for name in os.listdir('/proc'))",
    "outlive its parent": RAW + "assert libc.prctl(1, 0, 0, 0, 0) == 0",
    "be dumped": RAW + "assert libc.prctl(4, 1, 0, 0, 0) == 0",
    "System V shared memory": RAW + "assert libc.shmget(4711, 4096, 0o1666) >= 0",
    "System V semaphores": RAW + "assert libc.semget(4711, 1, 0o1666) >= 0",
    "System V messages": RAW + "assert libc.msgget(4711, 0o1666) >= 0",
    "memory that no limit counts": "import os; os.memfd_create('x')",
    "keys of the kernel": RAW + "assert call(248 if os.uname().machine == 'x86_64' else 217, b'user', b'x', b'y', 1, -3) >= 0",
    "bpf": RAW + "assert call(321 if os.uname().machine == 'x86_64' else 280, 0, None, 0) >= 0",
    "the clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 1)",
    "its terminal": "import fcntl; fcntl.ioctl(0, 0x5412, b'x')",
    "inherited descriptors": (
        "import os\nopen_ones = []\nfor fd in range(5, 1024):\n  try: os.fstat(fd)\n  except OSError: continue\n  open_ones.append(fd)\n"
        "assert open_ones"
    ),
    "standard input rewound": "import os, sys\ntry: os.lseek(0, 0, 0)\nexcept OSError: pass\nassert os.read(0, 9)",
    "environment": "import os; assert any('SECRET' in name for name in os.environ)",
    "import from outside": "import numpy",
}

ATTACKS = {**NETWORK, **FILES, **PROCESSES}


def state(folder: Path) -> tuple[object, ...]:
    """What an attack would change: a file of ours, its neighbours, and this process."""
    victim = folder / "victim"
    status = victim.stat()
    place = (status.st_mode, status.st_uid, status.st_mtime_ns, status.st_nlink, os.listxattr(victim))
    mine = (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0), os.sched_getscheduler(0))
    return victim.read_text(), place, os.listdir(folder), mine
