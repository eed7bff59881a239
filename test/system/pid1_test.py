#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""lethe as process 1 of a PID namespace, as in a container without an init.

When process 1 ends, the kernel kills all others of the namespace: lethe-uv too, wherever it
is.  The kernel then frees the memory, and clears it before anybody gets it.  With
--wait-destroyed there is nothing left to kill.
"""

import os
import signal
import subprocess

import lib

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc"]

WRITES = """
memory 64M
protect
write 2M 60M
print written
"""


def why_not():
    """Why no PID namespace can be made here, or None."""
    try:
        done = subprocess.run(UNSHARE + ["true"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False)
    except OSError as error:
        return str(error)
    return None if done.returncode == 0 else done.stdout.strip()


class ProcessOne(lib.Case):
    def setUp(self):
        super().setUp()
        why = why_not()
        if why is not None:
            self.skipTest(f"no PID namespace: {why}")

    def start_in_namespace(self, text, *args, env=None):
        """Starts `unshare`, which waits for process 1 and ends as it did."""
        workload = self.write("workload", text)
        process = subprocess.Popen(
            [*UNSHARE, lib.LETHE, "run", "--executor", "sw", "--workload", workload, *args],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.environment(env))
        self.started.append(process)
        return process

    def tearDown(self):
        # unshare itself takes no notice of signals.
        for process in self.started:
            for pid in self.children(process.pid):
                os.kill(pid, signal.SIGKILL)
        super().tearDown()

    def children(self, pid):
        return [int(name) for name in os.listdir("/proc")
                if name.isdigit() and lib.parent_and_state(name)[0] == pid]

    def names_in_namespace_of(self, pid):
        wanted = os.readlink(f"/proc/{pid}/ns/pid")
        names = []
        for name in os.listdir("/proc"):
            try:
                if name.isdigit() and os.readlink(f"/proc/{name}/ns/pid") == wanted:
                    names.append(lib.command_of(name))
            except OSError:
                pass
        return sorted(names)

    def test_it_is_process_1(self):
        """What the other tests rely on."""
        process = self.start_in_namespace(WRITES + "sleep 4000000\n")
        self.wait_for_line(process, "written")
        [lethe] = self.children(process.pid)
        with open(f"/proc/{lethe}/status", encoding="ascii", errors="replace") as file:
            [numbers] = [line.split()[1:] for line in file if line.startswith("NSpid:")]
        self.assertEqual(numbers[-1], "1")
        self.assertEqual(self.names_in_namespace_of(lethe), ["lethe", "lethe-uv"])
        os.kill(lethe, signal.SIGKILL)
        self.finish(process)
        self.assert_clean_after_ps()

    def test_wait_destroyed(self):
        process = self.start_in_namespace(WRITES + "poweroff\n", "--wait-destroyed")
        status, _, err = self.finish(process)
        self.assertEqual((status, err), (0, ""))
        # lethe-uv removes its entry when all memory is destroyed, and nobody else did.
        self.assert_nothing_started()

    def test_wait_destroyed_after_a_signal(self):
        """Process 1 gets only signals that it is ready for: SIGTERM is one."""
        process = self.start_in_namespace(WRITES + "sleep 4000000\n", "--wait-destroyed")
        self.wait_for_line(process, "written")
        os.kill(self.children(process.pid)[0], signal.SIGTERM)
        status, _, err = self.finish(process)
        self.assertEqual((status, err), (128 + signal.SIGTERM, ""))
        self.assert_nothing_started()

    def test_the_kernel_takes_the_ultravisor_along(self):
        """Without --wait-destroyed: here, before it has destroyed anything."""
        env = {"LETHE_FAILPOINT": "uv-end:1:stop"}
        if self.run_workload("poweroff\n", env={"LETHE_FAILPOINT": ":::"})[0] == 0:
            self.skipTest("no failpoints in this build (-Dfailpoints=true)")
        process = self.start_in_namespace(WRITES + "poweroff\n", env=env)
        status, _, err = self.finish(process)
        self.assertEqual((status, err), (0, ""))
        # unshare has waited for process 1, and the kernel lets that go last.
        self.assertEqual(self.orphans(), [])
        self.assertNotEqual(self.runtime_files(), [])
        self.assertEqual(self.vms(), [])
        self.assertEqual(self.runtime_files(), [])


if __name__ == "__main__":
    lib.main()
