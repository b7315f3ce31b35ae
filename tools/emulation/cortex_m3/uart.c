// SPDX-License-Identifier: Apache-2.0
// CMSDK APB UARTs (Arm DDI 0479, chapter 4.3) with ring buffers.
//
// Receiving: an interrupt for each byte moves it into the ring. While the ring is full the byte
// stays in the UART, and QEMU reads nothing more from whoever sends: nothing is ever lost here.
// Sending: a wire takes its time, QEMU's does not. So the ring is emptied by the millisecond
// interrupt, as many bytes at a time as the baud rate allows.

#include "board.h"
#include "py/mphal.h"
#include "py/runtime.h"
#include "py/stream.h"
#include "shared/runtime/interrupt_char.h"

typedef struct {
    volatile uint32_t data, state, control, interrupts, divisor;
} registers_t;

typedef struct {
    uint8_t *buf;
    uint16_t size;
    volatile uint16_t put, get;
} ring_t;

enum { TX_FULL = 1, RX_FULL = 2 }; // state
enum { TX_ON = 1, RX_ON = 2, RX_INTERRUPT = 8 }; // control
#define BITS_PER_BYTE (10) // 8N1

static registers_t *const uarts[UARTS] = {
    (registers_t *)0x40004000, (registers_t *)0x40005000, (registers_t *)0x40006000,
    (registers_t *)0x40007000, (registers_t *)0x40009000,
};
// Of each pair the even number is "received", the odd one "sent".
static const uint8_t irqs[UARTS] = {0, 2, 4, 18, 20};
static volatile uint32_t *const nvic_enable = (uint32_t *)0xE000E100;
static volatile uint32_t *const nvic_disable = (uint32_t *)0xE000E180;
static ring_t received[UARTS], sending[UARTS];
static uint32_t bits_per_ms[UARTS], credit[UARTS];

static size_t used(const ring_t *r) {
    return r->size ? (r->put + r->size - r->get) % r->size : 0;
}

static uint16_t after(const ring_t *r, uint16_t at) {
    return at + 1 == r->size ? 0 : at + 1;
}

void uart_open(int u, uint32_t baud, uint8_t *rx, size_t rx_bytes, uint8_t *tx, size_t tx_bytes) {
    uart_close(u);
    received[u] = (ring_t) {rx, rx_bytes, 0, 0};
    sending[u] = (ring_t) {tx, tx_bytes, 0, 0};
    bits_per_ms[u] = baud < 1000 ? 1 : baud / 1000;
    credit[u] = 0;
    uarts[u]->divisor = CLOCK_HZ / baud < 16 ? 16 : CLOCK_HZ / baud;
    uarts[u]->control = TX_ON | RX_ON | RX_INTERRUPT;
    nvic_enable[0] = 1u << irqs[u];
}

void uart_close(int u) {
    nvic_disable[0] = 1u << irqs[u];
    uarts[u]->control = 0;
    received[u].size = sending[u].size = 0;
}

void uart_receive(int u) {
    ring_t *r = &received[u];
    uarts[u]->interrupts = 3;
    while (uarts[u]->state & RX_FULL) {
        uint16_t next = after(r, r->put);
        if (next == r->get) {
            uarts[u]->control = TX_ON | RX_ON; // until uart_get has made room
            return;
        }
        uint8_t byte = uarts[u]->data;
        if (u == CONSOLE && byte == mp_interrupt_char) {
            mp_sched_keyboard_interrupt();
        } else {
            r->buf[r->put] = byte;
            r->put = next;
        }
    }
}

size_t uart_readable(int u) {
    return used(&received[u]);
}

int uart_get(int u) {
    ring_t *r = &received[u];
    if (used(r) == 0) {
        return -1;
    }
    int byte = r->buf[r->get];
    r->get = after(r, r->get);
    if (uarts[u]->control == (TX_ON | RX_ON)) {
        uint32_t state = board_irq_off();
        uarts[u]->control = TX_ON | RX_ON | RX_INTERRUPT;
        uart_receive(u);
        board_irq_on(state);
    }
    return byte;
}

size_t uart_writable(int u) {
    return sending[u].size ? sending[u].size - 1 - used(&sending[u]) : 0;
}

bool uart_idle(int u) {
    return used(&sending[u]) == 0 && !(uarts[u]->state & TX_FULL);
}

bool uart_put(int u, uint8_t byte) {
    ring_t *r = &sending[u];
    if (r->size == 0) {
        while (uarts[u]->state & TX_FULL) {
        }
        uarts[u]->data = byte;
        return true;
    }
    uint16_t next = after(r, r->put);
    if (next == r->get) {
        return false;
    }
    r->buf[r->put] = byte;
    r->put = next;
    return true;
}

void uart_millisecond(void) {
    for (int u = 0; u < UARTS; ++u) {
        ring_t *r = &sending[u];
        if (used(r) == 0) {
            credit[u] = 0; // an idle wire saves nothing up
            continue;
        }
        credit[u] += bits_per_ms[u];
        while (credit[u] >= BITS_PER_BYTE && used(r) && !(uarts[u]->state & TX_FULL)) {
            uarts[u]->data = r->buf[r->get];
            r->get = after(r, r->get);
            credit[u] -= BITS_PER_BYTE;
        }
    }
}

// -- the console ---------------------------------------------------------------------------------

int mp_hal_stdin_rx_chr(void) {
    for (;;) {
        int byte = uart_get(CONSOLE);
        if (byte >= 0) {
            return byte;
        }
        // Between the look and the sleep a byte may come: with interrupts off, it ends the sleep.
        uint32_t state = board_irq_off();
        if (!uart_readable(CONSOLE)) {
            __asm volatile ("wfi");
        }
        board_irq_on(state);
        mp_handle_pending(true);
    }
}

mp_uint_t mp_hal_stdout_tx_strn(const char *text, size_t length) {
    for (size_t i = 0; i < length; ++i) {
        uart_put(CONSOLE, text[i]);
    }
    return length;
}

uintptr_t mp_hal_stdio_poll(uintptr_t flags) {
    uintptr_t ready = flags & MP_STREAM_POLL_WR;
    if (uart_readable(CONSOLE)) {
        ready |= flags & MP_STREAM_POLL_RD;
    }
    return ready;
}
