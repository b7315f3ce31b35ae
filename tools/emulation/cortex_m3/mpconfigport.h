// SPDX-License-Identifier: Apache-2.0
// What of MicroPython is in: what the ports of real boards of this size have.

#include <stdint.h>
#include <alloca.h>

#define MICROPY_CONFIG_ROM_LEVEL (MICROPY_CONFIG_ROM_LEVEL_EXTRA_FEATURES)

#define MICROPY_EMIT_THUMB (1)
#define MICROPY_EMIT_INLINE_THUMB (1)
#define MICROPY_MAKE_POINTER_CALLABLE(p) ((void *)((mp_uint_t)(p) | 1))
#define MICROPY_PERSISTENT_CODE_LOAD (1)
#define MICROPY_ENABLE_GC (1)
#define MICROPY_ENABLE_EMERGENCY_EXCEPTION_BUF (1)
#define MICROPY_LONGINT_IMPL (MICROPY_LONGINT_IMPL_MPZ)
#define MICROPY_FLOAT_IMPL (MICROPY_FLOAT_IMPL_FLOAT)
#define MICROPY_STACK_CHECK (1)
#define MICROPY_SCHEDULER_DEPTH (8)
// The prompt takes this much between two words of flow control: files are copied twice as fast as
// with the usual 256.
#define MICROPY_REPL_STDIN_BUFFER_MAX (2048)
#define MICROPY_READER_VFS (1)
#define MICROPY_VFS (1)
#define MICROPY_VFS_ROM (1)
#define MICROPY_PY_SYS_PLATFORM "qemu-mps2"
#define MICROPY_PY_OS_UNAME (1)
#define MICROPY_HW_BOARD_NAME "mps2-an385"
#define MICROPY_HW_MCU_NAME "Cortex-M3"

#define MICROPY_PY_MACHINE (1)
#define MICROPY_PY_MACHINE_INCLUDEFILE "port_machine.c"
#define MICROPY_PY_MACHINE_RESET (1)
#define MICROPY_PY_MACHINE_BARE_METAL_FUNCS (1)
#define MICROPY_PY_MACHINE_DISABLE_IRQ_ENABLE_IRQ (1)
#define MICROPY_PY_MACHINE_UART (1)
#define MICROPY_PY_MACHINE_UART_INCLUDEFILE "port_uart.c"
#define MICROPY_PY_MACHINE_WDT (1)
#define MICROPY_PY_MACHINE_WDT_INCLUDEFILE "port_wdt.c"
#define MICROPY_PY_MACHINE_EXTRA_GLOBALS \
    { MP_ROM_QSTR(MP_QSTR_disk), MP_ROM_PTR(&board_disk) },
extern const struct _mp_obj_base_t board_disk;

// The only other thing that runs is interrupts.
#define MICROPY_BEGIN_ATOMIC_SECTION() board_irq_off()
#define MICROPY_END_ATOMIC_SECTION(state) board_irq_on(state)
uint32_t board_irq_off(void);
void board_irq_on(uint32_t state);

// Sleep until an interrupt; the clock's own comes every millisecond.
#define MICROPY_INTERNAL_WFE(timeout_ms) __asm volatile ("wfi")

typedef int32_t mp_int_t;
typedef uint32_t mp_uint_t;
typedef long mp_off_t;
#define MP_SSIZE_MAX (0x7fffffff)
#define UINT_FMT "%lu"
#define INT_FMT "%ld"
#define MP_NEED_LOG2 (1)
#define MP_STATE_PORT MP_STATE_VM
