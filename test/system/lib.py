# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the system tests share: running lethe, waiting, and looking for what is left over.

A test file defines unittest cases derived from Case and ends with `lib.main()`.
The environment names what is under test: LETHE, LETHE_UV, LETHE_SOURCE.

Every test has a runtime directory of its own.  The test process is a subreaper: whatever
a lethe leaves behind becomes its child, so left-over processes are found without guessing
by name, even with other tests running beside.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

LETHE = os.environ.get("LETHE", "build/lethe")
LETHE_UV = os.environ.get("LETHE_UV", "")
SOURCE = os.environ.get("LETHE_SOURCE", os.getcwd())

# Generous: a machine under load with sanitizers.  A wait ends as soon as it can.
DEADLINE = 120

PR_SET_CHILD_SUBREAPER = 36


def has_thread_sanitizer():
    with open(LETHE, "rb") as file:
        return b"__tsan_init" in file.read()


def has_sanitizer():
    with open(LETHE, "rb") as file:
        binary = file.read()
    return b"__tsan_init" in binary or b"__asan_init" in binary


def become_subreaper():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def parent_and_state(pid):
    """(parent, state) of a process, or (None, None) when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None, None
    return int(fields[1]), fields[0]


def command_of(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "?"


def alive(pid):
    """Whether the process runs; a zombie does not."""
    return parent_and_state(pid)[1] not in (None, "Z", "X")


def wait_until(condition, what):
    """Polls @condition until it holds and returns what it returned."""
    end = time.monotonic() + DEADLINE
    pause = 0.002
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {DEADLINE} s in vain: {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


class Case(unittest.TestCase):
    """One runtime directory, and processes that do not outlive the test."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="lethe-test-")
        # Readable for whom lethe becomes when it gives up root.
        os.chmod(self.folder, 0o755)
        self.started = []
        self.new_runtime()

    def tearDown(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.kill_orphans()
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_runtime(self):
        """A new, empty runtime directory."""
        self.runtime = tempfile.mkdtemp(prefix="run-", dir=self.folder)

    def kill_orphans(self):
        for pid in self.orphans():
            os.kill(pid, signal.SIGKILL)

    def environment(self, extra=None):
        env = dict(os.environ, LETHE_RUNTIME_DIR=self.runtime, LC_ALL="C")
        env.pop("LETHE_FAILPOINT", None)
        env.update(extra or {})
        return env

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        """Writes a file into the test's folder and returns its path."""
        path = self.path(name)
        with open(path, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        os.chmod(path, 0o644)
        return path

    def start(self, *args, env=None, preexec_fn=None):
        """Starts lethe; tearDown() ends it if the test does not."""
        process = subprocess.Popen(
            [LETHE, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace",
            env=self.environment(env), preexec_fn=preexec_fn)
        self.started.append(process)
        return process

    def finish(self, process):
        """Waits for a started lethe: (exit status, standard output, standard error)."""
        out, err = process.communicate(timeout=DEADLINE)
        return process.returncode, out, err

    def lethe(self, *args, env=None):
        return self.finish(self.start(*args, env=env))

    def need_executor(self, executor):
        """Skips the test where lethe cannot run guests on it."""
        out = self.lethe("capabilities", "--json")[1]
        for found in json.loads(out)["executors"]:
            if found["name"] == executor and not found["available"]:
                self.skipTest(found["reason"])

    def run_workload(self, text, *args, env=None):
        path = self.write("workload", text)
        return self.lethe("run", "--executor", "sw", "--workload", path, *args, env=env)

    def start_workload(self, text, *args, env=None):
        path = self.write("workload", text)
        return self.start("run", "--executor", "sw", "--workload", path, *args, env=env)

    def wait_for_line(self, process, line):
        """Reads standard output up to @line."""
        for got in process.stdout:
            if got.rstrip("\n") == line:
                return
        self.fail(f"'{line}' was never printed; standard error: {process.stderr.read()}")

    def vms(self):
        status, out, err = self.lethe("ps", "--json")
        self.assertEqual(status, 0, err)
        document = json.loads(out)
        self.assertEqual(document["schema"], 1)
        return document["vms"]

    def timeline(self, path):
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        self.assertEqual(document["schema"], 1)
        return document

    # What is left over.

    def orphans(self):
        """Children of this process that it did not start: what a lethe left behind."""
        own = {process.pid for process in self.started}
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) in own:
                continue
            parent, state = parent_and_state(name)
            if parent != os.getpid():
                continue
            if state == "Z":
                os.waitpid(int(name), os.WNOHANG)
            else:
                found.append(int(name))
        return found

    def runtime_files(self):
        return sorted(
            os.path.relpath(os.path.join(folder, name), self.runtime)
            for folder, _, names in os.walk(self.runtime) for name in names)

    def assert_clean(self):
        """No process and no file is left, or will be as soon as memory is destroyed."""
        def clean():
            return not self.orphans() and not self.runtime_files()
        try:
            wait_until(clean, "everything gone")
        except AssertionError as error:
            left = [f"{command_of(pid)} {pid}" for pid in self.orphans()]
            raise AssertionError(
                f"left over: processes {left}, files {self.runtime_files()}") from error

    def assert_clean_after_ps(self):
        """An ultravisor that was killed leaves its entry to the next `lethe ps`."""
        wait_until(lambda: not self.vms(), "no VM listed")
        self.assert_clean()

    def assert_nothing_started(self):
        """Like assert_clean(), without waiting: there never was anything."""
        self.assertEqual(self.orphans(), [])
        self.assertEqual(self.runtime_files(), [])

    def assert_one_line(self, err):
        """Standard error is one line in this program's form."""
        lines = err.splitlines()
        self.assertEqual(len(lines), 1, err)
        self.assertTrue(lines[0].startswith("lethe: "), err)
        self.assertNotIn("\x1b", err)


class CgroupCase(Case):
    """A test in a cgroup of its own, which it makes with make_cgroup()."""

    def setUp(self):
        super().setUp()
        self.cgroup = None

    def tearDown(self):
        super().tearDown()
        if self.cgroup:
            wait_until(self.remove_cgroup, "the cgroup is empty")

    @staticmethod
    def own_cgroups():
        """(hierarchy's number, its controllers, path in it) of each cgroup of this process."""
        with open("/proc/self/cgroup", encoding="ascii") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
        return [(number, controllers.split(","), path.rstrip("/"))
                for number, controllers, path in lines]

    def make_cgroup(self, parent, is_usable):
        """Makes one below @parent, and keeps it if is_usable() says so and does not fail."""
        self.cgroup = f"{parent}/lethe-test-{os.getpid()}"
        try:
            os.mkdir(self.cgroup)
        except OSError:
            self.cgroup = None
            return False
        try:
            usable = is_usable()
        except OSError:
            usable = False
        if not usable:
            os.rmdir(self.cgroup)
            self.cgroup = None
        return usable

    def remove_cgroup(self):
        try:
            os.rmdir(self.cgroup)
        except OSError:
            return False
        return True

    def cgroup_file(self, name):
        return os.path.join(self.cgroup, name)

    def start_in_cgroup(self, text, *args, env=None):
        """Like start_workload()."""
        def enter():
            with open(self.cgroup_file("cgroup.procs"), "w", encoding="ascii") as file:
                file.write("0")
        path = self.write("workload", text)
        return self.start("run", "--executor", "sw", "--workload", path, *args, env=env,
                          preexec_fn=enter)


def main():
    become_subreaper()
    if not os.access(LETHE, os.X_OK):
        print(f"{LETHE}: not built", file=sys.stderr)
        sys.exit(77)
    program = unittest.main(exit=False, verbosity=2)
    result = program.result
    if not result.wasSuccessful():
        sys.exit(1)
    if result.testsRun == 0:
        print("nothing to test", file=sys.stderr)
    skipped_all = len(result.skipped) == result.testsRun
    sys.exit(77 if skipped_all else 0)
