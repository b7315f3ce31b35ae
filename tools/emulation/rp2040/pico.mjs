// SPDX-License-Identifier: Apache-2.0
// A Raspberry Pi Pico in rp2040js: USB console, UART 0 and what a peripheral on SPI 0 and a target
// on I2C 0 carry on, as TCP servers on 127.0.0.1; one more says the baud rate of UART 0, a line for
// each, since bytes on TCP have none.
//
//   node pico.mjs RP2040JS BOOTROM.json FLASH.bin UID
//
// RP2040JS is the package's module, UID 16 hexadecimal digits for machine.unique_id(). Writes one
// line, `READY {"console": port, "uart0": port, "spi0": port, "i2c0": port, "baud0": port}`, and runs
// until it is killed. SIGUSR2 is the reset button. The chip's clock is its own: it runs as fast as
// this machine lets it, and what takes 87 us on a wire takes 87 us of that clock.
//
// rp2040js 1.4.1 differs from the chip in what MicroPython 1.25 needs; each correction says how.

import fs from 'node:fs';
import net from 'node:net';
import { pathToFileURL } from 'node:url';

const [library, bootromFile, flashFile, uidText] = process.argv.slice(2);
const { GPIOPinState, RP2040, USBCDC } = await import(pathToFileURL(library).href);

const NS_PER_CYCLE = 1e9 / 125e6;
const SLICE_MS = 5; // of the host's time between two looks at the sockets
const FLASH_BYTES = 2 * 1024 * 1024; // of 16 MiB that could be addressed
const MAX_UNSENT_BYTES = 65536; // to one who does not read
const MAX_COMPLAINTS = 50; // of the emulator, which repeats itself
const uid = Buffer.from(uidText, 'hex');
const SSI = 0x18000;
const IO_QSPI = 0x40018;

// -- corrections ---------------------------------------------------------------------------------

// Alarms that are due at the same instant ring in the order they were set. Last first, as shipped,
// lets a DMA channel that sends starve the one that receives: SPI transfers by DMA never end.
function linkInOrder(nanos, alarm) {
  alarm.nanos = this.nanos + nanos;
  let before = null;
  let after = this.nextAlarm;
  while (after && after.nanos <= alarm.nanos) {
    before = after;
    after = after.next;
  }
  alarm.next = after;
  if (before) before.next = alarm;
  else this.nextAlarm = alarm;
  alarm.scheduled = true;
  return alarm;
}

// The PL011 UART (Arm DDI 0183). Shipped: "sent" interrupts at every look, which never ends;
// sending takes no time and the FIFO is never full; no request to DMA when a byte came or one may go.
class Uart {
  static FIFO = 32;
  static SENT_LEVEL = 4; // an eighth: when the FIFO has drained so far it asks for more
  constructor(chip, hardware, clock) {
    this.hardware = hardware;
    this.sending = [];
    this.incoming = [];
    this.onSent = () => {};
    const sentInterrupt = 1 << 5;
    chip.dma.setDREQ(hardware.dreq.tx);
    const check = () =>
      chip.setInterrupt(hardware.irq, !!(hardware.interruptStatus & hardware.interruptMask));
    hardware.checkInterrupts = check;
    this.sendAlarm = clock.createAlarm(() => {
      this.onSent(this.sending.shift());
      chip.dma.setDREQ(hardware.dreq.tx);
      if (this.sending.length) this.sendAlarm.schedule(this.byteNs);
      if (this.sending.length === Uart.SENT_LEVEL || this.sending.length === 0) {
        hardware.interruptStatus |= sentInterrupt;
        check();
      }
    });
    this.receiveAlarm = clock.createAlarm(() => {
      // A chip would overrun here; a test that wants that can leave bytes out itself.
      if (!hardware.rxFIFO.full) {
        hardware.feedByte(this.incoming.shift());
        chip.dma.setDREQ(hardware.dreq.rx);
      }
      if (this.incoming.length) this.receiveAlarm.schedule(this.byteNs);
    });
    const write = hardware.writeUint32.bind(hardware);
    hardware.writeUint32 = (offset, value) => {
      if (offset !== 0x00) return write(offset, value);
      if (this.sending.length >= Uart.FIFO) return undefined;
      this.sending.push(value & 0xff);
      if (this.sending.length >= Uart.FIFO) chip.dma.clearDREQ(hardware.dreq.tx);
      if (this.sending.length === 1) this.sendAlarm.schedule(this.byteNs);
      return undefined;
    };
    const read = hardware.readUint32.bind(hardware);
    hardware.readUint32 = (offset) => {
      const value = read(offset);
      if (offset === 0x00 && hardware.rxFIFO.empty) chip.dma.clearDREQ(hardware.dreq.rx);
      if (offset !== 0x18) return value;
      const n = this.sending.length; // flags: sender empty, full, busy
      return (value & ~(1 << 7)) | (n ? 1 << 3 : 1 << 7) | (n >= Uart.FIFO ? 1 << 5 : 0);
    };
  }
  // Without a divider, before the firmware has opened it, the rate is infinite: no time would pass.
  get baud() {
    return this.hardware.baudDivider ? this.hardware.baudRate : 115200;
  }
  get byteNs() {
    return 1e10 / this.baud;
  }
  receive(bytes) {
    if (!this.hardware.enabled || !this.hardware.rxEnabled) return; // nobody listens to the pin
    const idle = this.incoming.length === 0;
    for (const byte of bytes) this.incoming.push(byte);
    if (idle) this.receiveAlarm.schedule(this.byteNs);
  }
}

