import { setPriority } from 'node:os'
import { parentPort } from 'node:worker_threads'
import { hashSync, type Options, verifySync } from '@node-rs/argon2'

/** A job either hashes `password`, or verifies it against `hash`. */
export type PasswordJob = { password: string } & ({ options: Options } | { hash: string })

export type PasswordAnswer = { result: string | boolean } | { error: Error }

/**
 * The nice value of the thread: beside a busy event loop it gets about a tenth of a core (sched(7)), so that logins slow no
 * verification down. Linux alone has a priority for each thread.
 */
const NICE = 10

if (process.platform === 'linux') lowerPriority()

parentPort!.on('message', ({ id, job }: { id: number; job: PasswordJob }) => {
  parentPort!.postMessage({ id, answer: answerTo(job) })
})

/** The errors of `node:os`. */
interface SystemError extends Error {
  info: { code: string }
}

/** A sandbox may forbid it (systemd's `~@resources`, a seccomp profile): then the thread keeps its priority. */
function lowerPriority() {
  try {
    setPriority(0, NICE)
  } catch (error) {
    if ((error as SystemError).info.code !== 'EPERM') throw error
  }
}

function answerTo(job: PasswordJob): PasswordAnswer {
  try {
    return {
      result: 'hash' in job ? verifySync(job.hash, job.password) : hashSync(job.password, job.options),
    }
  } catch (error) {
    return { error: error as Error }
  }
}
