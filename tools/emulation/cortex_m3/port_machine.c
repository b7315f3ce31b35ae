// SPDX-License-Identifier: Apache-2.0
// The port's part of the module `machine`; included by extmod/modmachine.c.

#include "board.h"

#define UNIQUE_ID_BYTES (8)

static void mp_machine_idle(void) {
    MICROPY_INTERNAL_WFE(1);
}

NORETURN static void mp_machine_reset(void) {
    board_reset();
}

static mp_int_t mp_machine_reset_cause(void) {
    return 0; // the machine does not tell
}

static mp_obj_t mp_machine_unique_id(void) {
    return mp_obj_new_bytes(UNIQUE_ID, UNIQUE_ID_BYTES);
}

static mp_obj_t mp_machine_get_freq(void) {
    return MP_OBJ_NEW_SMALL_INT(CLOCK_HZ);
}

static void mp_machine_set_freq(size_t n_args, const mp_obj_t *args) {
    mp_raise_NotImplementedError(MP_ERROR_TEXT("the clock is fixed"));
}

static void mp_machine_lightsleep(size_t n_args, const mp_obj_t *args) {
    mp_hal_delay_ms(n_args ? mp_obj_get_int(args[0]) : 1);
}

NORETURN static void mp_machine_deepsleep(size_t n_args, const mp_obj_t *args) {
    mp_hal_delay_ms(n_args ? mp_obj_get_int(args[0]) : 1);
    board_reset();
}
