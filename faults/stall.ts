/**
 * Loaded before the server (--import). On SIGUSR2 it blocks the event loop, like a long computation but without using the CPU.
 */

/** In milliseconds. */
const STALL = 3_000

process.on('SIGUSR2', () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, STALL))
