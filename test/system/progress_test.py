#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The line that an interactive `lethe run` shows while memory is being forgotten.

lethe-uv stops itself while it has something to forget, until the line was seen: needs a
build with -Dfailpoints=true.  The line is gone when all is forgotten.
"""

import os
import pty
import re
import signal
import subprocess

import lib

NOBODY = 65534
CLEAR = "\r\x1b[K"
LINE = re.compile(r"lethe: forgetting \d[\d.]*M")

AT_THE_END = """
memory 32M
protect
write 2M 16M
poweroff
"""

AFTER_A_REBOOT = """
memory 32M
protect
write 2M 16M
reboot
print the next one
sleep 4000000
poweroff
"""


class Terminal:
    """What a process writes to standard error, which is a terminal."""

    def __init__(self):
        self.master, self.slave = pty.openpty()
        self.text = ""

    def close_slave(self):
        os.close(self.slave)

    def read(self):
        """Waits for more; False at the end."""
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.text += data.decode(errors="replace")
        return data != b""

    def read_until(self, condition):
        while not condition(self.text):
            if not self.read():
                raise AssertionError(f"the terminal never showed it: {self.text!r}")

    def read_all(self):
        while self.read():
            pass
        os.close(self.master)
        return self.text


class Progress(lib.Case):
    def become_nobody(self):
        """Who gives up root on the way could not read the runtime directory of root."""
        if os.getuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)

    def start_on_terminal(self, text, failpoint, *args):
        terminal = Terminal()
        if os.getuid() == 0:
            os.chown(self.runtime, NOBODY, NOBODY)
        try:
            process = subprocess.Popen(
                [lib.LETHE, "run", "--executor", "sw", "--workload",
                 self.write("workload", text), *args],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=terminal.slave,
                text=True, env=self.environment({"LETHE_FAILPOINT": failpoint}),
                preexec_fn=self.become_nobody)
        except PermissionError:
            self.skipTest(f"{lib.LETHE}: not for others than root")
        self.started.append(process)
        terminal.close_slave()
        return process, terminal

    def stopped_uv(self, process):
        def find():
            for name in os.listdir("/proc"):
                if name.isdigit() and lib.parent_and_state(name) == (process.pid, "T"):
                    return int(name)
            return None
        return lib.wait_until(find, "lethe-uv has stopped")

    def setUp(self):
        super().setUp()
        if self.run_workload("poweroff\n", env={"LETHE_FAILPOINT": ":::"})[0] == 0:
            self.skipTest("no failpoints in this build (-Dfailpoints=true)")

    def assert_cleared(self, text):
        """Nothing stays: each line was cleared before the next, and the last one at the end."""
        self.assertTrue(text.endswith(CLEAR), text)
        for line in text.split(CLEAR):
            self.assertNotIn("\n", line)

    def test_at_the_end(self):
        process, terminal = self.start_on_terminal(
            AT_THE_END, "uv-end:1:stop", "--wait-destroyed")
        uv = self.stopped_uv(process)
        terminal.read_until(LINE.search)
        os.kill(uv, signal.SIGCONT)
        self.assert_cleared(terminal.read_all())
        self.finish(process)
        self.assertEqual(process.returncode, 0)
        self.assert_clean()

    def test_after_a_reboot(self):
        process, terminal = self.start_on_terminal(AFTER_A_REBOOT, "uv-sweep-wipe:1:stop")
        uv = self.stopped_uv(process)
        terminal.read_until(LINE.search)
        os.kill(uv, signal.SIGCONT)
        self.wait_for_line(process, "the next one")
        terminal.read_until(lambda text: text.endswith(CLEAR))
        process.send_signal(signal.SIGTERM)
        self.assert_cleared(terminal.read_all())
        self.finish(process)
        self.assertEqual(process.returncode, 128 + signal.SIGTERM)
        self.assert_clean()

    def test_nothing_where_nobody_looks(self):
        status, _, err = self.run_workload(AT_THE_END, "--wait-destroyed")
        self.assertEqual((status, err), (0, ""))
        self.assert_clean()


if __name__ == "__main__":
    lib.main()
