// SPDX-License-Identifier: Apache-2.0
// Start-up, vectors, time, reset and the RAM disk of the mps2-an385 (Arm DAI 0385; QEMU's
// hw/arm/mps2.c and hw/misc/mps2-fpgaio.c).

#include <string.h>

#include "board.h"
#include "extmod/vfs.h"
#include "py/mperrno.h"
#include "py/mphal.h"
#include "py/objarray.h"
#include "py/runtime.h"

#define CONSOLE_BAUD (921600)
#define CONSOLE_RING (8192)

extern uint32_t _stack_top, _data_load, _data_start, _data_end, _bss_start, _bss_end;
extern int main(void);

static volatile uint32_t *const fpgaio = (uint32_t *)0x40028000;
enum { COUNTER = 0x18 / 4, PRESCALE = 0x1c / 4 };
static volatile uint32_t *const systick = (uint32_t *)0xE000E010;
enum { ST_CONTROL, ST_RELOAD, ST_VALUE };
static volatile uint32_t *const aircr = (uint32_t *)0xE000ED0C;
static uint8_t console_ring[CONSOLE_RING];

// -- interrupts ----------------------------------------------------------------------------------

uint32_t board_irq_off(void) {
    uint32_t state;
    __asm volatile ("mrs %0, primask\n cpsid i" : "=r" (state) :: "memory");
    return state;
}

void board_irq_on(uint32_t state) {
    __asm volatile ("msr primask, %0" :: "r" (state) : "memory");
}

static void say(const char *text) {
    mp_hal_stdout_tx_strn(text, strlen(text));
}

static void say_hex(uint32_t value) {
    char text[9];
    for (int i = 0; i < 8; ++i) {
        text[i] = "0123456789abcdef"[value >> (28 - 4 * i) & 15];
    }
    text[8] = 0;
    say(text);
}

static void __attribute__((used)) report_fault(const uint32_t *frame) {
    say("\r\nboard: fault, pc ");
    say_hex(frame[6]);
    say(" lr ");
    say_hex(frame[5]);
    say(" fault status ");
    say_hex(*(volatile uint32_t *)0xE000ED28);
    say("\r\n");
    board_irq_off();
    for (;;) {
        __asm volatile ("wfi");
    }
}

static void __attribute__((naked)) on_fault(void) {
    __asm volatile ("mov r0, sp\n b report_fault");
}

static void on_millisecond(void) {
    board_us(); // so that no wrap of the counter passes unseen
    uart_millisecond();
}

static void on_uart0(void) {
    uart_receive(0);
}

static void on_uart1(void) {
    uart_receive(1);
}

static void on_uart2(void) {
    uart_receive(2);
}

static void on_uart3(void) {
    uart_receive(3);
}

static void on_uart4(void) {
    uart_receive(4);
}

static void __attribute__((noreturn)) on_reset(void) {
    memcpy(&_data_start, &_data_load, (char *)&_data_end - (char *)&_data_start);
    memset(&_bss_start, 0, (char *)&_bss_end - (char *)&_bss_start);
    fpgaio[PRESCALE] = CLOCK_HZ / 1000000 - 1; // microseconds
    systick[ST_RELOAD] = CLOCK_HZ / 1000 - 1;
    systick[ST_VALUE] = 0;
    systick[ST_CONTROL] = 7; // the core's clock, interrupt on, running
    uart_open(CONSOLE, CONSOLE_BAUD, console_ring, CONSOLE_RING, NULL, 0);
    main();
    board_reset();
}

typedef void (*vector_t)(void);
const vector_t vectors[16 + 32] __attribute__((section(".vectors"), used)) = {
    (vector_t)&_stack_top, (vector_t)on_reset, board_reset,
    [3 ... 14] = on_fault, [15] = on_millisecond,
    [16 + 0] = on_uart0, [16 + 1] = on_fault, [16 + 2] = on_uart1, [16 + 3] = on_fault,
    [16 + 4] = on_uart2, [16 + 5 ... 16 + 17] = on_fault, [16 + 18] = on_uart3,
    [16 + 19] = on_fault, [16 + 20] = on_uart4, [16 + 21 ... 16 + 31] = on_fault,
};

void board_reset(void) {
    *aircr = 0x05fa0004;
    for (;;) {
    }
}

// -- time ----------------------------------------------------------------------------------------

uint64_t board_us(void) {
    static uint32_t last, wraps;
    uint32_t state = board_irq_off();
    uint32_t now = fpgaio[COUNTER];
    if (now < last) {
        ++wraps;
    }
    last = now;
    uint64_t us = (uint64_t)wraps << 32 | now;
    board_irq_on(state);
    return us;
}

mp_uint_t mp_hal_ticks_us(void) {
    return board_us();
}

mp_uint_t mp_hal_ticks_ms(void) {
    return board_us() / 1000;
}

mp_uint_t mp_hal_ticks_cpu(void) {
    return board_us();
}

uint64_t mp_hal_time_ns(void) {
    return board_us() * 1000;
}

void mp_hal_delay_us(mp_uint_t us) {
    uint64_t end = board_us() + us;
    while (board_us() < end) {
    }
}

void mp_hal_delay_ms(mp_uint_t ms) {
    uint64_t end = board_us() + (uint64_t)ms * 1000;
    while (board_us() < end) {
        mp_event_wait_ms(1);
    }
}

