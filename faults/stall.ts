/** Loaded before the server (--import): at SIGUSR2 the event loop stands still, as in a long computation but without one. */

/** Milliseconds. */
const STALL = 3_000

process.on('SIGUSR2', () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, STALL))
