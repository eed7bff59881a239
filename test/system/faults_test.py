#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fails every step of making and running a VM, one at a time.

Whatever fails, and whoever dies: a known exit status, one line on standard error, nothing
left over.  Needs a build with -Dfailpoints=true.  The names come from the sources.
"""

import os
import re

import lib

ROOMS = ("os", "hv", "uv", "core", "mmu", "vmm", "base")

# Failpoints that only creation passes, on the side of the hypervisor.
MAKING = ("conn-", "hv-", "rundir-", "spawn", "vmm-")

# But for these, which no run of the workload passes.
NOT_PASSED = ("hv-slot-move",)

WORKLOAD = """
memory 64M
write 2M 1M
protect 2M 1M
dma 8M 8K 3
share 9M 64K
reboot
zero 2M 1M
protect
write 2M 8M
poweroff
"""


def failpoints():
    """Every name that is the argument of a failpoint() in the sources."""
    names = set()
    for room in ROOMS:
        for folder, _, files in os.walk(os.path.join(lib.SOURCE, room)):
            for file in files:
                if not file.endswith((".c", ".h")) or file.startswith("failpoint"):
                    continue
                with open(os.path.join(folder, file), encoding="utf-8") as source:
                    names.update(re.findall(r'\bfailpoint\("([a-z0-9-]+)"\)', source.read()))
    return sorted(names)


class Faults(lib.Case):
    def failpoints_built(self):
        """A malformed failpoint ends a process that looks at the variable."""
        status, _, _ = self.run_workload("poweroff\n", env={"LETHE_FAILPOINT": ":::"})
        self.assert_clean()
        return status != 0

    def inject(self, name, nth, what):
        self.kill_orphans()
        self.new_runtime()
        status, out, err = self.run_workload(
            WORKLOAD, env={"LETHE_FAILPOINT": f"{name}:{nth}:{what}"})
        # -9: the hypervisor itself was the one to be killed.
        self.assertIn(status, (0, 1, 3, 4, -9), out + err)
        if status in (1, 3, 4):
            self.assert_one_line(err)
        if (what == "ENOMEM" and nth == 1 and name.startswith(MAKING)
                and name not in NOT_PASSED):
            self.assertEqual(status, 1, err)
        if what == "kill":
            # Who was killed: the hypervisor, the ultravisor, or nobody.
            self.assertIn(status, (-9, 4, 0), err)
            self.assert_clean_after_ps()
        else:
            self.assert_clean()

    def test_every_failpoint(self):
        if not self.failpoints_built():
            self.skipTest("no failpoints in this build (-Dfailpoints=true)")
        names = failpoints()
        self.assertNotEqual(names, [])
        for name in names:
            for nth in (1, 2, 3):
                with self.subTest(failpoint=name, nth=nth):
                    self.inject(name, nth, "ENOMEM")
            with self.subTest(failpoint=name, what="kill"):
                self.inject(name, 1, "kill")


if __name__ == "__main__":
    lib.main()
