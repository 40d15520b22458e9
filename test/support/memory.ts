import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
export const collectGarbage = runInNewContext('gc') as () => void

/** Bytes that are in fact held. */
export function heapInUse(): number {
  return memoryInUse().heapUsed
}

/** The memory of this process without what is only waiting to be collected. */
export function memoryInUse(): NodeJS.MemoryUsage {
  collectGarbage()
  return process.memoryUsage()
}
