#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Linux as a guest, on a real KVM, in the lab (lab.py).

  lab_test.py lab KVM_VERSION      the lab itself: status, output, time limit, /dev/kvm
  lab_test.py pc MINI_KVM          vmm/pc_* by themselves: Linux boots, resets, powers off
  lab_test.py lethe LETHE LETHE_UV
                                   Linux protected: boots, reboots twice, powers off
  lab_test.py secret LETHE LETHE_UV SEARCH_MEMORY
                                   what Linux keeps is not found from the hypervisor
  lab_test.py paging LETHE LETHE_UV UV_PAGE_KVM_TEST
                                   guests are paged out and back, small ones and Linux
  lab_test.py cgroup CGROUP_SH WITHIN_SH LETHE LETHE_UV
                                   what is set aside while memory gets short: limits of
                                   cgroups, stalls (PSI), MemAvailable
  lab_test.py systemd SYSTEMD_SH UNIT WITHIN_SH LETHE LETHE_UV
                                   a unit is started and stopped by systemd

What is typed to a guest waits in the serial port until the guest listens, so no test
guesses when.  A guest's init reads one command a line from its console.
Exit status: 0 passed, 1 failed, 77 skipped.
"""

import glob
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import unittest

import lab

GUEST_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
echo "guest-up cpus=$(nproc) memory=$(awk '/MemTotal/{print $2}' /proc/meminfo)"
while read command value; do
	echo "guest-does $command"
	case $command in
	plant)
		secret=$(echo "lethe $value" | sha256sum | cut -c 1-64)
		copies=
		for i in $(seq 100); do
			copies="$copies$secret "
			echo "$secret" >"/tmp/copy$i"
		done
		echo "guest-planted $value" ;;
	check)
		secret=$(echo "lethe $value" | sha256sum | cut -c 1-64)
		echo "guest-keeps $(cat /tmp/copy* | grep -c "^$secret$") copies" ;;
	reboot) reboot -f ;;
	poweroff) poweroff -f ;;
	esac
done
"""

CMDLINE = "console=ttyS0 quiet loglevel=3 tsc=reliable"

# Each run's output goes to a file first: the lab's own serial port is slow.
# One line a case: name, then mini_kvm's memory and vCPUs, what is typed, more command line.
PC_SCRIPT = r"""
boot() {
	printf "$4" | timeout 100 mini_kvm $2 $3 $kernel /inner.gz "CMDLINE $5" >/tmp/output
	status=$?
	echo "case $1"; cat /tmp/output; echo "status $status"
}
kernel=/vmlinuz
boot two-processors 512 2 'poweroff\n'
boot acpi-reset 256 1 'reboot\n'
boot keyboard-reset 256 1 'reboot\n' reboot=k
boot no-acpi 256 1 'reboot\n' acpi=off
boot around-the-hole 4096 1 'poweroff\n'
kernel=/vmlinux
test -e $kernel && boot by-pvh 512 2 'poweroff\n'
true
""".replace("CMDLINE", CMDLINE)

# What a guest has taken from its serial port and not read is lost at a reboot, so each
# command is typed when the guest says that it is up.
LETHE_SCRIPT = r"""
type_when_up() {
	ups=0
	for command; do
		ups=$((ups + 1))
		until [ "$(grep -c guest-up /tmp/console)" -ge $ups ]; do
			[ -e /tmp/running ] || return
			usleep 20000
		done
		echo "$command"
	done
}
run() {
	commands=$1; shift
	: >/tmp/console; : >/tmp/running
	type_when_up $commands | {
		timeout 120 lethe run --executor kvm --kernel /vmlinuz --initrd /inner.gz \
			--cmdline "CMDLINE" --protect boot "$@" >/tmp/console
		status=$?
		rm /tmp/running
		cat /tmp/console
		echo "status $status"
	}
}
run 'reboot reboot poweroff' --memory 512M --vcpus 1 --timeline /tmp/timeline
run poweroff --memory 512M --vcpus 2
run poweroff --memory 4G --vcpus 1
echo timeline; cat /tmp/timeline
""".replace("CMDLINE", CMDLINE)

