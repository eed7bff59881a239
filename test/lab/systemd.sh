#!/bin/busybox sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# examples/lethe@.service under systemd, in the lab (lab.py), as it is and with other settings.
# Prints what happened; lab_test.py judges it.
#
# systemd is process 1 of namespaces of its own.  It answers only those whose process it sees
# there, so what uses it is a unit itself, which runs this file with the argument `inside`.

export PATH=/bin
. /bin/within.sh
unit=/etc/systemd/system

ultravisors() { pidof lethe-uv | wc -w; }
is_alone() { [ $(ultravisors) = 0 ]; }

# Starts the VM, stops it, and does so again, with more settings.
try() { # NAME SETTING...
	echo "case $1"; shift
	for setting in "[Service]" "$@"; do echo "$setting"; done >$unit/lethe@.service.d/lab.conf
	systemctl daemon-reload
	systemctl start lethe@guest; echo "start $?"
	systemctl show -p ActiveState -p StatusText lethe@guest
	systemctl stop lethe@guest; echo "stop $?"
	systemctl show -p ActiveState -p Result lethe@guest
	echo "left $(ultravisors)"
	systemctl reset-failed lethe@guest 2>/dev/null
	systemctl start lethe@guest; echo "again $?"
	systemctl stop lethe@guest
	within 60 is_alone
	echo "end"
}

inside() {
	# Emulated as it is, KVM is not what `auto` takes.
	unwaited="lethe run --name %i --workload /etc/lethe/%i.workload --executor kvm"
	try shipped
	try unwaited ExecStart= "ExecStart=$unwaited"
	try group KillMode=control-group ExecStart= "ExecStart=$unwaited"
	try process KillMode=process ExecStart= "ExecStart=$unwaited"
}

outside() {
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	mkdir -p /etc/lethe $unit/lethe@.service.d
	echo root:x:0:0::/:/bin/sh >/etc/passwd
	printf 'root:x:0:\nkvm:x:100:\n' >/etc/group
	chown 0:100 /dev/kvm; chmod 660 /dev/kvm
	cat >/etc/lethe/guest.workload <<-END
		memory 256M
		protect
		touch 2M 200M
		loop 1000000
		sleep 100
		end
	END
	cat >$unit/lab.service <<-END
		[Service]
		Type=oneshot
		ExecStart=/bin/systemd.sh inside
		ExecStopPost=/bin/touch /tmp/ended
		StandardOutput=file:/tmp/output
		StandardError=inherit
		TimeoutStartSec=200
	END
	unshare -p -f -m sh -c 'mount -t proc proc /proc
		exec env container=lab /lib/systemd/systemd --unit=lab.service --log-target=kmsg \
			--show-status=no' &
	within 220 [ -e /tmp/ended ] || dmesg
	cat /tmp/output
}

[ "$1" = inside ] && inside || outside
