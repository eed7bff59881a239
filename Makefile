# SPDX-License-Identifier: LGPL-2.1-or-later
#
#	make		builds into build/: build/lethe and build/lethe-uv
#	make demo	installs what is needed, builds, runs the built-in tour
#	make check	installs what is needed, builds and runs every test
#	make install	installs what was built (PREFIX, DESTDIR)
#	make format	formats the C sources
#	make clean
#
# Meson does the work; this is its short form.

BUILD := build
PREFIX := /usr/local

all: $(BUILD)/build.ninja
	ninja -C $(BUILD)

# Warnings of compilers yet to come must not keep anybody from building.
$(BUILD)/build.ninja:
	tools/install-deps --report build
	meson setup $(BUILD) --buildtype=release --prefix=$(PREFIX) -Dwerror=false \
		-Dtests=false

# In software: the same everywhere, and quick where /dev/kvm itself is emulated.
demo:
	tools/install-deps build
	$(MAKE) all
	$(BUILD)/lethe run --executor sw

check:
	tools/install-deps test
	tools/check

install: all
	meson install -C $(BUILD) --no-rebuild

format:
	tools/check-format --fix

clean:
	rm -rf $(BUILD) build-check

.PHONY: all demo check install format clean
