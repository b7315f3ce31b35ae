// SPDX-License-Identifier: Apache-2.0
// What MicroPython asks of the hardware; see board.c and uart.c.

#include "shared/runtime/interrupt_char.h"
