#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plants includes in a tree of its own and sees what tools/check-includes makes of them."""

import os
import subprocess
import sys
import tempfile
import unittest

TOOL = sys.argv.pop(1)


class CheckIncludes(unittest.TestCase):
    def setUp(self):
        self.tree = tempfile.TemporaryDirectory()
        self.addCleanup(self.tree.cleanup)
        self.plant("base/types.h", "#include <stdint.h>\n")

    def plant(self, name, text):
        path = os.path.join(self.tree.name, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def run_tool(self):
        done = subprocess.run([TOOL, self.tree.name], capture_output=True, text=True)
        return done.returncode, done.stdout.splitlines()

    def assert_allowed(self, name, include):
        self.plant(name, f"#include {include}\n")
        self.assertEqual(self.run_tool(), (0, []), f"{include} in {name}")

    def assert_refused(self, name, include):
        self.plant(name, f"/* a file */\n#include {include}\n")
        status, lines = self.run_tool()
        self.assertEqual(status, 1, f"{include} in {name}")
        self.assertEqual(len(lines), 1)
        self.assertTrue(lines[0].startswith(f"{name}:2: "), lines[0])
        os.unlink(os.path.join(self.tree.name, name))

    def test_what_the_table_allows(self):
        for name, include in (
            ("base/a.c", '"base/types.h"'),
            ("uv/a.c", '"core/attr.h"'),
            ("uv/b.h", '"abi/uvcall.h"'),
            ("hv/a.c", '"lethe/lethe.h"'),
            ("hv/b.c", "<lethe/lethe.h>"),
            ("vmm/a.c", '"guest/workload.h"'),
            ("vmm/b.c", '"abi/guestcall.h"'),
            ("cli/a.c", '"vmm/run.h"'),
            ("guest/a.c", '"abi/guestcall.h"'),
            ("core/a.c", "<string.h>"),
            ("test/unit/hv/a.c", '"uv/vm.h"'),
        ):
            self.assert_allowed(name, include)

    def test_what_crosses_the_trust_boundary(self):
        for room in ("hv", "vmm", "cli", "bench"):
            for inner in ("uv", "core") if room == "bench" else ("uv", "core", "mmu"):
                self.assert_refused(f"{room}/a.c", f'"{inner}/vm.h"')
        self.assert_refused("uv/a.c", '"hv/vm.h"')
        self.assert_refused("vmm/a.c", '"abi/uvcall.h"')

    def test_what_goes_upwards(self):
        self.assert_refused("base/a.h", '"os/memfd.h"')
        self.assert_refused("abi/a.h", '"base/types.h"')
        self.assert_refused("core/deep/er/a.c", '"os/memfd.h"')
        self.assert_refused("examples/a.c", '"vmm/run.h"')
        self.assert_refused("include/lethe/a.h", '"base/types.h"')

    def test_spellings_that_would_slip_through(self):
        self.assert_refused("hv/a.c", "<uv/vm.h>")
        self.assert_refused("hv/a.c", '"../uv/vm.h"')
        self.assert_refused("hv/a.c", '"base/../uv/vm.h"')
        self.assert_refused("hv/a.c", '"vm.h"')
        self.plant("hv/a.c", '  #  include   "uv/vm.h"\n')
        self.assertEqual(self.run_tool()[0], 1)

    def test_a_folder_without_rooms_is_noticed(self):
        done = subprocess.run([TOOL, "/dev"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)


if __name__ == "__main__":
    unittest.main()
