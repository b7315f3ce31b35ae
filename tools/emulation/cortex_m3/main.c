// SPDX-License-Identifier: Apache-2.0
// The life of the interpreter: boot script, main.py, prompt, soft reset, and again.

#include "board.h"
#include "py/gc.h"
#include "py/mphal.h"
#include "py/runtime.h"
#include "py/stackctrl.h"
#include "shared/runtime/gchelper.h"
#include "shared/runtime/pyexec.h"

#define STACK_BYTES (32 * 1024)

#define LEAST_HEAP_BYTES (8 * 1024)

extern char _heap_start[], _heap_end[];

// What QEMU's `-device loader` has left in HEAP_BYTES_ASKED, or as much as a Pico has.
static size_t heap_bytes(void) {
    uint32_t asked = *HEAP_BYTES_ASKED;
    size_t most = _heap_end - _heap_start;
    return asked < LEAST_HEAP_BYTES ? HEAP_BYTES : asked > most ? most : asked;
}

static void run_until_soft_reset(void) {
    mp_obj_list_append(mp_sys_path, MP_OBJ_NEW_QSTR(MP_QSTR__slash_lib));
    pyexec_frozen_module("_boot.py", false);
    int result = pyexec_file_if_exists("boot.py");
    if (result & PYEXEC_FORCED_EXIT) {
        return;
    }
    if (pyexec_mode_kind == PYEXEC_MODE_FRIENDLY_REPL) {
        if (pyexec_file_if_exists("main.py") & PYEXEC_FORCED_EXIT) {
            return;
        }
    }
    for (;;) {
        if (pyexec_mode_kind == PYEXEC_MODE_RAW_REPL) {
            if (pyexec_raw_repl() != 0) {
                return;
            }
        } else if (pyexec_friendly_repl() != 0) {
            return;
        }
    }
}

int main(void) {
    mp_stack_ctrl_init();
    mp_stack_set_limit(STACK_BYTES - 1024);
    for (;;) {
        gc_init(_heap_start, _heap_start + heap_bytes());
        mp_init();
        run_until_soft_reset();
        mp_hal_stdout_tx_str("MPY: soft reboot\r\n");
        for (int uart = CONSOLE + 1; uart < UARTS; ++uart) {
            uart_close(uart); // their rings lie on the heap that goes now
        }
        gc_sweep_all();
        mp_deinit();
    }
}

void gc_collect(void) {
    gc_collect_start();
    gc_helper_collect_regs_and_stack();
    gc_collect_end();
}

void nlr_jump_fail(void *value) {
    mp_hal_stdout_tx_str("board: an exception that nobody catches\r\n");
    board_reset();
}
