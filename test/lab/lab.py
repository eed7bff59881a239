#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine with a real KVM, made of QEMU's emulator and Debian's own kernel.

QEMU emulates a processor with AMD-V and nested paging, so an unmodified kernel offers
/dev/kvm in it, on any host and without privileges.  It is one processor, since two are not
emulated faithfully (docs/decisions/0014-lab-of-one-processor.md).  The machine consists of
one initramfs: busybox, the kvm modules, the files that the caller names (with the shared
libraries that they need) and one command, run as root.  The command's output is this
program's, its exit status too: it travels over a second serial port, so nothing that
the command prints can be mistaken for it.

  lab.py run [-m MIB] [-t SECONDS] [-f FILE[:DEST]]... -- COMMAND...
  lab.py initramfs -i INIT -o OUTPUT [-f FILE[:DEST]]...   one for a guest inside the lab
  lab.py kernel                                            where the kernel image is

The kernel is one of /boot whose modules are installed, else Debian's, downloaded once
into ${XDG_CACHE_HOME:-~/.cache}/lethe-lab.

Exit status of `run`: the command's; 77 something that the lab needs is missing;
124 out of time; 125 the machine ended without saying how the command did.
"""

import argparse
import fcntl
import glob
import gzip
import lzma
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

MODULES = ("irqbypass", "ccp", "kvm", "kvm-amd")
# The emulator lets a nested guest execute XSETBV behind KVM's back, so: no XSAVE.
CPU = "EPYC,+svm,+npt," + ",".join(
    "-" + feature for feature in "xsave xsaveopt xsavec xgetbv1 avx avx2 f16c fma".split())
SKIP, TIMEOUT, NO_STATUS = 77, 124, 125

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t devpts pts /dev/pts
for at in /tmp /run /dev/shm; do mount -t tmpfs tmp $at; done
for module in {modules}; do insmod /modules/$module.ko; done
stty -F /dev/ttyS1 -onlcr
sh -c {command} </dev/null >/dev/ttyS1 2>&1
status=$?
stty -F /dev/ttyS1 onlcr # waits until all is sent
echo $status >/dev/ttyS2
stty -F /dev/ttyS2 onlcr
poweroff -f
"""


class Missing(Exception):
    """The lab cannot be set up here; says why."""


class Cpio:
    """A cpio archive in the kernel's "newc" form, with parents made as needed."""

    def __init__(self):
        self.data = bytearray()
        self.names = set()

    def _entry(self, name, mode, body=b"", rdev=(0, 0)):
        inode = len(self.names) + 1
        fields = (inode, mode, 0, 0, 1, 0, len(body), 0, 0, *rdev, len(name) + 1, 0)
        self.data += b"070701" + b"".join(b"%08x" % field for field in fields)
        self.data += name.encode() + b"\0"
        self.data += bytes(-len(self.data) % 4) + body
        self.data += bytes(-len(self.data) % 4)

    def directory(self, path):
        path = path.strip("/")
        if path and path not in self.names:
            self.directory(os.path.dirname(path))
            self.names.add(path)
            self._entry(path, stat.S_IFDIR | 0o755)

    def file(self, path, body, mode=0o755):
        path = path.strip("/")
        if path not in self.names:
            self.directory(os.path.dirname(path))
            self.names.add(path)
            self._entry(path, stat.S_IFREG | mode, body)

    def device(self, path, major, minor):
        self.directory(os.path.dirname(path))
        self._entry(path.strip("/"), stat.S_IFCHR | 0o600, rdev=(major, minor))

    def compressed(self):
        self._entry("TRAILER!!!", 0)
        return gzip.compress(bytes(self.data), 1)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def tool(name, package):
    path = shutil.which(name)
    if not path:
        raise Missing(f"{name} is not installed (apt-get install {package})")
    return path


def libraries(path):
    """The shared libraries of a program, as the dynamic linker names them."""
    out = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(?:=> |^\s+)(/\S+)", out, re.MULTILINE)