# The searches know the secrets masked only; nothing in the lab but the guest makes them.
# search_memory is stricter than a thief: every way must say denied or absent.
SECRET_SCRIPT = r"""
mkdir -p /etc; echo user:x:1000:1000::/tmp:/bin/sh >/etc/passwd
chmod a+rw /dev/kvm; chmod a+r /vmlinuz /inner.gz
yama=/proc/sys/kernel/yama/ptrace_scope
[ ! -e $yama ] || echo 0 >$yama
mkdir -m 700 /tmp/runtime; chown user /tmp/runtime
mkfifo /tmp/keys; : >/tmp/console; : >/tmp/searches
as_user() { su user -c "$*"; }

await() { # TEXT COUNT
	until [ "$(grep -c "$1" /tmp/console)" -ge $2 ]; do
		[ ! -e /tmp/status ] || finish
		usleep 20000
	done
}
search() { # WHEN
	echo "search $1 hypervisor"; as_user search_memory $hypervisor NEEDLES; echo "status $?"
	echo "search $1 ultravisor"; as_user search_memory $ultravisor NEEDLES; echo "status $?"
}
control() { # WHEN
	echo "search $1 root"; search_memory $ultravisor NEEDLES; echo "status $?"
}
finish() {
	exec 3>&-
	wait
	tr -d '\r' </tmp/console; cat /tmp/users /tmp/searches /tmp/status
	exit
}

{
	as_user LETHE_RUNTIME_DIR=/tmp/runtime timeout 120 lethe run --executor kvm \
		--kernel /vmlinuz --initrd /inner.gz --cmdline "'CMDLINE'" --protect boot \
		--memory 256M --vcpus 1 </tmp/keys >/tmp/console 2>&1
	echo "lethe $?" >/tmp/status
} &
exec 3>/tmp/keys
await guest-up 1
hypervisor=$(pidof lethe) ultravisor=$(pidof lethe-uv)
awk '/^Uid:/ { print "user", $2 }' /proc/$hypervisor/status /proc/$ultravisor/status >/tmp/users
echo plant 1 >&3; await guest-planted 1
{ search before; control before; } >>/tmp/searches
echo reboot >&3; await guest-does.reboot 1
until [ "$(grep -c guest-up /tmp/console)" -ge 2 ]; do
	[ ! -e /tmp/status ] || finish
	search during >>/tmp/searches; usleep 200000
done
echo plant 2 >&3; await guest-planted 2
{ search after; control after; } >>/tmp/searches
echo poweroff >&3
finish
""".replace("CMDLINE", CMDLINE)


# All that Linux has is paged out under it, twice, and it still has what it wrote.
PAGING_SCRIPT = r"""
mkfifo /tmp/keys; : >/tmp/console; : >/tmp/store; chmod a+rw /tmp/store
await() { # TEXT COUNT
	until [ "$(grep -c "$1" /tmp/console)" -ge $2 ]; do
		[ ! -e /tmp/status ] || finish
		usleep 20000
	done
}
finish() {
	exec 3>&-
	wait
	tr -d '\r' </tmp/console; cat /tmp/status
	echo timeline; cat /tmp/timeline
	exit
}

{
	timeout 300 lethe run --executor kvm --name guest --page-store /tmp/store \
		--timeline /tmp/timeline --kernel /vmlinuz --initrd /inner.gz \
		--cmdline "CMDLINE" --protect boot --memory 256M --vcpus 2 \
		</tmp/keys >/tmp/console 2>&1
	echo "lethe $?" >/tmp/status
} &
exec 3>/tmp/keys
await guest-up 1
echo plant 1 >&3; await guest-planted 1
for round in 1 2; do
	lethe page-out guest 1G
	echo check 1 >&3; await "guest-keeps .* copies" $round
done
echo poweroff >&3
finish
""".replace("CMDLINE", CMDLINE)


def in_lab(script, files=(), **options):
    """Runs a shell script in the lab; returns (exit status, its output's text)."""
    output = io.BytesIO()
    status = lab.run(["sh", "-c", script], files, sink=output, **options)
    return status, output.getvalue().decode(errors="replace")


def passing(script, files, **options):
    """Runs SCRIPT, which must end with status 0; returns its output."""
    status, text = in_lab(script, files, **options)
    if status:
        raise AssertionError(f"the lab ended with status {status}:\n{text}")
    return text


