# SPDX-License-Identifier: LGPL-2.1-or-later
within() { # SECONDS COMMAND...
	until=$(($(date +%s) + $1)); shift
	until "$@"; do
		[ $(date +%s) -lt $until ] || { echo "waited too long: $*"; return 1; }
		usleep 20000
	done
}