def add_files(archive, files):
    """Each of FILES is SOURCE or SOURCE:DEST; the default is /bin/NAME."""
    for spec in files:
        source, _, dest = spec.partition(":")
        archive.file(dest or "/bin/" + os.path.basename(source), read(source),
                     stat.S_IMODE(os.stat(source).st_mode) | 0o400)
        for library in libraries(source):
            archive.file(library, read(library))


def new_archive():
    busybox = tool("busybox", "busybox-static")
    if libraries(busybox):
        raise Missing("busybox is not a static program (apt-get install busybox-static)")
    archive = Cpio()
    archive.file("/bin/busybox", read(busybox))
    for name in ("dev", "proc", "sys", "tmp", "run"):
        archive.directory(name)
    archive.device("/dev/console", 5, 1)
    return archive


def inner_initramfs(init, files=()):
    """An initramfs for a guest: busybox, FILES, and the text INIT as its /init."""
    archive = new_archive()
    archive.file("/init", init.encode())
    add_files(archive, files)
    return archive.compressed()


def cache_directory():
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(home, "lethe-lab")


def kernels_under(root):
    """Kernel images below ROOT that can be read and come with the modules."""
    for image in sorted(glob.glob(os.path.join(root, "boot/vmlinuz-*")), reverse=True):
        modules = os.path.join(root, "lib/modules", os.path.basename(image)[len("vmlinuz-"):])
        if os.access(image, os.R_OK) and module_file(modules, "kvm-amd"):
            yield image, modules


def module_file(modules, name):
    found = glob.glob(os.path.join(modules, "**", name + ".ko*"), recursive=True)
    return found[0] if found else None


def download_kernel(cache):
    """Unpacks Debian's current kernel package below CACHE, all of it or nothing."""
    depends = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], capture_output=True,
                             text=True, check=False).stdout
    package = re.search(r"Depends: (linux-image-\S+)", depends)
    if not package:
        raise Missing("no kernel in /boot with its modules, and apt knows none (apt-get update)")
    with tempfile.TemporaryDirectory(dir=cache) as work:
        got = subprocess.run(["apt-get", "download", "-q", package[1]], cwd=work, timeout=300,
                             capture_output=True, text=True, check=False)
        debs = glob.glob(os.path.join(work, "*.deb"))
        if got.returncode or not debs:
            raise Missing(f"cannot download {package[1]}: {got.stderr.strip()[-200:]}")
        os.mkdir(os.path.join(work, "root"))
        subprocess.run(["dpkg-deb", "-x", debs[0], os.path.join(work, "root")], check=True)
        os.rename(os.path.join(work, "root"), os.path.join(cache, "root"))


