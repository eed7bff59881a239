#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every step of setting aside and destroying fails, dies, or is where somebody else dies.

A guest writes secrets, reboots, looks at all of its memory and waits.  At one step, in
lethe or in lethe-uv, an error is injected, or the process kills itself, ends itself, or
stops so that the other one can be killed there.  Whatever happens: the next incarnation
finds zeros in every page, the hypervisor's memory holds no secret, and no process,
descriptor, runtime entry or memory is left.  Needs a build with -Dfailpoints=true.
"""

import os
import signal

import lib

SECRET_GPA = 2 << 20
SECRET_BYTES = 16 << 20
SEED = 7

WORKLOAD = f"""
memory 32M
protect
write {SECRET_GPA} {SECRET_BYTES} {SEED}
reboot
zero 1M 31M
protect
zero 1M 31M
write 20M 4M
print ready
sleep 4000000
poweroff
"""

# The end comes while what was set aside is being destroyed: that is cancelled.
CUT_SHORT = f"""
memory 128M
protect
write 2M 120M {SEED}
reboot
zero 1M 8M
poweroff
"""

# Steps of lethe and of lethe-uv, and of the end, which lethe does not wait for.
HV_LAZY = ("destroy-prepare", "destroy-prepared", "destroy-perform", "destroy-performed")
UV_LAZY = ("uv-prepare", "uv-prepared", "uv-perform", "uv-sweep-wipe", "uv-sweep-give-back")
HV_EAGER = ("destroy-prepare", "destroy-reset", "destroy-was-reset")
UV_EAGER = ("uv-prepare", "uv-reset", "uv-was-reset", "uv-sweep-wipe", "uv-sweep-give-back")
UV_END = ("uv-end", "uv-ended")
CANCEL = ("destroy-cancel", "uv-cancel")

# Without these, the reboot cannot go on.
FATAL = ("destroy-reset", "uv-reset")

SIGTERM_STATUS = 128 + signal.SIGTERM


def mix(number):
    """The test pattern of the workloads: splitmix64."""
    mask = (1 << 64) - 1
    z = (number + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def secret_word(gpa):
    return mix(gpa ^ (SEED << 32)).to_bytes(8, "little")


PAGE_STARTS = {secret_word(gpa)
               for gpa in range(SECRET_GPA, SECRET_GPA + SECRET_BYTES, 4096)}
# Some words, to be found at any place.
SAMPLES = [secret_word(SECRET_GPA + n * (3 << 20) + n * 8) for n in range(SECRET_BYTES // (3 << 20))]


def holds_secret(data):
    if any(word in data for word in SAMPLES):
        return True
    return any(data[at:at + 8] in PAGE_STARTS for at in range(0, len(data), 4096))


def memory_of(pid):
    """Yields what can be read of a process's writable memory."""
    with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as maps, \
            open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            span, rights = line.split()[:2]
            if not rights.startswith("rw"):
                continue
            start, end = (int(text, 16) for text in span.split("-"))
            while start < end:
                step = min(end - start, 8 << 20)
                try:
                    memory.seek(start)
                    yield memory.read(step)
                except OSError:
                    pass
                start += step


