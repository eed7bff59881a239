/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every pair of states, against tables of legal edges written down again, by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/vm_state.h"

static const enum vm_phase phases[] = {
	PHASE_NEW, PHASE_GREETED, PHASE_SETUP, PHASE_RUNNING, PHASE_STOPPED};

/* Row: from; column: to; both in the order of phases[]. */
static const bool phase_legal[5][5] = {
	{0, 1, 0, 0, 0}, /* NEW: hello */
	{0, 0, 1, 0, 0}, /* GREETED: create */
	{0, 0, 1, 1, 1}, /* SETUP: reset, start, stop */
	{0, 0, 0, 0, 1}, /* RUNNING: stop; a running VM is never reset */
	{0, 0, 1, 0, 0}, /* STOPPED: the next incarnation */
};

static const enum vm_security securities[] = {SECURITY_NORMAL, SECURITY_TRANSIENT, SECURITY_SECURE};

static const bool security_legal[3][3] = {
	{1, 1, 0}, /* NORMAL: reset, switch; never secure without a switch */
	{1, 0, 1}, /* TRANSIENT: abandon, done */
	{1, 0, 0}, /* SECURE: only the end of the incarnation; never a second switch */
};

static void test_every_pair_of_phases(void **state)
{
	for (int from = 0; from < 5; from++) {
		for (int to = 0; to < 5; to++) {
			struct vm_state s = {phases[from], SECURITY_TRANSIENT};
			bool ok = vm_state_set_phase(&s, phases[to]);

			assert_int_equal(ok, phase_legal[from][to]);
			assert_int_equal(s.phase, phases[ok ? to : from]);
			assert_int_equal(s.security, SECURITY_TRANSIENT);
		}
	}
}

static void test_every_pair_of_securities(void **state)
{
	for (int from = 0; from < 3; from++) {
		for (int to = 0; to < 3; to++) {
			struct vm_state s = {PHASE_RUNNING, securities[from]};
			bool ok = vm_state_set_security(&s, securities[to]);

			assert_int_equal(ok, security_legal[from][to]);
			assert_int_equal(s.security, securities[ok ? to : from]);
			assert_int_equal(s.phase, PHASE_RUNNING);
		}
	}
}

static void test_values_that_are_no_states_are_refused(void **state)
{
	struct vm_state s = {PHASE_SETUP, SECURITY_NORMAL};

	for (int v = 0; v < 64; v++) {
		if (v != PHASE_RUNNING && v != PHASE_STOPPED && v != PHASE_SETUP)
			assert_false(vm_state_set_phase(&s, (enum vm_phase)v));
		if (v != SECURITY_NORMAL && v != SECURITY_TRANSIENT)
			assert_false(vm_state_set_security(&s, (enum vm_security)v));
	}
	assert_int_equal(s.phase, PHASE_SETUP);
	assert_int_equal(s.security, SECURITY_NORMAL);
}

static void test_initial(void **state)
{
	struct vm_state s = vm_state_initial();

	assert_int_equal(s.phase, PHASE_NEW);
	assert_int_equal(s.security, SECURITY_NORMAL);
}

static void test_names_differ(void **state)
{
	for (int i = 0; i < 5; i++) {
		assert_string_not_equal(vm_phase_name(phases[i]), "?");
		for (int j = 0; j < i; j++)
			assert_string_not_equal(vm_phase_name(phases[i]), vm_phase_name(phases[j]));
	}
	for (int i = 0; i < 3; i++) {
		assert_string_not_equal(vm_security_name(securities[i]), "?");
		for (int j = 0; j < i; j++)
			assert_string_not_equal(
				vm_security_name(securities[i]), vm_security_name(securities[j]));
	}
	assert_string_equal(vm_phase_name((enum vm_phase)0), "?");
	assert_string_equal(vm_security_name((enum vm_security)0), "?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_pair_of_phases),
		cmocka_unit_test(test_every_pair_of_securities),
		cmocka_unit_test(test_values_that_are_no_states_are_refused),
		cmocka_unit_test(test_initial),
		cmocka_unit_test(test_names_differ),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
