#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bad usage: one clear line, exit status 2, nothing started, nothing left over."""

import json
import os

import lib

# Arguments, and what the line must mention.
BAD_USAGE = [
    ([], "command line: no command"),
    (["nonsense"], "nonsense"),
    (["help", "nonsense"], "nonsense"),
    (["run", "--nonsense"], "--nonsense"),
    (["run", "-Z"], "-Z"),
    (["run", "extra"], "extra"),
    (["run", "--verbose=yes"], "--verbose=yes"),
    (["ps", "--json", "extra"], "extra"),
    (["ps", "--nonsense"], "--nonsense"),
    (["top", "--json"], "--json"),
    (["version", "extra"], "extra"),
    (["capabilities", "--nonsense"], "--nonsense"),
    (["memory"], "memory: no action"),
    (["memory", "grow"], "grow"),
    (["memory", "--json"], "--json"),
    (["memory", "list"], "needs NAME"),
    (["memory", "list", "vm", "extra"], "extra"),
    (["memory", "list", "--at", "1G", "vm"], "--at"),
    (["memory", "list", "../vm"], "not a name"),
    (["memory", "list", ""], "not a name"),
    (["memory", "audit"], "needs NAME"),
    (["memory", "audit", "vm", "1"], "'1'"),
    (["memory", "add"], "memory add: needs NAME SIZE"),
    (["memory", "add", "vm"], "needs NAME SIZE"),
    (["memory", "add", "vm", "1G", "2G"], "2G"),
    (["memory", "add", "vm", "much"], "not a size"),
    (["memory", "add", "vm", "-1"], "-1"),
    (["memory", "add", "vm", "0"], "at least 4K"),
    (["memory", "add", "vm", "4097"], "multiple of 4K"),
    (["memory", "add", "vm", "257T"], "address space"),
    (["memory", "add", "vm", "99999999T"], "64 bits"),
    (["memory", "add", "vm", "1G", "--at"], "--at"),
    (["memory", "add", "vm", "1G", "--at", "1"], "multiple of 4K"),
    (["memory", "add", "vm", "1G", "--at", "257T"], "address space"),
    (["memory", "add", "vm", "1G", "--at", "high"], "not a size"),
    (["memory", "remove", "vm"], "needs NAME SLOT|GPA"),
    (["memory", "remove", "vm", "first"], "not a size"),
    (["memory", "remove", "vm", "33"], "multiple of 4K"),
    (["memory", "remove", "vm", "512T"], "address space"),
    (["run", "--memory"], "--memory"),
    (["run", "--memory", ""], "--memory"),
    (["run", "--memory", "0"], "too small"),
    (["run", "--memory", "4096"], "too small"),
    (["run", "--memory", "2097153"], "multiple of 4K"),
    (["run", "--memory", "-1"], "not a size"),
    (["run", "--memory", "1.5G"], "not a size"),
    (["run", "--memory", "1Q"], "not a size"),
    (["run", "--memory", "8 G"], "not a size"),
    (["run", "--memory", "512T"], "address space"),
    (["run", "--memory", "0x1000000001000"], "address space"),
    (["run", "--memory", "18446744073709551616"], "64 bits"),
    (["run", "--memory", "99999999T"], "64 bits"),
    (["run", "--memory", "4M"], "tour"),
    (["run", "--protect", "off"], "tour"),
    (["run", "--vcpus", "0"], "from 1 to 64"),
    (["run", "--vcpus", "65"], "from 1 to 64"),
    (["run", "--vcpus", "-1"], "from 1 to 64"),
    (["run", "--vcpus", "two"], "from 1 to 64"),
    (["run", "--vcpus", "99999999999999999999"], "from 1 to 64"),
    (["run", "--executor", "vax"], "auto, kvm or sw"),
    (["run", "--protect", "maybe"], "guest, boot or off"),
    (["run", "--lazy", "maybe"], "on or off"),
    (["run", "--wipe", ""], "on or off"),
    (["run", "--discard", "never"], "lazy or eager"),
    (["run", "--share", "both"], "auto, copied or mapped"),
    (["run", "--name", ""], "not a name"),
    (["run", "--name", ".hidden"], "not a name"),
    (["run", "--name", "../escape"], "not a name"),
    (["run", "--name", "x" * 64], "not a name"),
    (["run", "--name", "new\nline"], "not a name"),
    (["run", "--kernel", "/nowhere/at/all"], "/nowhere/at/all"),
    (["run", "--kernel", "/"], "not a file"),
    (["run", "--kernel", "/proc/version"], "not a file"),
    (["run", "--kernel", "/etc/passwd"], "neither a bzImage nor an ELF"),
    (["run", "--kernel", "/etc/passwd", "--workload", "x"], "one of them"),
    (["run", "--kernel", "/etc/passwd", "--executor", "sw"], "kvm"),
    (["run", "--kernel", "/etc/passwd", "--initrd", "/nowhere/at/all"], "/nowhere/at/all"),
    (["run", "--initrd", "/etc/passwd"], "--kernel"),
    (["run", "--cmdline", "quiet"], "--kernel"),
    (["run", "--page-store"], "--page-store"),
    (["run", "--page-store", ""], "not a file"),
    (["run", "--page-store", "file:"], "not a file"),
    (["run", "--page-store", "https://example.org/x"], "not a file"),
    (["run", "--page-store", "/nowhere/at/all"], "/nowhere/at/all"),
    (["run", "--page-store", "file:/nowhere/at/all"], "/nowhere/at/all"),
    (["run", "--page-store", "/"], "Is a directory"),
    (["run", "--page-store", "/dev/null"], "no page store"),
    (["run", "--page-store", "/etc/passwd"], "no page store"),
    (["page-out"], "page-out: needs NAME SIZE"),
    (["page-out", "vm"], "needs NAME SIZE"),
    (["page-out", "vm", "0"], "not in range"),
    (["page-out", "vm", "much"], "not a size"),
    (["page-out", "vm", "512T"], "not in range"),
    (["page-out", "vm", "1G", "2G"], "2G"),
    (["page-out", ".vm", "1G"], "not a name"),
    (["page-out", "--at", "0", "vm", "1G"], "--at"),
    (["run", "--workload", "/nowhere/at/all"], "/nowhere/at/all"),
    (["run", "--workload", "/"], "Is a directory"),
    (["run", "--timeline", "/nowhere/at/all"], "/nowhere/at/all"),
    (["run", "--timeline", "/"], "Is a directory"),
]