def guest_script(script, files, **options):
    """Runs SCRIPT with a guest's kernel and initramfs beside FILES; returns its output."""
    with tempfile.NamedTemporaryFile() as inner:
        inner.write(lab.inner_initramfs(GUEST_INIT))
        inner.flush()
        files = [*files, f"{lab.find_kernel()[0]}:/vmlinuz", f"{inner.name}:/inner.gz"]
        return passing(script, files, **options)


class LabCase(unittest.TestCase):
    needs = ()  # tools beside those of every lab, and their packages
    programs = ()  # main() sets it


class LabTest(LabCase):
    def test_status_and_output_come_back(self):
        status, text = in_lab("echo one; echo two >&2; exit 7")
        self.assertEqual((status, text), (7, "one\ntwo\n"))

    def test_kvm_is_there(self):
        status, text = in_lab(os.path.basename(self.programs[0]), self.programs)
        self.assertEqual((status, text), (0, "KVM API version 12\n"))

    def test_time_is_bounded(self):
        status, _ = in_lab("sleep 1000", timeout=1)
        self.assertEqual(status, lab.TIMEOUT)


class PcTest(LabCase):
    def test_linux_boots_resets_and_powers_off(self):
        expected = {  # processors, what the guest was told, mini_kvm's exit status
            "two-processors": (2, "poweroff", 0),
            "acpi-reset": (1, "reboot", 10),
            "keyboard-reset": (1, "reboot", 10),
            "no-acpi": (1, "reboot", 10),
            "around-the-hole": (1, "poweroff", 0),
        }
        elf = lab.uncompressed_kernel(lab.find_kernel()[0])
        with tempfile.NamedTemporaryFile() as vmlinux:
            files = list(self.programs)
            if elf:
                vmlinux.write(elf)
                vmlinux.flush()
                files.append(f"{vmlinux.name}:/vmlinux")
                expected["by-pvh"] = (2, "poweroff", 0)
            text = guest_script(PC_SCRIPT, files, memory=5000, timeout=500)
        cases = dict(re.findall(r"^case (\S+)\n(.*?^status \d+)$", text, re.M | re.S))
        self.assertEqual(list(cases), list(expected), text)
        for name, (cpus, command, status) in expected.items():
            with self.subTest(name):
                self.assertIn(f"guest-up cpus={cpus} ", cases[name])
                self.assertIn(f"guest-does {command}", cases[name])
                self.assertTrue(cases[name].endswith(f"status {status}"), cases[name])
        self.assertGreater(int(re.search(r"memory=(\d+)", cases["around-the-hole"])[1]), 3 << 20)


class LetheTest(LabCase):
    def test_linux_runs_protected(self):
        text = guest_script(LETHE_SCRIPT, self.programs, memory=6000, timeout=500)
        runs, _, timeline = text.partition("\ntimeline\n")
        first, second, third = re.findall(r"(.*?)^status (\d+)$", runs, re.M | re.S)

        self.assertEqual(first[0].count("guest-up cpus=1 "), 3, text)
        self.assertEqual(first[0].count("guest-does reboot"), 2, text)
        self.assertEqual(first[0].count("guest-does poweroff"), 1, text)
        self.assertIn("guest-up cpus=2 ", second[0])
        self.assertGreater(int(re.search(r"memory=(\d+)", third[0])[1]), 3 << 20)
        self.assertEqual([first[1], second[1], third[1]], ["0", "0", "0"], text)
        self.check_timeline(json.loads(timeline))

    def check_timeline(self, timeline):
        names = [event["event"] for event in timeline["events"]]
        self.assertEqual(timeline["vm"]["executor"], "kvm")
        self.assertEqual(names.count("reboot"), 2)
        self.assertEqual(names.count("set-aside"), 2)
        self.assertEqual(names.count("protect"), 3)
        self.assertEqual(names.count("poweroff"), 1)
        self.assertNotIn("violation", names)
        for event in timeline["events"]:
            if event["event"] == "reboot":
                self.assertGreater(event["duration_ns"], 0)
        # The same blobs and registers measure the same at every boot.
        measurements = {event["measurement"] for event in timeline["events"]
                        if event["event"] == "protect"}
        self.assertEqual(len(measurements), 1)


def masked_secret(value):
    """What the guest plants as VALUE, in the form that search_memory takes."""
    secret = hashlib.sha256(f"lethe {value}\n".encode()).hexdigest()
    return bytes(byte ^ 0x5A for byte in secret.encode()).hex()


