import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
export const collectGarbage = runInNewContext('gc') as () => void

/** Bytes that are in fact held. */
export function heapInUse(): number {
  collectGarbage()
  return process.memoryUsage().heapUsed
}