# Workload text, the line that is bad (0: the text as a whole), and what was expected.
BAD_WORKLOADS = [
    ("", 0, "at least one operation"),
    ("# nothing\n\n", 0, "at least one operation"),
    ("nonsense\n", 1, "an operation"),
    ("poweroff\nwrite\n", 2, "GPA"),
    ("write 2M\n", 1, "SIZE"),
    ("write 2M 0\n", 1, "SIZE"),
    ("write 2M 4K 1 2\n", 1, "write GPA SIZE [SEED]"),
    ("write 0 4K\n", 1, "1M"),
    ("write 512K 4K\n", 1, "1M"),
    ("write 2M 3\n", 1, "multiples of 8"),
    ("write 63M 2M\n", 1, "inside the VM's memory"),
    ("write 0xffffffffffff0000 0x20000\n", 1, "2^48"),
    ("write 99999999999999999999 4K\n", 1, "GPA"),
    ("share 2M 100\n", 1, "multiples of 4096"),
    ("unshare 2M\n", 1, "SIZE"),
    ("dma 2M 4K\n", 1, "COUNT"),
    ("dma 2M 4K x\n", 1, "COUNT"),
    ("random 2M 4K\n", 1, "COUNT"),
    ("protect 2M\n", 1, "SIZE"),
    ("protect 2M 8K 0x201000 4K\n", 1, "overlap"),
    ("sleep\n", 1, "MS"),
    ("sleep -1\n", 1, "MS"),
    ("barrier\n", 1, "NAME"),
    ("loop 3\npoweroff\n", 0, "end"),
    ("end\n", 1, "loop"),
    ("reboot now\n", 1, "nothing after"),
    ("poweroff now\n", 1, "nothing after"),
    ("memory 0\npoweroff\n", 1, "SIZE"),
    ("memory 64M\nmemory 64M\npoweroff\n", 2, "one 'memory'"),
    ("memory 65537K\nvcpu 0\npoweroff\n", 1, "4096"),
    ("poweroff\nmemory 64M\n", 2, "before the first operation"),
    ("vcpus 0\npoweroff\n", 1, "1 to 64"),
    ("vcpus 65\npoweroff\n", 1, "1 to 64"),
    ("vcpus 1\nvcpu 1\npoweroff\n", 2, "number of vCPUs"),
    ("vcpu 64\npoweroff\n", 1, "vCPU"),
    ("poweroff\n" + "print " + "x" * 2000 + "\n", 2, "1024 bytes"),
    ("print \x1b[2J\n", 1, "control characters"),
]