// The flash chip behind the SSI, as the boot ROM drives it: it holds chip select by hand, through
// the override bits of IO_QSPI (which rp2040js lacks), and shifts JEDEC commands. Shipped: nothing
// is erased or programmed.
class Flash {
  constructor(chip) {
    this.memory = chip.flash;
    this.selected = false; // by hand; otherwise boot2's own access, left to rp2040js
    this.writable = false;
    this.command = [];
    this.answers = [];
    let control = 0x1f;
    const registers = new Map();
    const qspi = chip.peripherals[IO_QSPI];
    qspi.readUint32 = (offset) => (offset === 0x0c ? control : (registers.get(offset) ?? 0));
    qspi.writeUint32 = (offset, value) => {
      if (offset !== 0x0c) return void registers.set(offset, value);
      control = value;
      this.override = (control >> 8) & 3; // 2 drives low, 3 drives high
      this.select(this.override === 2);
    };
    const ssi = chip.peripherals[SSI];
    const read = ssi.readUint32.bind(ssi);
    const write = ssi.writeUint32.bind(ssi);
    ssi.readUint32 = (offset) => {
      if (!this.override) return read(offset);
      if (offset === 0x60) return this.answers.shift() ?? 0;
      if (offset === 0x24) return this.answers.length;
      if (offset === 0x28) return 6 | (this.answers.length ? 8 : 0);
      return read(offset);
    };
    ssi.writeUint32 = (offset, value) => {
      if (!this.override || offset !== 0x60) return write(offset, value);
      this.answers.push(this.selected ? this.shift(value & 0xff) : 0xff);
      return undefined;
    };
  }
  get address() {
    return (this.command[1] << 16) | (this.command[2] << 8) | this.command[3];
  }
  select(low) {
    if (low === this.selected) return;
    this.selected = low;
    if (!low) this.execute();
    this.command = [];
    if (low) this.answers = [];
  }
  shift(byte) {
    this.command.push(byte);
    const at = this.command.length - 1;
    if (at === 0) return 0xff;
    switch (this.command[0]) {
      case 0x03: // read
        return at >= 4 ? (this.memory[this.address + at - 4] ?? 0xff) : 0xff;
      case 0x05: // status: never busy
        return this.writable ? 2 : 0;
      case 0x35: // second status: quad reading is on
        return 2;
      case 0x4b: // the number of this very chip, behind four bytes of nothing
        return at >= 5 ? (uid[at - 5] ?? 0xff) : 0xff;
      case 0x9f: // who: Winbond, 2 MiB
        return [0xef, 0x40, 0x15][at - 1] ?? 0;
      default:
        return 0xff;
    }
  }
  execute() {
    const { command, memory } = this;
    const opcode = command[0];
    if (opcode === 0x06) return void (this.writable = true);
    if ((opcode === 0x20 || opcode === 0xd8) && command.length >= 4 && this.writable) {
      const size = opcode === 0x20 ? 4096 : 65536;
      const from = this.address & ~(size - 1);
      memory.fill(0xff, from, from + size);
    } else if (opcode === 0x02 && this.writable) {
      // Programming clears bits, and wraps within its page of 256 bytes.
      const page = this.address & ~0xff;
      for (let i = 4; i < command.length; i++) {
        memory[page | ((this.address + i - 4) & 0xff)] &= command[i];
      }
    }
    if ([0x01, 0x02, 0x04, 0x20, 0xd8].includes(opcode)) this.writable = false;
  }
}

// -- the board -----------------------------------------------------------------------------------

let complaints = 0;
const logger = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: (component, message) => {
    if (++complaints <= MAX_COMPLAINTS) console.log(`${component}: ${message}`);
  },
};

