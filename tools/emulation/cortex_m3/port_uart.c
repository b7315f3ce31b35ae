// SPDX-License-Identifier: Apache-2.0
// machine.UART 1 to 4; included by extmod/machine_uart.c. Arguments, defaults and waiting are
// those of the RP2040's port, so that a program waits here where it would wait there.

#include "board.h"
#include "py/mperrno.h"
#include "py/mphal.h"

#define MICROPY_PY_MACHINE_UART_CLASS_CONSTANTS
#define DEFAULT_BAUD (115200)
#define DEFAULT_RING (256)
#define MIN_RING (32)
#define MAX_RING (32766)

typedef struct _machine_uart_obj_t {
    mp_obj_base_t base;
    uint8_t id;
    bool open;
    uint32_t baud;
    uint16_t timeout_ms, timeout_char_ms, rx_bytes, tx_bytes;
} machine_uart_obj_t;

static machine_uart_obj_t objects[UARTS];
MP_REGISTER_ROOT_POINTER(void *uart_rings[10]);

static void mp_machine_uart_print(
    const mp_print_t *print, mp_obj_t self_in, mp_print_kind_t kind) {
    machine_uart_obj_t *self = MP_OBJ_TO_PTR(self_in);
    mp_printf(print, "UART(%u, baudrate=%u, txbuf=%u, rxbuf=%u, timeout=%u, timeout_char=%u)",
        self->id, (unsigned)self->baud, self->tx_bytes, self->rx_bytes, self->timeout_ms,
        self->timeout_char_ms);
}

static uint16_t ring_bytes(mp_int_t asked) {
    if (asked > MAX_RING) {
        mp_raise_ValueError(MP_ERROR_TEXT("buffer too large"));
    }
    return asked < MIN_RING ? MIN_RING : asked;
}

static void mp_machine_uart_init_helper(
    machine_uart_obj_t *self, size_t n_args, const mp_obj_t *pos_args, mp_map_t *kw_args) {
    enum { BAUD, BITS, PARITY, STOP, TX, RX, TIMEOUT, TIMEOUT_CHAR, TXBUF, RXBUF };
    static const mp_arg_t allowed[] = {
        { MP_QSTR_baudrate, MP_ARG_INT, {.u_int = -1} },
        { MP_QSTR_bits, MP_ARG_INT, {.u_int = 8} },
        { MP_QSTR_parity, MP_ARG_OBJ, {.u_rom_obj = MP_ROM_NONE} },
        { MP_QSTR_stop, MP_ARG_INT, {.u_int = 1} },
        { MP_QSTR_tx, MP_ARG_KW_ONLY | MP_ARG_OBJ, {.u_rom_obj = MP_ROM_NONE} },
        { MP_QSTR_rx, MP_ARG_KW_ONLY | MP_ARG_OBJ, {.u_rom_obj = MP_ROM_NONE} },
        { MP_QSTR_timeout, MP_ARG_KW_ONLY | MP_ARG_INT, {.u_int = -1} },
        { MP_QSTR_timeout_char, MP_ARG_KW_ONLY | MP_ARG_INT, {.u_int = -1} },
        { MP_QSTR_txbuf, MP_ARG_KW_ONLY | MP_ARG_INT, {.u_int = -1} },
        { MP_QSTR_rxbuf, MP_ARG_KW_ONLY | MP_ARG_INT, {.u_int = -1} },
    };
    mp_arg_val_t args[MP_ARRAY_SIZE(allowed)];
    mp_arg_parse_all(n_args, pos_args, kw_args, MP_ARRAY_SIZE(allowed), allowed, args);
    if (args[BITS].u_int != 8 || args[PARITY].u_obj != mp_const_none || args[STOP].u_int != 1) {
        mp_raise_ValueError(MP_ERROR_TEXT("the UART does 8N1 only"));
    }
    if (args[BAUD].u_int > 0) {
        self->baud = args[BAUD].u_int;
    }
    if (args[TIMEOUT].u_int >= 0) {
        self->timeout_ms = args[TIMEOUT].u_int;
    }
    if (args[TIMEOUT_CHAR].u_int >= 0) {
        self->timeout_char_ms = args[TIMEOUT_CHAR].u_int;
    }
    if (args[TXBUF].u_int > 0) {
        self->tx_bytes = ring_bytes(args[TXBUF].u_int);
    }
    if (args[RXBUF].u_int > 0) {
        self->rx_bytes = ring_bytes(args[RXBUF].u_int);
    }
    // At least one whole character, 13 bits to be safe.
    uint16_t least_ms = 13000 / self->baud + 1;
    if (self->timeout_char_ms < least_ms) {
        self->timeout_char_ms = least_ms;
    }
    void **rings = &MP_STATE_PORT(uart_rings)[2 * self->id];
    uart_close(self->id); // before the rings it has are given away
    rings[0] = m_new(byte, self->rx_bytes + 1);
    rings[1] = m_new(byte, self->tx_bytes + 1);
    uart_open(self->id, self->baud, rings[0], self->rx_bytes + 1, rings[1], self->tx_bytes + 1);
    self->open = true;
}

