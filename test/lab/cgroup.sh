#!/bin/busybox sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Lethe while memory gets short, in the lab (lab.py): limits of cgroups of version 2, PSI and
# MemAvailable.  Prints what happened; lab_test.py judges it.
#
# Sizes are MiB.  What is written to the tmpfs at /mnt is charged to the cgroup of who writes
# it, and only a deletion gives it back.

. /bin/within.sh
root=/sys/fs/cgroup

group() { # NAME [FILE=VALUE]...
	made=$root/$1; shift
	mkdir $made
	for setting; do echo ${setting#*=} >$made/${setting%%=*}; done
}
inside() { # GROUP COMMAND...
	entered=$root/$1; shift
	sh -c 'echo $$ >"$0/cgroup.procs"; exec "$@"' $entered "$@"
}
take() { # GROUP MIB
	inside $1 fallocate -l $2M $(mktemp /mnt/XXXXXX)
	echo "took $?"
}
available() { awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo; }
# More becomes available while it takes, as the kernel gives up what it caches.
leave() { # MIB
	while more=$(($(available) - $1)); [ $more -gt 0 ]; do take free $more; done
}
shown() { lethe ps --json | tr -d '",' | awk -v key=$1: '$1 == key { print $2 }'; }
is() { [ "$(shown $1)" = "$2" ]; }
is_forgotten() {
	lethe ps --json >/tmp/ps
	grep -q '"forget_bytes": 0' /tmp/ps
}

run() { # GROUP
	inside $1 timeout 100 lethe run --name guest --executor sw --workload /tmp/workload \
		--timeline /tmp/timeline --wait-destroyed </dev/null >/tmp/console 2>&1
	echo "status $?" >>/tmp/console
}
report() { # GROUP
	cat /tmp/console
	cat $root/$1/memory.events /proc/vmstat | awk '/^oom_kill / { print "killed", $2 }'
	dmesg | grep 'Killed process'
	echo "timeline"; cat /tmp/timeline
	rm -f /mnt/*
}

# The thread of lethe-uv that has idle priority gets no processor from now on.
starve() { # GROUP
	group $1/starved cgroup.type=threaded cgroup.freeze=1
	for task in /proc/$(pidof lethe-uv)/task/*; do
		[ $(cut -d ' ' -f 41 $task/stat) != 5 ] || {
			echo "starved"
			echo ${task##*/} >$root/$1/starved/cgroup.threads
		}
	done
}
threads() { ls /proc/$(pidof lethe-uv)/task | wc -l; }
are_more() { now=$(threads); [ $now -gt $1 ]; }

# The kernel has a thread for the triggers of each cgroup, and one for the machine's.
is_armed() { [ $(pidof psimon | wc -w) = 2 ]; }

# A VM that has just rebooted and had 40M before.
begin() { # GROUP
	: >/tmp/console
	run $1 &
	within 60 grep -q ready /tmp/console
	starve $1
	lethe memory add guest 4K >/tmp/added
	within 60 grep -q reborn /tmp/console
	calm=$(threads)
	echo "calm $(shown pressure) $(shown forget_bytes)"
}
# Waits until all has come back, and prints what the pressure was then.
forgotten() {
	within 60 is_forgotten
	tr -d ' ",' </tmp/ps | grep ^pressure
}
finish() { # GROUP
	echo "left $(shown forget_bytes)"
	[ ! -e $root/$1/starved ] || echo 0 >$root/$1/starved/cgroup.freeze
	kill $(pidof lethe)
	wait
	report $1
}

mkdir /mnt
mount -t tmpfs -o size=100% tmp /mnt
mount -t cgroup2 cgroup2 $root
echo +cpu +memory >$root/cgroup.subtree_control
group free

# ---- what a reboot may take ----

cat >/tmp/workload <<END
memory 32M
loop 2
protect
zero 2M 29M
touch 2M 29M
reboot
end
zero 2M 29M
END

echo "case max"
group max memory.max=48M
run max; report max

echo "case high"
group high memory.high=48M
run high; report high

echo "case outer"
group outer memory.max=48M cgroup.subtree_control=+memory
group outer/inner
run outer/inner; report outer

echo "case machine"
leave 50
run free; report free

sed -i '/^loop\|^end/d' /tmp/workload

echo "case enough"
group enough memory.max=128M
run enough; report enough

# ---- while much is set aside ----

cat >/tmp/workload <<END
memory 1G 2G
protect
print ready
await 1G 4K
touch 2M 40M
reboot
print reborn
await 1536M 4K
END

# The limit leaves no room for both what is set aside and what somebody allocates, whom the
# kernel slows down, and kills if that does not help.
echo "case slowed"
group slowed memory.high=110M memory.max=128M
begin slowed
inside slowed timeout 60 dd if=/dev/zero of=/mnt/file bs=1M count=88 2>/tmp/dd
echo "took $?"
finish slowed

# Less than an eighth of the limit is left, and still is when all has come back.  With so
# little of a processor, helpers are there for long enough to be seen.
echo "case limited"
group limited memory.max=600M
begin limited
take limited $((520 - $(cat $root/limited/memory.current) / 1048576))
echo "still $(shown pressure) $(shown forget_bytes)"
echo 1000 100000 >$root/limited/cpu.max
echo 542M >$root/limited/memory.max
within 60 are_more $calm
echo "helped $((now - calm))"
echo max >$root/limited/cpu.max
forgotten
take limited 40
finish limited

# Somebody stalls for memory elsewhere on the machine.
echo "case stalled"
group calm
group stalled memory.high=8M
begin calm
inside stalled timeout 60 dd if=/dev/zero of=/mnt/file bs=1M count=100 2>/tmp/dd &
forgotten
kill -9 $(pidof dd)
within 60 is pressure none
finish calm

# The machine has less than an eighth left.
echo "case short"
group short
begin short
leave 45
forgotten
take free 60
finish short

# Nothing but its own limit holds a neighbour up, which is nobody else's business.
echo "case neighbour"
mount --bind /dev/null /proc/pressure/memory
group around "cgroup.subtree_control=+cpu +memory"
group around/vm
group around/neighbour memory.high=8M
begin around/vm
inside around/neighbour dd if=/dev/zero of=/mnt/file bs=64K count=160 2>/tmp/dd
echo "took $?"
awk '/^high / { print "reached", ($2 > 0) }' $root/around/memory.events
echo "still $(shown pressure) $(shown forget_bytes)"
finish around/vm
umount /proc/pressure/memory

# The files that are waited for go away with their cgroup.
echo "case gone"
group gone
begin gone
within 60 is_armed
for process in $(cat $root/gone/cgroup.procs); do echo $process >$root/free/cgroup.procs; done
rmdir $root/gone/starved $root/gone
forgotten
finish free