class DestroyFaults(lib.Case):
    def begin(self, failpoint, lazy, text=WORKLOAD):
        self.kill_orphans()
        self.new_runtime()
        return self.start_workload(
            text, "--lazy", "on" if lazy else "off", env={"LETHE_FAILPOINT": failpoint})

    def is_ready(self, process):
        """True once the next incarnation has seen its zeros, False at the end without."""
        return any(line == "ready\n" for line in process.stdout)

    def uv_of(self, process):
        """The lethe-uv of a lethe, or one that is left of it."""
        for name in os.listdir("/proc"):
            if name.isdigit() and lib.command_of(name) == "lethe-uv" and \
                    lib.parent_and_state(name)[0] in (process.pid, os.getpid()):
                return int(name)
        return None

    def end(self, process):
        process.send_signal(signal.SIGTERM)
        return self.finish(process)

    def assert_no_secret(self, process):
        # A sanitizer maps terabytes of its own.
        if lib.has_sanitizer():
            return
        for data in memory_of(process.pid):
            self.assertFalse(holds_secret(data), "the hypervisor holds a secret")

    def assert_forgotten(self):
        """All that was set aside is destroyed while the VM goes on."""
        lib.wait_until(lambda: self.vms()[0]["forget_bytes"] == 0, "nothing to forget")

    def descriptors(self, process):
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in (process.pid, self.uv_of(process))]

    def usual_descriptors(self):
        """Of both processes, when nothing fails and all was destroyed before the reboot."""
        process = self.begin("none", False)
        self.assertTrue(self.is_ready(process))
        found = self.descriptors(process)
        self.assertEqual(self.end(process)[0], SIGTERM_STATUS)
        self.assert_clean()
        return found

    # An error.

    def check_error(self, name, lazy, usual):
        process = self.begin(f"{name}:1:ENOMEM", lazy)
        ready = self.is_ready(process)
        self.assertEqual(ready, name not in FATAL)
        if not ready:
            status, _, err = self.finish(process)
            self.assertEqual(status, 1, err)
            self.assert_one_line(err)
        else:
            # What nobody performs waits for the end, with its memory's descriptor.
            waits = name in ("destroy-perform", "uv-perform")
            if not waits:
                self.assert_forgotten()
            self.assert_no_secret(process)
            usual = [usual[0], usual[1] + waits]
            lib.wait_until(lambda: self.descriptors(process) == usual, "no descriptor is left")
            self.assertEqual(self.end(process)[0], SIGTERM_STATUS)
        self.assert_clean()

    def test_errors(self):
        usual = self.usual_descriptors()
        for lazy, names in ((True, HV_LAZY + UV_LAZY), (False, HV_EAGER + UV_EAGER)):
            for name in names:
                with self.subTest(failpoint=name, lazy=lazy):
                    self.check_error(name, lazy, usual)

    # The process that is at the step dies there.

    def check_death(self, name, lazy, what):
        process = self.begin(f"{name}:1:{what}", lazy)
        if self.is_ready(process) and name in UV_END:
            self.assert_no_secret(process)
            process.send_signal(signal.SIGTERM)
        status, _, err = self.finish(process)
        if name in UV_END:
            self.assertEqual(status, SIGTERM_STATUS, err)
        elif name.startswith("destroy-"):
            self.assertEqual(status, -signal.SIGKILL if what == "kill" else SIGTERM_STATUS, err)
        else:
            self.assertEqual(status, 4, err)
        if what == "kill" and not name.startswith("destroy-"):
            self.assert_clean_after_ps()
        else:
            self.assert_clean()

    def test_deaths(self):
        for what in ("kill", "term"):
            for lazy, names in ((True, HV_LAZY + UV_LAZY + UV_END), (False, HV_EAGER + UV_EAGER)):
                for name in names:
                    with self.subTest(failpoint=name, lazy=lazy, what=what):
                        self.check_death(name, lazy, what)

    # The other process dies while one is at the step.

    def wait_until_stopped(self, pid_of):
        def stopped():
            pid = pid_of()
            return pid if pid and lib.parent_and_state(pid)[1] == "T" else None
        return lib.wait_until(stopped, "a process has stopped at the step")

    def check_death_of_hypervisor(self, name, lazy, number):
        """lethe is killed while lethe-uv is at the step."""
        process = self.begin(f"{name}:1:stop", lazy)
        uv = self.wait_until_stopped(lambda: self.uv_of(process))
        if process.poll() is None:
            self.assert_no_secret(process)
        process.send_signal(number)
        os.kill(uv, signal.SIGCONT)
        status, _, err = self.finish(process)
        self.assertEqual(status, -signal.SIGKILL if number == signal.SIGKILL else 128 + number, err)
        self.assert_clean()

    def check_death_of_ultravisor(self, name, lazy, number):
        """lethe-uv dies while lethe is at the step."""
        process = self.begin(f"{name}:1:stop", lazy)
        self.wait_until_stopped(lambda: process.pid)
        self.assert_no_secret(process)
        os.kill(self.uv_of(process), number)
        process.send_signal(signal.SIGCONT)
        status, _, err = self.finish(process)
        self.assertEqual(status, 4, err)
        self.assert_clean_after_ps()

    def test_death_of_the_other(self):
        for lazy, hv_names, uv_names in (
                (True, HV_LAZY, UV_LAZY), (False, HV_EAGER, UV_EAGER)):
            for number in (signal.SIGKILL, signal.SIGTERM):
                for name in uv_names:
                    with self.subTest(failpoint=name, lazy=lazy, lethe_gets=number):
                        self.check_death_of_hypervisor(name, lazy, number)
                for name in hv_names:
                    with self.subTest(failpoint=name, lazy=lazy, lethe_uv_gets=number):
                        self.check_death_of_ultravisor(name, lazy, number)

    # The end.

    def test_forgetting_is_listed_without_its_hypervisor(self):
        """What `lethe ps` says while only lethe-uv is there."""
        process = self.begin("uv-end:1:stop", True)
        self.assertTrue(self.is_ready(process))
        self.assertEqual(self.end(process)[0], SIGTERM_STATUS)
        uv = self.wait_until_stopped(lambda: self.uv_of(process))
        [vm] = self.vms()
        self.assertEqual((vm["state"], vm["uv_pid"], vm["hv_alive"]), ("forgetting", uv, False))
        self.assertGreaterEqual(vm["forget_bytes"], 4 << 20)
        status, out, err = self.lethe("ps")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("forgetting", out)
        self.assertIn("ETA", out)
        status, top, err = self.lethe("top")
        self.assertEqual((status, top, err), (0, out, ""))
        os.kill(uv, signal.SIGCONT)
        self.assert_clean()

    def counters_with(self, failpoint):
        """Of a guest that rebooted once and wrote 4M after that."""
        timeline = self.path("timeline.json")
        text = WORKLOAD.replace("print ready\nsleep 4000000\n", "")
        status, _, err = self.run_workload(
            text, "--timeline", timeline, "--wait-destroyed", env={"LETHE_FAILPOINT": failpoint})
        self.assertEqual((status, err), (0, ""))
        self.assert_clean()
        return self.timeline(timeline)["counters"]

    def test_figures_in_the_timeline(self):
        """As of the end: what the last incarnation had, and what nobody has performed."""
        counters = self.counters_with("none")
        self.assertGreaterEqual(counters["resident_bytes"], 4 << 20)
        self.assertEqual(counters["forget_bytes"], 0)
        self.assertGreater(counters["forget_rate"], 0)
        self.assertIn(counters["pressure"], (0, 1, 2))
        counters = self.counters_with("uv-perform:1:ENOMEM")
        self.assertGreaterEqual(counters["resident_bytes"], 4 << 20)
        self.assertGreaterEqual(counters["forget_bytes"], SECRET_BYTES)

    def test_cancel(self):
        """The step is there only if the end comes before the sweeper is done."""
        for name in CANCEL:
            for what in ("ENOMEM", "kill", "term"):
                with self.subTest(failpoint=name, what=what):
                    process = self.begin(f"{name}:1:{what}", True, CUT_SHORT)
                    status, _, err = self.finish(process)
                    self.assertIn(status, (0, -signal.SIGKILL, SIGTERM_STATUS), err)
                    self.assert_clean_after_ps()


if __name__ == "__main__":
    lib.main()