def find_kernel():
    """(kernel image, folder of its modules); raises Missing."""
    cache = cache_directory()
    cached = os.path.join(cache, "root")
    for root in ("/", cached):
        for found in kernels_under(root):
            return found
    tool("apt-cache", "apt")
    tool("dpkg-deb", "dpkg")
    os.makedirs(cache, exist_ok=True)
    with open(os.path.join(cache, "lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(cached):  # else another run was faster
            download_kernel(cache)
    for found in kernels_under(cached):
        return found
    raise Missing("the downloaded kernel package has no kvm-amd module")


def uncompressed_kernel(image):
    """The ELF file inside a bzImage, or None if it is not compressed by xz."""
    body = read(image)
    start = (body[0x1f1] + 1) * 512 + int.from_bytes(body[0x248:0x24c], "little")
    size = int.from_bytes(body[0x24c:0x250], "little")
    if not body[start:].startswith(b"\xfd7zXZ\0"):
        return None
    return lzma.LZMADecompressor().decompress(body[start:start + size])


def outer_initramfs(command, files, modules):
    archive = new_archive()
    for name in MODULES:
        path = module_file(modules, name)
        if path:
            body = read(path)
            archive.file(f"/modules/{name}.ko",
                         lzma.decompress(body) if path.endswith(".xz") else body)
    present = " ".join(name for name in MODULES if f"modules/{name}.ko" in archive.names)
    line = " ".join(shlex.quote(word) for word in command)
    archive.file("/init", INIT.format(modules=present, command=shlex.quote(line)).encode())
    add_files(archive, files)
    return archive.compressed()


def qemu_command(work, kernel, memory):
    return [tool("qemu-system-x86_64", "qemu-system-x86"), "-accel", "tcg",
            "-cpu", CPU, "-smp", "1", "-m", str(memory), "-nodefaults",
            "-no-user-config", "-display", "none", "-no-reboot", "-kernel", kernel,
            "-initrd", os.path.join(work, "initramfs"), "-append",
            "console=ttyS0 quiet loglevel=3 nokaslr tsc=reliable panic=-1",
            "-serial", f"file:{work}/kernel", "-serial", f"file:{work}/output",
            "-serial", f"file:{work}/status"]


def follow(process, path, sink, deadline):
    """Copies what appears in the file at PATH to SINK until PROCESS ends; False: too late."""
    with open(path, "rb") as output:
        while True:
            try:
                process.wait(timeout=0.1)
                ended = True
            except subprocess.TimeoutExpired:
                ended = False
            sink.write(output.read())
            sink.flush()
            if ended or time.monotonic() >= deadline:
                return ended


def explain(work):
    """What the emulator and the lab's kernel had to say, for a run that went wrong."""
    for name in ("qemu", "kernel"):
        for line in read(os.path.join(work, name)).decode(errors="replace").splitlines():
            if line.strip() and "TCG doesn't support" not in line:
                print(f"lab: {name}: {line.rstrip()}", file=sys.stderr)


def run(command, files=(), memory=2048, timeout=300, sink=None):
    """Runs COMMAND in the lab, its output going to SINK; returns the exit status."""
    sink = sink or sys.stdout.buffer
    tool("qemu-system-x86_64", "qemu-system-x86")
    kernel, modules = find_kernel()
    with tempfile.TemporaryDirectory(prefix="lethe-lab-") as work:
        with open(os.path.join(work, "initramfs"), "wb") as file:
            file.write(outer_initramfs(command, files, modules))
        for name in ("kernel", "output", "status"):
            open(os.path.join(work, name), "wb").close()
        with open(os.path.join(work, "qemu"), "wb") as messages:
            process = subprocess.Popen(qemu_command(work, kernel, memory),
                                       stdin=subprocess.DEVNULL, stderr=messages)
        try:
            in_time = follow(process, os.path.join(work, "output"), sink,
                             time.monotonic() + timeout)
        finally:
            process.kill()
            process.wait()
        status = read(os.path.join(work, "status")).split()
        if status and status[0].isdigit():
            return int(status[0])
        explain(work)
        print(f"lab: qemu ended with status {process.returncode}" if in_time
              else f"lab: not done after {timeout} s", file=sys.stderr)
        return NO_STATUS if in_time else TIMEOUT


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("-m", dest="memory", type=int, default=2048, metavar="MIB")
    runs.add_argument("-t", dest="timeout", type=int, default=300, metavar="SECONDS")
    runs.add_argument("-f", dest="files", action="append", default=[], metavar="FILE[:DEST]")
    runs.add_argument("command", nargs="+")
    inner = commands.add_parser("initramfs")
    inner.add_argument("-i", dest="init", required=True)
    inner.add_argument("-o", dest="output", required=True)
    inner.add_argument("-f", dest="files", action="append", default=[], metavar="FILE[:DEST]")
    commands.add_parser("kernel")
    return parser.parse_args()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TIMEOUT))
    args = arguments()
    try:
        if args.what == "run":
            return run(args.command, args.files, args.memory, args.timeout)
        if args.what == "kernel":
            print(find_kernel()[0])
        else:
            body = inner_initramfs(read(args.init).decode(), args.files)
            with open(args.output, "wb") as file:
                file.write(body)
        return 0
    except Missing as why:
        print(f"lab: {why}", file=sys.stderr)
        return SKIP


if __name__ == "__main__":
    sys.exit(main())