static mp_obj_t mp_machine_uart_make_new(
    const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    mp_arg_check_num(n_args, n_kw, 1, MP_OBJ_FUN_ARGS_MAX, true);
    mp_int_t id = mp_obj_get_int(args[0]);
    if (id <= CONSOLE || id >= UARTS) {
        mp_raise_ValueError(MP_ERROR_TEXT("UART 1 to 4; 0 is the console"));
    }
    machine_uart_obj_t *self = &objects[id];
    *self = (machine_uart_obj_t) {
        {&machine_uart_type}, id, false, DEFAULT_BAUD, 0, 0, DEFAULT_RING, DEFAULT_RING
    };
    mp_map_t kw_args;
    mp_map_init_fixed_table(&kw_args, n_kw, args + n_args);
    mp_machine_uart_init_helper(self, n_args - 1, args + 1, &kw_args);
    return MP_OBJ_FROM_PTR(self);
}

static void mp_machine_uart_deinit(machine_uart_obj_t *self) {
    uart_close(self->id);
    self->open = false;
    MP_STATE_PORT(uart_rings)[2 * self->id] = NULL;
    MP_STATE_PORT(uart_rings)[2 * self->id + 1] = NULL;
}

static mp_int_t mp_machine_uart_any(machine_uart_obj_t *self) {
    return uart_readable(self->id);
}

static bool mp_machine_uart_txdone(machine_uart_obj_t *self) {
    return uart_idle(self->id);
}

// Whether the time is over; otherwise sleeps until the next interrupt.
static bool waited_long_enough(mp_uint_t start_ms, mp_uint_t timeout_ms) {
    if (mp_hal_ticks_ms() - start_ms > timeout_ms) {
        return true;
    }
    mp_event_wait_ms(1);
    return false;
}

static mp_uint_t mp_machine_uart_read(
    mp_obj_t self_in, void *buf, mp_uint_t size, int *errcode) {
    machine_uart_obj_t *self = MP_OBJ_TO_PTR(self_in);
    mp_uint_t start_ms = mp_hal_ticks_ms();
    mp_uint_t timeout_ms = self->timeout_ms;
    for (mp_uint_t i = 0; i < size; ++i) {
        int byte;
        while ((byte = self->open ? uart_get(self->id) : -1) < 0) {
            if (!self->open || waited_long_enough(start_ms, timeout_ms)) {
                *errcode = MP_EAGAIN;
                return i ? i : MP_STREAM_ERROR;
            }
        }
        ((uint8_t *)buf)[i] = byte;
        start_ms = mp_hal_ticks_ms();
        timeout_ms = self->timeout_char_ms;
    }
    return size;
}

static mp_uint_t mp_machine_uart_write(
    mp_obj_t self_in, const void *buf, mp_uint_t size, int *errcode) {
    machine_uart_obj_t *self = MP_OBJ_TO_PTR(self_in);
    mp_uint_t start_ms = mp_hal_ticks_ms();
    mp_uint_t timeout_ms = self->timeout_ms;
    for (mp_uint_t i = 0; i < size; ++i) {
        bool waited = false;
        while (!self->open || !uart_put(self->id, ((const uint8_t *)buf)[i])) {
            waited = true;
            if (!self->open || waited_long_enough(start_ms, timeout_ms)) {
                *errcode = MP_EAGAIN;
                return i ? i : MP_STREAM_ERROR;
            }
        }
        if (waited) {
            start_ms = mp_hal_ticks_ms();
            timeout_ms = self->timeout_char_ms;
        }
    }
    return size;
}

static mp_uint_t mp_machine_uart_ioctl(
    mp_obj_t self_in, mp_uint_t request, uintptr_t flags, int *errcode) {
    machine_uart_obj_t *self = MP_OBJ_TO_PTR(self_in);
    if (request == MP_STREAM_POLL) {
        mp_uint_t ready = 0;
        if ((flags & MP_STREAM_POLL_RD) && uart_readable(self->id)) {
            ready |= MP_STREAM_POLL_RD;
        }
        if ((flags & MP_STREAM_POLL_WR) && uart_writable(self->id)) {
            ready |= MP_STREAM_POLL_WR;
        }
        return ready;
    }
    if (request == MP_STREAM_FLUSH) {
        // Twice the time that a full ring takes, at 13 bits a byte.
        mp_uint_t start_ms = mp_hal_ticks_ms();
        mp_uint_t limit_ms = 2 * 13000 * ((uint32_t)self->tx_bytes + 33) / self->baud + 1;
        while (self->open && !uart_idle(self->id)) {
            if (waited_long_enough(start_ms, limit_ms)) {
                *errcode = MP_ETIMEDOUT;
                return MP_STREAM_ERROR;
            }
        }
        return 0;
    }
    *errcode = MP_EINVAL;
    return MP_STREAM_ERROR;
}
