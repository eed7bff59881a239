#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The life of a VM from outside: its timeline, signals, deaths of either process, ps."""

import os
import resource
import signal
import socket
import time

import lib

EVERYTHING = """
memory 64M
vcpus 2
vcpu 0
write 2M 4M
protect 2M 4M
check 2M 4M
write 16M 16M 3
share 8M 64K
unshare 8M 64K
dma 9M 8K 5
barrier before
reboot
zero 2M 4M
zero 16M 16M
write 16M 16M 5
check 16M 16M 5
print done
poweroff
vcpu 1
barrier before
"""

# Prints when everything is set up, then waits to be ended from outside.
WAITING = """
memory 64M
vcpu 0
protect
write 2M 32M
print ready
sleep 3600000
"""


class Timeline(lib.Case):
    def events(self, document, name):
        return [e for e in document["events"] if e["event"] == name]

    def run_everything(self, *args):
        path = self.path("timeline.json")
        status, out, err = self.run_workload(EVERYTHING, "--timeline", path, *args)
        self.assertEqual((status, out, err), (0, "done\n", ""))
        self.assert_clean()
        return self.timeline(path)

    def test_every_event(self):
        document = self.run_everything("--name", "every-event")
        vm = document["vm"]
        self.assertEqual(vm, {"name": "every-event", "memory_bytes": 64 << 20, "vcpus": 2,
                              "executor": "sw"})
        for name, count in (("create", 1), ("memslot-add", 2), ("memslot-delete", 1),
                            ("protect", 1), ("share", 6), ("unshare", 6), ("set-aside", 1),
                            ("destroy-start", 1), ("destroy-end", 1), ("reboot", 1),
                            ("poweroff", 1), ("exit", 1)):
            self.assertEqual(len(self.events(document, name)), count, name)
        times = [e["t_ns"] for e in document["events"]]
        self.assertEqual(times, sorted(times))
        self.assertEqual(document["counters"]["shares"], 6)
        self.assertEqual(document["counters"]["dma_transfers"], 5)
        self.assertEqual(document["counters"]["events_dropped"], 0)

    def test_fields(self):
        document = self.run_everything()
        protect = self.events(document, "protect")[0]
        # What the guest named, and the interpreter's own memory.
        self.assertGreaterEqual(protect["pages_copied"], 1024)
        self.assertEqual(protect["pages_copied"] + protect["pages_secured"], 64 << 8)
        self.assertRegex(protect["measurement"], "^[0-9a-f]{96}$")
        end = self.events(document, "destroy-end")[0]
        self.assertEqual(end["incarnation"], 0)
        self.assertIn(end["cancelled"], (True, False))
        for name in ("protect", "set-aside", "destroy-end", "reboot"):
            self.assertGreater(self.events(document, name)[0]["duration_ns"], 0, name)
        self.assertEqual(self.events(document, "exit")[0]["status"], 0)

    def test_measurement_is_reproducible(self):
        first = self.events(self.run_everything(), "protect")[0]["measurement"]
        second = self.events(self.run_everything(), "protect")[0]["measurement"]
        self.assertEqual(first, second)

    def test_kill_switch(self):
        document = self.run_everything("--lazy", "off")
        self.assertEqual(self.events(document, "set-aside"), [])
        self.assertEqual(document["counters"]["eager_reboots"], 1)
        end = self.events(document, "destroy-end")[0]
        self.assertFalse(end["cancelled"])
        self.assertGreaterEqual(end["bytes"], 20 << 20)
        self.assertLessEqual(end["t_ns"], self.events(document, "reboot")[0]["t_ns"])

    def test_options(self):
        for args in (["--wipe", "off"], ["--discard", "eager"], ["--share", "copied"],
                     ["--share", "mapped"], ["--lazy", "off", "--wipe", "off"]):
            with self.subTest(args=args):
                self.run_everything(*args)

    def test_protect_at_boot(self):
        path = self.path("timeline.json")
        status, _, err = self.run_workload(
            "write 2M 1M\ncheck 2M 1M\nreboot\nzero 2M 1M\npoweroff\n",
            "--protect", "boot", "--timeline", path)
        self.assertEqual(status, 0, err)
        document = self.timeline(path)
        self.assertEqual(len(self.events(document, "protect")), 2)
        self.assertEqual(len(self.events(document, "set-aside")), 1)
        self.assert_clean()

    def test_protect_off(self):
        path = self.path("timeline.json")
        status, _, err = self.run_workload(
            "protect\npoweroff\n", "--protect", "off", "--timeline", path)
        self.assertEqual(status, 3, err)
        self.assert_one_line(err)
        document = self.timeline(path)
        self.assertEqual(len(self.events(document, "violation")), 1)
        self.assertEqual(self.events(document, "exit")[0]["status"], 3)
        self.assert_clean()

    def test_machine_that_never_protects(self):
        status, _, err = self.run_workload(
            "write 2M 1M\nreboot\nzero 2M 1M\npoweroff\n")
        self.assertEqual(status, 0, err)
        self.assert_clean()

    def test_all_halted_powers_off(self):
        path = self.path("timeline.json")
        status, _, err = self.run_workload(
            "vcpus 3\nvcpu 0\nwrite 2M 4K\nvcpu 2\nwrite 3M 4K\n", "--timeline", path)
        self.assertEqual(status, 0, err)
        self.assertEqual(len(self.events(self.timeline(path), "poweroff")), 1)

    def test_many_conversions(self):
        path = self.path("timeline.json")
        status, _, err = self.run_workload(
            "protect\ndma 2M 4K 1500\npoweroff\n", "--timeline", path)
        self.assertEqual(status, 0, err)
        document = self.timeline(path)
        self.assertEqual(document["counters"]["shares"], 1500)
        self.assertEqual(document["counters"]["unshares"], 1500)
        self.assertEqual(len(self.events(document, "share")), 1000)

    def test_many_reboots(self):
        path = self.path("timeline.json")
        lines = ["memory 64M"]
        for _ in range(12):
            lines += ["protect", "zero 2M 40M", "write 2M 40M", "reboot"]
        status, _, err = self.run_workload(
            "\n".join(lines + ["zero 2M 40M", "poweroff"]), "--timeline", path)
        self.assertEqual(status, 0, err)
        document = self.timeline(path)
        self.assertEqual(document["counters"]["reboots"], 12)
        self.assert_clean()

    def test_timeline_that_cannot_be_written(self):
        status, _, err = self.run_workload("poweroff\n", "--timeline", "/dev/full")
        self.assertEqual(status, 1)
        self.assert_one_line(err)
        self.assert_clean()

    def test_terabyte(self):
        if lib.has_thread_sanitizer():
            self.skipTest("ThreadSanitizer leaves no address space of that size")
        path = self.path("timeline.json")
        text = "protect 2M 1M\nwrite 900G 4M\nreboot\nzero 900G 4M\npoweroff\n"
        status, _, err = self.run_workload(text, "--memory", "1T", "--timeline", path)
        self.assertEqual(status, 0, err)
        self.assert_clean()
        rss = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        self.assertLess(rss, 1 << 20)

    def test_tour(self):
        status, out, err = self.lethe("run", "--executor", "sw", "--memory", "64M")
        self.assertEqual((status, err), (0, ""))
        for row in ("protect", "transfer", "reboot", "power off", "the old way"):
            self.assertIn(row, out)
        self.assert_clean()


