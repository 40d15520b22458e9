/**
 * Ends the process with this code, after its 'exit' listeners. process.exit() waits for libuv's threads, and these wait for
 * lookups of host names, which takes 10 s and longer where no DNS server answers. A process that is replaced waits for nothing.
 */
export function exitNow(code: number): never {
  if (process.getActiveResourcesInfo().includes(LOOKUP)) replaceProcess(code)
  process.exit(code)
}

/** The name that Node has for a call of getaddrinfo(3) that hasn't returned. */
const LOOKUP = 'GetAddrInfoReqWrap'

/** Replaces the process with a shell that exits with this code. Returns if there is no shell. */
function replaceProcess(code: number) {
  process.emit('exit', code)
  try {
    process.execve?.('/bin/sh', ['sh', '-c', `exit ${code}`])
  } catch {}
}