const bootrom = new Uint32Array(JSON.parse(fs.readFileSync(bootromFile, 'utf8')));

class Pico {
  constructor(flash, toConsole, toUart, spi, i2c) {
    this.chip = new RP2040();
    this.clock = this.chip.clock;
    this.clock.linkAlarm = linkInOrder;
    this.chip.logger = logger;
    this.chip.loadBootrom(bootrom);
    this.chip.flash.fill(0xff);
    this.chip.flash.set(flash);
    this.flash = new Flash(this.chip);
    this.chip.adc.channelValues[0] = 0xfff; // GP26 is wired to 3.3 V: bright, for a light sensor
    // A wire from GP2 to GP3, for programs that need an interrupt that something else raises.
    this.chip.gpio[2].addListener((state) => {
      this.chip.gpio[3].setInputValue(state === GPIOPinState.High);
    });
    const uarts = this.chip.uart.map((hardware) => new Uart(this.chip, hardware, this.clock));
    this.uart = uarts[0];
    this.uart.onSent = toUart;
    this.spi = new SpiPeripheral(this.chip, spi);
    this.i2c = new I2cTarget(this.chip, i2c);
    this.usb = new USBCDC(this.chip.usbCtrl);
    this.usb.onSerialData = toConsole;
    this.typed = [];
    this.wantsReset = false;
    this.chip.peripherals[0x40058].onWatchdogTrigger = () => {
      this.wantsReset = true; // not from within an instruction
    };
    this.chip.core.PC = 0x10000000;
  }
  type(bytes) {
    for (const byte of bytes) this.typed.push(byte);
  }
  run(until) {
    const { core } = this.chip;
    const { clock } = this;
    // The clock of the host is looked at once in a thousand instructions: it costs more than one.
    do {
      for (let i = 0; i < 1000; i++) {
        if (core.waiting) clock.tick(clock.nanosToNextAlarm);
        else clock.tick(core.executeInstruction() * NS_PER_CYCLE);
      }
      while (this.typed.length && !this.usb.txFIFO.full) {
        this.usb.sendSerialByte(this.typed.shift());
      }
    } while (performance.now() < until && !this.wantsReset);
  }
}

// What carries bytes between a board's driver and a TCP line, in blocks: feagi_wire/blocks.py has
// their form. It keeps so many bytes for the board and lets the line wait with more.
class BlockCarrier {
  static BLOCK = 64;
  static HEAD = 4;
  static CAPACITY = 4096;
  constructor(attention, line) {
    this.attention = attention;
    this.line = line;
    this.towardsBoard = [];
    this.waiting = 0;
    this.number = Math.floor(Math.random() * 255);
    this.taken = 0;
    this.load();
  }
  static check(head) {
    let crc = 0xc3;
    for (let i = 0; i < 3; i++) {
      crc ^= head[i];
      for (let bit = 0; bit < 8; bit++) crc = ((crc << 1) ^ (crc & 0x80 ? 0x07 : 0)) & 0xff;
    }
    return crc;
  }
  feed(bytes) {
    for (const byte of bytes) this.towardsBoard.push(byte);
    this.load();
  }
  load() {
    const { BLOCK, HEAD, CAPACITY } = BlockCarrier;
    if (!this.waiting && this.towardsBoard.length) {
      this.payload = this.towardsBoard.splice(0, BLOCK - HEAD);
      this.waiting = this.payload.length;
      this.number = (this.number % 255) + 1;
    }
    const head = [this.waiting, this.number, this.taken];
    this.block = [...head, BlockCarrier.check(head), ...(this.waiting ? this.payload : [])];
    this.attention.setInputValue(this.waiting > 0);
    this.line.hold(this.towardsBoard.length > CAPACITY);
  }
  written(block) {
    const { BLOCK, HEAD } = BlockCarrier;
    const [count, number, taken, check] = block;
    if (count <= BLOCK - HEAD && HEAD + count <= block.length && check === BlockCarrier.check(block)) {
      if (taken === this.number) this.waiting = 0;
      if (count && number !== this.taken && !this.line.full) {
        for (const byte of block.slice(HEAD, HEAD + count)) this.line.put(byte);
        this.taken = number;
      }
    }
    this.load();
  }
}

