#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Documents name files and functions that exist, and man pages every option there is."""

import glob
import os
import re
import subprocess
import sys
import unittest

ROOT, LETHE = sys.argv.pop(1), sys.argv.pop(1)
ROOMS = "abi base bench cli core docs examples guest hv include man mmu os test tools uv vmm"
PATH = re.compile(r"\b(?:%s)/[\w./-]*\w\.(?:c|h|py|md|workload|build|S)\b" % "|".join(ROOMS.split()))
FUNCTION = re.compile(r"[`*](\w+)[`*]?\(\)")
PLACEHOLDER = re.compile(r"(?<![A-Z])[A-Z]{4,}(?![A-Z])")  # as in calls_FAMILY.c
LINK = re.compile(r"\]\(([^)#:]+)\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def documents():
    for pattern in ("*.md", "docs/**/*.md", "man/*.scd"):
        yield from glob.glob(os.path.join(ROOT, pattern), recursive=True)


class Docs(unittest.TestCase):
    def test_paths_exist(self):
        for document in documents():
            for path in PATH.findall(read(document)):
                if PLACEHOLDER.search(path):
                    continue
                with self.subTest(document=os.path.relpath(document, ROOT), path=path):
                    found = [os.path.join(ROOT, path), os.path.join(ROOT, "include", path)]
                    self.assertTrue(any(map(os.path.exists, found)))

    def test_links_lead_somewhere(self):
        for document in documents():
            for link in LINK.findall(read(document)):
                with self.subTest(document=os.path.relpath(document, ROOT), link=link):
                    self.assertTrue(os.path.exists(os.path.join(os.path.dirname(document), link)))

    def test_functions_exist(self):
        sources = ""
        for pattern in ("[a-z]*/*.[ch]", "include/lethe/*.h"):
            for path in glob.glob(os.path.join(ROOT, pattern)):
                sources += read(path)
        names = set(re.findall(r"\b(\w+)\(", sources))
        for document in documents():
            for function in FUNCTION.findall(read(document)):
                with self.subTest(document=os.path.relpath(document, ROOT), function=function):
                    self.assertIn(function, names)

    def test_every_option_has_its_place_in_a_man_page(self):
        for command, page in (
            ("run", "lethe-run.1"),
            ("ps", "lethe-ps.1"),
            ("bench", "lethe-bench.1"),
            ("memory add", "lethe-memory.1"),
            ("memory remove", "lethe-memory.1"),
            ("memory list", "lethe-memory.1"),
            ("memory audit", "lethe-memory.1"),
            ("page-out", "lethe-page-out.1"),
            ("capabilities", "lethe.1"),
        ):
            text = read(os.path.join(ROOT, "man", page + ".scd"))
            done = subprocess.run(
                [LETHE, *command.split(), "--help"], capture_output=True, text=True, check=True
            )
            for option in set(OPTION.findall(done.stdout)) - {"--help"}:
                with self.subTest(command=command, option=option):
                    self.assertIn(option, text)


if __name__ == "__main__":
    unittest.main()
