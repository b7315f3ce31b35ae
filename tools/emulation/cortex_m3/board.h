// SPDX-License-Identifier: Apache-2.0
// Between the files of this port.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLOCK_HZ (25000000)
#define CONSOLE (0)
#define UARTS (5)

// QEMU's `-device loader,addr=...` writes here what boards differ in: the end of the PSRAM.
#define HEAP_BYTES_ASKED ((const uint32_t *)0x21ffffe0)
#define UNIQUE_ID ((const uint8_t *)0x21fffff0)

// And here the image of a read-only file system, or nothing.
#define ROMFS ((void *)0x21800000)
#define ROMFS_BYTES (1024 * 1024)
#define ROMFS_WRITE_BYTES 16 // as flash chips have it

uint64_t board_us(void);
void board_reset(void) __attribute__((noreturn));

// The rings are the caller's; without a sending ring, sending waits for the hardware.
void uart_open(int uart, uint32_t baud, uint8_t *rx, size_t rx_bytes, uint8_t *tx, size_t tx_bytes);
void uart_close(int uart);
size_t uart_readable(int uart);
size_t uart_writable(int uart);
bool uart_idle(int uart);
int uart_get(int uart); // -1 when nothing is there
bool uart_put(int uart, uint8_t byte);
void uart_millisecond(void);
void uart_receive(int uart);