// -- the disk ------------------------------------------------------------------------------------

// The machine's PSRAM: it keeps its content through resets of the machine.
#define DISK ((uint8_t *)0x21000000)
#define DISK_BLOCK (4096)
#define DISK_BLOCKS (352) // 1408 KiB, what a Pico has left of its flash

static mp_obj_t disk_io(size_t n_args, const mp_obj_t *args, bool reading) {
    mp_buffer_info_t buf;
    mp_get_buffer_raise(args[2], &buf, reading ? MP_BUFFER_WRITE : MP_BUFFER_READ);
    size_t offset = n_args == 4 ? mp_obj_get_int(args[3]) : 0;
    size_t at = mp_obj_get_int(args[1]) * DISK_BLOCK + offset;
    if (at > DISK_BLOCK * DISK_BLOCKS || buf.len > DISK_BLOCK * DISK_BLOCKS - at) {
        mp_raise_OSError(MP_EINVAL);
    }
    if (reading) {
        memcpy(buf.buf, DISK + at, buf.len);
    } else {
        memcpy(DISK + at, buf.buf, buf.len);
    }
    return MP_OBJ_NEW_SMALL_INT(0);
}

static mp_obj_t disk_readblocks(size_t n_args, const mp_obj_t *args) {
    return disk_io(n_args, args, true);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(disk_readblocks_obj, 3, 4, disk_readblocks);

static mp_obj_t disk_writeblocks(size_t n_args, const mp_obj_t *args) {
    return disk_io(n_args, args, false);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(disk_writeblocks_obj, 3, 4, disk_writeblocks);

static mp_obj_t disk_ioctl(mp_obj_t self, mp_obj_t what, mp_obj_t block) {
    switch (mp_obj_get_int(what)) {
        case MP_BLOCKDEV_IOCTL_BLOCK_COUNT:
            return MP_OBJ_NEW_SMALL_INT(DISK_BLOCKS);
        case MP_BLOCKDEV_IOCTL_BLOCK_SIZE:
            return MP_OBJ_NEW_SMALL_INT(DISK_BLOCK);
        default: // nothing to switch on, erase or write back
            return MP_OBJ_NEW_SMALL_INT(0);
    }
}
static MP_DEFINE_CONST_FUN_OBJ_3(disk_ioctl_obj, disk_ioctl);

static const mp_rom_map_elem_t disk_names[] = {
    { MP_ROM_QSTR(MP_QSTR_readblocks), MP_ROM_PTR(&disk_readblocks_obj) },
    { MP_ROM_QSTR(MP_QSTR_writeblocks), MP_ROM_PTR(&disk_writeblocks_obj) },
    { MP_ROM_QSTR(MP_QSTR_ioctl), MP_ROM_PTR(&disk_ioctl_obj) },
};
static MP_DEFINE_CONST_DICT(disk_dict, disk_names);
static MP_DEFINE_CONST_OBJ_TYPE(
    disk_type, MP_QSTR_Disk, MP_TYPE_FLAG_NONE, locals_dict, &disk_dict);
const mp_obj_base_t board_disk = { &disk_type };

// -- the read-only file system -------------------------------------------------------------------

static const MP_DEFINE_MEMORYVIEW_OBJ(romfs, 'B', 0, ROMFS_BYTES, ROMFS);

mp_obj_t mp_vfs_rom_ioctl(size_t n_args, const mp_obj_t *args) {
    switch (mp_obj_get_int(args[0])) {
        case MP_VFS_ROM_IOCTL_GET_NUMBER_OF_SEGMENTS:
            return MP_OBJ_NEW_SMALL_INT(1);
        case MP_VFS_ROM_IOCTL_GET_SEGMENT:
            return MP_OBJ_FROM_PTR(&romfs);
        case MP_VFS_ROM_IOCTL_WRITE_PREPARE: { // (3, segment, size): how many bytes a write has
            mp_int_t size = n_args < 3 ? -1 : mp_obj_get_int(args[2]);
            if (size < 0 || size > ROMFS_BYTES) {
                return MP_OBJ_NEW_SMALL_INT(-MP_EINVAL);
            }
            memset(ROMFS, 0xff, size);
            return MP_OBJ_NEW_SMALL_INT(ROMFS_WRITE_BYTES);
        }
        case MP_VFS_ROM_IOCTL_WRITE: { // (4, segment, offset, bytes)
            mp_buffer_info_t data;
            mp_int_t at = n_args < 4 ? -1 : mp_obj_get_int(args[2]);
            if (at < 0) {
                return MP_OBJ_NEW_SMALL_INT(-MP_EINVAL);
            }
            mp_get_buffer_raise(args[3], &data, MP_BUFFER_READ);
            if (at % ROMFS_WRITE_BYTES || data.len % ROMFS_WRITE_BYTES || at > ROMFS_BYTES
                || data.len > (size_t)(ROMFS_BYTES - at)) {
                return MP_OBJ_NEW_SMALL_INT(-MP_EINVAL);
            }
            memcpy((uint8_t *)ROMFS + at, data.buf, data.len);
            return MP_OBJ_NEW_SMALL_INT(0);
        }
        case MP_VFS_ROM_IOCTL_WRITE_COMPLETE:
            return MP_OBJ_NEW_SMALL_INT(0);
        default:
            return MP_OBJ_NEW_SMALL_INT(-MP_EINVAL);
    }
}
