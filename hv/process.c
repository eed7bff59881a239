/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hv/process.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "abi/uvcall.h"
#include "base/failpoint.h"
#include "os/clock.h"
#include "os/launch.h"

/* The program that was started, and the one that took its place. */
#define MEMBERS 2

struct member {
	pid_t pid; /* 0: not known */
	bool ended;
	int status;
};

struct process {
	const char *path; /* until started */
	int fd;           /* until started */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* Guarded by lock. */
	unsigned int owners; /* the keeper and the VM */
	bool started;
	int start_result;
	bool all_ended;
	pid_t uv_pid;
	struct member member[MEMBERS];
};

/* Gives the lock up, and @p when nobody else owns it. */
static void put_unlock(struct process *p)
{
	bool last = --p->owners == 0;

	pthread_mutex_unlock(&p->lock);
	if (!last)
		return;
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

/* The entry of @pid, or a free one; NULL if it is none of two.  Caller holds the lock. */
static struct member *member_of(struct process *p, pid_t pid)
{
	for (int i = 0; i < MEMBERS; i++) {
		if (p->member[i].pid == pid || p->member[i].pid == 0) {
			p->member[i].pid = pid;
			return &p->member[i];
		}
	}
	return NULL;
}

/*
 * Reaps one child of this thread.  The number is taken from the table and from the kernel
 * under one lock hold, so that process_kill() never meets a number in its second use.
 */
static bool reap_one(struct process *p)
{
	struct member *m;
	siginfo_t info;
	int status;

	while (waitid(P_ALL, 0, &info, WEXITED | WNOWAIT | __WNOTHREAD) < 0) {
		if (errno != EINTR)
			return false;
	}
	pthread_mutex_lock(&p->lock);
	if (waitpid(info.si_pid, &status, 0) == info.si_pid) {
		m = member_of(p, info.si_pid);
		if (m != NULL) {
			m->ended = true;
			m->status = status;
		}
		pthread_cond_broadcast(&p->changed);
	}
	pthread_mutex_unlock(&p->lock);
	return true;
}

static void *keeper_main(void *arg)
{
	struct process *p = arg;
	pid_t pid = 0;
	int ret = spawn_with_fd(p->path, p->fd, ABI_SOCKET_FD, &pid);

	pthread_mutex_lock(&p->lock);
	p->started = true;
	p->start_result = ret;
	p->member[0].pid = pid;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	while (ret == 0 && reap_one(p))
		;
	pthread_mutex_lock(&p->lock);
	p->all_ended = true;
	pthread_cond_broadcast(&p->changed);
	put_unlock(p);
	return NULL;
}

/* Detached, and deaf to signals that are meant for the program. */
static int start_keeper(struct process *p)
{
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all, old;
	int ret = failpoint("hv-keeper");

	if (ret < 0)
		return ret;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	ret = -pthread_create(&thread, &attr, keeper_main, p);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ret;
}

static struct process *process_new(const char *path, int fd)
{
	struct process *p = failpoint("hv-process") < 0 ? NULL : calloc(1, sizeof(*p));
	pthread_condattr_t attr;

	if (p == NULL)
		return NULL;
	p->path = path;
	p->fd = fd;
	p->owners = 1;
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->changed, &attr);
	pthread_condattr_destroy(&attr);
	return p;
}

int process_start(const char *path, int fd, struct process **ret)
{
	struct process *p = process_new(path, fd);
	int err;

	if (p == NULL)
		return -ENOMEM;
	pthread_mutex_lock(&p->lock);
	err = start_keeper(p);
	if (err == 0) {
		p->owners++;
		while (!p->started)
			pthread_cond_wait(&p->changed, &p->lock);
		err = p->start_result;
	}
	if (err < 0) {
		put_unlock(p);
		return err;
	}
	pthread_mutex_unlock(&p->lock);
	*ret = p;
	return 0;
}

void process_set_pid(struct process *p, pid_t pid)
{
	pthread_mutex_lock(&p->lock);
	p->uv_pid = pid;
	(void)member_of(p, pid);
	pthread_mutex_unlock(&p->lock);
}

static const struct member *find_uv(const struct process *p)
{
	for (int i = 0; i < MEMBERS; i++) {
		if (p->uv_pid != 0 && p->member[i].pid == p->uv_pid)
			return &p->member[i];
	}
	return NULL;
}

int process_status(struct process *p, unsigned int timeout_ms, int *ret_status)
{
	struct timespec deadline = clock_deadline(timeout_ms * NS_PER_MS);
	const struct member *uv;
	int ret = 0;

	pthread_mutex_lock(&p->lock);
	uv = find_uv(p);
	while ((uv == NULL || !uv->ended) && !p->all_ended && ret == 0)
		ret = pthread_cond_timedwait(&p->changed, &p->lock, &deadline);
	if (uv != NULL && uv->ended) {
		*ret_status = uv->status;
		ret = 0;
	} else {
		ret = p->all_ended ? -ECHILD : -EAGAIN;
	}
	pthread_mutex_unlock(&p->lock);
	return ret;
}

void process_kill(struct process *p)
{
	pthread_mutex_lock(&p->lock);
	for (int i = 0; i < MEMBERS && !p->all_ended; i++) {
		if (p->member[i].pid > 0 && !p->member[i].ended)
			(void)kill(p->member[i].pid, SIGKILL);
	}
	pthread_mutex_unlock(&p->lock);
}

void process_leave(struct process *p, bool wait)
{
	pthread_mutex_lock(&p->lock);
	while (wait && !p->all_ended)
		pthread_cond_wait(&p->changed, &p->lock);
	put_unlock(p);
}
