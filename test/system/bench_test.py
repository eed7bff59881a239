#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""lethe bench: what it writes, and what it refuses.  No times are looked at."""

import json
import os

import lib

UNITS = {"ns", "MB/s", "bytes", "percent"}
MODES = ("auto", "copied", "mapped", "eager")
PATTERNS = ("ovmf-1", "ovmf-2", "swiotlb", "alternating", "bulk-1g")
MACHINE = {"kernel": str, "cpu": str, "cores": int, "memory_bytes": int, "thp": str}


class Bench(lib.Case):
    def bench(self, *args):
        """Runs quick questions; returns the JSON document and standard output."""
        path = os.path.join(self.folder, "bench.json")
        status, out, err = self.lethe("bench", "--quick", "--json", path, *args)
        self.assertEqual(status, 0, out + err)
        with open(path, encoding="utf-8") as file:
            return json.load(file), out

    def check_row(self, row):
        self.assertIn(row["unit"], UNITS)
        self.assertIsInstance(row["memory_bytes"], int)
        self.assertIsInstance(row["resident_bytes"], int)
        if "missing" in row:
            self.assertTrue(row["missing"])
            self.assertEqual((row["median"], row["min"], row["max"], row["runs"]),
                             (None, None, None, 0))
            return
        self.assertGreater(row["runs"], 0)
        self.assertLessEqual(row["min"], row["median"])
        self.assertLessEqual(row["median"], row["max"])
        # Noise can make a loss a gain, and beside busy cores nothing may be swept.
        if row["case"] not in ("guest-loss", "wipe-beside"):
            self.assertGreater(row["max"], 0)

    def check(self, document, question, cases):
        self.assertEqual(document["schema"], 1)
        self.assertEqual({key: type(value) for key, value in document["machine"].items()},
                         MACHINE)
        for row in document["results"]:
            self.assertEqual(row["question"], question)
            self.check_row(row)
        self.assertEqual({row["case"] for row in document["results"]}, cases)

    def test_exit(self):
        document, out = self.bench("exit")
        self.check(document, "exit", {"round-trip"})
        self.assertGreater(document["results"][0]["p99"], 0)
        self.assertIn("round-trip", out)
        self.assert_clean()

    def test_fault(self):
        document = self.bench("fault")[0]
        self.check(document, "fault",
                   {"lethe-4k", "lethe-2m", "kernel-4k", "tlb-hit", "tlb-miss"})
        self.assertEqual({row["threads"] for row in document["results"]}, {1, 2})

    def test_seal(self):
        document = self.bench("seal")[0]
        self.check(document, "seal", {"seal", "unseal", "openssl", "openssl-pages", "guest",
                                      "guest-half-out"})

    def test_sweep(self):
        document = self.bench("sweep")[0]
        self.check(document, "sweep", {"wipe", "release", "wipe-4k", "release-4k", "memset",
                                       "munmap", "guest-loss", "wipe-beside"})
        self.assert_clean()

    def test_convert(self):
        document, out = self.bench("convert")
        guest = {f"{pattern}/{mode}" for pattern in PATTERNS for mode in MODES}
        structures = {f"{pattern}/{name}" for pattern in PATTERNS
                      for name in ("map", "map-bytes", "tree", "tree-bytes")}
        self.check(document, "convert", guest | structures)
        rows = [row for row in document["results"] if row["case"] in guest]
        self.assertEqual({(row["case"], row["executor"]) for row in rows},
                         {(case, executor) for case in guest for executor in ("sw", "kvm")})
        for row in rows:
            self.assertGreater(row["operations"], 0)
            if row["executor"] == "sw":
                self.assertNotIn("missing", row)
        self.assertIn("103 s", document["notes"]["convert"])
        self.assertIn("103 s", out)
        self.assert_clean()

    def test_zap(self):
        document = self.bench("zap")[0]
        self.check(document, "zap", {"fast", "walk", "fast-stall", "kernel"})
        for row in document["results"]:
            self.assertGreater(row["entries"], 0)

    def test_html_is_one_page(self):
        path = os.path.join(self.folder, "bench.html")
        self.bench("exit", "--html", path)
        with open(path, encoding="utf-8") as file:
            page = file.read()
        self.assertIn("round-trip", page)
        self.assertNotIn("http", page)
        self.assertNotIn("<script", page)

    def test_unknown_question(self):
        status, out, err = self.lethe("bench", "exit", "nonsense")
        self.assertEqual((status, out), (2, ""))
        self.assert_one_line(err)
        self.assertIn("nonsense", err)

    def test_file_that_cannot_be_opened(self):
        """Said before anything is measured."""
        path = os.path.join(self.folder, "no", "such", "folder")
        for option in ("--json", "--html"):
            status, out, err = self.lethe("bench", "--quick", "exit", option, path)
            self.assertEqual((status, out), (2, ""))
            self.assert_one_line(err)
            self.assertIn(path, err)

    def test_file_that_cannot_be_written(self):
        status, out, err = self.lethe("bench", "--quick", "exit", "--json", "/dev/full")
        self.assertEqual(status, 1)
        self.assertIn("round-trip", out)
        self.assertTrue(err.splitlines()[-1].startswith("lethe: /dev/full: "), err)

    def test_old_results_are_replaced(self):
        path = self.write("bench.json", "x" * 100000)
        self.bench("exit")
        with open(path, encoding="utf-8") as file:
            self.assertNotIn("xxx", file.read())


if __name__ == "__main__":
    lib.main()
