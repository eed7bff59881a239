/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tells a supervisor how far the run is, by the protocol of sd_notify(3): datagrams to
 * the socket that NOTIFY_SOCKET names.  Where nobody listens, nothing happens.
 */
#ifndef VMM_NOTIFY_H
#define VMM_NOTIFY_H

/* @state: lines such as "READY=1\nSTATUS=...".  Never blocks; losing one is no failure. */
void notify_supervisor(const char *state);

#endif