// On SPI 0, chip select at GP17, attention at GP20: blocks of one size, both at once.
class SpiPeripheral extends BlockCarrier {
  static SELECT = 17;
  static ATTENTION = 20;
  constructor(chip, line) {
    super(chip.gpio[SpiPeripheral.ATTENTION], line);
    this.received = null;
    chip.gpio[SpiPeripheral.SELECT].addListener((state) => {
      this.received = state === GPIOPinState.Low ? [] : null;
      this.armed = this.block;
    });
    const hardware = chip.spi[0];
    hardware.onTransmit = (value) => hardware.completeTransmit(this.clock(value));
  }
  clock(value) {
    if (!this.received) return 0;
    const answer = this.armed[this.received.push(value) - 1] ?? 0;
    if (this.received.length === BlockCarrier.BLOCK) {
      this.written(this.received);
      this.received = null;
    }
    return answer;
  }
}

// On I2C 0 at address 0x42, attention at GP21: the block that was written last, the one to be read.
// Shipped, a byte takes no time; a bus needs nine clocks.
class I2cTarget extends BlockCarrier {
  static ADDRESS = 0x42;
  static ATTENTION = 21;
  constructor(chip, line) {
    super(chip.gpio[I2cTarget.ATTENTION], line);
    const hardware = chip.i2c[0];
    let next = () => {};
    const alarm = chip.clock.createAlarm(() => next());
    const later = (step) => {
      next = step;
      const cycles = 9 * (hardware.sclLowPeriod + hardware.sclHighPeriod);
      alarm.schedule(cycles * NS_PER_CYCLE);
    };
    hardware.onConnect = (address, mode) => {
      this.received = mode === 0 ? [] : null;
      this.armed = this.block;
      this.at = 0;
      later(() => hardware.completeConnect(address === I2cTarget.ADDRESS));
    };
    hardware.onWriteByte = (value) => {
      this.received.push(value);
      later(() => hardware.completeWrite(this.received.length <= BlockCarrier.BLOCK));
    };
    hardware.onReadByte = () => {
      const value = this.armed[this.at++] ?? 0;
      later(() => hardware.completeRead(value));
    };
    hardware.onStop = () => {
      if (this.received?.length) this.written(this.received);
      this.received = null;
      hardware.completeStop();
    };
  }
}

// A TCP server for one line; the newest connection has it.
function line(onData, onConnect = () => {}) {
  let socket = null;
  let held = false;
  const pending = [];
  const server = net.createServer((accepted) => {
    socket?.destroy();
    socket = accepted;
    if (held) accepted.pause();
    accepted.setNoDelay(true);
    accepted.on('data', onData);
    onConnect();
    accepted.on('error', () => {});
    accepted.on('close', () => {
      if (socket === accepted) socket = null;
    });
  });
  const ready = new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve(server.address().port));
  });
  return {
    ready,
    put: (byte) => pending.push(byte),
    // Whether who reads the line is so far behind that nothing more should be put.
    get full() {
      return (socket?.writableLength ?? 0) > MAX_UNSENT_BYTES;
    },
    // Take no more from the line for now.
    hold: (wanted) => {
      if (wanted === held) return;
      held = wanted;
      if (wanted) socket?.pause();
      else socket?.resume();
    },
    flush: () => {
      if (pending.length) socket?.write(Buffer.from(pending.splice(0)));
    },
  };
}

let pico = null;
const consoleLine = line((data) => pico.type(data));
const uartLine = line((data) => pico.uart.receive(data));
let toldBaud = 0;
const baudLine = line(
  () => {},
  () => (toldBaud = 0),
);
const spiLine = line((data) => pico.spi.feed(data));
const i2cLine = line((data) => pico.i2c.feed(data));
const powerUp = (flash) =>
  new Pico(
    flash,
    (bytes) => bytes.forEach((byte) => consoleLine.put(byte)),
    (byte) => uartLine.put(byte),
    spiLine,
    i2cLine,
  );

pico = powerUp(fs.readFileSync(flashFile));
process.on('SIGUSR2', () => {
  pico.wantsReset = true;
});
process.on('SIGTERM', () => process.exit(0));

const ports = {
  console: await consoleLine.ready,
  uart0: await uartLine.ready,
  spi0: await spiLine.ready,
  i2c0: await i2cLine.ready,
  baud0: await baudLine.ready,
};
console.log(`READY ${JSON.stringify(ports)}`);

function turn() {
  pico.run(performance.now() + SLICE_MS);
  consoleLine.flush();
  uartLine.flush();
  spiLine.flush();
  i2cLine.flush();
  if (pico.uart.baud !== toldBaud) {
    toldBaud = pico.uart.baud;
    for (const byte of Buffer.from(`${Math.round(toldBaud)}\n`)) baudLine.put(byte);
  }
  baudLine.flush();
  if (pico.wantsReset) pico = powerUp(pico.chip.flash.slice(0, FLASH_BYTES));
  setImmediate(turn);
}
turn();
