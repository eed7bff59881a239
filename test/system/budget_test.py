#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A VM in a memory cgroup that holds it 1.25 times: reboots never exceed the budget.

Needs a writable memory cgroup of version 1 or 2, and root.
"""

import os

import lib

MEMORY = 96 << 20
LIMIT = MEMORY * 5 // 4
REBOOTS = 50

DIRTY = f"""
memory 96M
loop {REBOOTS}
protect
zero 2M 92M
write 2M 92M
reboot
end
zero 2M 92M
poweroff
"""

# Little is resident, so that what is set aside fits beside the next incarnation.
SPARSE = f"""
memory 96M
loop {REBOOTS}
protect
zero 2M 92M
write 2M 2M
reboot
end
zero 2M 2M
poweroff
"""


class Budget(lib.CgroupCase):
    def setUp(self):
        super().setUp()
        parent, version = self.memory_cgroup()
        self.limit_file = "memory.limit_in_bytes" if version == 1 else "memory.max"
        self.oom_file = "memory.oom_control" if version == 1 else "memory.events"
        # In version 2, a cgroup with processes has no children with limits: try beside it.
        for base in (parent, parent and os.path.dirname(parent)):
            if self.make_cgroup(base, self.can_limit):
                return
        self.skipTest("no memory cgroup can be made here (run as root, with the controller)")

    def memory_cgroup(self):
        """(folder, version) of the memory cgroup of this process, or (None, None)."""
        cgroups = self.own_cgroups()
        for _, controllers, path in cgroups:
            if "memory" in controllers:
                return "/sys/fs/cgroup/memory" + path, 1
        for number, _, path in cgroups:
            if number == "0":
                return "/sys/fs/cgroup" + path, 2
        return None, None

    def set_limit(self, value):
        with open(self.cgroup_file(self.limit_file), "w", encoding="ascii") as file:
            file.write(str(value))

    def can_limit(self):
        self.set_limit(LIMIT)
        return True

    def oom_kills(self):
        with open(self.cgroup_file(self.oom_file), encoding="ascii") as file:
            fields = dict(line.split() for line in file)
        return int(fields.get("oom_kill", 0))

    def run_in_cgroup(self, text, *args):
        timeline = self.path("timeline.json")
        process = self.start_in_cgroup(text, "--timeline", timeline, *args)
        status, _, err = self.finish(process)
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(self.oom_kills(), 0)
        self.assert_clean()
        return self.timeline(timeline)

    def events(self, document, name):
        return [event for event in document["events"] if event["event"] == name]

    def assert_accounted(self, document, reboots=REBOOTS):
        """Each reboot set its incarnation aside, or was refused that and destroyed it first.

        That it found zeros is the workload's business, which ends with status 3 if not.
        """
        counters = document["counters"]
        lazy = {event["incarnation"] for event in self.events(document, "set-aside")}
        destroyed = [event["incarnation"] for event in self.events(document, "destroy-end")]
        self.assertEqual(counters["reboots"], reboots)
        self.assertEqual(len(self.events(document, "reboot")), reboots)
        self.assertEqual(len(lazy) + counters["eager_reboots"], reboots)
        # Each incarnation but the last once, whichever way.
        self.assertEqual(sorted(destroyed), list(range(reboots)))
        self.assertLessEqual(lazy, set(destroyed))
        self.assertEqual(counters["quarantined_bytes"], 0)
        self.assertEqual(counters["events_dropped"], 0)

    def test_dirty_guest(self):
        """What is resident does not fit twice: refused, then destroyed at once."""
        document = self.run_in_cgroup(DIRTY)
        self.assert_accounted(document)
        self.assertEqual(document["counters"]["eager_reboots"], REBOOTS)
        for event in self.events(document, "destroy-end"):
            self.assertGreaterEqual(event["bytes"], 92 << 20)

    def test_the_same_without_limit(self):
        """The limit is what refused, nothing else."""
        self.set_limit(-1 if self.limit_file == "memory.limit_in_bytes" else "max")
        document = self.run_in_cgroup(DIRTY.replace(f"loop {REBOOTS}", "loop 3"))
        self.assert_accounted(document, 3)
        self.assertGreater(len(self.events(document, "set-aside")), 0)

    def test_sparse_guest(self):
        """Every reboot is accounted, lazy or eager, and none exceeds the budget."""
        self.assert_accounted(self.run_in_cgroup(SPARSE))

    def test_budget_without_wiping(self):
        self.assert_accounted(self.run_in_cgroup(DIRTY, "--wipe", "off"))

    def test_budget_with_the_kill_switch(self):
        document = self.run_in_cgroup(DIRTY, "--lazy", "off")
        self.assert_accounted(document)
        self.assertEqual(document["counters"]["eager_reboots"], REBOOTS)


if __name__ == "__main__":
    if lib.has_sanitizer():
        print("a sanitizer needs memory beyond any budget", file=lib.sys.stderr)
        lib.sys.exit(77)
    lib.main()