class SecretTest(LabCase):
    def test_secret_is_not_found_from_the_hypervisor(self):
        needles = f"{masked_secret(1)} {masked_secret(2)}"
        text = guest_script(SECRET_SCRIPT.replace("NEEDLES", needles), self.programs, timeout=150)
        self.assertTrue(text.endswith("lethe 0\n"), text)
        self.assertEqual(re.findall(r"^user (\d+)$", text, re.M), ["1000", "1000"])
        searches = re.findall(r"^search (\w+) (\w+)\n(.*?)^status (\d+)$", text, re.M | re.S)
        self.assertEqual({(when, whom) for when, whom, _, _ in searches}, {
            (when, whom) for when in ("before", "during", "after")
            for whom in ("hypervisor", "ultravisor")} | {("before", "root"), ("after", "root")})
        for when, whom, results, status in searches:
            with self.subTest(when=when, whom=whom):
                ways = dict(line.split(" ", 1) for line in results.splitlines())
                self.assertEqual(status, "1" if whom == "root" else "0", results)
                getattr(self, "check_" + whom)(ways)

    def check_hypervisor(self, ways):
        """It hides nothing, so all of it was read, and the secret is not there."""
        for way in ("mem", "process_vm_readv", "ptrace"):
            self.assertRegex(ways[way], r"^absent, [1-9]\d+ KiB read$")
        self.assertRegex(ways["fd"], "^absent, ")
        self.assertRegex(ways["pidfd_getfd"], "^absent, ")

    def check_ultravisor(self, ways):
        self.assertEqual(set(ways.values()), {"denied"})

    def check_root(self, ways):
        """The control: searching in this way finds the secret where it is."""
        for way in ("mem", "process_vm_readv", "ptrace"):
            self.assertRegex(ways[way], "^found ")


class PagingTest(LabCase):
    def test_small_guests(self):
        status, text = in_lab(
            "LETHE_UV=/bin/lethe-uv uv_page_kvm_test", self.programs, timeout=120)
        self.assertEqual(status, 0, text)

    def test_linux_goes_out_and_comes_back(self):
        text = guest_script(PAGING_SCRIPT, self.programs[:2], memory=1500, timeout=400)
        console, _, timeline = text.partition("\ntimeline\n")
        self.assertTrue(console.endswith("lethe 0"), text)
        self.assertEqual(re.findall(r"guest-keeps (\d+) copies", console), ["100", "100"], text)
        counters = json.loads(timeline)["counters"]
        self.assertGreater(counters["paged_out_bytes"], 8 << 20)
        self.assertGreater(counters["paged_in_bytes"], 1 << 20)