class BadUsage(lib.Case):
    def refuse(self, args, mention):
        status, out, err = self.lethe(*args)
        self.assertEqual(status, 2, err)
        self.assertEqual(out, "")
        self.assert_one_line(err)
        self.assertIn(mention, err)
        self.assert_nothing_started()

    def test_bad_usage(self):
        for args, mention in BAD_USAGE:
            with self.subTest(args=args):
                self.refuse(args, mention)

    def test_bad_workloads(self):
        for text, line, mention in BAD_WORKLOADS:
            with self.subTest(text=text[:60]):
                path = self.write("bad", text)
                where = f"bad:{line}: expected" if line else "bad: expected"
                status, out, err = self.lethe("run", "--workload", path)
                self.assertEqual((status, out), (2, ""), err)
                self.assert_one_line(err)
                self.assertIn(mention, err)
                if line:
                    self.assertIn(where, err)
                self.assert_nothing_started()

    def test_workload_that_is_not_text(self):
        self.refuse(["run", "--workload", self.write("bad", os.urandom(4096))], "expected")
        self.refuse(["run", "--workload", self.write("bad", b"\0" * 100)], "expected")

    def test_workload_that_is_too_long(self):
        self.refuse(["run", "--workload", self.write("bad", "print x\n" * 100000)], "512 KiB")
        self.refuse(["run", "--workload", "/dev/zero"], "512 KiB")

    def test_workload_outside_smaller_memory(self):
        path = self.write("fine", "memory 64M\nwrite 32M 4K\npoweroff\n")
        self.refuse(["run", "--workload", path, "--memory", "16M"], "inside the VM's memory")

    def test_unreadable_workload(self):
        if os.geteuid() == 0:
            self.skipTest("root reads everything")
        path = self.write("secret", "poweroff\n")
        os.chmod(path, 0)
        self.refuse(["run", "--workload", path], "Permission denied")

    def test_runtime_directory_that_is_no_good(self):
        path = self.write("workload", "poweroff\n")
        nowhere = self.path("not/there")
        file = self.write("file", "")
        link = self.path("link")
        os.symlink(self.folder, link)
        open_to_all = self.path("open")
        os.mkdir(open_to_all)
        os.chmod(open_to_all, 0o777)
        for folder in (nowhere, file, link, open_to_all, self.path("x" * 300)):
            with self.subTest(folder=folder):
                env = {"LETHE_RUNTIME_DIR": folder}
                status, out, err = self.lethe(
                    "run", "--executor", "sw", "--workload", path, env=env)
                self.assertEqual((status, out), (1, ""))
                self.assert_one_line(err)
                # Where it looked, and what to do: not with lethe-uv, which is there.
                self.assertIn(folder[:200], err)
                self.assertIn("LETHE_RUNTIME_DIR", err)
                self.assertEqual(self.orphans(), [])
                status, out, err = self.lethe("ps", "--json", env=env)
                if folder == nowhere:
                    self.assertEqual((status, json.loads(out)["vms"]), (0, []))
                    continue
                self.assertEqual((status, out), (1, ""))
                self.assert_one_line(err)
                self.assertIn(folder[:200], err)

    def test_bad_usage_creates_no_timeline(self):
        path = self.path("timeline")
        self.refuse(["run", "--timeline", path, "--workload", "/nowhere/at/all"], "/nowhere")
        self.assertFalse(os.path.exists(path))


class Output(lib.Case):
    def test_help(self):
        for args in (["--help"], ["help"], ["help", "run"], ["help", "memory"], ["run", "--help"], ["ps", "-h"], ["top", "--help"],
                     ["capabilities", "--help"], ["version", "--help"], ["memory", "--help"],
                     ["memory", "-h"], ["memory", "add", "--help"],
                     ["memory", "remove", "--help"], ["memory", "list", "--help"],
                     ["memory", "audit", "--help"],
                     ["page-out", "--help"], ["help", "page-out"]):
            with self.subTest(args=args):
                status, out, err = self.lethe(*args)
                self.assertEqual((status, err), (0, ""))
                self.assertIn("Usage: lethe", out)

    def test_run_help_names_every_option(self):
        out = self.lethe("run", "--help")[1]
        for option in ("memory", "vcpus", "executor", "workload", "protect", "lazy", "wipe",
                       "discard", "share", "name", "timeline", "page-store", "verbose"):
            self.assertIn("--" + option, out)

    def test_version(self):
        status, out, _ = self.lethe("version")
        self.assertEqual(status, 0)
        self.assertRegex(out, r"^lethe \d+\.\d+\.\d+\n$")
        self.assertEqual(self.lethe("--version")[1], out)

    def test_capabilities(self):
        status, out, err = self.lethe("capabilities", "--json")
        self.assertEqual((status, err), (0, ""))
        document = json.loads(out)
        self.assertEqual([e["name"] for e in document["executors"]], ["kvm", "sw"])
        self.assertTrue(document["executors"][1]["available"])
        for feature in document["executors"] + document["features"]:
            if not feature["available"]:
                self.assertNotEqual(feature["reason"], "", feature["name"])
        status, out, err = self.lethe("capabilities")
        self.assertEqual((status, err), (0, ""))
        for feature in document["features"]:
            self.assertIn(feature["name"], out)
        self.assert_nothing_started()

    def test_ps_and_top_of_nothing(self):
        self.assertEqual(self.vms(), [])
        for command in ("ps", "top"):
            status, out, err = self.lethe(command)
            self.assertEqual((status, err), (0, ""))
            self.assertEqual(len(out.splitlines()), 1)

    def test_full_disk(self):
        with open("/dev/full", "w", encoding="ascii") as full:
            process = lib.subprocess.run(
                [lib.LETHE, "version"], stdout=full, stderr=lib.subprocess.PIPE, text=True,
                env=self.environment(), timeout=lib.DEADLINE, check=False)
        self.assertEqual(process.returncode, 1)
        self.assert_one_line(process.stderr)


if __name__ == "__main__":
    lib.main()
