#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tools/check-summary makes of test logs."""

import json
import subprocess
import sys
import tempfile
import unittest

TOOL = sys.argv.pop(1)


class CheckSummary(unittest.TestCase):
    def summary(self, tests, *args):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as log:
            for name, result, stderr in tests:
                json.dump({"name": name, "result": result, "stdout": "", "stderr": stderr}, log)
                log.write("\n")
            log.flush()
            logs = f"tree={log.name}", f"again={log.name}"
            done = subprocess.run(
                [TOOL, logs[0], *args, logs[1]], capture_output=True, text=True, check=False
            )
        return done.returncode, done.stdout.splitlines()

    def test_all_passed(self):
        self.assertEqual(
            self.summary([("a", "OK", ""), ("b", "EXPECTEDFAIL", "")]),
            (0, ["4 passed, 0 failed, 0 skipped"]),
        )

    def test_every_bad_end_is_a_failure(self):
        bad = ("FAIL", "TIMEOUT", "ERROR", "INTERRUPT", "UNEXPECTEDPASS")
        status, lines = self.summary([("a", "OK", "")] + [(end, end, "") for end in bad])
        self.assertEqual(status, 1)
        self.assertEqual(lines[-1], "2 passed, 10 failed, 0 skipped")
        self.assertIn("FAILED   tree: TIMEOUT (TIMEOUT)", lines)

    def test_skips_say_why(self):
        status, lines = self.summary(
            [("a", "OK", ""), ("b", "SKIP", "noise\nskipped: no KVM here\n"), ("c", "SKIP", "")]
        )
        self.assertEqual(status, 0)
        self.assertIn("skipped  tree: b: skipped: no KVM here", lines)
        self.assertIn("skipped  tree: c: no reason given", lines)
        self.assertEqual(lines[-1], "2 passed, 0 failed, 4 skipped")

    def test_steps_outside_of_logs_count(self):
        status, lines = self.summary(
            [("a", "OK", "")], "--failed", "build of x", "--skipped", "y:cannot run"
        )
        self.assertEqual(status, 1)
        self.assertEqual(lines[-1], "2 passed, 1 failed, 1 skipped")

    def test_nothing_ran_is_not_success(self):
        self.assertEqual(self.summary([])[0], 1)


if __name__ == "__main__":
    unittest.main()