class Endings(lib.Case):
    def start_waiting(self, *args):
        process = self.start_workload(WAITING, *args)
        self.wait_for_line(process, "ready")
        vms = self.vms()
        self.assertEqual(len(vms), 1)
        return process, vms[0]

    def test_signals(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(signal=number):
                path = self.path("timeline.json")
                process, vm = self.start_waiting("--timeline", path)
                process.send_signal(number)
                status, _, err = self.finish(process)
                self.assertEqual((status, err), (128 + number, ""))
                self.assert_clean()
                last = self.timeline(path)["events"][-1]
                self.assertEqual((last["event"], last["status"]), ("exit", 128 + number))
                self.assertFalse(lib.alive(vm["uv_pid"]))

    def start_session(self):
        path = self.write("workload", WAITING)
        process = lib.subprocess.Popen(
            [lib.LETHE, "run", "--executor", "sw", "--workload", path],
            stdin=lib.subprocess.DEVNULL, stdout=lib.subprocess.PIPE,
            stderr=lib.subprocess.PIPE, text=True, env=self.environment(),
            start_new_session=True)
        self.started.append(process)
        return process

    def test_interrupt_at_odd_moments(self):
        """Ctrl-C while both processes start."""
        for step in range(30):
            with self.subTest(step=step):
                process = self.start_session()
                # Not to wait for anything, but to come at another moment each time.
                time.sleep(step / 2000)
                os.killpg(process.pid, signal.SIGINT)
                status, _, err = self.finish(process)
                # By the signal itself, before there was anything to end.
                self.assertIn((status, err), ((130, ""), (-signal.SIGINT, "")))
                self.assert_clean()

    def test_closed_standard_streams(self):
        """What is opened later is not printed to."""
        path = self.write("workload", "print text\nprotect\ndma 2M 8K 3\npoweroff\n")
        for closed in ((0,), (1,), (2,), (0, 1, 2)):
            with self.subTest(closed=closed):
                command = 'exec "$@"' + "".join(f" {fd}>&-" for fd in closed)
                done = lib.subprocess.run(
                    ["sh", "-c", command, "sh", lib.LETHE, "run", "--executor", "sw",
                     "--workload", path],
                    stdin=lib.subprocess.DEVNULL, stdout=lib.subprocess.PIPE,
                    stderr=lib.subprocess.PIPE, text=True, env=self.environment(),
                    timeout=lib.DEADLINE, check=False)
                self.assertEqual(done.returncode, 1 if 1 in closed else 0, done.stderr)
                self.assertEqual(done.stdout, "" if 1 in closed else "text\n")
                if closed == (1,):
                    self.assertIn("standard output: ", done.stderr)
                self.assert_clean()

    def run_with_limit(self, which, limit, *args):
        path = self.write("workload", "memory 2M\nprint text\npoweroff\n")

        def set_limit():
            resource.setrlimit(which, (limit, limit))
        done = lib.subprocess.run(
            [lib.LETHE, "run", "--executor", "sw", "--workload", path, *args],
            stdin=lib.subprocess.DEVNULL, stdout=lib.subprocess.PIPE,
            stderr=lib.subprocess.PIPE, text=True, env=self.environment(),
            timeout=lib.DEADLINE, check=False, preexec_fn=set_limit)
        if done.returncode:
            self.assertIn(done.returncode, (1, 2, 4))
            self.assert_one_line(done.stderr)
        else:
            self.assertEqual((done.stdout, done.stderr), ("text\n", ""))
        self.assert_clean()
        return done.returncode

    def test_few_descriptors(self):
        """It works or says why not, with any limit."""
        results = []
        for limit in range(8, 40):
            with self.subTest(limit=limit):
                results.append(self.run_with_limit(resource.RLIMIT_NOFILE, limit))
        self.assertNotEqual(results[0], 0)
        self.assertEqual(results[-1], 0)

    def test_small_files_only(self):
        """Memory counts as a file."""
        self.assertEqual(self.run_with_limit(resource.RLIMIT_FSIZE, 3 << 20), 0)
        self.assertEqual(
            self.run_with_limit(resource.RLIMIT_FSIZE, 3 << 20, "--memory", "4M"), 1)

    def test_interrupt_of_the_whole_group(self):
        """Ctrl-C reaches every process of the terminal's group."""
        process = self.start_session()
        self.wait_for_line(process, "ready")
        os.killpg(process.pid, signal.SIGINT)
        status, _, err = self.finish(process)
        self.assertEqual((status, err), (130, ""))
        self.assert_clean()

    def test_killed_hypervisor(self):
        process, vm = self.start_waiting()
        self.assertEqual(vm["hv_pid"], process.pid)
        self.assertTrue(lib.alive(vm["uv_pid"]))
        process.kill()
        self.finish(process)
        self.assert_clean()
        self.assertFalse(lib.alive(vm["uv_pid"]))
        self.assertEqual(self.vms(), [])

    def test_ps_after_the_hypervisor(self):
        """An ultravisor that has not got round to anything shows all the same."""
        process, vm = self.start_waiting()
        lib.wait_until(lambda: self.vms()[0]["resident_bytes"] >= 32 << 20, "memory shows")
        os.kill(vm["uv_pid"], signal.SIGSTOP)
        process.kill()
        self.finish(process)
        left = self.vms()[0]
        self.assertFalse(left["hv_alive"])
        self.assertGreaterEqual(left["resident_bytes"] + left["forget_bytes"], 32 << 20)
        self.assertEqual(left["eta_ns"], 0)
        self.assertIn(left["pressure"], ("none", "raised", "high"))
        os.kill(vm["uv_pid"], signal.SIGCONT)
        self.assert_clean()

    def test_supervisor_is_told(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(self.path("notify"))
            os.chmod(self.path("notify"), 0o777)
            told.settimeout(lib.DEADLINE)
            process = self.start_workload(WAITING, env={"NOTIFY_SOCKET": self.path("notify")})
            self.assertIn(b"READY=1", told.recv(256).splitlines())
            process.terminate()
            self.assertIn(b"STOPPING=1", told.recv(256).splitlines())
            self.finish(process)
        self.assert_clean()

    def test_supervisor_that_is_not_there(self):
        for path in (self.path("nobody"), "@", "relative", "/" + "x" * 200):
            status, _, err = self.run_workload("poweroff\n", env={"NOTIFY_SOCKET": path})
            self.assertEqual((status, err), (0, ""))
        self.assert_clean()

    def test_wait_destroyed(self):
        process, vm = self.start_waiting("--wait-destroyed")
        process.terminate()
        status, _, err = self.finish(process)
        self.assertEqual((status, err), (128 + signal.SIGTERM, ""))
        self.assertFalse(lib.alive(vm["uv_pid"]))
        self.assert_nothing_started()

    def test_killed_ultravisor(self):
        path = self.path("timeline.json")
        process, vm = self.start_waiting("--timeline", path)
        os.kill(vm["uv_pid"], signal.SIGKILL)
        status, _, err = self.finish(process)
        self.assertEqual(status, 4)
        self.assert_one_line(err)
        self.assertIn("signal 9", err)
        self.assert_clean_after_ps()
        self.assertEqual(self.timeline(path)["events"][-1]["status"], 4)

    def test_ultravisor_killed_under_load(self):
        process = self.start_workload(
            "memory 64M\nprotect\nprint ready\nloop 1000000\ndma 2M 64K 100\nend\n")
        self.wait_for_line(process, "ready")
        os.kill(self.vms()[0]["uv_pid"], signal.SIGKILL)
        status, _, err = self.finish(process)
        self.assertEqual(status, 4)
        self.assert_one_line(err)
        self.assert_clean_after_ps()

    def test_hypervisor_killed_between_reboots(self):
        text = "memory 64M\nprint ready\n" + "protect\nwrite 2M 40M\nreboot\n" * 50 + "poweroff\n"
        for _ in range(3):
            process = self.start_workload(text)
            self.wait_for_line(process, "ready")
            process.kill()
            self.finish(process)
            self.assert_clean()

    def test_ps_of_a_running_vm(self):
        process, vm = self.start_waiting("--name", "shown")
        self.assertEqual(vm["name"], "shown")
        self.assertEqual(vm["state"], "secure")
        self.assertEqual(vm["executor"], "sw")
        self.assertEqual(vm["memory_bytes"], 64 << 20)
        self.assertEqual(vm["vcpus"], 1)
        self.assertTrue(vm["hv_alive"])
        self.assertIn("shown", self.lethe("ps")[1])
        self.assertIn("shown", self.lethe("top")[1])
        lib.wait_until(lambda: self.vms()[0]["resident_bytes"] >= 32 << 20,
                       "resident memory shows")
        process.terminate()
        self.finish(process)
        self.assert_clean()
        self.assertEqual(self.vms(), [])

    def test_name_in_use(self):
        process, _ = self.start_waiting("--name", "taken")
        status, _, err = self.run_workload("poweroff\n", "--name", "taken")
        self.assertEqual(status, 1)
        self.assert_one_line(err)
        self.assertIn("--name", err)
        self.assertEqual(len(self.vms()), 1)
        process.terminate()
        self.finish(process)
        self.assert_clean()

    def test_several_vms(self):
        started = []
        for name in ([], ["--name", "z"], ["--name", "b"], ["--name", "a"]):
            started.append(self.start_workload(WAITING, *name))
            self.wait_for_line(started[-1], "ready")
        names = [vm["name"] for vm in self.vms()]
        self.assertEqual((len(names), names), (4, sorted(names)))
        for process in started:
            process.terminate()
            self.finish(process)
        self.assert_clean()

    def test_closed_standard_output(self):
        """A reader that goes away loses the text, not the VM."""
        process = self.start_workload("print ready\nloop 50\nprint more\nend\npoweroff\n")
        self.wait_for_line(process, "ready")
        process.stdout.close()
        process.wait(timeout=lib.DEADLINE)
        self.assertIn(process.returncode, (0, 1))
        process.stderr.close()
        self.started.remove(process)
        self.assert_clean()

    def test_runs_without_root(self):
        if os.geteuid() != 0:
            self.skipTest("already an ordinary user")
        process, vm = self.start_waiting()
        for pid in (process.pid, vm["uv_pid"]):
            with open(f"/proc/{pid}/status", encoding="ascii") as file:
                fields = dict(line.split(":", 1) for line in file)
            if pid == process.pid:
                self.assertNotIn("0", fields["Uid"].split())
                self.assertEqual(fields["Groups"].strip(), "")
            for capabilities in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
                self.assertEqual(int(fields[capabilities], 16), 0, lib.command_of(pid))


if __name__ == "__main__":
    lib.main()
