#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Threads of lethe-uv: whom their time is charged to, and that they rest when idle.

The cgroup test needs a writable cgroup (version 1 or 2), and root; it stops lethe-uv at its
end to look at it, which needs a build with -Dfailpoints=true.
"""

import os
import signal

import lib

FILLED = """
memory 64M
protect
write 2M 60M
print filled
sleep 4000000
poweroff
"""


def cgroups_of(pid):
    """What /proc says of every thread."""
    found = set()
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/cgroup", encoding="ascii") as file:
            found.add(file.read())
    return found


def switches_of(pid):
    """How often each thread went to sleep, by thread."""
    found = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/status", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        found[int(thread)] = int(fields["voluntary_ctxt_switches"])
    return found


class Idle(lib.Case):
    def test_threads_rest(self):
        """Only the main thread wakes by itself, once a second, for the figures of `lethe ps`."""
        if lib.has_thread_sanitizer():
            self.skipTest("ThreadSanitizer has a thread that wakes by itself")
        process = self.start_workload(FILLED)
        self.wait_for_line(process, "filled")
        vm, = self.vms()
        if vm["pressure"] != "none":
            self.skipTest("memory is short here: the sweeper looks after it")
        uv = vm["uv_pid"]

        def main_woke(since, times):
            return lambda: switches_of(uv)[uv] >= since + times

        # Until what the workload's last call began is over.
        lib.wait_until(main_woke(switches_of(uv)[uv], 2), "the main thread wakes")
        before = switches_of(uv)
        lib.wait_until(main_woke(before[uv], 3), "the main thread wakes three times")
        after = switches_of(uv)
        self.assertGreater(len(before), 2)
        del before[uv], after[uv]
        self.assertEqual(before, after)
        process.send_signal(signal.SIGTERM)
        self.finish(process)
        self.assert_clean()


class Accounting(lib.CgroupCase):
    """A cgroup in whatever hierarchy can be written to."""

    def setUp(self):
        super().setUp()
        if self.run_workload("poweroff\n", env={"LETHE_FAILPOINT": ":::"})[0] == 0:
            self.skipTest("no failpoints in this build (-Dfailpoints=true)")
        for folder, self.usage in self.hierarchies():
            if self.make_cgroup(folder, lambda: os.path.exists(self.cgroup_file(self.usage))):
                return
        self.skipTest("no cgroup can be made here (run as root)")

    def hierarchies(self):
        """(folder of this process's cgroup, file that tells of CPU time)."""
        for number, controllers, path in self.own_cgroups():
            if number == "0":
                yield "/sys/fs/cgroup" + path, "cpu.stat"
            elif "cpuacct" in controllers:
                yield f"/sys/fs/cgroup/{','.join(controllers)}" + path, "cpuacct.usage"

    def used(self):
        """CPU time of the cgroup, in whatever unit."""
        with open(self.cgroup_file(self.usage), encoding="ascii") as file:
            return int(file.readline().split()[-1])

    def test_the_vm_pays(self):
        """All threads are in the hypervisor's cgroup, also when that is gone."""
        process = self.start_in_cgroup(
            FILLED, env={"LETHE_FAILPOINT": "uv-sweep-give-back:1:stop"})
        self.wait_for_line(process, "filled")
        vm, = self.vms()
        uv = vm["uv_pid"]
        own = cgroups_of(process.pid)
        self.assertEqual(len(own), 1)
        self.assertNotEqual(own, cgroups_of(os.getpid()))
        self.assertEqual(cgroups_of(uv), own)
        process.kill()
        process.wait()
        lib.wait_until(lambda: lib.parent_and_state(uv)[1] == "T", "lethe-uv stops in its sweep")
        self.assertEqual(cgroups_of(uv), own)
        before = self.used()
        os.kill(uv, signal.SIGCONT)
        self.assert_clean()
        self.assertGreater(self.used(), before)


if __name__ == "__main__":
    lib.main()
