# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes the bytes of a file as the C array guest_kvm_image.  embed.py IN OUT"""
import sys


def main(source, target):
    with open(source, "rb") as f:
        image = f.read()
    with open(target, "w", encoding="ascii") as f:
        f.write('#include "guest/kvm_image.h"\n\nconst uint8_t guest_kvm_image[] = {\n')
        for at in range(0, len(image), 16):
            f.write("\t" + " ".join(f"{b}," for b in image[at : at + 16]) + "\n")
        f.write("};\nconst size_t guest_kvm_image_size = sizeof(guest_kvm_image);\n")


main(*sys.argv[1:])