class CgroupTest(LabCase):
    """Runs cgroup.sh once, which says what its cases are; each test looks at some."""

    cases = {}
    set_aside = 40 << 20  # at least

    @classmethod
    def setUpClass(cls):
        text = passing("sh /bin/cgroup.sh", cls.programs, memory=1024, timeout=500)
        for name, body in re.findall(r"^case (\S+)\n(.*?)(?=^case |\Z)", text, re.M | re.S):
            said, _, timeline = body.partition("timeline\n")
            cls.cases[name] = (said.splitlines(), json.loads(timeline))

    def counted(self, name, status):
        """What case NAME said, which went as far as this and in which nothing was killed."""
        said, timeline = self.cases[name]
        self.assertIn(f"status {status}", said)
        self.assertFalse([line for line in said if line.startswith("waited too long")])
        killed = [line for line in said if line.startswith("killed ")]
        self.assertEqual(set(killed), {"killed 0"}, said)
        events = [event["event"] for event in timeline["events"]]
        counters = timeline["counters"]
        self.assertEqual(counters["quarantined_bytes"], 0)
        self.assertEqual(events.count("set-aside") + counters["eager_reboots"],
                         counters["reboots"])
        return said, counters

    def assert_set_aside(self, name):
        """Case NAME rebooted a VM, none of whose old memory was destroyed without pressure."""
        said, counters = self.counted(name, 143)
        self.assertEqual((counters["reboots"], counters["eager_reboots"]), (1, 0))
        self.assertEqual(said.count("starved"), 1)
        for line in said:
            if line.startswith(("calm", "still")):
                _, pressure, forget_bytes = line.split()
                self.assertEqual(pressure, "none", line)
                self.assertGreaterEqual(int(forget_bytes), self.set_aside, line)
        self.assertEqual(set(line for line in said if line.startswith("took")) - {"took 0"}, set())
        return said

    def test_what_does_not_fit_is_destroyed_first(self):
        for name in ("max", "high", "outer"):
            with self.subTest(name):
                _, counters = self.counted(name, 0)
                self.assertEqual((counters["reboots"], counters["eager_reboots"]), (2, 2))
        # What is available to the machine changes, as the kernel gives up what it caches.
        _, counters = self.counted("machine", 0)
        self.assertEqual(counters["reboots"], 2)
        self.assertGreater(counters["eager_reboots"], 0)

    def test_what_fits_is_set_aside(self):
        _, counters = self.counted("enough", 0)
        self.assertEqual((counters["reboots"], counters["eager_reboots"]), (1, 0))

    def test_pressure_brings_the_memory_back(self):
        """The thread of idle priority has no processor, so others did that."""
        for name in ("limited", "stalled", "short"):
            with self.subTest(name):
                said = self.assert_set_aside(name)
                self.assertIn("left 0", said)
                # In the third, the memory that has come back may be all that was missing.
                if name != "short":
                    self.assertIn("pressure:raised", said)

    def test_helpers_come(self):
        said = self.assert_set_aside("limited")
        helped = [int(line.split()[1]) for line in said if line.startswith("helped")]
        self.assertGreater(helped[0], 0)

    def test_allocator_is_not_killed(self):
        said = self.assert_set_aside("slowed")
        self.assertIn("took 0", said)

    def test_limit_of_a_neighbour_is_no_pressure(self):
        said = self.assert_set_aside("neighbour")
        self.assertIn("reached 1", said)
        self.assertEqual(len([line for line in said if line.startswith("still none")]), 1)

    def test_cgroup_that_is_gone_is_no_pressure(self):
        said = self.assert_set_aside("gone")
        self.assertIn("pressure:none", said)


SYSTEMD = "/lib/systemd/systemd"


class SystemdTest(LabCase):
    """Runs systemd.sh once, which says what its cases are."""

    needs = ((SYSTEMD, "systemd"), ("systemctl", "systemd"))
    cases = {}

    @classmethod
    def setUpClass(cls):
        script, unit, *programs = cls.programs
        targets = [path for path in glob.glob("/lib/systemd/system/*.target")
                   if not os.path.islink(path)]
        files = [script, f"{unit}:/etc/systemd/system/lethe@.service", *programs,
                 shutil.which("systemctl"), f"{SYSTEMD}:{SYSTEMD}",
                 *(f"{path}:{path}" for path in targets)]
        text = passing("systemd.sh", files, memory=1500, timeout=250)
        for name, body in re.findall(r"^case (\S+)\n(.*?)^end$", text, re.M | re.S):
            cls.cases[name] = body.splitlines()
        cls.text = text

    def check(self, name, *more):
        self.assertIn(name, self.cases, self.text)
        for line in ("start 0", "ActiveState=active", "StatusText=the guest runs", "stop 0",
                     "again 0", *more):
            self.assertIn(line, self.cases[name])
        self.assertNotIn("waited too long", self.text)

    def test_unit_as_it_is(self):
        """Stopping is no failure, and ends when the memory is destroyed."""
        self.check("shipped", "ActiveState=inactive", "Result=success", "left 0")

    def test_nobody_waits(self):
        self.check("unwaited", "ActiveState=inactive", "Result=success", "left 0")

    def test_both_are_told(self):
        """Which of the two is faster decides what systemd makes of it."""
        self.check("group", "left 0")

    def test_hypervisor_alone_is_told(self):
        self.check("process", "ActiveState=inactive", "Result=success")


def main():
    suites = {"lab": LabTest, "pc": PcTest, "lethe": LetheTest, "secret": SecretTest,
              "paging": PagingTest, "cgroup": CgroupTest, "systemd": SystemdTest}
    case = suites[sys.argv[1]]
    case.programs = sys.argv[2:]
    try:
        for need in (("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static"),
                     *case.needs):
            lab.tool(*need)
        lab.find_kernel()
    except lab.Missing as why:
        print(f"skipped: {why}", file=sys.stderr)
        return lab.SKIP
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    return 0 if unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
