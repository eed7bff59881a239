#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The control socket: memory that comes and goes under a guest that uses it, and clients
that know no manners.

Argument: the executor.
"""

import errno
import json
import os
import signal
import socket
import stat
import sys
import threading

import lib

EXECUTOR = sys.argv.pop() if len(sys.argv) > 1 else "sw"

# vCPU 1 uses old memory all the time; vCPU 0 what comes and goes.
HOTPLUG = """
memory 8M 64M
vcpus 2
vcpu 1
barrier filled
check   16M 64K 2
barrier seen
loop 1000000000
random  3M 1M 100
end
vcpu 0
write   2M 64K 1
protect 2M 64K
print   secure
await   16M 2M
zero    16M 64K
write   16M 64K 2
barrier filled
barrier seen
share   17M 8K
print   filled
await   24M 2M
check   16M 64K 2
unshare 17M 8K
release 16M 0x1ff000
print   almost
await   32M 2M
release 0x11ff000 4K
print   released
await   16M 4M
zero    16M 64K
zero    0x11ff000 4K
check   2M 64K 1
write   16M 64K 3
print   back
await   40M 2M
reboot
zero    16M 64K
write   16M 64K 4
protect 16M 64K
check   16M 64K 4
print   rebooted
await   48M 2M
poweroff
"""

# Round after round, both vCPUs in the new memory.
ROUNDS = """
memory 8M 64M
vcpus 2
vcpu 0
protect
loop 12
print want
await 16M 2M
zero 0x1100000 32K
barrier in
random 16M 2M 200
barrier out
release 16M 2M
print done
end
print over
await 32M 2M
poweroff
vcpu 1
loop 12
barrier in
random 16M 2M 200
barrier out
end
"""

# Says that it runs, and goes on when there is memory at 16M.
WAITING = "memory 8M 64M\nprotect\nprint runs\nawait 16M 2M\npoweroff\n"


class Control(lib.Case):
    def setUp(self):
        super().setUp()
        self.need_executor(EXECUTOR)

    def run_vm(self, text, line, *args):
        """Starts a VM called vm and waits until its guest printed @line."""
        path = self.write("workload", text)
        process = self.start(
            "run", "--executor", EXECUTOR, "--name", "vm", "--workload", path, *args)
        self.wait_for_line(process, line)
        return process

    def memory(self, *args):
        """A `lethe memory` that succeeds: what it printed as JSON."""
        status, out, err = self.lethe("memory", *args, "--json")
        self.assertEqual((status, err), (0, ""), args)
        document = json.loads(out)
        self.assertEqual(document.pop("schema"), 1)
        return document

    def refuse(self, mention, *args):
        status, out, err = self.lethe("memory", *args)
        self.assertEqual((status, out), (1, ""), err)
        self.assert_one_line(err)
        self.assertIn(mention, err)

    def slots(self):
        return {s["slot"]: (s["gpa"] >> 20, s["bytes"] >> 20)
                for s in self.memory("list", "vm")["slots"]}

    def end(self, process):
        """Ends a WAITING guest the way it expects."""
        self.memory("add", "vm", "2M", "--at", "16M")
        status, _, err = self.finish(process)
        self.assertEqual((status, err), (0, ""))
        self.assert_clean()

    def connect(self):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Blocking: with a timeout, connect() does not wait for a place in the queue.
        client.connect(os.path.join(self.runtime, "vm", "control"))
        client.settimeout(lib.DEADLINE)
        return client

    def ask(self, request):
        """What the VM answers to @request, an object or bytes."""
        with self.connect() as client:
            text = request if isinstance(request, bytes) else json.dumps(request).encode()
            client.send(text)
            return json.loads(client.recv(65536))


class Hotplug(Control):
    def test_memory_comes_and_goes_under_a_guest(self):
        timeline = self.path("timeline")
        vm = self.run_vm(HOTPLUG, "secure", "--timeline", timeline)
        self.assertEqual(
            self.memory("add", "vm", "2M", "--at", "16M"),
            {"slot": 1, "gpa": 16 << 20, "bytes": 2 << 20, "added": True})
        self.wait_for_line(vm, "filled")

        # Private, shared: nothing goes that the guest did not give up.
        self.refuse("not released all of slot 1", "remove", "vm", "1")
        self.refuse("not released all of slot 1", "remove", "vm", "16M")
        self.assertEqual(self.slots(), {0: (0, 8), 1: (16, 2)})
        self.memory("add", "vm", "2M", "--at", "24M")
        self.wait_for_line(vm, "almost")
        self.refuse("not released all of slot 1", "remove", "vm", "1")
        self.memory("add", "vm", "2M", "--at", "32M")
        self.wait_for_line(vm, "released")

        self.memory("remove", "vm", "16M")
        self.assertEqual(self.slots(), {0: (0, 8), 2: (24, 2), 3: (32, 2)})
        self.assertEqual(self.memory("add", "vm", "4M", "--at", "16M")["slot"], 1)
        self.wait_for_line(vm, "back")

        # What was added stays over a reboot, empty.
        self.memory("add", "vm", "2M", "--at", "40M")
        self.wait_for_line(vm, "rebooted")
        self.assertEqual(
            self.slots(), {0: (0, 8), 1: (16, 4), 2: (24, 2), 3: (32, 2), 4: (40, 2)})
        self.memory("add", "vm", "2M", "--at", "48M")
        status, _, err = self.finish(vm)
        self.assertEqual((status, err), (0, ""))
        self.assert_clean()
        self.check_timeline(timeline)

    def check_timeline(self, path):
        slots, events = {}, self.timeline(path)["events"]
        for event in events:
            if event["event"] == "memslot-add":
                self.assertNotIn(event["slot"], slots)
                slots[event["slot"]] = (event["gpa"] >> 20, event["bytes"] >> 20)
            elif event["event"] == "memslot-delete":
                self.assertEqual(
                    slots.pop(event["slot"]), (event["gpa"] >> 20, event["bytes"] >> 20))
        self.assertEqual(slots, {
            0: (0, 8), 1: (16, 4), 2: (24, 2), 3: (32, 2), 4: (40, 2), 5: (48, 2)})

    def test_rounds(self):
        vm = self.run_vm(ROUNDS, "want")
        for left in reversed(range(12)):
            slot = self.memory("add", "vm", "2M", "--at", "16M")["slot"]
            self.wait_for_line(vm, "done")
            self.memory("remove", "vm", str(slot))
            self.wait_for_line(vm, "want" if left else "over")
        self.memory("add", "vm", "2M", "--at", "32M")
        status, _, err = self.finish(vm)
        self.assertEqual((status, err), (0, ""))
        self.assert_clean()

    def test_example(self):
        if EXECUTOR == "kvm":
            self.skipTest("16M are many where KVM itself is emulated")
        with open(os.path.join(lib.SOURCE, "examples", "hotplug.workload"),
                  encoding="utf-8") as file:
            vm = self.run_vm(file.read(), "give me memory: lethe memory add plug 16M")
        self.assertEqual(self.memory("add", "vm", "16M")["gpa"], 16 << 20)
        self.wait_for_line(vm, "and once more: lethe memory add plug 16M")
        self.memory("remove", "vm", "1")
        self.memory("add", "vm", "16M")
        status, _, err = self.finish(vm)
        self.assertEqual((status, err), (0, ""))

    def test_normal_vm(self):
        vm = self.run_vm("memory 8M 64M\nprint runs\nawait 8M 2M\nzero 8M 64K\nwrite 8M 64K\n"
                         "print used\nawait 10M 2M\nprotect 8M 64K\ncheck 8M 64K\n"
                         "zero 10M 64K\npoweroff\n", "runs")
        # No address asked for: above all there is.
        self.assertEqual(self.memory("add", "vm", "2M")["gpa"], 8 << 20)
        self.wait_for_line(vm, "used")
        self.refuse("not secure", "remove", "vm", "1")
        self.assertEqual(self.memory("add", "vm", "2M")["gpa"], 10 << 20)
        status, _, err = self.finish(vm)
        self.assertEqual((status, err), (0, ""))

    def test_removed_memory_is_not_there(self):
        vm = self.run_vm("memory 8M 64M\nprotect\nprint runs\nawait 24M 2M\nawait 16M 2M\n"
                         "release 16M 2M\nprint released\nawait 32M 2M\n"
                         "write 16M 4K\npoweroff\n", "runs")
        self.memory("add", "vm", "2M", "--at", "24M")
        slot = self.memory("add", "vm", "2M", "--at", "16M")["slot"]
        self.wait_for_line(vm, "released")
        self.memory("remove", "vm", str(slot))
        self.memory("add", "vm", "2M", "--at", "32M")
        status, _, err = self.finish(vm)
        self.assertEqual(status, 3, err)
        self.assert_one_line(err)
        self.assertIn("where there is no memory", err)
        self.assert_clean()


class Audit(Control):
    def test_audit_while_memory_is_exchanged(self):
        """A slot that a reboot takes away for a moment is not called missing."""
        if EXECUTOR == "kvm":
            self.skipTest("it reboots seldom where KVM itself is emulated")
        vm = self.run_vm("memory 8M\nloop 1000000\nreboot\nprint runs\nend\n", "runs")
        clients = [self.start("memory", "audit", "vm") for _ in range(20)]
        # It would wait for a reader of what it prints.
        while any(client.poll() is None for client in clients):
            vm.stdout.readline()
        for client in clients:
            status, _, err = self.finish(client)
            self.assertIn((status, err), (
                (0, ""), (1, "lethe: vm: its memory changed meanwhile (try again)\n")))
        vm.terminate()
        self.finish(vm)
        self.assert_clean()

    def test_audit(self):
        vm = self.run_vm("memory 8M 64M\nwrite 2M 2M\nprotect 2M 1M\nshare 2M 64K\n"
                         "print runs\nawait 16M 2M\nwrite 16M 64K\nprint more\n"
                         "await 24M 2M\npoweroff\n", "runs")
        slots = self.memory("audit", "vm")["slots"]
        self.assertEqual([s["slot"] for s in slots], [0])
        self.assertEqual(slots[0]["paged_out_bytes"], 0)
        self.assertGreaterEqual(slots[0]["private_bytes"], (1 << 20) - (64 << 10))
        self.assertEqual(slots[0]["shared_bytes"], 64 << 10)
        self.assertEqual(slots[0]["doubly_held_bytes"], 0)
        self.memory("add", "vm", "2M", "--at", "16M")
        self.wait_for_line(vm, "more")
        slots = self.memory("audit", "vm")["slots"]
        self.assertEqual([(s["slot"], s["gpa"]) for s in slots], [(0, 0), (1, 16 << 20)])
        self.assertGreaterEqual(slots[1]["private_bytes"], 64 << 10)
        self.assertEqual(slots[1]["shared_bytes"], 0)
        status, out, err = self.lethe("memory", "audit", "vm")
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(len(out.splitlines()), 3)
        self.assertEqual(self.ask({"command": "memory-audit", "slot": 2})["error"]["errno"],
                         errno.ENOENT)
        self.memory("add", "vm", "2M", "--at", "24M")
        status, _, err = self.finish(vm)
        self.assertEqual((status, err), (0, ""))


class Refusals(Control):
    def test_bad_ranges(self):
        vm = self.run_vm(WAITING, "runs")
        for mention, args in (
                ("memory already: slot 0", ("add", "vm", "2M", "--at", "0")),
                ("memory already: slot 0", ("add", "vm", "1G", "--at", "4M")),
                ("beyond 256T", ("add", "vm", "2M", "--at", "256T")),
                ("beyond 256T", ("add", "vm", "256T", "--at", "16M")),
                ("began with", ("remove", "vm", "0")),
                ("no slot 1", ("remove", "vm", "1")),
                ("no slot 31", ("remove", "vm", "31")),
                ("no slot begins at 0x1000", ("remove", "vm", "4K")),
        ):
            with self.subTest(args=args):
                self.refuse(mention, *args)
                self.assertEqual(self.slots(), {0: (0, 8)})
        self.end(vm)

    def test_all_slots(self):
        vm = self.run_vm(WAITING, "runs")
        for i in range(1, 32):
            self.assertEqual(
                self.ask({"command": "memory-add", "bytes": 4096, "gpa": (i + 64) << 20}),
                {"schema": 1, "result": {
                    "slot": i, "gpa": (i + 64) << 20, "bytes": 4096, "added": True}})
        self.refuse("in use", "add", "vm", "4K", "--at", "16M")
        self.assertEqual(len(self.slots()), 32)
        vm.terminate()
        self.assertEqual(self.finish(vm)[0], 128 + signal.SIGTERM)
        self.assert_clean()

    def test_no_such_vm(self):
        for args in (("list", "nobody"), ("add", "nobody", "2M"), ("remove", "nobody", "1")):
            self.refuse("nobody: there is no VM of that name", *args)

    def test_hypervisor_is_gone(self):
        vm = self.run_vm(WAITING, "runs")
        uv = self.vms()[0]["uv_pid"]
        os.kill(uv, signal.SIGSTOP)
        vm.kill()
        self.finish(vm)
        try:
            self.refuse("its hypervisor is gone", "list", "vm")
        finally:
            os.kill(uv, signal.SIGCONT)
        self.assert_clean_after_ps()

    def test_vm_ends_meanwhile(self):
        vm = self.run_vm(WAITING, "runs")
        clients = [self.start("memory", "list", "vm") for _ in range(4)]
        vm.terminate()
        clients += [self.start("memory", "add", "vm", "2M", "--at", "32M") for _ in range(4)]
        for client in clients:
            status, out, err = self.finish(client)
            self.assertIn(status, (0, 1))
            if status:
                self.assertEqual(out, "")
                self.assert_one_line(err)
        self.assertEqual(self.finish(vm)[0], 128 + signal.SIGTERM)
        self.assert_clean()


# Fills memory, waits for more of it, and still has what it wrote.
PAGED = """
memory 64M 256M
vcpus 2
vcpu 1
barrier filled
await 128M 2M
check 2M 3M
vcpu 0
write 2M 3M
protect 2M 3M
share 2M 64K
barrier filled
print filled
await 128M 2M
unshare 2M 64K
check 2M 3M
print same
reboot
zero 2M 3M
poweroff
"""


class PageOut(Control):
    def page_out(self, *args):
        status, out, err = self.lethe("page-out", *args, "--json")
        if EXECUTOR == "kvm" and "cannot page out here" in err:
            self.skipTest(err)
        self.assertEqual((status, err), (0, ""), args)
        return json.loads(out)

    def test_out_and_in_again(self):
        timeline, store = self.path("timeline"), self.writable("store")
        vm = self.run_vm(PAGED, "filled", "--timeline", timeline, "--page-store", store)
        # The figure is up to a second old.
        lib.wait_until(lambda: self.vms()[0]["resident_bytes"] > 1 << 20, "1M is resident")
        answer = self.page_out("vm", "1M")
        first = answer.pop("bytes")
        self.assertEqual(answer, {"schema": 1, "name": "vm", "asked_bytes": 1 << 20})
        self.assertGreaterEqual(first, 1 << 20)
        # The interpreter's own pages come back at once.
        self.assertGreater(os.stat(store).st_blocks * 512, 256 << 10)
        # All that is private and in use, but not what is shared.
        rest = self.page_out("vm", "1G")["bytes"]
        self.assertGreaterEqual(first + rest, (3 << 20) - (64 << 10))
        self.assertLess(first + rest, 32 << 20)
        audited = self.memory("audit", "vm")["slots"][0]["paged_out_bytes"]
        self.assertLessEqual(audited, first + rest)
        self.assertGreaterEqual(audited, 2 << 20)
        # Two vCPUs bring it back, while clients ask for more to go.
        clients = [self.start("page-out", "vm", "256K") for _ in range(4)]
        self.memory("add", "vm", "2M", "--at", "128M")
        self.wait_for_line(vm, "same")
        for client in clients:
            self.finish(client)
        status, _, err = self.finish(vm)
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(os.stat(store).st_blocks, 0)
        self.check_timeline(timeline, first + rest)

    def test_store_that_damages_pages(self):
        at = (2 << 20) + 37 * 4096
        lost = "is not what was sealed there"
        for damage, mention in (
                (lambda fd: os.pwrite(fd, bytes([os.pread(fd, 1, at)[0] ^ 1]), at), lost),
                (lambda fd: os.pwrite(fd, bytes(4096), at), lost),
                (lambda fd: os.pwrite(fd, os.pread(fd, 4096, at + 4096), at), lost),
                (lambda fd: os.truncate(fd, at),
                 "the hypervisor has lost it: No data available")):
            store = self.writable("store")
            vm = self.run_vm("memory 8M 64M\nwrite 2M 256K\nprotect 2M 256K\nprint filled\n"
                             "await 16M 2M\ncheck 2M 256K\nprint never\npoweroff\n", "filled",
                             "--page-store", store)
            self.assertGreaterEqual(self.page_out("vm", "1G")["bytes"], 256 << 10)
            fd = os.open(store, os.O_RDWR)
            damage(fd)
            os.close(fd)
            self.memory("add", "vm", "2M", "--at", "16M")
            status, out, err = self.finish(vm)
            self.assertEqual(status, 3, err)
            self.assertNotIn("never", out)
            self.assert_one_line(err)
            self.assertIn(hex(at), err)
            self.assertIn(mention, err)
            self.assert_clean()

    def check_timeline(self, path, least):
        document = self.timeline(path)
        for event, counter in (("page-out", "paged_out_bytes"), ("page-in", "paged_in_bytes")):
            moved = sum(e["bytes"] for e in document["events"] if e["event"] == event)
            self.assertEqual(moved, document["counters"][counter])
            self.assertGreater(moved, 1 << 20)
        self.assertGreaterEqual(document["counters"]["paged_out_bytes"], least)

    def refuse_page_out(self, mention, *args):
        status, out, err = self.lethe("page-out", *args)
        self.assertEqual((status, out), (1, ""), err)
        self.assert_one_line(err)
        self.assertIn(mention, err)

    def test_refusals(self):
        self.refuse_page_out("no VM of that name", "nobody", "1M")
        vm = self.run_vm(WAITING, "runs")
        self.refuse_page_out("it has no page store (run it with --page-store)", "vm", "1M")
        for request in ({"command": "page-out"}, {"command": "page-out", "bytes": 0},
                        {"command": "page-out", "bytes": -1},
                        {"command": "page-out", "bytes": "1M"},
                        {"command": "page-out", "bytes": 4096, "gpa": 0}):
            self.assertEqual(self.ask(request)["error"]["errno"], errno.EINVAL)
        self.end(vm)

    def test_guest_that_is_not_secure(self):
        vm = self.run_vm("memory 8M 64M\nprint runs\nawait 16M 2M\npoweroff\n", "runs",
                         "--page-store", self.writable("store"))
        self.refuse_page_out("it is not secure", "vm", "1M")
        self.end(vm)

    def writable(self, name):
        """An empty file that whoever lethe becomes may keep."""
        path = self.write(name, "")
        os.chmod(path, 0o666)
        return path

    def test_one_store_for_one_vm(self):
        store = self.writable("store")
        vm = self.run_vm(WAITING, "runs", "--page-store", store)
        status, out, err = self.run_workload("poweroff\n", "--page-store", "file:" + store)
        self.assertEqual((status, out), (2, ""), err)
        self.assert_one_line(err)
        self.assertIn("give each VM its own", err)
        self.end(vm)

    def test_store_of_a_run_that_fails(self):
        store = self.path("new")
        for args in (["--timeline", "/nowhere/at/all"], ["--name", "vm"]):
            vm = self.run_vm(WAITING, "runs") if "--name" in args else None
            status, _, err = self.run_workload("poweroff\n", "--page-store", store, *args)
            self.assertIn(status, (1, 2))
            self.assert_one_line(err)
            self.assertFalse(os.path.exists(store))
            if vm:
                self.end(vm)


class Clients(Control):
    BAD_REQUESTS = (
        b"", b"\0", b"rubbish", b"{", b"[]", b"7", b'"memory-list"', b"\xff\xfe{}",
        b'{"command":"memory-list"} more', b'{"command":"memory-list","command":"memory-list"}',
        b"[" * 4000, b'{"a":' * 800, b" " * 5000, b"{}" + b" " * 60000,
        {}, {"command": None}, {"command": 7}, {"command": ["memory-list"]},
        {"command": "memory"}, {"command": "memory-list ", }, {"command": "x" * 3000},
        {"command": "memory-list", "slot": 1}, {"command": "memory-add"},
        {"command": "memory-add", "bytes": "2M"}, {"command": "memory-add", "bytes": 2.0},
        {"command": "memory-add", "bytes": -4096}, {"command": "memory-add", "bytes": 0},
        {"command": "memory-add", "bytes": 4097}, {"command": "memory-add", "bytes": 2 ** 63},
        {"command": "memory-add", "bytes": 2 ** 63 - 4096},
        {"command": "memory-add", "bytes": 2 ** 48 + 4096},
        {"command": "memory-add", "bytes": 4096, "gpa": 2 ** 63 - 4096},
        {"command": "memory-add", "bytes": 4096, "gpa": 1}, {"command": "memory-add", "gpa": 0},
        {"command": "memory-add", "bytes": 4096, "gpa": None},
        {"command": "memory-add", "bytes": 4096, "ytes": 1},
        {"command": "memory-add", "bytes": 4096, "at": 0}, {"command": "memory-remove"},
        {"command": "memory-remove", "slot": 1, "gpa": 4096},
        {"command": "memory-remove", "slot": -1}, {"command": "memory-remove", "slot": 32},
        {"command": "memory-remove", "slot": 2 ** 32}, {"command": "memory-remove", "slot": "0"},
        {"command": "memory-remove", "slot": True}, {"command": "memory-remove", "gpa": 0},
    )

    def test_bad_requests(self):
        vm = self.run_vm(WAITING, "runs")
        for request in self.BAD_REQUESTS[1:]:
            with self.subTest(request=str(request)[:60]):
                answer = self.ask(request)
                self.assertEqual(sorted(answer), ["error", "schema"])
                self.assertEqual(sorted(answer["error"]), ["errno", "todo", "why"])
                self.assertGreater(answer["error"]["errno"], 0)
        self.assertEqual(self.slots(), {0: (0, 8)})
        self.end(vm)

    def test_clients_that_stall_and_leave(self):
        vm = self.run_vm(WAITING, "runs")
        silent = [self.connect() for _ in range(20)]
        for client in silent[:20]:
            self.assertEqual(self.slots(), {0: (0, 8)})
            client.close()
        for _ in range(100):
            with self.connect() as client:
                client.send(b'{"command":"memory-list"}')
        with self.connect() as client:
            client.send(b"")
            self.assertEqual(self.slots(), {0: (0, 8)})
        self.assertEqual(self.slots(), {0: (0, 8)})
        self.end(vm)
        for client in silent:
            client.close()

    def test_descriptors_are_not_taken(self):
        vm = self.run_vm(WAITING, "runs")
        folder = f"/proc/{vm.pid}/fd"
        before = len(os.listdir(folder))
        with open("/dev/null", "rb") as null:
            for _ in range(10):
                with self.connect() as client:
                    socket.send_fds(client, [b"{}"], [null.fileno()] * 4)
                    client.recv(4096)
        lib.wait_until(lambda: len(os.listdir(folder)) == before, "descriptors closed")
        self.end(vm)

    def test_many_at_once(self):
        vm = self.run_vm(WAITING, "runs")
        got = []

        def add():
            for _ in range(5):
                answer = self.ask({"command": "memory-add", "bytes": 4096})
                got.append((answer["result"]["slot"], answer["result"]["gpa"]))
        threads = [threading.Thread(target=add) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(slot for slot, _ in got), list(range(1, 31)))
        self.assertEqual(len({gpa for _, gpa in got}), 30)
        vm.terminate()
        self.finish(vm)
        self.assert_clean()

    def answer_to_user(self, uid):
        """What another user's client receives; None if it could not connect."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                with self.connect() as client:
                    os.write(writer, client.recv(100))
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            answer = file.read()
        return answer if os.waitpid(child, 0)[1] == 0 else None

    def test_only_for_its_user(self):
        vm = self.run_vm(WAITING, "runs")
        path = os.path.join(self.runtime, "vm", "control")
        mode = os.stat(path).st_mode
        self.assertTrue(stat.S_ISSOCK(mode))
        self.assertEqual(stat.S_IMODE(mode), 0o600)
        if os.geteuid() == 0:
            # Even where the folders' permissions let somebody through.
            for folder in (self.runtime, os.path.dirname(path)):
                os.chmod(folder, 0o755)
            os.chmod(path, 0o666)
            self.assertEqual(self.answer_to_user(1234), b"")
            for folder in (self.runtime, os.path.dirname(path)):
                os.chmod(folder, 0o700)
        self.end(vm)


if __name__ == "__main__":
    lib.main()
