#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs every workload below test/workloads on an executor.

A folder named like an executor is for that one only.  A workload may begin with
`# expect: exit N` (0 otherwise) and `# expect: error TEXT`, which standard error must then
contain, and `# options: ...` for lethe run.
Argument: the executor.
"""

import os
import re
import sys

import lib

EXECUTOR = sys.argv.pop() if len(sys.argv) > 1 else "sw"
EXECUTORS = {"sw", "kvm"}
FOLDER = os.path.join(lib.SOURCE, "test", "workloads")


def expectations(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read()
    status = re.search(r"^# expect: exit (\d+)", text, re.M)
    error = re.search(r"^# expect: error (.*)$", text, re.M)
    options = re.search(r"^# options: (.*)$", text, re.M)
    return (int(status.group(1)) if status else 0, error.group(1) if error else None,
            options.group(1).split() if options else [])


class Workloads(lib.Case):
    def setUp(self):
        super().setUp()
        self.need_executor(EXECUTOR)

    def check(self, path):
        expected, error, options = expectations(path)
        status, out, err = self.lethe(
            "run", "--executor", EXECUTOR, "--workload", path, *options)
        self.assertEqual(status, expected, out + err)
        if status == 0:
            self.assertEqual(err, "")
        else:
            self.assert_one_line(err)
        if error:
            self.assertIn(error, err)
        self.assert_clean()


def add_tests():
    for folder, _, names in sorted(os.walk(FOLDER)):
        if os.path.basename(folder) in EXECUTORS - {EXECUTOR}:
            continue
        for name in sorted(names):
            path = os.path.join(folder, name)
            test = "test_" + re.sub(r"\W", "_", os.path.relpath(path, FOLDER))
            setattr(Workloads, test, lambda self, path=path: self.check(path))


if __name__ == "__main__":
    add_tests()
    lib.main()
