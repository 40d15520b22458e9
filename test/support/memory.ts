import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
export const collectGarbage = runInNewContext('gc') as () => void

/** Bytes in use after garbage collection. */
export function heapInUse(): number {
  return memoryInUse().heapUsed
}

/** The memory of this process after a garbage collection. */
export function memoryInUse(): NodeJS.MemoryUsage {
  collectGarbage()
  return process.memoryUsage()
}
