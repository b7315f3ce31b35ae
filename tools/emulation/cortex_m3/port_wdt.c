// SPDX-License-Identifier: Apache-2.0
// machine.WDT on the CMSDK APB watchdog (Arm DDI 0479, chapter 4.5); included by
// extmod/machine_wdt.c. It counts down twice: the first zero is an NMI, and the board's handler
// of that is the reset.

#include "board.h"

typedef struct _machine_wdt_obj_t {
    mp_obj_base_t base;
} machine_wdt_obj_t;

static const machine_wdt_obj_t watchdog = {{&machine_wdt_type}};
static volatile uint32_t *const registers = (uint32_t *)0x40008000;
enum { WDT_LOAD = 0, WDT_CONTROL = 2, WDT_CLEAR = 3, WDT_LOCK = 0xc00 / 4 };

static machine_wdt_obj_t *mp_machine_wdt_make_new_instance(mp_int_t id, mp_int_t timeout_ms) {
    if (id != 0 || timeout_ms <= 0 || timeout_ms > 170000) {
        mp_raise_ValueError(MP_ERROR_TEXT("WDT 0, 1 to 170000 ms"));
    }
    registers[WDT_LOCK] = 0x1acce551;
    registers[WDT_LOAD] = timeout_ms * (CLOCK_HZ / 1000);
    registers[WDT_CONTROL] = 3; // interrupt and reset
    return (machine_wdt_obj_t *)&watchdog;
}

static void mp_machine_wdt_feed(machine_wdt_obj_t *self) {
    registers[WDT_CLEAR] = 1;
}
