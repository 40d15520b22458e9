import { readFileSync } from 'node:fs'
import { uptime } from 'node:os'
import { randomId } from '../crypto/credentials.ts'

/** The process's clocks, in milliseconds. Only main.ts and tests make them. */
export interface Clock {
  /** Never goes back. Its origin is arbitrary. */
  monotonic(): number
  /** Unix time according to this machine. */
  wall(): number
  /** A monotonic clock that other processes of this machine read too. Readings compare only under the same id. */
  boot(): { id: string; reading: number }
}

const BOOT_ID = '/proc/sys/kernel/random/boot_id'
const MINUTE_MS = 60_000

/** The clocks of this process. */
export function systemClock(): Clock {
  const boot = readBootId()
  return {
    monotonic: () => performance.now(),
    wall: () => Date.now(),
    boot: () => {
      const reading = Number(process.hrtime.bigint()) / 1e6
      // The clock stands still while the machine sleeps, but the uptime does not: after a sleep this is another clock.
      const slept = Math.round((uptime() * 1000 - reading) / MINUTE_MS)
      return { id: `${boot}.${slept}`, reading }
    },
  }
}

/** Where the system has no id of its boot, the clock is this process's own. */
function readBootId(): string {
  try {
    return readFileSync(BOOT_ID, 'utf8').trim()
  } catch {
    return randomId(15)
  }
}
